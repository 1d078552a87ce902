"""The client that tries a version of one model in the shadow, from an app's process and without harm to it.

1. `offer` copies a sampled call into a bounded queue and returns; nothing else happens in the app's threads. Where the
   queue is full the call is dropped, and counted.
2. One thread of ours feeds one worker process (`__main__`), one call at a time. The worker may crash, hang or be
   killed: that is counted against the version it was running, and after a few times no other is started for it.
3. One process of a device shadows a model at a time, and a worker without work ends: memory is the app's.
4. Sums are written beside the summaries of sessions every few seconds; the agent reports them like those.
"""

import atexit
import os
import random
import secrets
import select
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import IO, Any, Literal

import msgspec

from whimbrel import limits
from whimbrel.agent.marks import Closed
from whimbrel.agent.places import Places, read_pointer
from whimbrel.agent.shadow.order import Order, WorkerAnswer, read_order
from whimbrel.cage import child
from whimbrel.device.ports import Hold
from whimbrel.errors import UntrustedInput, reason_of
from whimbrel.health.shadow import ShadowSums
from whimbrel.health.sketch import key_of
from whimbrel.model import documents

Who = Literal["", "active", "candidate"]
_PPM = 1_000_000


class Died(msgspec.Struct, frozen=True):
    """The worker is gone, or was ended; `of`: the version that it was running."""

    of: Who


class _Waiting(msgspec.Struct, frozen=True):
    order: Order
    frame: bytes


class ShadowClient:
    """The shadow of one model in this process. Thread-safe; costs nothing before something is shadowed."""

    def __init__(self, places: Places, *, chance: random.Random | None = None) -> None:
        self._places = places
        self._chance = chance or random.Random()  # noqa: S311 (which calls are sampled is no secret)
        self._guard = threading.Condition()
        self._queue: deque[_Waiting] = deque()
        self._queued_bytes = 0
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._order: Order | None = None
        self._looked_at = -1e9
        self._stamp: object = None
        self._sums: dict[tuple[int, int], ShadowSums] = {}
        self._written_at = time.monotonic()
        self._worker: Worker | None = None
        self._hold: Hold | None = None
        self._deaths: dict[Order, int] = {}
        self._given_up: set[Order] = set()
        self._process = os.getpid()
        self.problem = ""  # why nothing is tried, where something should be

    # --- in the app's threads ---

    def offer(self, beside: int, inputs: Mapping[str, Any], output: Any = None) -> bool:
        """Perhaps try this call of serial `beside`; whether it was taken. Never waits for a version to answer."""
        try:
            if self._process != os.getpid():
                self._after_fork()
            order = self._present()
            if order is None or order.beside != beside or order in self._given_up:
                return False
            if self._chance.random() * _PPM >= order.sample_ppm:
                return False
            return self._take(order, inputs, output)
        except (OSError, ValueError, TypeError, MemoryError, UntrustedInput) as error:
            self.problem = f"a call cannot be tried in the shadow: {reason_of(error)}"
            return False

    def _after_fork(self) -> None:
        """In a child that the app forked: thread, worker, lock and sums are the parent's."""
        self.__init__(self._places)  # type: ignore[misc]

    def _take(self, order: Order, inputs: Mapping[str, Any], output: Any) -> bool:
        from whimbrel.agent.shadow import frames  # numpy is loaded only where something is shadowed

        size = frames.size_of(inputs, output)
        with self._guard:
            room = (
                not self._stopping
                and len(self._queue) < limits.SHADOW_QUEUE
                and self._queued_bytes + size <= limits.SHADOW_QUEUE_BYTES
                and size <= limits.SHADOW_CALL_BYTES
            )
            if not room:
                self._count(order, dropped=1)
                return False
        frame = frames.pack(inputs, output)
        with self._guard:
            self._queue.append(_Waiting(order, frame))
            self._queued_bytes += len(frame)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="whimbrel-shadow", daemon=True)
                self._thread.start()
                atexit.register(self.close)
            self._guard.notify()
        return True

    def _present(self) -> Order | None:
        """The order of now; the disk is looked at once a second at most."""
        now = time.monotonic()
        with self._guard:
            if now - self._looked_at < limits.SHADOW_LOOK_S:
                return self._order
            self._looked_at = now
        order = self._read()
        with self._guard:
            self._order = order
            return order

    def _read(self) -> Order | None:
        try:
            pointer = read_pointer(self._places)
            return read_order(self._places, pointer.active if pointer else None)
        except (OSError, UntrustedInput):
            return None

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until every call that was taken is done with; whether that was so in time."""
        until = time.monotonic() + timeout_s
        with self._guard:
            while self._queue and time.monotonic() < until:
                self._guard.wait(0.05)
            return not self._queue

    def close(self) -> None:
        """Stop within a moment: what waits is dropped, and what was seen is written down."""
        with self._guard:
            self._stopping = True
            thread, worker = self._thread, self._worker
            self._guard.notify_all()
        atexit.unregister(self.close)
        if thread is None:
            return
        thread.join(limits.SHADOW_CLOSE_S)
        if thread.is_alive() and worker is not None:  # a call is under way: its answer is not waited for
            worker.kill()
            thread.join(limits.SHADOW_CLOSE_S)

    # --- in our thread ---

    def _run(self) -> None:
        idle_since = time.monotonic()
        try:
            while True:
                with self._guard:
                    if not self._queue and not self._stopping:
                        self._guard.wait(limits.SHADOW_FLUSH_S)
                    stopping, waiting = self._stopping, self._queue[0] if self._queue else None
                if stopping:
                    return
                now = time.monotonic()
                if waiting is not None:
                    self._try(waiting)
                    with self._guard:
                        self._queue.popleft()
                        self._queued_bytes -= len(waiting.frame)
                        self._guard.notify_all()
                    idle_since = now = time.monotonic()
                elif now - idle_since > limits.SHADOW_IDLE_S:
                    self._let_go()
                if now - self._written_at >= limits.SHADOW_FLUSH_S:
                    self._write()
        finally:
            with self._guard:
                for each in self._queue:
                    self._count(each.order, dropped=1)
                self._queue.clear()
                self._guard.notify_all()
            self._let_go()
            self._write()

    def _try(self, waiting: _Waiting) -> None:
        order = waiting.order
        if order in self._given_up or self._present() != order:
            return  # it is shadowed no more: nobody asks what it would have said
        worker = self._ready(order)
        if worker is None:
            return
        answer = worker.ask(waiting.frame, limits.SHADOW_WALL_S + limits.SHADOW_GRACE_S)
        if isinstance(answer, Died):
            self._died(order, answer, counted=True)
        elif answer.skipped:
            self._count(order, skipped=1)
        elif answer.failed or answer.agreement is None:
            self._count(order, inputs=1, errors=1)
        else:
            self._count(
                order,
                inputs=1,
                compared=1,
                agreed=min(1.0, max(0.0, answer.agreement)),
                active_ms=answer.active_ms,
                candidate_ms=answer.candidate_ms,
                active={key_of(answer.active_ms): 1},
                candidate={key_of(answer.candidate_ms): 1},
            )

    def _ready(self, order: Order) -> "Worker | None":
        """The worker for this order, started where there is none."""
        if self._worker is not None and self._worker.order != order:
            self._let_go()
        if self._worker is not None:
            return self._worker
        if self._hold is None:
            try:
                self._hold = self._places.disk.hold(self._places.folder / "shadow.lock")
            except OSError as error:
                self.problem = f"the shadow cannot be had: {reason_of(error)}"
            if self._hold is None:
                return None  # another process of this device has it
        try:
            worker = Worker(order)
        except OSError as error:
            self.problem = f"the shadow's worker cannot be started: {reason_of(error)}"
            return None
        with self._guard:
            self._worker = worker
        answer = worker.begin()
        if isinstance(answer, Died):
            self._died(order, answer, counted=True)
            return None
        if answer.skipped:
            self.problem = answer.skipped
            self._given_up.add(order)
            self._let_go()
            return None
        self._look_again()
        if self._present() != order:  # the slot may have been filled anew while it was opened
            self._let_go()
            return None
        return worker

    def _look_again(self) -> None:
        with self._guard:
            self._looked_at = -1e9

    def _died(self, order: Order, died: Died, *, counted: bool) -> None:
        self._end_worker()
        if self._stopping:
            return  # it was ended from here
        self._deaths[order] = self._deaths.get(order, 0) + 1
        if died.of == "candidate" and counted:
            self._count(order, inputs=1, crashed=1)
        else:
            self._count(order, skipped=1)
        if self._deaths[order] >= limits.SHADOW_CRASHES:
            self.problem = f"the worker ended {self._deaths[order]} times; serial {order.serial} is not tried any more"
            self._given_up.add(order)
            self._let_go()
        self._write()

    def _let_go(self) -> None:
        self._end_worker()
        hold, self._hold = self._hold, None
        if hold is not None:
            hold.release()

    def _end_worker(self) -> None:
        with self._guard:
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.end()

    # --- what was seen ---

    def _count(self, order: Order, **more: Any) -> None:
        with self._guard:
            key = order.beside, order.serial
            call = ShadowSums(serial=order.serial, **more)
            self._sums[key] = self._sums[key].plus(call) if key in self._sums else call

    def _write(self) -> None:
        self._written_at = time.monotonic()
        with self._guard:
            sums, self._sums = self._sums, {}
        for (beside, _), shadow in sums.items():
            name = f"{os.getpid()}-shadow-{secrets.token_hex(8)}"
            content = documents.encode(Closed(serial=beside, session=False, shadow=shadow))
            with suppress(OSError):  # a full disk: some calls less are told of
                self._places.disk.replace(self._places.summaries / name, content)


class Worker:
    """The worker process, and who it was running when it was heard last."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self._of: Who = ""
        self._received = bytearray()
        self._process = subprocess.Popen(
            child.command("whimbrel.agent.shadow"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # a Ctrl-C is for the app, which then closes our input
            cwd=child.ROOT,
            env=child.environment(),
        )

    def begin(self) -> WorkerAnswer | Died:
        """Load both versions."""
        return self.ask(msgspec.json.encode(self.order) + b"\n", 2 * limits.SHADOW_START_S)

    def ask(self, frame: bytes, wait_s: float) -> WorkerAnswer | Died:
        """One frame, one answer."""
        until = time.monotonic() + wait_s
        self._of = ""
        try:
            if not self._send(frame, until):
                return self._gone()
            while True:
                line = self._line(until)
                if line is None:
                    return self._gone()
                if line == b'"active"':
                    self._of = "active"
                elif line == b'"candidate"':
                    self._of = "candidate"
                else:
                    return msgspec.json.decode(line, type=WorkerAnswer)
        except (OSError, ValueError, msgspec.DecodeError):
            return self._gone()

    def _gone(self) -> Died:
        self.kill()
        return Died(self._of)

    def _send(self, frame: bytes, until: float) -> bool:
        pipe = self._pipe(self._process.stdin)
        os.set_blocking(pipe, False)
        view = memoryview(frame)
        while view:
            _, ready, _ = select.select([], [pipe], [], max(0.0, until - time.monotonic()))
            if not ready:
                return False
            view = view[os.write(pipe, view[: limits.COPY_CHUNK_BYTES]) :]
        return True

    def _line(self, until: float) -> bytes | None:
        pipe = self._pipe(self._process.stdout)
        while b"\n" not in self._received:
            ready, _, _ = select.select([pipe], [], [], max(0.0, until - time.monotonic()))
            chunk = os.read(pipe, 64 * limits.KIB) if ready else b""
            self._received += chunk
            if not chunk or len(self._received) > limits.SHADOW_LINE_BYTES:
                return None
        line, _, rest = bytes(self._received).partition(b"\n")
        self._received = bytearray(rest)
        return line

    @staticmethod
    def _pipe(pipe: IO[bytes] | None) -> int:
        if pipe is None:
            raise OSError("the worker has no pipe")
        return pipe.fileno()

    def kill(self) -> None:
        """At once; any thread may do it."""
        with suppress(OSError):
            self._process.kill()

    def end(self) -> None:
        """Close the worker's input, and kill it where it does not end."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
