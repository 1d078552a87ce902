"""A set in a canary, with a real server and real agents: half of the devices take both models, and none is mixed."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.agents import AllGood
from support.server import Running, done, model_file, serving
from whimbrel import Agent, AgentOptions, limits
from whimbrel.policy.bucket import BUCKETS, bucket, device_key

pytestmark = pytest.mark.usefixtures("buckets_by_name")

PAIR = "encoder", "decoder"
SALT = 42
DEVICES = [f"dev-{n}" for n in range(1, 9)]
TREATED = [each for each in DEVICES if bucket(device_key(each), salt=SALT) < BUCKETS // 2]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    """An encoder and a decoder at 1, whose 2 require each other. Each model has a salt of its own."""
    folder = tmp_path / "repo"
    done("init", folder)
    for n, name in enumerate(PAIR):
        done("model", "add", name, "-R", folder, "--salt", SALT + n)
    for serial in (1, 2):
        for name, other in (PAIR, PAIR[::-1]):
            card = tmp_path / f"{name}-{serial}.json"
            card.write_text(json.dumps({"requires": [{"model": other, "serial": serial}] if serial == 2 else []}))
            file, named = model_file(tmp_path, serial, size=len(name)), f"{serial}.0.0"
            done("publish", "-m", name, file, "--card", card, "-R", folder, "--semantic-version", named)
    with serving(folder) as running:
        yield running


class Fleet:
    """Agents with an app each, that opens both models."""

    def __init__(self, server: Running, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.agents: dict[str, Agent] = {}

    def join(self, *devices: str) -> None:
        for device in devices:
            options = AgentOptions(
                server=self.server.devices,
                root=(self.server.folder / "root.json").read_bytes(),
                enrol_token=(self.server.folder / "enrol.token").read_text().strip(),
                models=PAIR,
                device_id=device,
                probes=AllGood(),
                durable_sessions=False,
            )
            self.agents[device] = Agent.open(self.folder / device, options)

    def pair(self, device: str) -> tuple[int, ...]:
        """What an app that opens both gets."""
        serials = []
        for model in PAIR:
            with self.agents[device].session(model) as session:
                session.record(latency_ms=1.0, ok=True)
                serials.append(session.serial)
        return tuple(serials)

    def go_on(self, times: int = 3) -> dict[str, tuple[int, ...]]:
        """Let all agents run some passes. Raises `AssertionError` where one of them is ever mixed, or has neither."""
        for _ in range(times):
            for device, agent in self.agents.items():
                agent.cycle(force=True)
                assert self.pair(device) in {(1, 1), (2, 2)}
        return {device: self.pair(device) for device in self.agents}

    def crash(self, device: str, model: str) -> None:
        for _ in range(limits.TRIAL_FAILED_SESSIONS):
            with pytest.raises(ZeroDivisionError), self.agents[device].session(model):
                raise ZeroDivisionError
        self.agents[device].cycle(force=True)

    def close(self) -> None:
        for agent in self.agents.values():
            agent.close()


@pytest.fixture
def fleet(server: Running, tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(server, tmp_path / "devices")
    yield made
    made.close()


def start(server: Running, tmp_path: Path) -> str:
    path = tmp_path / "plan.yaml"
    path.write_text(
        "rollout:\n  model_version: encoder@2.0.0\n  stages:\n"
        "    - {name: half, target_percent: 50, duration_hours: 24}\n    - {name: all, target_percent: 100}\n"
    )
    begun = done("rollout", "start", path, "-R", server.folder)
    assert [(each["model"], each["target"][-7:]) for each in begun["members"]] == [("decoder", "(2.0.0)")]
    return str(begun["id"])


def both(treated: list[str], fleet: Fleet) -> dict[str, tuple[int, ...]]:
    return {device: (2, 2) if device in treated else (1, 1) for device in fleet.agents}


def check_thin_clients(server: Running) -> None:
    """A client that cannot decide gets both or neither, also where it asks after one model at a time."""
    thin = [f"thin-{n}" for n in range(1, 9)]
    treated = [each for each in thin if bucket(device_key(each), salt=SALT) < BUCKETS // 2]
    assert 1 < len(treated) < len(thin)
    for device in thin:
        with server.enrolled(device) as client:
            alone = [
                client.post("/device/v1/check", json={"models": {name: None}}).json()["models"][name] for name in PAIR
            ]
            together = client.post("/device/v1/check", json={"models": dict.fromkeys(PAIR)}).json()["models"]
        serial = 2 if device in treated else 1
        assert [each["serial"] for each in alone] == [each["serial"] for each in together.values()] == [serial] * 2
        assert alone[0].get("requires") == ([{"model": "decoder", "serial": 2}] if serial == 2 else None)


@pytest.mark.long
def test_a_set_in_a_canary_moves_as_one_and_harm_in_one_takes_both_back(
    server: Running, fleet: Fleet, tmp_path: Path
) -> None:
    fleet.join(*DEVICES[:6])
    assert set(fleet.go_on().values()) == {(1, 1)}
    rollout = start(server, tmp_path)
    fleet.join(*DEVICES[6:])  # a fresh device ends with the pair of its arm
    assert fleet.go_on() == both(TREATED, fleet)
    assert 1 < len(TREATED) < len(DEVICES)

    check_thin_clients(server)

    view = done("rollout", "status", rollout, "-R", server.folder)
    counted = len(set(TREATED) & set(DEVICES[:6]))  # the others enrolled after it began, with a shared token
    assert view["counts"]["0"]["assigned_t"] == counted < len(TREATED)
    (member,) = view["members"]
    carried = done("rollout", "status", member["rollout"], "-R", server.folder)
    assert (carried["lead"], carried["counts"]["0"]["activated_t"]) == (rollout, counted)

    for device in TREATED:  # the kill switch
        fleet.crash(device, "decoder")
        assert fleet.pair(device) == (1, 1)
    ends = time.monotonic() + 60
    while (view := done("rollout", "status", rollout, "-R", server.folder))["state"] == "running":
        assert time.monotonic() < ends, view
        fleet.go_on(1)
    assert view["state"] in {"rolling_back", "rolled_back"}  # all devices that went back may have been heard already
    assert view["because"].startswith("decoder: the kill switch:")
    assert fleet.go_on() == both([], fleet)
    with server.enrolled("dev-9") as client:
        told = client.post("/device/v1/check", json={"models": dict.fromkeys(PAIR)}).json()["models"]
    assert [told[name]["serial"] for name in PAIR] == [1, 1]


@pytest.mark.long
@pytest.mark.parametrize("way", ["encoder", "decoder", "lead", "member"])
def test_a_set_that_was_complete_goes_back_as_one(server: Running, fleet: Fleet, tmp_path: Path, way: str) -> None:
    for name in PAIR:
        done("model", "set", name, "--report-s", "0.5", "-R", server.folder)  # devices tell soon what they run
    fleet.join(*DEVICES[:3])
    fleet.go_on()
    rollout = start(server, tmp_path)
    done("rollout", "finish", rollout, "-R", server.folder)
    assert set(fleet.go_on().values()) == {(2, 2)}
    member = done("rollout", "status", rollout, "-R", server.folder)["members"][0]["rollout"]

    if way in PAIR:
        back = done("model", "rollback", way, "--because", "it stutters", "--yes", "-R", server.folder)
        assert [(each["model"], each["to"]["serial"]) for each in back["others"]] == [
            (name, 1) for name in PAIR if name != way
        ]
    else:
        done("rollout", "rollback", rollout if way == "lead" else member, "--yes", "-R", server.folder)
    assert set(fleet.go_on().values()) == {(1, 1)}
    with server.enrolled("dev-9") as client:
        told = client.post("/device/v1/check", json={"models": dict.fromkeys(PAIR)}).json()["models"]
    assert [told[name]["serial"] for name in PAIR] == [1, 1]
    ends = time.monotonic() + 60
    while (view := done("rollout", "status", rollout, "-R", server.folder))["state"] == "rolling_back":
        assert time.monotonic() < ends, view
        fleet.go_on(1)
    assert view["state"] == "rolled_back"
    assert done("rollout", "status", member, "-R", server.folder)["state"] == "rolled_back"
