"""Real agents of a real server come back from a completed version within seconds; blue-green goes there and back.

The model refreshes every 300 s. Devices are back sooner since their policy asks for a look every half second while a
rollout lives, and for a day after it ended: nothing here forces a look but the first one.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from support.server import Running, done, repository, serving
from whimbrel import Agent, AgentOptions
from whimbrel.agent.probes import ProbeServer

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

BOARDS = ("pi3", "pi3", "pi4", "pi4")
PATIENCE_S, WITHIN_S = 60.0, 15.0  # seconds; the second is what is claimed, on a busy machine
STAGED = """\
rollout:
  model_version: "wake@2.0.0"
  stages: [{name: all, target_percent: 100}]
  holdback_percent: 0
"""
BLUE_GREEN = """\
rollout:
  model_version: "wake@2.0.0"
  strategy: blue_green
  stages: [{name: green, target_percent: 100, duration_hours: 24}]
"""


class Fleet(msgspec.Struct):
    """A server's repository and its agents."""

    repository: Path
    agents: list[Agent]

    def command(self, *words: object) -> Any:
        return done(*words, "-R", self.repository)

    def serials(self) -> list[int | None]:
        return [agent.status()["models"]["wake"]["serial"] for agent in self.agents]

    def turn(self, *, force: bool = False) -> None:
        """A cycle of each agent, and three sessions of its app, after which a trial is committed."""
        for agent in self.agents:
            agent.cycle(force=force)
            for _ in range(3):
                with agent.session("wake") as session:
                    session.record(latency_ms=1.0, ok=True)

    def until(self, holds: Callable[[], bool], *, what: str) -> float:
        """Turns until it holds. Returns the seconds that it took."""
        begun = time.monotonic()
        while not holds():
            assert time.monotonic() - begun < PATIENCE_S, f"in vain: {what}; devices run {self.serials()}"
            self.turn()
            time.sleep(0.1)
        return time.monotonic() - begun

    def start(self, plan: str) -> str:
        """Begin a rollout to everybody; devices hear of it, run the version and commit to it."""
        file = self.repository.parent / "plan.yaml"
        file.write_text(plan)
        identifier: str = self.command("rollout", "start", file)["id"]
        self.turn(force=True)
        self.until(lambda: set(self.serials()) == {2}, what="everybody runs 2.0.0")
        self.turn()
        return identifier


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = repository(tmp_path_factory.mktemp("template") / "repo")
    cadence = ("--rollout-refresh-s", "0.5", "--report-s", "0.5", "--report-label", "hardware")
    done("model", "set", "wake", *cadence, "-R", folder)
    return folder


@pytest.fixture
def fleet(template: Path, tmp_path: Path) -> Iterator[Fleet]:
    repo = Path(shutil.copytree(template, tmp_path / "repo"))
    with closing(ProbeServer()) as probes, serving(repo) as server, agents_of(server, tmp_path, probes) as agents:
        here = Fleet(repo, agents)
        for agent in agents:
            agent.cycle(force=True)
        here.until(lambda: set(here.serials()) == {1}, what="everybody runs 1.0.0")
        here.turn()
        yield here


@contextmanager
def agents_of(server: Running, folder: Path, probes: ProbeServer) -> Iterator[list[Agent]]:
    token = (server.folder / "enrol.token").read_text().strip()
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                Agent.open(
                    folder / f"device-{number}",
                    AgentOptions(
                        server=server.devices,
                        root=server.folder / "root.json",
                        models=["wake"],
                        device_id=f"device-{number}",
                        labels={"hardware": board},
                        enrol_token=token,
                        probes=probes,
                        durable_sessions=False,
                    ),
                )
            )
            for number, board in enumerate(BOARDS)
        ]


def test_a_completed_version_is_off_every_device_within_seconds_of_one_command(fleet: Fleet) -> None:
    rollout = fleet.start(STAGED)
    fleet.command("rollout", "finish", rollout)
    fleet.turn()
    went = fleet.command("model", "rollback", "wake", "--because", "it stutters", "--yes")
    assert (went["rollout"], went["refresh_s"], went["devices"]) == (rollout, 0.5, 4)
    took_s = fleet.until(lambda: set(fleet.serials()) == {1}, what="everybody is back on 1.0.0")
    assert took_s < WITHIN_S

    def is_over() -> bool:
        return bool(fleet.command("rollout", "status", rollout)["state"] == "rolled_back")

    fleet.until(is_over, what="the rollout says that everybody is off it")


def test_a_completed_version_is_off_the_devices_of_a_selector_and_no_others(fleet: Fleet) -> None:
    fleet.command("rollout", "finish", fleet.start(STAGED))
    went = fleet.command("model", "rollback", "wake", "--selector", "hardware=pi3", "--yes")
    assert (went["devices"], went["selector"]) == (2, "hardware=pi3")
    took_s = fleet.until(lambda: fleet.serials() == [1, 1, 2, 2], what="the boards pi3 are back")
    assert took_s < WITHIN_S
    for _ in range(10):
        fleet.turn()
    assert fleet.serials() == [1, 1, 2, 2]
    fleet.command("version", "unquarantine", "2.0.0", "-m", "wake", "--because", "a cable", "--yes")
    fleet.until(lambda: set(fleet.serials()) == {2}, what="the boards pi3 return to the baseline")


@pytest.mark.parametrize("complete", [False, True])
def test_blue_green_is_there_at_once_and_back_from_the_other_slot(fleet: Fleet, *, complete: bool) -> None:
    rollout = fleet.start(BLUE_GREEN)
    if complete:
        fleet.command("rollout", "finish", rollout)
    deleted = 0
    for artifact in (fleet.repository / "files" / "default" / "artifacts").rglob("*"):  # going back needs none of them
        if artifact.is_file():
            artifact.unlink()
            deleted += 1
    assert deleted >= 2
    fleet.command("rollout", "rollback", rollout, "--yes", "--because", "the old colour was better")
    took_s = fleet.until(lambda: set(fleet.serials()) == {1}, what="everybody is back on the old colour")
    assert took_s < WITHIN_S
