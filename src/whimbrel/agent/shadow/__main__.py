"""The shadow's worker: both versions in one cage, call after call. Ends when its input ends.

1. In: one line with the order; then calls. Out: lines. `"active"` or `"candidate"`, before that version is touched, so
   that whoever finds this process dead knows of which it died; then the answer.
2. It is the first that the kernel kills when memory is short, runs behind everything else, and ends itself where a
   version does not answer in time.
3. Both run alike, on the same input, each first in turn: times are comparable.
"""

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np

from whimbrel import limits
from whimbrel.agent.probes.formats import runtime_of
from whimbrel.agent.probes.golden import Model
from whimbrel.agent.probes.memory import size_of
from whimbrel.agent.shadow.agreement import Tolerance, agreement, not_a_number
from whimbrel.agent.shadow.frames import Call, body_bytes, unpack
from whimbrel.agent.shadow.order import Order, WorkerAnswer
from whimbrel.cage import walls

_NICE = 10


class Bench:
    """Two versions, side by side."""

    def __init__(self, order: Order, out: BinaryIO) -> None:
        self._order = order
        self._out = out
        self._turn = 0
        self._models: dict[str, Model] = {}
        self._tolerance = Tolerance(order.compare, order.absolute, order.relative)

    def load(self) -> str:
        """Load both; why that is not possible, or ""."""
        for who, path, kind in (
            ("active", self._order.active_path, self._order.active_format),
            ("candidate", self._order.candidate_path, self._order.candidate_format),
        ):
            runtime = runtime_of(kind)
            if runtime is None:
                return f"no runtime for {kind} is installed to run the {who} version"
            self.about(who, limits.SHADOW_START_S)
            try:
                self._models[who] = runtime(Path(path))
            except Exception as error:
                if who == "active":
                    return f"the active version cannot be loaded in the shadow: {error}"[:500]
                raise
        return ""

    def about(self, who: str, wall_s: float) -> None:
        """Say who runs next, and set a limit to its time."""
        signal.setitimer(signal.ITIMER_REAL, wall_s)
        self.say(who)

    def say(self, value: object) -> None:
        """One line."""
        self._out.write(msgspec.json.encode(value) + b"\n")
        self._out.flush()

    def try_call(self, call: Call) -> WorkerAnswer:
        """Run one call on both. What the active version fails on as well is nobody's failure."""
        order = ("active", "candidate") if self._turn % 2 == 0 else ("candidate", "active")
        self._turn += 1
        answers: dict[str, tuple[dict[str, Any], float]] = {}
        failed: dict[str, str] = {}
        for who in order:
            self.about(who, limits.SHADOW_WALL_S)
            begin = time.perf_counter()
            try:
                outputs = self._models[who].run(call.inputs)
            except Exception as error:  # noqa: BLE001 (whatever a runtime raises)
                failed[who] = f"{type(error).__name__}: {error}"[:500]
            else:
                answers[who] = outputs, (time.perf_counter() - begin) * 1000
        signal.setitimer(signal.ITIMER_REAL, 0)
        if "active" in failed:
            return WorkerAnswer(skipped=failed["active"])
        if "candidate" in failed:
            return WorkerAnswer(failed=failed["candidate"])
        (active, active_ms), (candidate, candidate_ms) = answers["active"], answers["candidate"]
        broken = not_a_number(active, candidate)
        if broken:
            return WorkerAnswer(failed=f"output {broken!r} has values that are not finite")
        expected = active if call.output is None else call.output
        return WorkerAnswer(
            agreement=agreement(expected, candidate, self._tolerance), active_ms=active_ms, candidate_ms=candidate_ms
        )


def main(calls: BinaryIO, out: BinaryIO) -> None:
    """Serve until there are no more calls."""
    line = calls.readline(limits.SHADOW_LINE_BYTES)
    order = msgspec.json.decode(line, type=Order)
    for kind in {order.active_format, order.candidate_format}:
        runtime_of(kind)  # imported before the walls go up
    with suppress(OSError):
        os.nice(_NICE)
    with suppress(OSError):  # proc(5): from -1000 to 1000, and anybody may raise their own
        Path("/proc/self/oom_score_adj").write_text("1000")
    folders = [Path(order.active_folder), Path(order.candidate_folder)]
    walls.enter(
        walls.Bounds(
            memory_bytes=limits.PROBE_MEMORY_BYTES + 3 * sum(map(size_of, folders)),
            cpu_s=None,
            readable=folders,
            kept=(calls.fileno(), out.fileno()),
        )
    )
    bench = Bench(order, out)
    unable = bench.load()
    signal.setitimer(signal.ITIMER_REAL, 0)
    bench.say(WorkerAnswer(skipped=unable) if unable else WorkerAnswer())
    if unable:
        return
    while line := calls.readline(limits.SHADOW_LINE_BYTES):
        body = calls.read(body_bytes(line))
        try:
            call = unpack(line, body)
        except (ValueError, TypeError, msgspec.DecodeError) as error:
            bench.say(WorkerAnswer(skipped=f"the call cannot be read: {error}"[:500]))
            continue
        bench.say(bench.try_call(call))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    np.seterr(all="ignore")
    # Whatever a runtime prints must not be taken for an answer.
    calls, out = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    try:
        main(calls, out)
    except BrokenPipeError:
        sys.exit(0)
