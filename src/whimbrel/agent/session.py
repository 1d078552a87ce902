"""How does an app use a model, and how is it noticed that it crashed? Sessions, marks and summaries: files only.

1. A session works without the daemon and without a network; any number of processes may have any number of them.
2. At its start a mark (started, not yet healthy) is written durably, and locked for the session's life. The kernel
   lets the lock go when the process dies: an unlocked mark is a crash. A mark says how many crashes came before it, so
   that a loop of crashes is told from many processes that died at one moment.
3. At its close the mark becomes a summary, by one rename.
4. Start and swap take the same short lock, so that a swap happens between sessions, never inside one.
"""

import fcntl
import math
import os
import re
import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Annotated, Self

import msgspec

from whimbrel import limits
from whimbrel.agent import sets
from whimbrel.agent.locks import is_locked, locked, try_lock
from whimbrel.device.journal import unseal
from whimbrel.device.slots import Held, Pointer
from whimbrel.durable import fsync_folder
from whimbrel.errors import Unavailable, UntrustedInput
from whimbrel.health.report import Count, Summary
from whimbrel.health.sketch import key_of
from whimbrel.model import documents
from whimbrel.model.documents import Document
from whimbrel.model.ids import Label, Serial

_METRIC = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9_./-]{0,62}[A-Za-z0-9])?$")
_VALUE_MAX = 1e12  # so that the sum of a window's values stays within what a report can hold


class Mark(Document, frozen=True):
    """A session under way, or one that crashed."""

    serial: Serial
    slot: str
    process: int
    crashes_before: Annotated[int, msgspec.Meta(ge=0)] = 0  # one after the other, and still unseen by the agent


class Closed(Document, frozen=True):
    """What a session saw. `failed`: an exception left the with-block."""

    serial: Serial
    failed: bool = False
    inferences: Count = 0
    errors: Count = 0
    latency_key: int | None = None
    metrics: Annotated[dict[Label, Summary], msgspec.Meta(max_length=limits.SESSION_METRICS)] = {}

    @property
    def healthy(self) -> bool:
        """Whether it speaks for its version: no exception, and not every inference an error."""
        return not self.failed and (self.inferences == 0 or self.errors < self.inferences)


class Places:
    """Where the files of one model are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journal = folder / "journal"
        self.pointer = folder / "pointer"
        self.swap_lock = folder / "swap.lock"
        self.swap_request = folder / "swap.now"
        self.set_record = sets.record_place(folder)
        self.marks = folder / "marks"
        self.summaries = folder / "sessions"

    def slot(self, name: str) -> Path:
        """A slot's folder."""
        return self.folder / name

    def entry(self, held: Held) -> Path:
        """What an app opens."""
        return self.slot(held.slot) / held.entry

    def make(self) -> None:
        """The folders that sessions write to."""
        self.marks.mkdir(parents=True, exist_ok=True)
        self.summaries.mkdir(exist_ok=True)


class Session:
    """One use of a model: from before it is loaded until after its last inference. Made by `Agent.session`."""

    def __init__(self, model: str, places: Places, *, durable: bool = True) -> None:
        self._model = model
        self._places = places
        self._durable = durable
        self._guard = threading.Lock()
        self._handle: int | None = None
        self._held: Held | None = None
        self._name = f"{os.getpid()}-{secrets.token_hex(8)}"
        self._inferences = 0
        self._errors = 0
        self._latency_ms: float | None = None
        self._metrics: dict[str, Summary] = {}

    @property
    def path(self) -> Path:
        """The model's entry file, or its folder where it is one."""
        return self._places.entry(self._open_held())

    @property
    def serial(self) -> int:
        """The version's place in its line."""
        return self._open_held().serial

    @property
    def version(self) -> str:
        """The version's calendar name."""
        return self._open_held().version

    def record(self, *, latency_ms: float | None = None, ok: bool = True, **metrics: float) -> None:
        """Count one inference; thread-safe. A metric that is no finite number makes the inference an error.

        Raises `UntrustedInput` for a metric's name that cannot travel.
        """
        for name in metrics:
            if not _METRIC.match(name):
                raise UntrustedInput(f"{name!r} is not a metric's name: letters, digits, '_', '.', '/' and '-'")
        with self._guard:
            if len(self._metrics.keys() | metrics.keys()) > limits.SESSION_METRICS:
                raise UntrustedInput(f"a session has at most {limits.SESSION_METRICS} metrics")
            for name, value in metrics.items():
                if not math.isfinite(value) or abs(value) > _VALUE_MAX:
                    ok = False
                    continue
                seen = Summary.of(float(value))
                self._metrics[name] = self._metrics[name].plus(seen) if name in self._metrics else seen
            if latency_ms is not None and math.isfinite(latency_ms) and latency_ms >= 0:
                self._latency_ms = max(self._latency_ms or 0.0, float(latency_ms))
            self._inferences += 1
            self._errors += 0 if ok else 1

    def __enter__(self) -> Self:
        if self._handle is not None or self._held is not None:
            raise Unavailable("a session is entered once; ask the agent for another one")
        try:
            self._places.make()
            with locked(self._places.swap_lock):
                pointer = read_pointer(self._places)
                if pointer is None or pointer.active is None:
                    raise Unavailable(
                        f"{self._model} has no version on this device yet; "
                        "let the agent run until its status says 'on trial' or 'committed'"
                    )
                self._handle = self._mark(pointer.active)
                self._held = pointer.active
        except OSError as error:
            raise Unavailable(f"a session of {self._model} cannot begin: {error}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        handle, self._handle = self._handle, None
        if handle is None or self._held is None:
            return
        failed = kind is not None and issubclass(kind, Exception)  # a KeyboardInterrupt is nobody's failure
        try:
            self._summarize(self._held, failed=failed)
        except OSError:
            self._forget()  # a full disk: the session ended well and must not be taken for a crash
        finally:
            os.close(handle)

    def _mark(self, held: Held) -> int:
        mark = documents.encode(
            Mark(serial=held.serial, slot=held.slot, process=os.getpid(), crashes_before=self._crashes_before(held))
        )
        path = self._places.marks / self._name
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            os.write(handle, mark)
            if self._durable:
                os.fsync(handle)
                fsync_folder(self._places.marks)
        except BaseException:
            path.unlink(missing_ok=True)
            os.close(handle)
            raise
        return handle

    def _crashes_before(self, held: Held) -> int:
        marks = (_dead(self._places.marks / name) for name in _names(self._places.marks)[: limits.CRASHES_IN_A_ROW])
        return max((mark.crashes_before + 1 for mark in marks if mark and mark.serial == held.serial), default=0)

    def _summarize(self, held: Held, *, failed: bool) -> None:
        with self._guard:
            extra = 1 if failed else 0
            closed = Closed(
                serial=held.serial,
                failed=failed,
                inferences=self._inferences + extra,
                errors=self._errors + extra,
                latency_key=None if self._latency_ms is None else key_of(self._latency_ms),
                metrics=self._metrics,
            )
        temporary = self._places.summaries / f".{self._name}"
        temporary.write_bytes(documents.encode(closed))
        temporary.rename(self._places.summaries / self._name)
        self._forget()

    def _forget(self) -> None:
        (self._places.marks / self._name).unlink(missing_ok=True)

    def _open_held(self) -> Held:
        if self._held is None or self._handle is None:
            raise Unavailable("this session is not open: use it inside its with-block")
        return self._held


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


def read_pointer(places: Places) -> Pointer | None:
    """The pointer of a model, or None where there is none yet. Raises `UntrustedInput` for one that is torn."""
    try:
        content = places.pointer.read_bytes()
    except FileNotFoundError:
        return None
    pointer = unseal(Pointer, content, what=str(places.pointer))
    try:
        record = places.set_record.read_bytes()
    except FileNotFoundError:
        return pointer
    return sets.believed(pointer, pointer.model, sets.decode(record))


def harvest(places: Places) -> list[Ended]:
    """Look at what ended. Nothing is removed: that is `forget`, when it has been written down."""
    found: list[Ended] = []
    for name in _names(places.marks):
        mark = _crash(places, name)
        if mark is not None:
            found.append(Ended(name, mark.serial, crashes_before=mark.crashes_before))
    for name in [name for name in _names(places.summaries) if not name.startswith(".")][: limits.SESSION_FILES]:
        try:
            closed = documents.parse(Closed, (places.summaries / name).read_bytes(), what=name)
        except (UntrustedInput, FileNotFoundError):
            found.append(Ended(name, None))  # torn by a power cut: one session less is told of
        else:
            found.append(Ended(name, closed.serial, closed))
    return found


def forget(places: Places, names: Iterable[str]) -> None:
    """Remove what `harvest` found."""
    for name in names:
        (places.marks / name).unlink(missing_ok=True)
        (places.summaries / name).unlink(missing_ok=True)


@contextmanager
def between_sessions(places: Places) -> Iterator[bool]:
    """Hold the swap lock; gives whether no session of the model is open in any process."""
    places.make()
    with locked(places.swap_lock):
        yield not any(is_locked(places.marks / name) for name in _names(places.marks))


def open_in(places: Places, slot: str) -> bool:
    """Whether a session is open that uses files of `slot`; one that cannot be read may be."""
    return any(_uses(places.marks / name, slot) for name in _names(places.marks))


def _uses(mark: Path, slot: str) -> bool:
    try:
        return is_locked(mark) and documents.parse(Mark, mark.read_bytes(), what=mark.name).slot == slot
    except FileNotFoundError:
        return False
    except UntrustedInput:
        return True


def _crash(places: Places, name: str) -> Mark | None:
    path = places.marks / name
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        # Between its creation and its lock a mark belongs to a session that is starting: that one holds the swap lock.
        if not try_lock(handle) or is_locked(places.swap_lock):
            return None
        if (places.summaries / name).exists() or not path.exists():
            return None  # it closed a moment ago
        content = os.read(handle, limits.KIB)
    finally:
        os.close(handle)
    try:
        return documents.parse(Mark, content, what=name)
    except UntrustedInput:
        if time.time() - path.stat().st_mtime > 1:
            path.unlink(missing_ok=True)  # the power went before its bytes were there
        return None


def _dead(path: Path) -> Mark | None:
    """The mark of a session that is over; None while it lives, and where nothing can be read."""
    try:
        if is_locked(path):
            return None
        return documents.parse(Mark, path.read_bytes(), what=path.name)
    except (OSError, UntrustedInput):
        return None


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
