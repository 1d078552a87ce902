"""A device that never saw a model's newest line is not given what that line forbids (ADR 80).

Whoever holds the online keys replays the publisher's role of last year, whose line allows what was revoked since. A
floor says, for some days at a time, which line is the newest; its key is delegated by the targets key.
"""

import copy
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from support.agents import options_of, settled
from support.repository import Repository, Server, onnx_model
from whimbrel import Agent
from whimbrel.agent.app import CycleResult
from whimbrel.model import documents
from whimbrel.trust import roles

DAY_S = 86400.0
PUBLISHER, FLOOR = roles.publisher_role("detector"), roles.floor_role("detector")


@pytest.fixture
def repository() -> Repository:
    made = Repository()
    for serial in (1, 2):
        made.release("detector", serial, onnx_model(factor=float(serial)))
    made.floor("detector")
    made.policy("detector", baseline=1)
    return made


@pytest.fixture
def server(repository: Repository) -> Iterator[Server]:
    with Server(repository) as running:
        yield running


def opened(folder: Path, server: Server) -> Agent:
    return Agent.open(folder, options_of(server))


def cycled(agent: Agent, *, days: float = 0) -> CycleResult:
    return agent.cycle(datetime.now(UTC).timestamp() + days * DAY_S, force=True)


def serial(result: CycleResult) -> int | None:
    value: int | None = result.models["detector"]["serial"]
    return value


def waits_for(result: CycleResult) -> str:
    return str(result.models["detector"]["waits_for"])


class Thief:
    """Who holds the snapshot's, timestamp's and policy's keys, and kept the roles of the day on which he came."""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self.kept = {name: copy.deepcopy(repository.delegated[name]) for name in (PUBLISHER, FLOOR)}

    def replay(self, *names: str) -> None:
        """The snapshot lists the roles of that day again, as a new device believes."""
        for name in names:
            self.repository.delegated[name] = copy.deepcopy(self.kept[name])
            self.repository.sign(name)
        self.repository.policy("detector", baseline=1)


def test_old_line_brings_nothing_to_a_new_device(tmp_path: Path, repository: Repository, server: Server) -> None:
    thief = Thief(repository)
    repository.line("detector", revoked=(1,))
    repository.floor("detector")
    thief.replay(PUBLISHER)
    with opened(tmp_path, server) as agent:
        result = cycled(agent)
        assert serial(result) is None
        assert "line 2, which is signed to be the newest; line 1 came" in waits_for(result)


def test_old_line_with_its_old_floor_brings_nothing_after_some_days(
    tmp_path: Path, repository: Repository, server: Server
) -> None:
    """Until the old floor expires it does: that is what the days of a floor bound."""
    repository.floor("detector", days=3)
    thief = Thief(repository)
    repository.line("detector", revoked=(1,))
    repository.floor("detector", days=3)
    repository.now += timedelta(days=4)
    repository.timestamp.expires, repository.snapshot.expires = (repository.now + timedelta(days=1),) * 2
    thief.replay(PUBLISHER, FLOOR)
    with opened(tmp_path, server) as agent:
        result = cycled(agent, days=4)
        assert serial(result) is None
        assert "floors/detector.json cannot be trusted: " in waits_for(result)
        assert "expired" in waits_for(result)


def test_without_a_floor_the_old_line_brings_the_revoked_version(tmp_path: Path) -> None:
    """The gap that a floor closes: today's behaviour where a model does not ask for one."""
    plain = Repository()
    plain.release("detector", 1, onnx_model())
    plain.policy("detector", baseline=1)
    old = copy.deepcopy(plain.delegated[PUBLISHER])
    plain.line("detector", revoked=(1,))
    plain.delegated[PUBLISHER] = old
    plain.sign(PUBLISHER)
    with Server(plain) as server, opened(tmp_path, server) as agent:
        assert serial(cycled(agent)) == 1


def test_floor_that_expires_stops_nothing_that_works(tmp_path: Path, repository: Repository, server: Server) -> None:
    repository.floor("detector", days=3)
    with opened(tmp_path, server) as agent:
        settled(agent)
        repository.now += timedelta(days=4)
        repository.timestamp.expires = repository.now + timedelta(days=1)
        repository.policy("detector", baseline=2)
        result = cycled(agent, days=4)
        assert serial(result) == 1
        assert "a fresh word that line 1 is the newest" in waits_for(result)
        with agent.session("detector") as session:
            assert session.serial == 1
        repository.floor("detector", days=3)
        assert serial(cycled(agent, days=4)) == 2


def test_floor_that_expires_keeps_no_device_from_going_back(
    tmp_path: Path, repository: Repository, server: Server
) -> None:
    repository.floor("detector", days=3)
    with opened(tmp_path, server) as agent:
        settled(agent)
        repository.policy("detector", baseline=2)
        settled(agent)
        repository.now += timedelta(days=4)
        repository.timestamp.expires = repository.now + timedelta(days=1)
        repository.policy("detector", baseline=1)
        assert serial(cycled(agent, days=4)) == 1


@pytest.mark.parametrize("attack", ["dropped from the snapshot", "of another model", "no document", "unsigned"])
def test_floor_that_is_not_there_brings_nothing(
    tmp_path: Path, repository: Repository, server: Server, attack: str
) -> None:
    if attack == "dropped from the snapshot":
        del repository.snapshot.meta[f"{FLOOR}.json"]
    elif attack == "of another model":
        repository.floor("detector", named="wake")
    elif attack == "no document":
        repository.put(FLOOR, roles.floor_path("detector"), b"{}")
    else:
        repository.signers[FLOOR] = repository.signers["timestamp"]
        repository.sign(FLOOR)
    repository.policy("detector", baseline=1)
    with opened(tmp_path, server) as agent:
        result = cycled(agent)
        assert serial(result) is None
        assert waits_for(result).startswith("a fresh word")


def test_thief_of_the_floors_key_stops_no_version_and_a_new_key_undoes_it(
    tmp_path: Path, repository: Repository, server: Server
) -> None:
    with opened(tmp_path, server) as agent:
        settled(agent)
        honest = repository.signers[FLOOR]
        repository.floor("detector", sequence=2**50)
        repository.policy("detector", baseline=2)
        assert serial(cycled(agent)) == 1
        repository.new_keys()
        assert repository.signers[FLOOR] is not honest
        repository.floor("detector")
        assert serial(cycled(agent)) == 2


def test_floors_key_signs_no_line(tmp_path: Path, repository: Repository, server: Server) -> None:
    """A pipeline holds it: it can only say which line is the newest."""
    repository.line("detector", revoked=(1,))
    line = documents.encode(documents.parse(dict, documents.encode(repository.line("detector")), what="it"))
    repository.put(FLOOR, roles.line_path("detector"), line)
    del repository.delegated[PUBLISHER].targets[roles.line_path("detector")]
    repository.delegated[PUBLISHER].version += 1
    repository.sign(PUBLISHER)
    with opened(tmp_path, server) as agent:
        assert serial(cycled(agent)) is None
