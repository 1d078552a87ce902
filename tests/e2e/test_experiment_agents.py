"""Experiments with the real server and real agents: an arm that is better is shipped, an arm that harms is stopped.

So is one that harms a class of hardware, in that class alone.
"""

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

pytestmark = pytest.mark.usefixtures("buckets_by_name")  # the same arms in every run

DEVICES = 90
WINDOW_S = 4.0
FILE = TEXT.replace("minimum_sample_size: 60", f"minimum_sample_size: 80\n  check_interval_sec: {WINDOW_S}").replace(
    "id: e1", "id: e1\n  on_decision: baseline"
)


CLASSES = ("pi3", "pi4", "pi5", "jetson")


class App:
    """Plays sounds for a while: how long is the device's own, and what its version makes of it.

    `only`: the hardware class on which the new version has errors; None: on all.
    """

    model = "wake"

    def __init__(self, *, gain: float = 0.0, errors: float = 0.0, only: str | None = None) -> None:
        self.gain, self._errors, self._only = gain, errors, only

    def use(self, agent: Agent, chance: random.Random) -> tuple[int, bool]:
        own = random.Random(agent.settings.device_id).gauss(10, 2)
        with agent.session("wake") as session:
            new = session.serial > 1
            bad = new and self._only in {None, agent.settings.labels["hardware"]}
            for _ in range(10):
                ok = chance.random() >= (self._errors if bad else 0.01)
                session.record(latency_ms=2.0, ok=ok, watch_time=own + chance.gauss(0, 1) + self.gain * new)
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
                labels=labels | {"hardware": CLASSES[int(name.rpartition("-")[2]) % len(CLASSES)]},
                enrol_token=(server.folder / "enrol.token").read_text().strip(),
                probes=probes,
                pool=pool,
                durable_sessions=False,
            ),
        )

    playing = AgentFleet(open_fleet(folder, devices=DEVICES, open_one=open_one), app, use_every_s=3.0, seed=1)
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
        assert (seen["phase"], seen["winner"]) == ("shipped", "large"), (seen["because"], seen["arms"])
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


@pytest.mark.long
def test_an_arm_that_harms_one_class_of_hardware_is_stopped_there_and_goes_on_elsewhere(
    server: Running, tmp_path: Path
) -> None:
    app = App(errors=0.6, only="pi4")
    with fleet(server, tmp_path / "devices", app) as running:
        begun(server, tmp_path, app, running)

        def stopped() -> Any:
            seen = done("experiment", "status", "e1", *at(server))
            assert not seen["arms"][1]["stopped"], seen["because"]
            assert seen["phase"] == "running", seen["because"]
            return seen if seen["arms"][1]["without"] else None

        seen = until(stopped, what="the arm is stopped in a slice")
        assert (seen["phase"], seen["arms"][1]["without"]) == ("running", ["pi4"])
        assert "large is stopped in pi4 alone: harm is proven in pi4 (error rate" in seen["because"]

        app.gain = 2.0  # what it is worth to the others is found without the slice

        def ended() -> Any:
            seen = done("experiment", "status", "e1", *at(server))
            return seen if seen["phase"] != "running" else None

        assert until(ended, what="the experiment ends")["winner"] == "large"
        classes = {
            name: index % len(CLASSES) for name in running.observed.running for index in [int(name.rpartition("-")[2])]
        }
        expected = {name: 1 if CLASSES[index] == "pi4" else 2 for name, index in classes.items()}
        until(lambda: running.observed.running == expected, what="all but the slice run what was shipped")
    assert done("experiment", "replay", "e1", *at(server))["same"]
    actions = [each["action"] for each in done("audit", "--rollout", "e1", *at(server))]
    assert "experiment stop slice" in actions
