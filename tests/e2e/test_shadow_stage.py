"""A shadow stage from the outside: a real server, a plan, and devices that are processes with real ONNX models.

Four devices run version 1. Version 2 is tried in the shadow of two of them: a good one goes on to serve everybody; one
that disagrees on 30% of the inputs, one that ends its process and one that hangs are stopped, have answered nobody, and
no session of an app came to harm.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support import shadow_models
from support.server import Running, done, serving
from support.values import devices_in
from whimbrel.agent.status import read_status

pytestmark = pytest.mark.usefixtures("buckets_by_name")

TESTS = Path(__file__).parents[1]
PATIENCE_S = 150.0
DEVICES = (*devices_in(0, 250_000, 2), *devices_in(550_000, 850_000, 2))

PLAN = """
rollout:
  model_version: wake@2.0.0
  stages:
    - {name: shadow, target_percent: 50, duration_hours: 10,
       shadow: {sample_percent: 100, agreement_min: 0.95, min_inputs: 40}}
    - {name: canary, target_percent: 30, duration_hours: 2}
    - {name: all, target_percent: 100, duration_hours: 2}
  rollback: {health_check_interval_sec: 1}
  min_devices: 2
"""


class Town:
    """A server, and the devices that are processes."""

    def __init__(self, server: Running, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.stop = folder / "stop"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.rollout = ""

    def publish(self, number: int, content: bytes) -> None:
        path = self.folder / f"wake-{number}.onnx"
        path.write_bytes(content)
        done("publish", "--model", "wake", path, "-R", self.server.folder, "--semantic-version", f"{number}.0.0")

    def begin(self, *, wrong: float) -> None:
        token = (self.server.folder / "enrol.token").read_text().strip()
        for device in DEVICES:
            folder = self.folder / device
            self.processes.append(
                subprocess.Popen(
                    [
                        sys.executable,
                        str(TESTS / "support" / "shadow_app.py"),
                        str(folder),
                        self.server.devices,
                        str(self.server.folder / "root.json"),
                        device,
                        token,
                        str(self.stop),
                        str(wrong),
                    ],
                    env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])},
                )
            )
        self.until(lambda: all(self.state(each) == ("committed", 1) for each in DEVICES))

    def roll_out(self) -> None:
        plan = self.folder / "plan.yaml"
        plan.write_text(PLAN)
        begun = done("rollout", "start", plan, "-R", self.server.folder, "--hour-s", 1)
        self.rollout = begun["id"]

    def seen(self) -> dict[str, Any]:
        answer: dict[str, Any] = done("rollout", "status", self.rollout, "-R", self.server.folder)
        return answer

    def state(self, device: str) -> tuple[str, int | None]:
        try:
            model = read_status(self.folder / device)["models"]["wake"]
        except Exception:
            return "", None
        return model["state"], model["serial"]

    def served(self) -> set[int]:
        """Serials that any app was given."""
        return {int(line.split()[0]) for device in DEVICES for line in self.log(device)}

    def log(self, device: str) -> list[str]:
        path = self.folder / device / "sessions.txt"
        return path.read_text().splitlines() if path.exists() else []

    def until(self, holds: Callable[[], bool], *, patience_s: float = PATIENCE_S) -> None:
        end = time.monotonic() + patience_s
        while not holds():
            assert all(each.poll() is None for each in self.processes), "a device's process ended"
            assert time.monotonic() < end, f"in vain: {self.seen() if self.rollout else ''}"
            time.sleep(0.3)

    def end(self) -> None:
        self.stop.write_text("")
        for process in self.processes:
            assert process.wait(timeout=30) == 0


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    folder = tmp_path / "repo"
    done("init", folder)
    done("model", "add", "wake", "-R", folder, "--salt", 42, "--refresh-s", 0.5, "--report-s", 0.5)
    with serving(folder) as server:
        made = Town(server, tmp_path)
        made.publish(1, shadow_models.good())
        try:
            yield made
        finally:
            made.stop.write_text("")
            for process in made.processes:
                process.kill()
                process.wait()


@pytest.mark.long
def test_a_good_candidate_is_tried_by_some_then_serves_everybody(town: Town) -> None:
    town.publish(2, shadow_models.good(factor=3.0))
    town.begin(wrong=0.0)
    town.roll_out()
    town.until(lambda: town.seen()["counts"].get("0", {}).get("shadowed_t", 0) == 2)
    assert town.seen()["stage_name"] == "shadow"
    assert town.served() == {1}
    town.until(lambda: town.seen()["state"] == "completed")
    town.until(lambda: all(town.state(each) == ("committed", 2) for each in DEVICES))
    town.end()
    moves = [entry for entry in done("audit", "-R", town.server.folder) if entry.get("rollout") == town.rollout]
    said = [entry["because"] for entry in moves if entry["action"] == "advance"]
    assert any("gave the active version's answer on 100.00%" in each for each in said), said
    replayed = done("rollout", "replay", town.rollout, "-R", town.server.folder)
    assert replayed["same"]
    assert all(line.split()[1] == "10" for device in DEVICES for line in town.log(device))


@pytest.mark.long
@pytest.mark.parametrize(
    ("content", "wrong", "says"),
    [
        (shadow_models.disagreeing, 0.3, "gives the active version's answer on"),
        (shadow_models.aborting, 0.5, "ended its process"),
        (shadow_models.hanging, 0.5, "ended its process"),
    ],
)
def test_a_bad_candidate_is_stopped_in_the_shadow_and_has_answered_nobody(
    town: Town, content: Callable[[], bytes], wrong: float, says: str
) -> None:
    town.publish(2, content())
    town.begin(wrong=wrong)
    town.roll_out()
    town.until(lambda: town.seen()["state"] == "rolled_back")
    seen = town.seen()
    assert any(words in seen["because"] for words in (says, "failure", "refused it themselves")), seen["because"]
    assert seen["stage_name"] == "shadow"
    town.until(lambda: all(town.state(each)[1] == 1 and town.state(each)[0] != "shadowing" for each in DEVICES))
    town.end()
    assert town.served() == {1}
    logs = [town.log(device) for device in DEVICES]
    assert all(line.split()[1] == "10" for log in logs for line in log)
    assert done("rollout", "replay", town.rollout, "-R", town.server.folder)["same"]
