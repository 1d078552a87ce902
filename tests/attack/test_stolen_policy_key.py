"""What a thief of a model's policy key alone can do to a device is bounded, field by field (ADR 80).

The key is online. It chooses among versions that a publisher signed, and what works goes on working.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from support.agents import options_of, settled
from support.repository import Repository, Server, onnx_model
from whimbrel import Agent, limits
from whimbrel.errors import Unavailable
from whimbrel.policy.policy import Quarantine

DAY_S = 86400.0
STOPS = {
    "every version quarantined": {"baseline": 1, "on_revoked": "stop", "quarantine": (Quarantine(serial=1),)},
    "no baseline": {"baseline": None},
}


@pytest.fixture
def repository() -> Repository:
    made = Repository()
    for serial in (1, 2):
        made.release("detector", serial, onnx_model(factor=float(serial)))
    made.policy("detector", baseline=1)
    return made


@pytest.fixture
def server(repository: Repository) -> Iterator[Server]:
    with Server(repository) as running:
        yield running


@pytest.fixture
def agent(tmp_path: Path, server: Server) -> Iterator[Agent]:
    """A device that runs serial 1."""
    with Agent.open(tmp_path, options_of(server)) as made:
        settled(made)
        yield made


def now() -> float:
    return datetime.now(UTC).timestamp()


def serial_at(agent: Agent, days: float) -> int | None:
    """What the device runs so many days from now. Nothing newer than today's policy comes meanwhile."""
    serial: int | None = agent.cycle(now() + days * DAY_S, force=True).models["detector"]["serial"]
    return serial


@pytest.mark.parametrize("stop", STOPS.values(), ids=STOPS.keys())
def test_stop_by_the_policy_alone_ends_after_some_days_without_a_download(
    agent: Agent, repository: Repository, server: Server, stop: dict[str, object]
) -> None:
    """Every session of a fleet raised for as long as the thief wished."""
    repository.policy("detector", **stop)
    assert serial_at(agent, 0) is None
    with pytest.raises(Unavailable), agent.session("detector"):
        pass
    assert serial_at(agent, 6.9) is None
    before = len([each for each in server.asked if "artifacts" in each])
    assert serial_at(agent, 7.1) == 1
    assert serial_at(agent, 29) == 1
    assert len([each for each in server.asked if "artifacts" in each]) == before
    with agent.session("detector") as session:
        assert session.serial == 1


def test_stop_that_is_taken_back_and_said_again_is_the_same_stop(agent: Agent, repository: Repository) -> None:
    for _ in range(3):
        repository.policy("detector", baseline=None)
        assert serial_at(agent, 0) is None
        repository.policy("detector", baseline=1)
        assert serial_at(agent, 0) == 1
    repository.policy("detector", baseline=None)
    assert serial_at(agent, 0) is None
    assert serial_at(agent, 7.1) == 1


def test_stop_outlives_no_restart(tmp_path: Path, agent: Agent, repository: Repository, server: Server) -> None:
    repository.policy("detector", baseline=None)
    assert serial_at(agent, 0) is None
    agent.close()
    with Agent.open(tmp_path, options_of(server)) as again:
        assert serial_at(again, 1) is None
        assert serial_at(again, 7.1) == 1


def test_publisher_stops_a_model_for_good(agent: Agent, repository: Repository) -> None:
    """The line is signed by a key that no server has."""
    repository.line("detector", revoked=(1,))
    repository.policy("detector", baseline=1, on_revoked="stop")
    assert serial_at(agent, 0) is None
    assert serial_at(agent, 7.1) is None
    assert serial_at(agent, 40) is None


def test_line_that_comes_while_a_version_is_stopped_makes_it_last(agent: Agent, repository: Repository) -> None:
    repository.policy("detector", baseline=None)
    assert serial_at(agent, 0) is None
    repository.line("detector", revoked=(1,))
    repository.policy("detector", baseline=None)
    assert serial_at(agent, 0) is None
    assert serial_at(agent, 7.1) is None


def test_version_that_was_stopped_is_not_believed_again_where_its_files_were_changed(
    agent: Agent, repository: Repository
) -> None:
    repository.policy("detector", baseline=None)
    assert serial_at(agent, 0) is None
    for path in (agent.folder / "models" / "detector").glob("[ab]/*"):
        path.chmod(0o600)
        path.write_bytes(b"changed")
    assert serial_at(agent, 7.1) is None


def test_new_version_is_taken_while_another_is_stopped(agent: Agent, repository: Repository) -> None:
    repository.policy("detector", baseline=None)
    assert serial_at(agent, 0) is None
    repository.policy("detector", baseline=2)
    assert serial_at(agent, 0) == 2
    settled(agent)
    repository.policy("detector", baseline=None)
    assert serial_at(agent, 0) is None
    assert serial_at(agent, 7.1) == 2


def test_a_month_after_its_beginning_a_stop_may_begin_again(agent: Agent, repository: Repository) -> None:
    assert limits.STOP_MOST_S * 4 < limits.STOP_AGAIN_S
    repository.policy("detector", baseline=None)
    assert serial_at(agent, 0) is None
    assert serial_at(agent, 7.1) == 1
    assert serial_at(agent, 30.1) is None
    assert serial_at(agent, 37.2) == 1
