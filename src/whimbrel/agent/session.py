"""How does an app use a model? A session: from before the model is loaded until after its last inference.

1. A session works without the daemon and without a network; any number of processes may have any number of them.
2. At its start a mark (started, not yet healthy) is written durably, and locked for the session's life (`marks`).
3. At its close the mark becomes a summary, by one rename. The latency of the first session of a version is that of
   cold caches: it is the metric `first_run_ms`, and no latency.
4. A start that finds the last crashes in a row opens the version before, whether or not a cycle runs; a load that fails
   does so for the next start (`departures`).
"""

import math
import os
import re
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from whimbrel import limits
from whimbrel.agent.crash_counts import begin_anew, leave_out
from whimbrel.agent.departures import leave
from whimbrel.agent.load_failures import failure_of, forget_failure, note_failure
from whimbrel.agent.locks import locked
from whimbrel.agent.marks import Closed
from whimbrel.agent.open_in_memory import OpenInMemory
from whimbrel.agent.places import Places, read_pointer
from whimbrel.agent.release_keys import KeptReleaseKeys
from whimbrel.agent.self_measures import Begun, SelfMeasures
from whimbrel.agent.session_start import begin
from whimbrel.agent.shadow import ShadowClient
from whimbrel.device.ports import Hold
from whimbrel.device.slots import Held
from whimbrel.errors import Refused, Unavailable, UntrustedInput, reason_of
from whimbrel.health.report import Summary
from whimbrel.health.sketch import key_of
from whimbrel.model import documents
from whimbrel.model.release import Reference

if TYPE_CHECKING:
    from whimbrel.agent.runner import Runner

_METRIC = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9_./-]{0,62}[A-Za-z0-9])?\Z")
_VALUE_MAX = 1e12  # so that the sum of a window's values stays within what a report can hold


class Session:
    """One use of a model: from before it is loaded until after its last inference. Made by `Agent.session`."""

    def __init__(
        self,
        model: str,
        places: Places,
        *,
        durable: bool = True,
        shadow: ShadowClient | None = None,
        measures: SelfMeasures | None = None,
        release_keys: KeptReleaseKeys | None = None,
    ) -> None:
        """`release_keys`: of versions that slots keep sealed."""
        self._model = model
        self._places = places
        self._durable = durable
        self._shadow = shadow
        self._measures = measures
        self._release_keys = release_keys
        self._memory: OpenInMemory | None = None  # the entry, where the slot holds it sealed
        self._begun: Begun | None = None
        self._guard = threading.Lock()
        self._hold: Hold | None = None
        self._held: Held | None = None
        self._is_open = False
        self._began = 0.0  # on the monotonic clock
        self._is_steady = False
        self._load_failed = False
        self._name = f"{os.getpid()}-{secrets.token_hex(8)}"
        self._inferences = 0
        self._errors = 0
        self._dropped = 0
        self._latency_ms: float | None = None
        self._metrics: dict[str, Summary] = {}
        self._predictions: dict[int, int] = {}

    @property
    def path(self) -> Path:
        """The model's entry file (a graph, the first shard), or its package where it is a Core ML package.

        Where the device keeps the version sealed, a file in memory that is there until the block ends; its name has no
        ending.
        """
        if self._memory is not None:
            return self._memory.path
        return self._places.entry(self._open_held())

    @property
    def folder(self) -> Path:
        """The folder of all the version's files, under the names that they were published with.

        A runtime that wants the folder (a tokenizer beside sharded weights) opens this, and others open `path`.
        Raises `Unavailable` where the device keeps the version sealed: then there is `path` alone.
        """
        if self._memory is not None:
            raise Unavailable(f"{self._model} stays sealed on this device, and is open in memory alone: use path")
        return self._places.slot(self._open_held().slot)

    @property
    def model(self) -> str:
        """The model's name."""
        return self._model

    @property
    def serial(self) -> int:
        """The version's place in its line; also after the block."""
        return self._entered_held().serial

    @property
    def version(self) -> str:
        """The version's calendar name; also after the block."""
        return self._entered_held().version

    @property
    def dropped(self) -> int:
        """How many values `record` could not take."""
        return self._dropped

    def record(
        self,
        *,
        latency_ms: float | None = None,
        ok: bool = True,
        prediction: float | str | None = None,
        **metrics: float | None,
    ) -> None:
        """Count one inference; thread-safe. Never raises: it runs in the middle of an app's work.

        `prediction`: a number or a class; only how many fell into each bin of the version's reference is told, and
        nothing where it has none. `feedback=1.0` alone (a thumb up; 0.0 is down) counts no inference.
        A metric that is NaN, infinite or above 1e12 makes the inference an error. What cannot be taken is dropped and
        counted (`dropped`; told as the metric `dropped_values`): no number, a metric's name that cannot travel,
        feedback that is not from 0 to 1, a metric beyond the 64th.
        """
        is_good = _truth(ok)
        alone = metrics.keys() == {"feedback"} and is_good is True and latency_ms is None and prediction is None
        values = {name: number for name, value in metrics.items() if (number := _metric(name, value)) is not None}
        dropped = len(metrics) - len(values)
        latency = _number(latency_ms)
        if latency is not None and not (math.isfinite(latency) and latency >= 0):
            latency = None
        if latency is None and latency_ms is not None:
            dropped += 1
        if is_good is None:
            is_good, dropped = True, dropped + 1
        with self._guard:
            for name, value in values.items():
                if not math.isfinite(value) or abs(value) > _VALUE_MAX:
                    is_good = False
                elif name in self._metrics:
                    self._metrics[name] = self._metrics[name].plus(Summary.of(value))
                elif len(self._metrics) < limits.SESSION_METRICS:
                    self._metrics[name] = Summary.of(value)
                else:
                    dropped += 1
            if latency is not None:
                self._latency_ms = max(self._latency_ms or 0.0, latency)
            if prediction is not None and self._held is not None and self._held.reference is not None:
                place = _bin(self._held.reference, prediction)
                if place is None:
                    is_good = False
                else:
                    self._predictions[place] = self._predictions.get(place, 0) + 1
            self._dropped += dropped
            if not alone:
                self._inferences += 1
                self._errors += 0 if is_good else 1
            is_first_steady = is_good and not self._is_steady and time.monotonic() - self._began >= limits.STEADY_S
            self._is_steady = self._is_steady or is_first_steady
        if is_first_steady and self._hold is not None and self._held is not None:
            with suppress(OSError):
                leave_out(self._places, self._held, [self._name])

    def shadow(self, inputs: Mapping[str, Any], output: Any = None) -> bool:
        """Let a version that the policy tries in the shadow have this call too; whether it was sampled. Thread-safe.

        `inputs`: arrays by name. `output`: what the active version said, by name or in its order; without it that
        version is asked again, in the worker. Copies a sampled call and returns: it never waits for a version, and
        nothing that a version does there reaches this process. Raises `UntrustedInput` for inputs without names.
        """
        held = self._open_held()
        if not isinstance(inputs, Mapping):
            raise UntrustedInput(f"inputs are a {type(inputs).__name__}; expected arrays by name: {{'x': array}}")
        return self._shadow is not None and self._shadow.offer(held.serial, inputs, output)

    def runner(self) -> "Runner":
        """The active version, loaded: `run(inputs)` answers, counts, and shadows by itself.

        Raises `Unavailable` where no runtime for its format is installed.
        """
        from whimbrel.agent.runner import Runner  # here: few apps let it run their model, and it brings the runtimes

        return Runner(self, self.path, name=self._open_held().entry)

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Around the load of the model in a runtime of the app's own: what is raised in here is a load that failed.

            with agent.session("detector") as model:
                with model.loading():
                    run = onnxruntime.InferenceSession(model.path)

        `ImportError` and `MemoryError` speak of the machine, and not of the version: they only pass through.
        """
        try:
            yield
        except (ImportError, MemoryError):
            raise
        except Exception as error:
            self.load_failed(f"{type(error).__name__}: {error}")
            raise
        self._forget_failure(self._open_held())

    def load_failed(self, because: str) -> bool:
        """The version does not load: leave it at once for the one before, whether or not an agent runs.

        This session keeps its files, and counts as one that failed; the next one opens the version before. Returns
        whether there is one: where there is none, the status says that the version stays, and why. Never raises.
        """
        held = self._open_held()
        self._load_failed = True
        reason = f"it could not be loaded: {because}"[: limits.REASON_CHARS]
        with suppress(OSError, Refused, UntrustedInput), locked(self._places.swap_lock, disk=self._places.disk):
            pointer = read_pointer(self._places)
            if pointer is not None and pointer.active == held:
                try:
                    leave(self._places, model=self._model, reason=reason)
                except Refused:
                    note_failure(self._places, held, reason)
                    return False
                return True
        return False

    def _forget_failure(self, held: Held) -> None:
        with suppress(OSError):
            if failure_of(self._places, held):
                forget_failure(self._places)

    def __enter__(self) -> Self:
        if self._held is not None:
            raise Unavailable("a session is entered once; ask the agent for another one")
        self._held, self._hold = begin(self._places, self._model, name=self._name, durable=self._durable)
        try:
            self._memory = self._opened_in_memory(self._held)
        except BaseException:
            self._forget()  # it was not begun
            if self._hold is not None:
                self._hold.release()
            raise
        self._is_open, self._began = True, time.monotonic()
        self._begun = self._measures.begin() if self._measures is not None else None
        return self

    def _opened_in_memory(self, held: Held) -> OpenInMemory | None:
        if not held.is_sealed_at_rest:
            return None
        missing = f"{self._model} at serial {held.serial} stays sealed on this device"
        try:
            key = self._release_keys.get(self._model, held.serial) if self._release_keys is not None else None
            if key is None:
                raise Unavailable(f"{missing}, and its key is not here; the agent gets it in its next cycle")
            return OpenInMemory(self._places, held, key)
        except (OSError, UntrustedInput) as error:
            raise Unavailable(f"{missing}, and cannot be opened: {reason_of(error)}") from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        hold, self._hold, self._is_open = self._hold, None, False
        if self._memory is not None:
            self._memory.close()
            self._memory = None
        if hold is None or self._held is None:
            return
        raised = kind is not None and issubclass(kind, Exception)  # a KeyboardInterrupt is nobody's failure
        failed = raised or self._load_failed
        try:
            self._summarize(self._held, failed=failed)
        except OSError:
            self._forget()  # a full disk: the session ended well and must not be taken for a crash
        finally:
            hold.release()

    def _summarize(self, held: Held, *, failed: bool) -> None:
        with self._guard:
            extra = 1 if failed else 0
            if self._latency_ms is not None and self._is_first_run(held):
                if len(self._metrics) < limits.SESSION_METRICS:
                    self._metrics["first_run_ms"] = Summary.of(self._latency_ms)
                self._latency_ms = None
            if self._measures is not None and self._begun is not None:
                for name, value in self._measures.end(self._begun).items():
                    if name not in self._metrics and len(self._metrics) < limits.SESSION_METRICS:
                        self._metrics[name] = Summary.of(value)
            if self._dropped and len(self._metrics) < limits.SESSION_METRICS:
                self._metrics["dropped_values"] = Summary.of(float(self._dropped))
            closed = Closed(
                serial=held.serial,
                failed=failed,
                inferences=self._inferences + extra,
                errors=self._errors + extra,
                latency_key=None if self._latency_ms is None else key_of(self._latency_ms),
                metrics=self._metrics,
                predictions=self._predictions,
            )
        self._places.disk.replace(self._places.summaries / self._name, documents.encode(closed))
        self._forget()
        if closed.healthy:
            begin_anew(self._places, held)
        if closed.inferences > closed.errors and not closed.failed:
            self._forget_failure(held)

    def _is_first_run(self, held: Held) -> bool:
        """Whether this version never ran from this slot before: its latency is that of cold caches."""
        key = f"{held.slot} {held.serial}".encode()
        if self._places.disk.read(self._places.warm) == key:
            return False
        self._places.disk.replace(self._places.warm, key)
        return True

    def _forget(self) -> None:
        self._places.disk.remove(self._places.marks / self._name)

    def _open_held(self) -> Held:
        if self._held is None or not self._is_open:
            raise Unavailable("this session is not open: use it inside its with-block")
        return self._held

    def _entered_held(self) -> Held:
        if self._held is None:
            raise Unavailable("this session was not entered yet: use it in a with-block")
        return self._held


def _metric(name: str, value: object) -> float | None:
    """A metric's value, also where it is not finite; None for what cannot travel."""
    number = _number(value) if _METRIC.match(name) else None
    return None if number is not None and name == "feedback" and not 0 <= number <= 1 else number


def _number(value: object) -> float | None:
    """`value` as a number; None where it is none."""
    if value is None or isinstance(value, str | bytes | bytearray):
        return None
    try:
        return float(value)  # type: ignore[arg-type]  # a number of numpy's or torch's, or anything: that is the question
    except Exception:  # noqa: BLE001 (a type of the app's may raise whatever it likes)
        return None


def _truth(value: object) -> bool | None:
    try:
        return bool(value)
    except Exception:  # noqa: BLE001 (an array has no truth)
        return None


def _bin(reference: Reference, prediction: object) -> int | None:
    try:
        return reference.bin_of(prediction)
    except Exception:  # noqa: BLE001 (as above)
        return None
