"""Marks of open sessions, and summaries of ended ones: files that apps write and the agent reads.

1. A mark is locked for the life of its session. The kernel lets the lock go when the process dies: an unlocked mark is
   a crash. A mark says how many crashes came before it, so that a loop of crashes is told from many processes that died
   at one moment.
2. A summary is what a session that was closed leaves.
3. Start and swap take the same short lock, so that a swap happens between sessions, never inside one.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated

import msgspec

from whimbrel import limits
from whimbrel.agent.locks import locked
from whimbrel.agent.places import Places
from whimbrel.errors import UntrustedInput
from whimbrel.health.report import Summary
from whimbrel.health.shadow import Count, ShadowSums
from whimbrel.model import documents
from whimbrel.model.documents import Document
from whimbrel.model.ids import Label, Serial


class Mark(Document, frozen=True):
    """A session under way, or one that crashed."""

    serial: Serial
    slot: str
    process: int
    crashes_before: Annotated[int, msgspec.Meta(ge=0)] = 0  # one after the other, and still unseen by the agent


class Closed(Document, frozen=True):
    """What a session saw, or what was tried in the shadow of some. `failed`: an exception left the with-block."""

    serial: Serial
    session: bool = True  # False: no session, but sums of what was tried beside this serial
    failed: bool = False
    inferences: Count = 0
    errors: Count = 0
    latency_key: int | None = None
    metrics: Annotated[dict[Label, Summary], msgspec.Meta(max_length=limits.SESSION_METRICS)] = {}
    shadow: ShadowSums | None = None
    predictions: dict[int, Count] = {}  # by bin of the version's reference

    @property
    def healthy(self) -> bool:
        """Whether it speaks for its version: no exception, and not every inference an error."""
        return self.session and not self.failed and (self.inferences == 0 or self.errors < self.inferences)


class Ended(msgspec.Struct, frozen=True):
    """A session that is over. `closed` None: it crashed, or its summary cannot be read (`serial` None)."""

    name: str
    serial: int | None
    closed: Closed | None = None
    crashes_before: int = 0

    @property
    def crashed(self) -> bool:
        """Whether its process died within it."""
        return self.serial is not None and self.closed is None


def harvest(places: Places) -> list[Ended]:
    """The sessions that ended. Nothing is removed: `forget` does that, when they have been written down."""
    ended: list[Ended] = []
    for name in places.disk.names(places.marks):
        mark = _crash(places, name)
        if mark is not None:
            ended.append(Ended(name, mark.serial, crashes_before=mark.crashes_before))
    for name in [name for name in places.disk.names(places.summaries) if not name.startswith(".")][
        : limits.SESSION_FILES
    ]:
        try:
            closed = documents.parse(Closed, places.disk.read(places.summaries / name) or b"", what=name)
        except UntrustedInput:
            ended.append(Ended(name, None))  # torn by a power cut: one session less is told of
        else:
            ended.append(Ended(name, closed.serial, closed))
    return ended


def forget(places: Places, names: Iterable[str]) -> None:
    """Remove what `harvest` returned, durably: what came back after a power cut would be counted again."""
    gone = list(names)
    for name in gone:
        places.disk.remove(places.marks / name)
        places.disk.remove(places.summaries / name)
    for folder in (places.marks, places.summaries) if gone else ():
        places.disk.sync(folder)


@contextmanager
def between_sessions(places: Places) -> Iterator[bool]:
    """Hold the swap lock; gives whether no session of the model is open in any process."""
    places.make()
    with locked(places.swap_lock, disk=places.disk):
        yield not any(places.disk.is_held(places.marks / name) for name in places.disk.names(places.marks))


def open_in(places: Places, slot: str) -> bool:
    """Whether a session is open that uses files of `slot`; one that cannot be read may be."""
    return any(_uses(places, name, slot) for name in places.disk.names(places.marks))


def dead_marks(places: Places) -> dict[str, Mark]:
    """The marks of sessions that crashed and are still unseen by the agent, by name."""
    marks = {name: _dead(places, name) for name in places.disk.names(places.marks)}
    return {name: mark for name, mark in marks.items() if mark is not None}


def crashes_before(dead: Iterable[Mark], serial: int) -> int:
    """How many sessions of `serial` crashed one after the other, of those that are dead and unseen."""
    return max((mark.crashes_before + 1 for mark in dead if mark.serial == serial), default=0)


def keep_newest(places: Places, dead: Mapping[str, Mark]) -> dict[str, Mark]:
    """Forget dead marks beyond `limits.CRASHES_IN_A_ROW`, the first ones of a row first; those that are kept.

    Where no cycle runs for weeks they would fill the folder; of one window's crashes one is told anyway.
    """
    row = sorted(dead, key=lambda name: (dead[name].crashes_before, name))
    for name in row[: -limits.CRASHES_IN_A_ROW]:
        places.disk.remove(places.marks / name)
    return {name: dead[name] for name in row[-limits.CRASHES_IN_A_ROW :]}


def _uses(places: Places, name: str, slot: str) -> bool:
    mark = places.marks / name
    if not places.disk.is_held(mark):
        return False
    content = places.disk.read(mark)
    if content is None:
        return False
    try:
        return documents.parse(Mark, content, what=name).slot == slot
    except UntrustedInput:
        return True


def _crash(places: Places, name: str) -> Mark | None:
    disk, path = places.disk, places.marks / name
    try:
        hold = disk.hold(path, make=False)
    except FileNotFoundError:
        return None
    if hold is None:
        return None
    try:
        # Between its creation and its lock a mark belongs to a session that is starting: that one holds the swap lock.
        if disk.is_held(places.swap_lock):
            return None
        content = disk.read(path)
        if content is None or disk.size(places.summaries / name) is not None:
            return None  # it closed a moment ago
        try:
            return documents.parse(Mark, content, what=name)
        except UntrustedInput:
            disk.remove(path)  # its process or the power went before its bytes were there: no model was loaded yet
            return None
    finally:
        hold.release()


def _dead(places: Places, name: str) -> Mark | None:
    """The mark of a session that is over; None while it lives, and where nothing can be read."""
    path = places.marks / name
    try:
        if places.disk.is_held(path):
            return None
        return documents.parse(Mark, places.disk.read(path) or b"", what=name)
    except (OSError, UntrustedInput):
        return None
