"""The report windows of a device that the server has not acknowledged yet.

1. Sessions add to an open window a model; every report period the windows are cut. A cut window that was sent once is
   frozen: it is sent again with the same numbers and the same content until it is acknowledged, so it counts once.
2. Sequence numbers are given when a window is sent for the first time; so windows that were never sent can be merged,
   and the merged one stands for as many numbers.
3. The file is replaced atomically, and durably only when windows are frozen, before they are sent: what was not sent
   may be lost when the power goes; what was sent is never sent under other numbers. A new epoch begins after a boot,
   and in a copy of the folder.
4. Of every metric the mean over the windows that were cut is kept, older ones fading: what this device was like before
   an experiment, for whoever asks when it is assigned.
"""

import itertools
import secrets
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from whimbrel import limits
from whimbrel.agent.disk import Disk
from whimbrel.agent.marks import Closed, Ended
from whimbrel.errors import UntrustedInput
from whimbrel.health.report import Cohort, Finite, Summary, Window
from whimbrel.health.shadow import ShadowSums
from whimbrel.model import documents
from whimbrel.model.documents import Document
from whimbrel.model.ids import Label, Name

_LATENCY_KEYS = 4096
_replace = msgspec.structs.replace


class Waiting(Document, frozen=True):
    """A window that was cut. `cuts`: how many it stands for. `epoch` is empty, and so are its numbers, until sent."""

    window: Window
    cuts: int = 1
    epoch: str = ""


class WindowPlace(msgspec.Struct, frozen=True):
    """Where a window counts: its cohorts, and what the device tells of itself."""

    cohorts: tuple[Cohort, ...] = ()
    hardware_class: str = ""
    slices: dict[str, str] = {}

    def of(self, window: Window) -> Window:
        """The window, with that."""
        return _replace(window, cohorts=self.cohorts, hardware_class=self.hardware_class, slices=self.slices)


class Past(Document, frozen=True):
    """What a metric was like: windows (at most `BEFORE_WINDOWS` count), and the mean of their means."""

    n: Annotated[int, Meta(ge=1, le=limits.BEFORE_WINDOWS)]
    mean: Finite


class Spooled(Document, frozen=True, tag_field="format", tag="whimbrel-spool-1"):
    """The file."""

    epoch: str
    boot: str
    last: int = 0
    open: dict[Name, Window] = {}
    waiting: tuple[Waiting, ...] = ()
    consumed: Annotated[tuple[str, ...], Meta(max_length=4 * limits.SESSION_FILES)] = ()
    past: dict[Name, Annotated[dict[Label, Past], Meta(max_length=limits.SESSION_METRICS)]] = {}


class Spool:
    """The windows of one installation."""

    def __init__(self, path: Path, *, disk: Disk) -> None:
        self._path = path
        self._disk = disk
        # The settings are stamped anew where the folder was copied: a clone counts for itself.
        self._boot = f"{disk.boot()} {disk.stamp(path.with_name('agent.json'))}"
        self._content = self._read()

    def _read(self) -> Spooled:
        content = self._disk.read(self._path)
        fresh = Spooled(epoch=secrets.token_hex(8), boot=self._boot)
        if content is None:
            return fresh
        try:
            kept = documents.parse(Spooled, content, what="the spool")
        except UntrustedInput:
            return fresh
        return kept if kept.boot == self._boot else _replace(kept, epoch=fresh.epoch, boot=self._boot, last=0)

    def _save(self, content: Spooled, *, durably: bool = False) -> None:
        encoded = documents.encode(content)
        while len(encoded) > limits.SPOOL_BYTES and content.waiting:
            content = _replace(content, waiting=_bounded(content.waiting, most=len(content.waiting) * 3 // 4))
            encoded = documents.encode(content)
        write = self._disk.write if durably else self._disk.replace
        write(self._path, encoded)
        self._content = content

    @property
    def waiting(self) -> int:
        """Windows that are not acknowledged."""
        return len(self._content.waiting)

    def has_open(self, model: str) -> bool:
        """Whether sessions ended that no cut window tells of."""
        return model in self._content.open

    def new_of(self, ended: list[Ended]) -> list[Ended]:
        """Those that were not added yet: a process may end between adding sessions and removing their files."""
        consumed = set(self._content.consumed)
        return [session for session in ended if session.name not in consumed]

    def add(self, model: str, ended: list[Ended], *, names: list[str], place: WindowPlace = WindowPlace()) -> None:
        """Add ended sessions to the model's open window of their serial. `names`: all files that are looked at.

        Sessions of another serial close the window, which then counts in `place`; first come those of its own serial.
        """
        content = self._content
        windows = dict(content.open)
        waiting = content.waiting
        first = windows[model].serial if model in windows else None
        told = [(session.serial != first, session.serial, session) for session in ended if session.serial is not None]
        for _, serial, session in sorted(told, key=lambda each: each[:2]):
            window = windows.get(model)
            if window is not None and (window.serial != serial or _other_shadow(window, session.closed)):
                waiting = (*waiting, Waiting(window=place.of(window)))
                window = None
            window = window or Window(model=model, serial=serial, first=1, last=1)
            if session.closed is None:
                windows[model] = _replace(window, sessions=window.sessions + 1, crashed=1)
            else:
                windows[model] = _with(window, session.closed)
        self._save(_replace(content, open=windows, waiting=_bounded(waiting), consumed=tuple(names)))

    def cut(self, model: str, *, serial: int | None, place: WindowPlace) -> None:
        """Close the model's open window, also when nothing happened in it: silence is told from idleness."""
        content = self._content
        windows = dict(content.open)
        window = windows.pop(model, None) or Window(model=model, serial=serial, first=1, last=1)
        done = place.of(window)
        waiting = _bounded((*content.waiting, Waiting(window=done)))
        past = content.past
        if seen := done.means():
            past = past | {model: _later(past.get(model, {}), seen)}
        self._save(_replace(content, open=windows, waiting=waiting, past=past))

    def before(self, model: str) -> dict[str, float]:
        """The mean of every metric over the windows that were cut until now."""
        return {name: past.mean for name, past in self._content.past.get(model, {}).items()}

    def batch(self, *, windows_max: int) -> tuple[str, tuple[Window, ...]]:
        """The next windows to send, frozen from now on: their epoch, and the windows (none: nothing waits)."""
        content = self._content
        first = next((each.epoch for each in content.waiting), "") or content.epoch
        last = content.last
        waiting = list(content.waiting)
        chosen: list[Window] = []
        for index, each in enumerate(waiting[:windows_max]):
            frozen = each
            if not each.epoch:
                numbered = _replace(each.window, first=last + 1, last=last + each.cuts)
                last += each.cuts
                frozen = _replace(each, window=numbered, epoch=content.epoch)
            if frozen.epoch != first:
                break
            waiting[index] = frozen
            chosen.append(frozen.window)
        last = max([content.last, *(window.last for window in chosen if first == content.epoch)])
        if tuple(waiting) != content.waiting:
            self._save(_replace(content, waiting=tuple(waiting), last=last), durably=True)
        return first, tuple(chosen)

    def acknowledged(self, epoch: str, windows: tuple[Window, ...]) -> None:
        """Forget what the server has stored, or will never take."""
        numbers = {window.first for window in windows}
        kept = tuple(
            each
            for each in self._content.waiting
            if not (each.epoch and each.epoch == epoch and each.window.first in numbers)
        )
        self._save(_replace(self._content, waiting=kept))


def _later(past: dict[str, Past], seen: dict[str, float]) -> dict[str, Past]:
    later = dict(past)
    for name, value in seen.items():
        held = later.get(name)
        if held is None:
            if len(later) < limits.SESSION_METRICS:
                later[name] = Past(n=1, mean=value)
            continue
        count = min(held.n + 1, limits.BEFORE_WINDOWS)
        later[name] = Past(n=count, mean=held.mean + (value - held.mean) / count)
    return later


def _with(window: Window, closed: Closed) -> Window:
    latency = dict(window.latency)
    if closed.latency_key is not None and (closed.latency_key in latency or len(latency) < _LATENCY_KEYS):
        latency[closed.latency_key] = latency.get(closed.latency_key, 0) + 1
    return _replace(
        window,
        sessions=window.sessions + (1 if closed.session else 0),
        shadow=_both(window.shadow, closed.shadow),
        inferences=window.inferences + closed.inferences,
        errors=window.errors + closed.errors,
        metrics=_sums(window.metrics, closed.metrics),
        latency=latency,
        predictions=_counts(window.predictions, closed.predictions),
    )


def _other_shadow(window: Window, closed: Closed | None) -> bool:
    """Whether a session tells of another version in the shadow than the window does."""
    mine, its = window.shadow, closed.shadow if closed is not None else None
    return mine is not None and its is not None and mine.serial != its.serial


def _both(one: ShadowSums | None, other: ShadowSums | None) -> ShadowSums | None:
    return one.plus(other) if one is not None and other is not None else one or other


def _sums(one: dict[str, Summary], other: dict[str, Summary]) -> dict[str, Summary]:
    sums = dict(one)
    for name, seen in other.items():
        if name in sums:
            sums[name] = sums[name].plus(seen)
        elif len(sums) < limits.SESSION_METRICS:
            sums[name] = seen
    return sums


def _counts(one: dict[int, int], other: dict[int, int]) -> dict[int, int]:
    return {key: one.get(key, 0) + other.get(key, 0) for key in sorted(one.keys() | other.keys())}


def _bounded(waiting: tuple[Waiting, ...], *, most: int | None = None) -> tuple[Waiting, ...]:
    """At most `most`, or `SPOOL_WINDOWS`: the oldest unsent pair of one kind is merged; else the oldest goes."""
    kept = list(waiting)
    while len(kept) > (limits.SPOOL_WINDOWS if most is None else most):
        for place, (one, other) in enumerate(itertools.pairwise(kept)):
            if not one.epoch and not other.epoch and _kind(one.window) == _kind(other.window):
                kept[place : place + 2] = [_merged(one, other)]
                break
        else:
            kept.pop(next((place for place, each in enumerate(kept) if not each.epoch), 0))
    return tuple(kept)


def _kind(window: Window) -> tuple[object, ...]:
    cohorts = tuple((cohort.rollout, cohort.stage, cohort.role) for cohort in window.cohorts)
    tried = window.shadow.serial if window.shadow is not None else None
    return window.model, window.serial, window.hardware_class, window.slices, cohorts, tried


def _merged(one: Waiting, other: Waiting) -> Waiting:
    before, after = one.window, other.window
    latency = dict(before.latency)
    for key, count in after.latency.items():
        if key in latency or len(latency) < _LATENCY_KEYS:
            latency[key] = latency.get(key, 0) + count
    window = _replace(
        after,
        sessions=before.sessions + after.sessions,
        crashed=max(before.crashed, after.crashed),
        inferences=before.inferences + after.inferences,
        errors=before.errors + after.errors,
        metrics=_sums(before.metrics, after.metrics),
        latency=latency,
        shadow=_both(before.shadow, after.shadow),
        predictions=_counts(before.predictions, after.predictions),
    )
    return Waiting(window=window, cuts=one.cuts + other.cuts)
