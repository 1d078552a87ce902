"""What a thief of online keys wrote moves a device's time and counters within bounds, and new keys undo it all.

A thief of the timestamp's key alone made every device say "root is expired" for ever, also after new keys.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from support.agents import AllGood, options_of, settled
from support.repository import Repository, Server, onnx_model
from whimbrel import Agent, AgentOptions, limits
from whimbrel.agent.app import CycleResult
from whimbrel.model import documents
from whimbrel.trust import roles

POLICY = roles.policy_role("detector")


@pytest.fixture
def repository() -> Repository:
    made = Repository()
    for serial in (1, 2, 3):
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


def ahead(days: float) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)


def follows(agent: Agent, repository: Repository, *, serial: int) -> None:
    """The server's next policy arrives."""
    repository.policy("detector", baseline=serial)
    result = agent.cycle(force=True)
    assert (result.problems, result.models["detector"]["serial"]) == ((), serial)


def refuses(agent: Agent, words: str, *, serial: int = 1) -> CycleResult:
    result = agent.cycle(force=True)
    assert any(words in problem for problem in result.problems), result.problems
    assert result.models["detector"]["serial"] == serial
    return result


# --- time ---


@pytest.mark.parametrize("expires", [datetime(9999, 12, 31, tzinfo=UTC), ahead(60)])
def test_timestamp_that_lives_too_long_is_refused_and_stands_in_no_way(
    agent: Agent, repository: Repository, expires: datetime
) -> None:
    honest, repository.timestamp.expires = repository.timestamp.expires, expires
    repository.renew()
    refuses(agent, "timestamp.json expires at")
    repository.timestamp.version -= 1  # the honest server knows nothing of the thief's
    repository.timestamp.expires = honest
    follows(agent, repository, serial=2)


@pytest.mark.parametrize("device_clock", [0.0, None], ids=["without a clock", "with a clock"])
def test_thief_of_the_timestamps_key_makes_nothing_expire(
    agent: Agent, repository: Repository, device_clock: float | None
) -> None:
    """As far ahead as the snapshot's life allows: the device still takes the thief's snapshot, and the honest one."""
    honest, repository.timestamp.expires = repository.timestamp.expires, repository.snapshot.expires
    repository.policy("detector", baseline=2)
    result = agent.cycle(device_clock, force=True)
    assert (result.problems, result.models["detector"]["serial"]) == ((), 2)
    settled(agent)
    repository.timestamp.expires = honest
    follows(agent, repository, serial=3)


def test_new_online_keys_undo_what_a_thief_of_the_timestamps_key_wrote(agent: Agent, repository: Repository) -> None:
    repository.timestamp.version = 2**40
    repository.timestamp.expires = repository.snapshot.expires
    repository.policy("detector", baseline=2)
    assert agent.cycle(force=True).models["detector"]["serial"] == 2
    settled(agent)
    repository.timestamp.version, repository.timestamp.expires = 10, ahead(1)
    repository.renew()
    refuses(agent, "must be >=", serial=2)
    repository.new_keys()
    follows(agent, repository, serial=3)


def test_server_whose_clock_ran_ahead_once_costs_no_updates(agent: Agent, repository: Repository) -> None:
    """It signed everything 40 days ahead: 39 days without an update were the price."""
    honest = repository.timestamp.expires, repository.snapshot.expires
    repository.timestamp.expires, repository.snapshot.expires = ahead(41), ahead(70)
    repository.policy("detector", baseline=2)
    assert agent.cycle(force=True).models["detector"]["serial"] == 2
    settled(agent)
    repository.timestamp.expires, repository.snapshot.expires = honest
    follows(agent, repository, serial=3)


def test_timestamp_that_is_sent_for_ever_expires_by_the_clock(agent: Agent) -> None:
    result = agent.cycle(ahead(2).timestamp(), force=True)
    assert any("timestamp.json is expired" in problem for problem in result.problems)


# --- counters ---


def test_policy_sequence_does_not_leap(agent: Agent, repository: Repository) -> None:
    repository.sequences["policy detector"] += limits.SEQUENCE_LEAP
    repository.policy("detector", baseline=2)
    refuses(agent, f"at most {limits.SEQUENCE_LEAP} more")
    repository.sequences["policy detector"] = 1
    follows(agent, repository, serial=2)


def test_sequence_that_no_reader_of_json_holds_is_refused(agent: Agent, repository: Repository) -> None:
    policy = documents.parse(dict, documents.encode(repository.policy("detector", baseline=2)), what="it")
    huge = documents.encode(policy).replace(
        f'"sequence":{policy["sequence"]}'.encode(), b'"sequence":' + b"1" + b"0" * 30
    )
    repository.put(POLICY, roles.policy_path("detector"), huge)
    refuses(agent, "policy/detector.json cannot be read")


@pytest.mark.parametrize("word", ["policy", "line"])
def test_counter_of_a_key_that_was_replaced_is_forgotten(agent: Agent, repository: Repository, word: str) -> None:
    repository.sequences[f"{word} detector"] += limits.SEQUENCE_LEAP - 1
    repository.line("detector")
    follows(agent, repository, serial=2)
    settled(agent)
    repository.sequences[f"{word} detector"] = 5
    repository.line("detector")
    repository.policy("detector", baseline=3)
    refuses(agent, "was seen before", serial=2)
    repository.new_keys()
    repository.line("detector")
    follows(agent, repository, serial=3)


def test_counters_stay_through_a_restart_and_for_the_same_key(
    tmp_path: Path, agent: Agent, repository: Repository
) -> None:
    follows(agent, repository, serial=2)
    agent.close()
    repository.sequences["policy detector"] = 0
    repository.policy("detector", baseline=1)
    with Agent.open(tmp_path, AgentOptions(probes=AllGood())) as again:
        refuses(again, "was seen before", serial=2)


# --- periods ---


def test_thief_of_the_policys_key_silences_no_device_for_more_than_a_day(
    agent: Agent, repository: Repository, server: Server
) -> None:
    """Refreshes and reports every 30 days kept a fleet from hearing of new keys."""
    repository.policy("detector", baseline=1, refresh_s=30 * 86400, report_s=30 * 86400)
    assert agent.cycle(force=True).problems == ()
    later = ahead(0).timestamp() + limits.PERIOD_MOST_S + 1
    repository.timestamp.expires = ahead(2)
    repository.policy("detector", baseline=2)
    assert agent.cycle().models["detector"]["serial"] == 1  # it is not time yet
    told = len(server.batches)
    assert agent.cycle(later).models["detector"]["serial"] == 2
    agent.cycle(later + 2 * limits.PERIOD_MOST_S)
    assert len(server.batches) > told
