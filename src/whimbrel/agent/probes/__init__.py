"""Does this version work here? The client of a server process that forks a caged child for each probe.

1. The server keeps the runtimes loaded that it has needed, and has no threads, so a probe costs one fork (about 20 ms).
2. A loader may abort, hang or allocate without end: that is a failed probe and nothing else.
3. One server serves all agents of a process. It is started when it is needed and ended while it has nothing to do,
   because the runtimes take more memory than an idle agent. It ends with its parent.
4. `formats.py` is the table of what the agent does with each format: `structure/` and `runtimes/` have a module each.
"""

import atexit
import os
import select
import subprocess
import threading
import time

from whimbrel import limits
from whimbrel.cage import child
from whimbrel.device.ports import ProbeRequest, ProbeResult
from whimbrel.errors import Unavailable, UntrustedInput, reason_of
from whimbrel.model import documents

_START_S = 60.0  # a cold import of a runtime on a slow card


class ProbeServer:
    """The `Prober` port over a child process. Thread-safe.

    `wall_s`: what one probe may take. `rest_after_s`: how long after its last probe the process may be ended.
    """

    def __init__(self, *, wall_s: float = limits.PROBE_WALL_S, rest_after_s: float = limits.PROBE_REST_S) -> None:
        self._wall_s = wall_s
        self._rest_after_s = rest_after_s
        self._asked_at = time.monotonic()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process now, which an app that will have many threads may want to do early."""
        with self._lock:
            self._running()

    def probe(self, request: ProbeRequest) -> ProbeResult:
        """Have a model tried. Raises `Unavailable` where no server runs and none can be started."""
        line = documents.encode(request)
        if len(line) > limits.PROBE_LINE_BYTES:
            return ProbeResult(passed=False, reason=f"its signature and probe have {len(line)} bytes")
        with self._lock:
            for _ in range(2):  # a server that died since the last probe is started again, once
                process = self._running()
                self._asked_at = time.monotonic()
                answer = _exchange(process, line + b"\n", self._wall_s + _START_S)
                if answer is not None:
                    try:
                        return documents.parse(ProbeResult, answer, what="the probe server's answer")
                    except UntrustedInput as error:
                        self._stop()
                        raise Unavailable(str(error)) from error
                self._stop()
        raise Unavailable("the probe server ends before it answers; run `python -m whimbrel.agent.probes` to see why")

    def rest(self) -> None:
        """End the process if it has had nothing to do for a while. The next probe starts another."""
        if self._lock.acquire(blocking=False):
            try:
                if time.monotonic() - self._asked_at >= self._rest_after_s:
                    self._stop()
            finally:
                self._lock.release()

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._stop()

    def _running(self) -> subprocess.Popen[bytes]:
        if not hasattr(os, "fork"):
            raise Unavailable(
                "probes run in a caged fork, and this system has none (Windows): bring your own, "
                "AgentOptions(probes=...), an object with probe(request) -> ProbeResult"
            )
        if self._process is None or self._process.poll() is not None:
            self._stop()
            try:
                self._process = subprocess.Popen(
                    child.command("whimbrel.agent.probes", str(self._wall_s)),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    bufsize=0,
                    start_new_session=True,  # a Ctrl-C reaches the parent only, which then closes the server's input
                    cwd=child.ROOT,
                    env=child.environment(),
                )
            except OSError as error:
                raise Unavailable(f"the probe server cannot be started: {reason_of(error)}") from error
        return self._process

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


_shared: ProbeServer | None = None
_shared_lock = threading.Lock()


def shared_server() -> ProbeServer:
    """The one server of this process, for all agents that were given none of their own."""
    global _shared  # noqa: PLW0603 (one server a process is the point)
    with _shared_lock:
        if _shared is None:
            _shared = ProbeServer()
            atexit.register(_shared.close)
        return _shared


def rest() -> None:
    """End the shared server if it has had nothing to do for a while."""
    if _shared is not None:
        _shared.rest()


def _exchange(process: subprocess.Popen[bytes], line: bytes, wait_s: float) -> bytes | None:
    if process.stdin is None or process.stdout is None:
        return None
    received = bytearray()
    until = time.monotonic() + wait_s
    try:
        view = memoryview(line)
        while view:
            view = view[os.write(process.stdin.fileno(), view) :]
        while b"\n" not in received:
            ready, _, _ = select.select([process.stdout], [], [], max(0.0, until - time.monotonic()))
            chunk = os.read(process.stdout.fileno(), limits.PROBE_ANSWER_BYTES) if ready else b""
            received += chunk
            if not chunk or len(received) > limits.PROBE_ANSWER_BYTES:
                return None
    except (OSError, ValueError):
        return None
    return bytes(received.partition(b"\n")[0])
