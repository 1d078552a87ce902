"""Two models in one namespace, and a first version with a plan: real server, real agents, real commands."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from support.agents import AllGood
from support.server import Running, done, model_file, plan_file, serving, whimbrel
from whimbrel import Agent
from whimbrel.agent.options import AgentOptions
from whimbrel.errors import Unavailable
from whimbrel.policy.bucket import bucket, device_key

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("buckets_by_name")]

SALT = 42


class Devices:
    """Agents that are driven by hand: a round is one cycle of each, and a session with each model that it has."""

    def __init__(self, folder: Path, server: Running) -> None:
        self._folder, self._server = folder, server
        self.agents: dict[str, Agent] = {}

    def open(self, name: str, *models: str, **labels: str) -> Agent:
        """A device that follows these models; one that was open before is opened anew."""
        if name in self.agents:
            self.agents.pop(name).close()
        self.agents[name] = Agent.open(
            self._folder / name,
            AgentOptions(
                server=self._server.devices,
                root=self._server.folder / "root.json",
                models=models,
                labels=labels,
                device_id=name,
                enrol_token=(self._server.folder / "enrol.token").read_text().strip(),
                probes=AllGood(),
            ),
        )
        return self.agents[name]

    def until(self, what: Callable[[], Any], *, timeout_s: float = 60) -> Any:
        """Rounds until `what` answers something true; its answer."""
        end = time.monotonic() + timeout_s
        while True:
            for agent in self.agents.values():
                for model in agent.cycle(force=True).models:
                    with suppress(Unavailable), agent.session(model) as session:
                        session.record(latency_ms=1.0)
            if answer := what():
                return answer
            assert time.monotonic() < end, what()
            time.sleep(0.1)

    def serials(self, model: str) -> dict[str, int | None]:
        return {
            name: agent.status()["models"][model]["serial"]
            for name, agent in self.agents.items()
            if model in agent.status()["models"]
        }

    def ask(self, path: str) -> Any:
        """What the admin API says."""
        with self._server.people() as http:
            return http.get(f"/{path}").raise_for_status().json()

    def fleet(self, model: str) -> int:
        """How many devices follow a model, by its figures."""
        return int(sum(self.ask(f"models/{model}")["devices"].values()))

    def done(self, *arguments: object) -> Any:
        """A command against the server."""
        token = self._server.folder / "admin.token"
        return done(*arguments, "--server", self._server.admin, "--token-file", token)

    def check(self, model: str) -> None:
        """A client that decides nothing by itself asks what to run."""
        with self._server.enrolled("thin") as thin:
            thin.post("/device/v1/check", json={"models": {model: None}}).raise_for_status()

    def close(self) -> None:
        for agent in self.agents.values():
            agent.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    done("init", tmp_path / "repository")
    return tmp_path / "repository"


def add(folder: Path, *models: str) -> None:
    for model in models:
        done("model", "add", model, "-R", folder, "--salt", SALT)
        done(
            "model", "set", model, "-R", folder, "--refresh-s", 0.2, "--report-s", 0.2, "--report-label", "region",
            "--report-label", "platform",
        )  # fmt: skip


def publish(folder: Path, model: str, number: int, *more: object) -> Any:
    path = model_file(folder.parent, number)
    return done("publish", "--model", model, path, "-R", folder, "--semantic-version", f"{number}.0.0", *more)


@pytest.fixture
def devices(tmp_path: Path, folder: Path) -> Iterator[Callable[[], Devices]]:
    """Begins to serve when it is called: what comes before is done in the folder itself."""
    opened: list[Any] = []

    def begin() -> Devices:
        server = serving(folder)
        made = Devices(tmp_path / "devices", server.__enter__())
        opened.extend((made.close, lambda: server.__exit__(None, None, None)))
        return made

    yield begin
    for close in opened:
        close()


def test_a_model_counts_the_devices_that_follow_it(folder: Path, devices: Callable[[], Devices]) -> None:
    """All of the namespace were counted: the canary fell on boards that have another model."""
    add(folder, "wake", "sleep")
    for model in ("wake", "sleep"):
        publish(folder, model, 1)
    publish(folder, "wake", 2)
    here = devices()
    late = sorted((f"dev-{n}" for n in range(60)), key=lambda each: bucket(device_key(each), salt=SALT))
    mine, others = late[-2:], late[:3]  # the first 5% of the buckets have others only; mine are in the holdback
    for name in others:
        here.open(name, "sleep")
    for name in mine:
        here.open(name, "wake")
    here.until(lambda: (here.fleet("wake"), here.fleet("sleep")) == (2, 3))
    plan = plan_file(folder.parent)
    seen = here.done("rollout", "plan", "check", plan)
    assert (seen["fleet"], [(s["devices"], s["control"]) for s in seen["stages"]]) == (2, [(1, 1), (1, 1)])
    begun = here.done("rollout", "start", plan)
    here.until(lambda: sorted(here.serials("wake").values()) == [1, 2])
    counts = here.until(lambda: here.ask(f"rollouts/{begun['id']}")["counts"].get("0"))
    assert counts["assigned_t"] == 1
    # A device that is opened with other models is of another fleet, and a client that only asks is of one.
    here.open(mine[1], "sleep")
    here.until(lambda: (here.fleet("wake"), here.fleet("sleep")) == (1, 4))
    here.check("wake")
    assert (here.fleet("wake"), here.fleet("sleep")) == (2, 4)


def test_a_first_version_reaches_whom_its_card_says_and_nobody_else(
    folder: Path, devices: Callable[[], Devices]
) -> None:
    """`rollout` in a card was ignored for a first version, and every device got it."""
    add(folder, "wake")
    card = folder.parent / "card.yaml"
    card.write_text("rollout: {percentage: 100, regions: [NZ]}\n")
    first = publish(folder, "wake", 1, "--card", card)
    assert (first["baseline"], first["rollout"].startswith("wake-1-")) == (False, True)
    here = devices()
    kiwi, other = here.open("kiwi", "wake", region="NZ"), here.open("other", "wake", region="AU")
    here.until(lambda: here.serials("wake") == {"kiwi": 1, "other": None})
    here.until(lambda: kiwi.status()["models"]["wake"]["state"] == "committed")
    assert "no version for this device" in other.status()["models"]["wake"]["because"]
    listed = here.done("version", "list", "-m", "wake")
    assert [(each["devices"], each["aliases"]) for each in listed] == [(1, [])]
    # Taken back, it leaves the device that has it, too; nothing is the champion.
    here.done("rollout", "rollback", first["rollout"], "--because", "a test")
    here.until(lambda: here.serials("wake") == {"kiwi": None, "other": None})
    with pytest.raises(Unavailable), kiwi.session("wake"):
        pass
    here.until(lambda: here.ask(f"rollouts/{first['rollout']}")["state"] == "rolled_back")
    # The next version is nobody's either, until it is rolled out; complete, it is everybody's and the champion.
    assert not publish(folder, "wake", 2)["baseline"]
    begun = here.done("rollout", "start", plan_file(folder.parent))
    assert begun["baseline"] is None
    here.until(lambda: 2 in here.serials("wake").values())
    assert list(here.serials("wake").values()).count(2) == 1
    here.done("rollout", "finish", begun["id"])
    here.until(lambda: here.serials("wake") == {"kiwi": 2, "other": 2})
    assert here.done("version", "list", "-m", "wake")[1]["aliases"] == ["champion"]


def test_a_first_version_that_is_held_waits_for_a_rollout(folder: Path, devices: Callable[[], Devices]) -> None:
    add(folder, "wake")
    publish(folder, "wake", 1, "--hold")
    here = devices()
    here.open("dev-1", "wake")
    here.until(lambda: here.fleet("wake") == 1)
    assert here.serials("wake") == {"dev-1": None}
    here.done("rollout", "start", plan_file(folder.parent, "wake@1.0.0"))
    here.until(lambda: here.serials("wake") == {"dev-1": 1})


def test_which_devices_can_run_a_version_is_said_before_and_after_it_is_published(
    folder: Path, devices: Callable[[], Devices]
) -> None:
    add(folder, "wake")
    publish(folder, "wake", 1)
    here = devices()
    for name, platform in (("a", "linux"), ("b", "linux"), ("c", "android")):
        here.open(name, "wake", platform=platform, **{"runtime.onnxruntime": "99.0"})
    here.until(lambda: here.ask("models/wake/versions/1/devices")["fleet"] == 3)
    wants = ("--variant", "platform=android", "--variant", "platform=ios")
    files = model_file(folder.parent, 2), model_file(folder.parent, 3)
    asked = done("publish", "--model", "wake", *files, *wants, "--dry-run", "-R", folder)
    assert len(here.ask("models/wake/versions")) == 1
    published = done("publish", "--model", "wake", *files, *wants, "--semantic-version", "2.0.0", "-R", folder)
    assert published["fit"] == asked == here.done("version", "devices", "2.0.0", "-m", "wake")
    assert (asked["fleet"], asked["none"]) == (3, 2)
    (reason,) = asked["reasons"]
    assert (reason["needs"], reason["has"]) == ("platform to be android", {"platform=linux": 2})
    # Which runtime the third has, the file asks for and the device does not tell, until it is asked.
    assert ([each["devices"] for each in asked["variants"]], asked["assumed"]) == ([1, 0], 1)
    said = whimbrel("rollout", "plan", "check", plan_file(folder.parent, "wake@2.0.0"), "-R", folder).out
    assert "2 of 3 devices can run no variant of it" in said
    assert "none for 2 devices: variant android" in said
    labels = ("region", "platform", "runtime.onnxruntime")
    assert f"whimbrel model set wake {' '.join(f'--report-label {each}' for each in labels)}" in " ".join(said.split())
    here.done("model", "set", "wake", *(word for each in labels for word in ("--report-label", each)))
    here.until(lambda: here.ask("models/wake/versions/2/devices")["assumed"] == 0)
    assert [each["devices"] for each in here.ask("models/wake/versions/2/devices")["variants"]] == [1, 0]
