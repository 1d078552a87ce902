"""Processes that are forked ready to run: an agent with its probe server, and apps. Started by tests/e2e/test_kill.py.

A line of JSON on the input starts one, its process id is the answer. Imports cost once here and not at each start.
"""

import hashlib
import json
import os
import signal
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy
import onnxruntime

from whimbrel import Agent, AgentOptions, limits
from whimbrel.agent.probes import ProbeServer
from whimbrel.agent.probes.__main__ import main as serve_probes
from whimbrel.errors import WhimbrelError

assert numpy
assert onnxruntime


class ForkedServer(ProbeServer):
    """The probe server, without the start of another Python."""

    def __init__(self, place: Path) -> None:
        super().__init__()
        self._place = place

    def _running(self) -> Any:
        if self._process is None or self._process.poll() is not None:
            self._stop()
            self._process = _Forked()
            self._place.write_text(str(self._process.pid))
        return self._process


class _Forked:
    """As much of a `Popen` as a `ProbeServer` asks for."""

    def __init__(self) -> None:
        asked, ask = os.pipe()
        told, tell = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.dup2(asked, 0)
                os.dup2(tell, 1)
                for handle in (asked, ask, told, tell):
                    os.close(handle)
                serve_probes(limits.PROBE_WALL_S)
            finally:
                os._exit(0)
        os.close(asked)
        os.close(tell)
        self.stdin, self.stdout = os.fdopen(ask, "wb", 0), os.fdopen(told, "rb", 0)
        self._status: int | None = None

    def poll(self) -> int | None:
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = status if pid else None
        return self._status

    def wait(self, timeout: float | None = None) -> int:
        if self._status is None:
            _, self._status = os.waitpid(self.pid, 0)
        return self._status

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def be_an_agent(order: dict[str, Any]) -> None:
    folder = Path(order["folder"])
    Agent.open(
        folder,
        AgentOptions(
            server=order["server"],
            root=Path(order["root"]),
            device_id="dev-1",
            enrol_token=order["enrol_token"],
            probes=ForkedServer(Path(order["probe"])),
            models=["detector"],
        ),
    ).run()


def be_an_app(order: dict[str, Any]) -> None:
    """Sessions for ever. Says "in <serial>" when it is in one, "out" before it leaves, "bad ..." for a wrong file."""
    agent = Agent.open(Path(order["folder"]))
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    while True:
        try:
            with agent.session("detector") as model:
                os.write(log, f"in {model.serial}\n".encode())
                found = hashlib.sha256(model.path.read_bytes()).hexdigest()
                if found != order["digests"][str(model.serial)]:
                    os.write(log, f"bad {model.serial} {found}\n".encode())
                time.sleep(0.02)
                model.record(latency_ms=1.0)
                os.write(log, b"out\n")
        except WhimbrelError as error:
            os.write(log, f"none {error}\n".encode())
        time.sleep(0.03)


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setpgid(0, 0)
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, 0)
            os.dup2(nothing, 1)
            try:
                {"agent": be_an_agent, "app": be_an_app}[order["role"]](order)
            except BaseException:
                traceback.print_exc()  # nobody starts it again: the test must be able to say why it ended
            finally:
                os._exit(1)
        print(pid, flush=True)


if __name__ == "__main__":
    main()
