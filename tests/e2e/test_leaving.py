"""A device leaves its version by itself: real processes that die, no daemon and no network, and then a daemon again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.repository import Repository, Server, onnx_model, probe_of, signature_of, variant_of
from whimbrel import Agent, AgentOptions, limits
from whimbrel.model.local_limits import LocalLimits

pytestmark = pytest.mark.long

APP = Path(__file__).parents[1] / "support" / "crashing_app.py"


@pytest.fixture
def server() -> Iterator[Server]:
    repository = Repository()
    for serial in (1, 2):
        content = onnx_model(factor=float(serial))
        variant = variant_of(content, probe=probe_of(factor=float(serial)), signature=signature_of())
        repository.release("detector", serial, content, variants=(variant,))
    repository.policy("detector", baseline=1)
    with Server(repository) as running:
        yield running


class Board:
    """A device whose apps and whose daemon are processes of their own."""

    def __init__(self, home: Path, server: Server) -> None:
        self.folder = home / "device"
        self._server = server
        root, token = server.repository.root_bytes, server.enrol_token
        self._options = AgentOptions(server=server.url, root=root, models=["detector"], enrol_token=token)
        self.settle(1)
        server.repository.policy("detector", baseline=2)
        self.settle(2)

    def cycle(self) -> dict[str, Any]:
        """One pass of an agent, and the model's status."""
        with Agent.open(self.folder, self._options) as agent:
            return agent.cycle(force=True).models["detector"]

    def app(self, what: str, times: int = 1) -> list[int]:
        """The serials that an app's process opened."""
        done = subprocess.run(
            [sys.executable, str(APP), str(self.folder), what, str(times)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == (-signal.SIGKILL if what == "die" else 0), done.stderr
        return [int(line) for line in done.stdout.split()]

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "status.json").read_text())["models"]["detector"]
        return found

    def settle(self, serial: int) -> None:
        for _ in range(5):
            found = self.cycle()
            if (found["state"], found["serial"]) == ("committed", serial):
                return
            with Agent.open(self.folder) as agent:
                for _ in range(limits.TRIAL_HEALTHY_SESSIONS):
                    with agent.session("detector") as model:
                        model.record(latency_ms=3.0)
        raise AssertionError(f"it does not settle on {serial}: {found}")

    def with_daemon(self, until: Callable[[], bool]) -> None:
        environment = {**os.environ, "WHIMBREL_ENROL_TOKEN": self._server.enrol_token}
        daemon = subprocess.Popen(
            [sys.executable, "-m", "whimbrel.agent", str(self.folder)], stderr=subprocess.DEVNULL, env=environment
        )
        try:
            end = time.monotonic() + 30
            while not until():
                assert time.monotonic() < end, self.status()
                time.sleep(0.05)
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(timeout=30)


def test_a_crash_loop_after_the_commit_ends_with_the_daemon_dead_and_is_told_when_it_returns(
    tmp_path: Path, server: Server
) -> None:
    board = Board(tmp_path, server)
    server.down = True
    assert [board.app("die") for _ in range(limits.CRASH_LOOP)] == [[2]] * limits.CRASH_LOOP
    assert board.app("use") == [1]
    assert "went_back" not in server.steps()
    server.down = False
    board.with_daemon(until=lambda: "went_back" in server.steps() and any(w.get("crashed") for w in server.windows))
    told = next(each for each in server.announced if each["step"] == "went_back")
    assert told["serial"] == 2
    assert told["reason"] == "3 sessions of serial 2 ended their process one after the other"
    assert (board.status()["serial"], list(board.status()["refused"])) == (1, ["2"])
    board.cycle()
    assert board.app("use") == [1]


def test_an_app_goes_back_in_its_own_process_and_a_version_that_does_not_load_is_left_at_once(
    tmp_path: Path, server: Server
) -> None:
    board = Board(tmp_path, server)
    assert board.app("unloadable") == [2]
    assert board.app("use") == [1]
    board.with_daemon(until=lambda: "went_back" in server.steps())
    assert "it could not be loaded: RuntimeError: this opset is not known" in board.status()["refused"]["2"]
    server.repository.policy("detector", baseline=2, overrides=(2,))
    board.settle(2)
    assert board.app("back") == [1]
    assert board.app("use") == [1]
    asked = "the app asked for it: it answers nonsense"
    board.with_daemon(until=lambda: asked in [each.get("reason") for each in server.announced])
    assert board.status()["refused"]["2"] == asked


def test_a_signed_limit_acts_offline(tmp_path: Path, server: Server) -> None:
    board = Board(tmp_path, server)
    server.repository.policy("detector", baseline=2, local_limits=LocalLimits(error_rate_max=0.1))
    board.cycle()
    server.down = True
    assert board.app("fail", 20) == [2] * 20
    board.cycle()
    assert board.app("use") == [1]
    assert "errors in the last" in board.status()["refused"]["2"]
    server.down = False
    board.with_daemon(until=lambda: "went_back" in server.steps())
