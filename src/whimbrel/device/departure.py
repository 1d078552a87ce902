"""May a model leave its active version now, for what the other slot holds? And what is known when it did: pure.

1. A session or an app leaves a version while no cycle runs, by one durable record. It names what was left; sessions
   believe it at once, and the journal and the pointer follow with the next cycle.
2. A record that names another version than the active one says nothing (any more).
3. Nothing is left for a version that may not run: below the line's floor, revoked, refused or quarantined here.
"""

from typing import Annotated

from msgspec import Meta

from whimbrel import limits
from whimbrel.device.slots import Held, Pointer, SlotName, back
from whimbrel.model.documents import Document
from whimbrel.model.ids import Name, Serial

Reason = Annotated[str, Meta(max_length=limits.REASON_CHARS)]


class Departure(Document, frozen=True):
    """A version that this device left by itself. `follows`: the model of the same set that was left for `reason`."""

    serial: Serial
    slot: SlotName
    reason: Reason
    follows: Name | None = None


class Departures(Document, frozen=True, tag_field="format", tag="whimbrel-departures-1"):
    """Those of all models of a device that no cycle has written down yet: a set leaves with one write."""

    left: Annotated[dict[Name, Departure], Meta(max_length=limits.DEVICE_MODELS)] = {}


class Orders(Document, frozen=True, tag_field="format", tag="whimbrel-orders-1"):
    """What a session must know of the signed documents when no cycle runs: the newest that a cycle knew.

    `crash_loop`: crashes in a row that end a version; 0: none do. `barred`: serials of the two slots that may not run.
    `together`: the models that leave with this one, and the serial that each of them runs.
    """

    crash_loop: Annotated[int, Meta(ge=0)] = limits.CRASH_LOOP
    barred: Annotated[tuple[Serial, ...], Meta(max_length=8)] = ()
    together: Annotated[dict[Name, Serial], Meta(max_length=limits.SET_MODELS)] = {}


def names(departure: Departure | None, held: Held | None) -> bool:
    """Whether a record is about this version, in this slot."""
    return departure is not None and held is not None and (departure.serial, departure.slot) == (held.serial, held.slot)


def believed(pointer: Pointer, departure: Departure | None) -> Pointer:
    """What apps open: the other slot, where the active version was left and the other slot holds one."""
    return back(pointer) if names(departure, pointer.active) and pointer.fallback is not None else pointer


def objection(pointer: Pointer, orders: Orders, departure: Departure | None) -> str:
    """Why the active version cannot be left for the one before; "" where it can. `pointer`: the believed one."""
    if pointer.active is None:
        return f"{pointer.model} has no version on this device"
    if departure is not None and names(departure, pointer.fallback):
        return f"serial {departure.serial} was left already; sessions that begin now get serial {pointer.active.serial}"
    if pointer.fallback is None:
        return (
            f"the other slot of {pointer.model} holds no version that ran before serial {pointer.active.serial}: "
            "there is nothing to go back to"
        )
    if pointer.fallback.serial in orders.barred:
        return f"serial {pointer.fallback.serial}, which ran before, may not run here any more"
    return ""
