"""The key of a device: made once, kept, its own for each id, and proved wherever the server asks."""

import json
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.agents import AllGood
from support.repository import Repository, Server, onnx_model
from whimbrel import Agent, AgentOptions
from whimbrel.agent.device_key import DeviceKey
from whimbrel.agent.disk import RealDisk
from whimbrel.trust.possession import public_key_of

Opened = Callable[..., Agent]


@pytest.fixture
def server() -> Iterator[Server]:
    repository = Repository()
    repository.release("detector", 1, onnx_model(factor=2.0))
    repository.policy("detector", baseline=1, report_s=60, refresh_s=60)
    with Server(repository) as running:
        yield running


@pytest.fixture
def opened(tmp_path: Path, server: Server) -> Iterator[Opened]:
    agents: list[Agent] = []

    def make(**changes: object) -> Agent:
        for agent in agents:
            agent.close()
        given: dict[str, object] = {
            "server": server.url,
            "root": server.repository.root_bytes,
            "models": ["detector"],
            "device_id": "dev-1",
            "enrol_token": server.enrol_token,
            "probes": AllGood(),
            **changes,
        }
        agents.append(Agent.open(tmp_path / "agent", AgentOptions(**given)))
        return agents[-1]

    yield make
    for agent in agents:
        agent.close()


def posts(server: Server) -> list[str]:
    return [line.split()[1].removeprefix("device/v1/") for line in server.asked if line.startswith("POST")]


def test_a_key_is_made_once_for_each_id_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    first = DeviceKey(tmp_path, "dev-1", disk=RealDisk())
    assert not first.exists
    public = public_key_of(first.get())
    (file,) = tmp_path.glob("device-*.key")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert public_key_of(DeviceKey(tmp_path, "dev-1", disk=RealDisk()).get()) == public
    assert public_key_of(DeviceKey(tmp_path, "dev-2", disk=RealDisk()).get()) != public
    file.write_bytes(b"torn")
    assert not DeviceKey(tmp_path, "dev-1", disk=RealDisk()).exists
    assert public_key_of(DeviceKey(tmp_path, "dev-1", disk=RealDisk()).get()) != public


def test_the_agent_proves_its_key_and_shows_it(opened: Opened, server: Server) -> None:
    agent = opened()
    agent.cycle(force=True)
    agent._api._bearer()
    assert [each for each in posts(server) if each in {"challenge", "enrol", "token"}] == [
        "challenge",
        "enrol",
        "challenge",
        "token",
    ]
    agent._status_file.write(agent._current_status())
    assert agent.status()["public_key"] == server.keys["dev-1"]


def test_a_device_with_a_key_has_a_way_in_without_an_enrolment_token(
    opened: Opened, server: Server, tmp_path: Path
) -> None:
    opened().cycle(force=True)
    before = server.keys["dev-1"]
    (tmp_path / "agent" / "credential.json").unlink()
    again = opened(enrol_token=None)
    assert again._api.known
    assert again._api.public_key == before


def test_an_agent_that_enrolled_without_a_key_adopts_one_by_its_credential(
    opened: Opened, server: Server, tmp_path: Path
) -> None:
    server.gives_challenges = False
    agent = opened()
    agent.cycle(force=True)
    agent._api._bearer()
    kept = json.loads((tmp_path / "agent" / "credential.json").read_text())
    assert set(kept) == {"device_id", "credential"}
    server.gives_challenges = True
    agent._api._token = None
    agent._api._bearer()
    adopted = json.loads((tmp_path / "agent" / "credential.json").read_text())
    assert (adopted["credential"], adopted["public_key"]) == (kept["credential"], server.keys["dev-1"])
    assert "enrol_token" not in server.enrolled[-1]


def test_labels_of_the_server_win_and_go_when_it_takes_them_away(opened: Opened, server: Server) -> None:
    server.granted = {"site": "lab", "attestation": "android-key"}
    agent = opened(labels={"site": "mine", "attestation": "made-up", "room": "7"})
    assert "attestation" not in agent._labels  # nobody believes a device that
    agent.cycle(force=True)
    assert (agent._labels["site"], agent._labels["attestation"], agent._labels["room"]) == ("lab", "android-key", "7")
    again = opened(enrol_token=None)
    assert again._labels["site"] == "lab"  # kept with the credential
    server.granted = {}
    again._api._bearer()
    assert (again._labels["site"], "attestation" in again._labels) == ("mine", False)
