"""Leave a version while no cycle runs: `leave` writes one durable record, which sessions believe at once.

1. The record is durable before any session opens the version before. A power cut in between leaves the old state.
2. Models of one set are in one record: they leave together, or none does.
3. Only an agent's cycle changes journal and pointer. It follows the record (`Installation.follow_departure`), tells of
   it, refuses the version that was left, and removes what it has written down.
4. What is in the other slot is never emptied while a record may make apps open it: both happen behind the swap lock.

Called by sessions at their start and where a load failed, and by `Agent.go_back`.
"""

from collections.abc import Mapping

from whimbrel import limits
from whimbrel.agent.locks import locked
from whimbrel.agent.places import Places, read_departures, read_pointer
from whimbrel.device.departure import Departure, Departures, Orders, objection
from whimbrel.device.journal import seal
from whimbrel.device.slots import Held, Pointer
from whimbrel.errors import Refused, Unavailable, UntrustedInput, reason_of
from whimbrel.model import documents


def read_orders(places: Places) -> Orders:
    """What the newest cycle knew of the signed documents; the defaults where none wrote anything."""
    content = places.disk.read(places.orders)
    try:
        return documents.parse(Orders, content, what=str(places.orders)) if content else Orders()
    except UntrustedInput:
        return Orders()


def fallback_of(places: Places) -> Held | None:
    """What the other slot holds, where the active version may be left for it."""
    pointer = read_pointer(places)
    may_leave = pointer is not None and not _objection(places, pointer)
    return pointer.fallback if pointer is not None and may_leave else None


def objection_of(places: Places) -> str:
    """Why the active version cannot be left for the one before; "" where it can."""
    pointer = read_pointer(places)
    return _objection(places, pointer) if pointer is not None else ""


def go_back(places: Places, *, model: str, because: object) -> int:
    """See `Agent.go_back`."""
    if not isinstance(because, str) or not because.strip():
        raise UntrustedInput(f"because is {because!r}; expected the reason in words, which is reported")
    try:
        fallback_of(places)  # hashed outside of the lock
        places.make()
        with locked(places.swap_lock, disk=places.disk):
            reason = f"the app asked for it: {because.strip()}"[: limits.REASON_CHARS]
            return leave(places, model=model, reason=reason).serial
    except OSError as error:
        raise Unavailable(f"{model} cannot go back: {reason_of(error)}") from error


def leave(places: Places, *, model: str, reason: str) -> Held:
    """Leave the active version of `model`, and with it those of its set; what apps open from now on.

    The caller holds the swap lock. Raises `Refused` where there is nothing to go back to, `OSError`.
    """
    disk = places.disk
    pointer = _checked(places, model)
    departures = {model: _departure(pointer, reason)}
    for other, serial in read_orders(places).together.items():
        sibling = Places(places.folder.parent / other, disk=disk)
        its = read_pointer(sibling)
        if its is not None and its.serial == serial:
            because = f"{model} left serial {pointer.serial}, and they change together"
            departures[other] = _departure(_checked(sibling, other), because, follows=model)
    with locked(places.departures_lock, disk=disk):
        disk.write(places.departures, seal(Departures(left=read_departures(places) | departures)))
    if pointer.fallback is None:
        raise Refused(f"{model} has nothing to go back to")
    return pointer.fallback


def forget(places: Places, done: Mapping[str, Departure]) -> None:
    """Remove these records, durably: one that came back would make apps leave the same version again."""
    disk = places.disk
    with locked(places.departures_lock, disk=disk):
        before = read_departures(places)
        left = {model: departure for model, departure in before.items() if done.get(model) != departure}
        if left:
            disk.write(places.departures, seal(Departures(left=left)))
        else:
            disk.remove(places.departures)
            disk.sync(places.departures.parent)


def _checked(places: Places, model: str) -> Pointer:
    pointer = read_pointer(places)
    if pointer is None:
        raise Refused(f"{model} has no version on this device")
    if because := _objection(places, pointer):
        raise Refused(because)
    return pointer


def _objection(places: Places, pointer: Pointer) -> str:
    because = objection(pointer, read_orders(places), read_departures(places).get(pointer.model))
    if not because and pointer.fallback is not None and not places.integrity.holds(pointer.fallback):
        return f"the files of serial {pointer.fallback.serial}, which ran before, are not those that were verified"
    return because


def _departure(pointer: Pointer, reason: str, *, follows: str | None = None) -> Departure:
    if pointer.active is None:
        raise Refused(f"{pointer.model} has no version on this device")
    return Departure(serial=pointer.active.serial, slot=pointer.active.slot, reason=reason, follows=follows)
