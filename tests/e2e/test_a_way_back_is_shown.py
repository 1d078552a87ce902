"""A real server says of a real agent that left a version which one it runs now, and not the one that it left."""

import shutil
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from support.server import done, plan_file, repository, serving
from whimbrel import Agent, AgentOptions
from whimbrel.agent.probes import ProbeServer

pytestmark = pytest.mark.long

PATIENCE_S = 60.0
REPORT_S = 3600  # no window but those that a swap closes comes meanwhile: what is shown was announced


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = repository(tmp_path_factory.mktemp("template") / "repo")
    done("model", "set", "wake", "--rollout-refresh-s", "0.5", "--report-s", REPORT_S, "-R", folder)
    return folder


def use(agent: Agent, *, times: int, ok: bool) -> None:
    for _ in range(times):
        try:
            with agent.session("wake") as session:
                session.record(latency_ms=1.0, ok=ok)
                if not ok:
                    raise ValueError("the model answers nonsense")
        except ValueError:
            pass


def asks(agent: Agent) -> None:
    use(agent, times=3, ok=True)
    agent.cycle()
    agent.go_back("wake", "it answers nonsense")


def fails(agent: Agent) -> None:
    use(agent, times=3, ok=False)


@pytest.mark.parametrize("leave", [fails, asks], ids=["on trial", "after its commit"])
def test_device_show_says_what_a_device_runs_after_it_went_back(
    leave: Callable[[Agent], None], template: Path, tmp_path: Path
) -> None:
    """`went_back` names the version that was left and was taken for what runs; so was the window that a swap closes."""
    repo = Path(shutil.copytree(template, tmp_path / "repo"))
    plan = plan_file(tmp_path, more="  holdback_percent: 0\n")
    plan.write_text(plan.read_text().replace("canary, target_percent: 5", "canary, target_percent: 100"))

    def shown() -> int | None:
        device: dict[str, Any] = done("device", "show", "dev-1", "-R", repo)
        serials: list[int | None] = [each["serial"] for each in device["models"]]
        return serials[0]

    with closing(ProbeServer()) as probes, serving(repo) as server:
        options = AgentOptions(
            server=server.devices,
            root=server.folder / "root.json",
            models=["wake"],
            device_id="dev-1",
            enrol_token=(repo / "enrol.token").read_text().strip(),
            probes=probes,
        )
        with Agent.open(tmp_path / "device", options) as agent:

            def until(holds: Callable[[], bool]) -> None:
                end = time.monotonic() + PATIENCE_S
                agent.cycle(force=True)
                while not holds():
                    assert time.monotonic() < end, (shown(), agent.status()["models"]["wake"])
                    time.sleep(0.1)
                    agent.cycle(force=True)

            until(lambda: agent.status()["models"]["wake"]["serial"] == 1)
            use(agent, times=3, ok=True)
            agent.cycle()
            done("rollout", "start", plan, "-R", repo)
            until(lambda: shown() == 2)
            leave(agent)
            until(lambda: agent.status()["models"]["wake"]["serial"] == 1)
            until(lambda: shown() == 1)
            time.sleep(1.0)  # messages that came last are taken, too
            assert shown() == 1
