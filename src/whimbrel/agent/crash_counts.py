"""The durable count of crashes in a row of one model (device/crash_loop.py says how it counts).

1. Whoever writes it holds the swap lock: sessions at their start, the agent at its looks, sessions that went well.
2. A start that finds no dead session reads nothing and writes nothing of it; a good end looks whether there is a file.
3. It survives a power cut: a version that stops the machine is counted.
"""

from collections.abc import Collection, Iterable

from whimbrel.agent.locks import locked
from whimbrel.agent.places import Places
from whimbrel.device.crash_loop import CrashLoop, after_crashes, after_good, count_of
from whimbrel.device.slots import Held
from whimbrel.errors import UntrustedInput
from whimbrel.model import documents


def count_crashes(places: Places, held: Held, crashed: Collection[str]) -> CrashLoop:
    """The count of the active version, with these sessions that were found dead. The caller holds the swap lock."""
    before = count_of(kept_count(places), held)
    after = after_crashes(before, crashed, still_there=places.disk.names(places.marks))
    if after != before:
        places.disk.write(places.crash_loop, documents.encode(after))
    return after


def begin_anew(places: Places, held: Held) -> None:
    """A session of `held` ended well: the row of crashes is broken."""
    if places.disk.size(places.crash_loop) is None:
        return
    with locked(places.swap_lock, disk=places.disk):
        kept = kept_count(places)
        if kept is None or (kept.serial, kept.slot) != (held.serial, held.slot):
            return  # of another version, which the next crash replaces
        after = after_good(kept, still_there=places.disk.names(places.marks))
        if kept.crashes:
            places.disk.write(places.crash_loop, documents.encode(after))
        elif not after.counted:
            places.disk.remove(places.crash_loop)


def leave_out(places: Places, held: Held, sessions: Iterable[str]) -> None:
    """These sessions live well for long: whatever ends them later is no crash of a row, and the row is broken."""
    with locked(places.swap_lock, disk=places.disk):
        names = places.disk.names(places.marks)
        after = after_good(count_of(kept_count(places), held), names=sessions, still_there=names)
        places.disk.replace(places.crash_loop, documents.encode(after))


def kept_count(places: Places) -> CrashLoop | None:
    """What is written down; None where nothing is, or it cannot be read."""
    content = places.disk.read(places.crash_loop)
    try:
        return documents.parse(CrashLoop, content, what=str(places.crash_loop)) if content else None
    except UntrustedInput:
        return None
