"""The probe server: it reads requests as JSON lines, runs each in a caged child, and writes results as JSON lines.

It ends when its input ends, and never starts a thread. What a child starts ends with the child. The runtime of a
model's format is imported before the fork: a child inherits it ready to run, and its memory is not counted as the
model's.
"""

import os
import select
import signal
import sys
import time
from contextlib import suppress

import msgspec

from whimbrel import limits
from whimbrel.agent.probes.checks import check, package_checks
from whimbrel.agent.probes.formats import runtime_of
from whimbrel.agent.probes.memory import bounds_of, resident_bytes
from whimbrel.cage import descendants, walls
from whimbrel.device.ports import ProbeRequest, ProbeResult
from whimbrel.errors import UntrustedInput
from whimbrel.model import documents

_STDIN, _STDOUT = 0, 1


def main(wall_s: float) -> None:
    """Serve until the parent ends. `wall_s`: what one probe may take."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    descendants.adopt()
    package_checks()
    waiting = bytearray()
    while True:
        while b"\n" not in waiting:
            chunk = os.read(_STDIN, limits.COPY_CHUNK_BYTES)
            waiting += chunk
            if not chunk or len(waiting) > limits.PROBE_LINE_BYTES + 1:
                return
        line, _, rest = bytes(waiting).partition(b"\n")
        waiting = bytearray(rest)
        result = _probe(line, wall_s)
        if result is None:
            return
        os.write(_STDOUT, documents.encode(result) + b"\n")


def _probe(line: bytes, wall_s: float) -> ProbeResult | None:
    try:
        request = documents.parse(ProbeRequest, line, what="the request")
    except UntrustedInput as error:
        return ProbeResult(passed=False, reason=str(error))
    if request.format not in package_checks():
        with suppress(Exception):  # the child meets the same error, and reports it
            runtime_of(request.format)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        os.close(reading)
        _in_child(request, writing)
    with suppress(OSError):  # parent and child both do it, since either may run first
        os.setpgid(child, child)
    os.close(writing)
    try:
        return _await(child, reading, wall_s)
    finally:
        os.close(reading)


def _in_child(request: ProbeRequest, writing: int) -> None:
    offline = False
    try:
        offline = walls.enter(bounds_of(request, answer=writing)).offline
        before = resident_bytes(peak=False)
        result = _with_memory(check(request, lambda kept: _keep(kept, writing)), request, before)
    except MemoryError:
        result = ProbeResult(passed=False, reason="it wants more memory than a probe may have", over_budget=True)
    except BaseException as error:  # noqa: BLE001 (whatever a loader raises is a failed probe)
        words = str(error) or "the runtime says no more"
        result = ProbeResult(passed=False, reason=f"{type(error).__name__}: {words}"[:1000])
    result = msgspec.structs.replace(result, offline=offline)
    try:
        os.write(writing, documents.encode(result))
    finally:
        os._exit(0)


def _keep(result: ProbeResult, writing: int) -> None:
    """Write the result that holds if this process ends before it writes another: a line before the last."""
    os.write(writing, documents.encode(result) + b"\n")


def _with_memory(result: ProbeResult, request: ProbeRequest, before: int | None) -> ProbeResult:
    after = resident_bytes(peak=True)
    if before is None or after is None:
        return result
    memory_mib = max(0, after - before) / limits.MIB
    budget = request.probe.memory_mib_max if request.probe is not None else None
    if result.passed and budget is not None and memory_mib > budget:
        reason = f"it holds {memory_mib:.0f} MiB of memory; at most {budget} MiB"
        return ProbeResult(passed=False, reason=reason, memory_mib=memory_mib, over_budget=True)
    return msgspec.structs.replace(result, memory_mib=memory_mib)


def _await(child: int, reading: int, wall_s: float) -> ProbeResult | None:
    received = bytearray()
    until = time.monotonic() + wall_s
    while True:
        ready, _, _ = select.select([reading, _STDIN], [], [], max(0.0, until - time.monotonic()))
        if reading in ready:
            chunk = os.read(reading, limits.PROBE_ANSWER_BYTES)
            received += chunk
            if not chunk:
                break
            if len(received) > limits.PROBE_ANSWER_BYTES:
                descendants.end(child)
                return ProbeResult(
                    passed=False, reason=f"the probe's answer has more than {limits.PROBE_ANSWER_BYTES} bytes"
                )
        elif _STDIN in ready:  # there is one request at a time, so this is the end of the parent
            descendants.end(child)
            return None
        elif not ready:
            descendants.end(child)
            return _kept(received) or ProbeResult(passed=False, reason=f"it did not answer within {wall_s:g} s")
    status = descendants.end(child)
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return _kept(received) or ProbeResult(
            passed=False, reason=f"the runtime was ended by {name} while it tried this model"
        )
    try:
        return documents.parse(ProbeResult, bytes(received.rpartition(b"\n")[2]), what="the probe's answer")
    except UntrustedInput as error:
        return ProbeResult(passed=False, reason=str(error))


def _kept(received: bytearray) -> ProbeResult | None:
    line, newline, _ = bytes(received).partition(b"\n")
    try:
        return documents.parse(ProbeResult, line, what="the probe's answer") if newline else None
    except UntrustedInput:
        return None


if __name__ == "__main__":
    try:
        main(float(sys.argv[1]) if len(sys.argv) > 1 else limits.PROBE_WALL_S)
    except BrokenPipeError:
        sys.exit(0)
