"""`kill -9` of the agent, the app and the probe at random moments, 200 times in one run, with real processes."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.repository import Repository, Server, onnx_model, probe_of, signature_of, variant_of
from whimbrel.model.documents import digest_of

KILLS = 200
SERIALS = 60
QUICKEST_S, SLOWEST_S = 0.2, 0.8  # between two kills, at most: with the slowest all of them take 80 s and some
SEED = int(os.environ.get("WHIMBREL_KILL_SEED", "20260305"))
PROCESS_STARTER = Path(__file__).parents[1] / "support" / "process_starter.py"


class Fleet:
    """A device's processes, and what is known of them."""

    def __init__(self, folder: Path, server: Server, digests: dict[int, str]) -> None:
        self.folder = folder / "device"
        self._more = folder
        self._server = server
        self._digests = digests
        root = folder / "root.json"
        root.write_bytes(server.repository.root_bytes)
        self._given = {
            "folder": str(self.folder),
            "server": server.url,
            "root": str(root),
            "enrol_token": server.enrol_token,
            "probe": str(folder / "probe"),
            "digests": digests,
        }
        self._starter = subprocess.Popen(
            [sys.executable, str(PROCESS_STARTER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._command = Path(f"/proc/{self._starter.pid}/cmdline").read_bytes
        self.running: dict[str, int] = {}
        self.killed_inside: list[int] = []
        self.killed: Counter[str] = Counter()
        self._logs = 0

    def start(self, role: str) -> None:
        """Fork one."""
        order: dict[str, Any] = {**self._given, "role": role}
        if role == "app":
            self._logs += 1
            order["log"] = str(self.log)
        assert self._starter.stdin is not None
        assert self._starter.stdout is not None
        self._starter.stdin.write(json.dumps(order) + "\n")
        self._starter.stdin.flush()
        self.running[role] = int(self._starter.stdout.readline())

    @property
    def log(self) -> Path:
        """What the app of now says."""
        return self._more / f"app-{self._logs}.log"

    def kill(self, role: str) -> bool:
        """Kill one and see it gone; whether there was one."""
        pid = self._probe() if role == "probe" else self.running[role]
        if pid is None or not self._ours(pid):
            return False
        os.kill(pid, signal.SIGKILL)
        while role != "probe" and self._ours(pid):
            time.sleep(0.001)
        self.killed[role] += 1
        if role == "app":
            said = self.said()
            if said and said[-1].startswith("in "):
                self.killed_inside.append(int(said[-1].split()[1]))
        return True

    def said(self) -> list[str]:
        """The app's whole lines."""
        return self.log.read_text().split("\n")[:-1] if self.log.exists() else []

    def _probe(self) -> int | None:
        try:
            return int((self._more / "probe").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def _ours(self, pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes() == self._command()
        except (FileNotFoundError, ProcessLookupError):
            return False

    def status(self) -> dict[str, Any]:
        """What the agent wrote last."""
        try:
            found: dict[str, Any] = json.loads((self.folder / "status.json").read_text())
        except FileNotFoundError:
            return {}
        return found

    def close(self) -> None:
        """Everything ends."""
        for role in [*self.running, "probe"]:
            self.kill(role)
        assert self._starter.stdin is not None
        assert self._starter.stdout is not None
        self._starter.stdin.close()
        self._starter.wait(timeout=10)
        self._starter.stdout.close()


@pytest.fixture
def server() -> Iterator[Server]:
    repository = Repository()
    for serial in range(1, SERIALS + 1):
        content = onnx_model(factor=float(serial))
        variant = variant_of(content, probe=probe_of(factor=float(serial)), signature=signature_of())
        repository.release("detector", serial, content, variants=(variant,))
    repository.policy("detector", baseline=1)
    with Server(repository) as running:
        yield running


@pytest.fixture
def fleet(tmp_path: Path, server: Server) -> Iterator[Fleet]:
    digests = {serial: digest_of(onnx_model(factor=float(serial))) for serial in range(1, SERIALS + 1)}
    made = Fleet(tmp_path, server, digests)
    yield made
    made.close()


def until(holds: Any, *, what: str, wait_s: float = 40.0) -> None:
    """Wait for it."""
    end = time.monotonic() + wait_s
    while not holds():
        assert time.monotonic() < end, what() if callable(what) else what
        time.sleep(0.02)


@pytest.mark.long
def test_two_hundred_kills_leave_a_verified_model_right_counts_and_a_device_that_goes_on(
    fleet: Fleet, server: Server
) -> None:
    print(f"WHIMBREL_KILL_SEED={SEED}")  # the moments still differ from run to run: real processes
    chance = random.Random(SEED)
    begun = time.monotonic()
    fleet.start("agent")
    until(lambda: fleet.status().get("models", {}).get("detector", {}).get("serial"), what=lambda: str(fleet.status()))
    # A machine that is slower today is killed less often, so that the device gets as far between two kills as ever.
    pace_s = min(SLOWEST_S, max(QUICKEST_S, (time.monotonic() - begun) / 2))
    fleet.start("app")
    serial = 1
    while fleet.killed.total() < KILLS:
        time.sleep(chance.uniform(0.0, pace_s))
        victim = chance.choices(("agent", "app", "probe"), (40, 45, 15))[0]
        if not fleet.kill(victim):
            continue
        said = fleet.said()
        if victim == "app":
            assert not [line for line in said if line.startswith(("bad", "none"))]
        if victim != "probe":
            fleet.start(victim)
        found = fleet.status()["models"]["detector"]
        is_over = (found["state"], found["serial"]) == ("committed", serial) or str(serial) in found["refused"]
        if (is_over or fleet.killed.total() % 15 == 0) and serial < SERIALS - 1:
            serial += 1
            server.repository.policy("detector", baseline=serial)
    server.repository.policy("detector", baseline=SERIALS)

    def is_done() -> bool:
        found = fleet.status().get("models", {}).get("detector", {})
        return (found.get("state"), found.get("serial")) == ("committed", SERIALS)

    until(is_done, what=lambda: str(fleet.status()))
    until(lambda: fleet.status()["windows_waiting"] == 0, what="windows wait")
    time.sleep(0.3)
    until(lambda: fleet.status()["windows_waiting"] == 0, what="windows wait")
    assert not [line for line in fleet.said() if line.startswith(("bad", "none"))]
    counted = {window["serial"] for window in server.windows if window.get("crashed")}
    opened = {int(line.split()[1]) for line in _everything_said(fleet) if line.startswith("in ")}
    assert set(fleet.killed_inside) <= counted <= opened
    assert len(set(fleet.killed_inside)) > 1
    numbers = Counter((batch["epoch"], window["first"]) for batch in _different(server) for window in batch["windows"])
    assert max(numbers.values()) == 1
    assert len(opened) > 10, "it hardly moved"
    assert fleet.killed["agent"] > 50
    assert fleet.killed["app"] > 50
    assert fleet.killed["probe"] > 0


def _everything_said(fleet: Fleet) -> list[str]:
    return [line for log in fleet.log.parent.glob("app-*.log") for line in log.read_text().splitlines()]


def _different(server: Server) -> list[dict[str, Any]]:
    """The batches without those that were sent again as they were."""
    seen: dict[str, dict[str, Any]] = {}
    for batch in server.batches:
        for window in batch["windows"]:
            one = {"epoch": batch["epoch"], "windows": [window]}
            seen[json.dumps(one, sort_keys=True)] = one
    return list(seen.values())
