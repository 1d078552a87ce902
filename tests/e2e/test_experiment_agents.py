"""Experiments with the real server and real agents: an arm that is better is shipped, an arm that harms is stopped."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import urllib3

from support.experiments import TEXT
from support.server import Running, done, repository, serving
from whimbrel import Agent, AgentOptions
from whimbrel.agent.probes import ProbeServer
from whimbrel.demo.fleet import AgentFleet, open_fleet

DEVICES = 90
WINDOW_S = 4.0
FILE = TEXT.replace("minimum_sample_size: 60", f"minimum_sample_size: 80\n  check_interval_sec: {WINDOW_S}").replace(
    "id: e1", "id: e1\n  on_decision: baseline"
)


class App:
    """Plays sounds for a while: how long is the device's own, and what its version makes of it."""

    model = "wake"

    def __init__(self, *, gain: float = 0.0, errors: float = 0.0) -> None:
        self._gain, self._errors = gain, errors

    def use(self, agent: Agent, chance: random.Random) -> tuple[int, bool]:
        own = random.Random(agent.settings.device_id).gauss(10, 2)
        with agent.session("wake") as session:
            new = session.serial > 1
            for _ in range(10):
                ok = chance.random() >= (self._errors if new else 0.01)
                session.record(latency_ms=2.0, ok=ok, watch_time=own + chance.gauss(0, 1) + self._gain * new)
            return session.serial, True


def at(server: Running) -> tuple[object, ...]:
    return "--server", server.admin, "--token-file", server.folder / "admin.token"


@contextmanager
def fleet(server: Running, folder: Path, app: App) -> Iterator[AgentFleet]:
    probes, pool = ProbeServer(), urllib3.PoolManager(maxsize=32)

    def open_one(place: Path, name: str, labels: dict[str, str]) -> Agent:
        return Agent.open(
            place,
            AgentOptions(
                server=server.devices,
                root=server.folder / "root.json",
                models=("wake",),
                device_id=name,
                labels=labels,
                enrol_token=(server.folder / "enrol.token").read_text().strip(),
                probes=probes,
                pool=pool,
                durable_sessions=False,
            ),
        )

    playing = AgentFleet(open_fleet(folder, devices=DEVICES, open_one=open_one), app, use_every_s=3.0, seed=1)  # type: ignore[arg-type]
    try:
        playing.start(spread_s=4.0)
        yield playing
    finally:
        playing.stop()
        probes.close()
        pool.clear()


def until(holds: Callable[[], Any], *, what: str, within_s: float = 200.0) -> Any:
    deadline = time.monotonic() + within_s
    while not (found := holds()):
        assert time.monotonic() < deadline, f"{what}: not within {within_s} s"
        time.sleep(0.5)
    return found


def begun(server: Running, folder: Path, app: App, running: AgentFleet) -> None:
    """Everybody runs the first version and has a past; then the experiment begins."""
    until(lambda: running.observed.devices_by_serial() == {1: DEVICES}, what="everybody runs the first version")
    time.sleep(4 * WINDOW_S)
    (folder / "e.yaml").write_text(FILE)
    done("experiment", "start", folder / "e.yaml", *at(server))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    folder = repository(tmp_path / "repo")
    done("model", "set", "wake", "--refresh-s", 2, "--report-s", WINDOW_S, "-R", folder)
    with serving(folder) as running:
        yield running


@pytest.mark.long
def test_an_arm_that_is_better_is_shipped_and_becomes_everybodys(server: Running, tmp_path: Path) -> None:
    app = App(gain=2.0, errors=0.01)
    with fleet(server, tmp_path / "devices", app) as running:
        begun(server, tmp_path, app, running)

        def ended() -> Any:
            seen = done("experiment", "status", "e1", *at(server))
            return seen if seen["phase"] != "running" else None

        seen = until(ended, what="the experiment ends")
        assert (seen["phase"], seen["winner"]) == ("shipped", "large"), seen["because"]
        arm = seen["verdict"]["evidence"]["arms"]["large"]
        assert 1.0 < arm["deciding"]["estimate"] < 3.0
        assert arm["with_before"] >= 30
        assert arm["explained"] > 0.5
        until(lambda: running.observed.devices_by_serial() == {2: DEVICES}, what="everybody runs what was shipped")
    assert done("experiment", "replay", "e1", *at(server))["same"]
    report = tmp_path / "report.html"
    done("experiment", "report", "e1", "-o", report, *at(server))
    assert "Ship large" in report.read_text()


@pytest.mark.long
def test_an_arm_that_harms_is_stopped_and_its_devices_return(server: Running, tmp_path: Path) -> None:
    app = App(gain=5.0, errors=0.4)  # what it gains is no excuse
    with fleet(server, tmp_path / "devices", app) as running:
        begun(server, tmp_path, app, running)
        until(lambda: len(running.observed.devices_ever_on.get(2, ())) > 10, what="the arm is tried")

        def ended() -> Any:
            seen = done("experiment", "status", "e1", *at(server))
            return seen if seen["phase"] != "running" else None

        seen = until(ended, what="the experiment ends")
        assert seen["phase"] == "kept", seen["because"]
        assert "harm is proven: error" in seen["arms"][1]["stopped"]
        until(lambda: running.observed.devices_by_serial() == {1: DEVICES}, what="everybody is back", within_s=60)
        until(
            lambda: done("version", "list", "-m", "wake", *at(server))[1]["devices"] == 0,
            what="the server hears",
            within_s=60,
        )
