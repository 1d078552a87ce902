"""How does a session begin? `begin` finds the version to open and leaves a mark; `active_version` is what is open now.

1. A version's files are hashed outside of the swap lock; within it a look at their stamps is enough.
2. A start that finds the last crash of a row leaves the version first, for what the other slot holds, and opens that.
3. No room, or a folder that may only be read, takes no model away: such a session begins without a mark.
"""

import os
from collections.abc import Mapping

from whimbrel.agent.crash_counts import count_crashes, kept_count
from whimbrel.agent.departures import fallback_of, leave, read_orders
from whimbrel.agent.locks import locked
from whimbrel.agent.marks import Mark, crashes_before, dead_marks, keep_newest
from whimbrel.agent.places import Places, read_pointer
from whimbrel.device.crash_loop import reason_to_leave
from whimbrel.device.ports import Hold
from whimbrel.device.slots import Held
from whimbrel.errors import InvariantBroken, Refused, Unavailable, reason_of
from whimbrel.model import documents


def begin(places: Places, model: str, *, name: str, durable: bool) -> tuple[Held, Hold | None]:
    """The version that a session opens, and its locked mark `name`; None where no mark can be written.

    Raises `Unavailable` where there is no version, or no whole one.
    """
    try:
        active_version(places, model)
        places.make()
        _hash_fallback(places)
        with locked(places.swap_lock, disk=places.disk):
            dead = keep_newest(places, dead_marks(places))
            _leave_crash_loop(places, model, dead)
            held = active_version(places, model)
            return held, _mark(places, held, name, durable=durable, before=crashes_before(dead.values(), held.serial))
    except OSError as error:
        try:
            return active_version(places, model), None
        except OSError:
            raise Unavailable(f"a session of {model} cannot begin: {reason_of(error)}") from error


def active_version(places: Places, model: str) -> Held:
    """What apps open now, whole. Raises `Unavailable`, `OSError`."""
    pointer = read_pointer(places)
    if pointer is None or pointer.active is None:
        raise Unavailable(
            f"{model} has no version on this device yet; "
            "let the agent run until its status says 'on trial' or 'committed'"
        )
    if not places.integrity.holds(pointer.active):
        raise Unavailable(
            f"the files of {model} at serial {pointer.active.serial} are not those that were verified; "
            "they are not opened, and the agent replaces them in its next cycle"
        )
    return pointer.active


def _hash_fallback(places: Places) -> None:
    """Hash the other slot outside of the lock, where the next crash of a row would end the active version."""
    kept = kept_count(places)
    if kept is not None and kept.crashes + 1 >= read_orders(places).crash_loop > 0:
        fallback_of(places)


def _leave_crash_loop(places: Places, model: str, dead: Mapping[str, Mark]) -> None:
    if not dead:
        return
    pointer = read_pointer(places)
    active = pointer.active if pointer is not None else None
    crashed = [
        name for name, mark in dead.items() if active and (mark.serial, mark.slot) == (active.serial, active.slot)
    ]
    if active is None or not crashed:
        return
    loop = count_crashes(places, active, crashed)
    if reason := reason_to_leave(loop, most=read_orders(places).crash_loop):
        try:
            leave(places, model=model, reason=reason)
        except Refused:
            return  # there is nothing else to open: this version is better than none


def _mark(places: Places, held: Held, name: str, *, durable: bool, before: int) -> Hold:
    mark = documents.encode(Mark(serial=held.serial, slot=held.slot, process=os.getpid(), crashes_before=before))
    path, disk = places.marks / name, places.disk
    hold = disk.hold(path, wait=True)
    if hold is None:
        raise InvariantBroken(f"{path} is a new name, and was taken")
    try:
        disk.append(path, mark)
        if durable:
            disk.sync(path)
            disk.sync(places.marks)
    except BaseException:
        hold.release()
        disk.remove(path)
        raise
    return hold
