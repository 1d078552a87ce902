"""A delta index is signed online, so a thief may write any: it costs a device at most a file more, and blocks nothing.

Sixty ways that led nowhere cost sixty-one times the file; one that claimed 64 GiB on its way blocked the update.
"""

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.agents import options_of, settled
from support.repository import Repository, Server, onnx_model
from whimbrel import Agent, limits
from whimbrel.model import documents
from whimbrel.model.documents import digest_of
from whimbrel.model.ways import DeltaIndex, Step
from whimbrel.trust import roles

ONE, TWO = onnx_model(factor=2.0), onnx_model(factor=3.0, padding=300_000)


@pytest.fixture
def repository() -> Repository:
    made = Repository()
    made.release("detector", 1, ONE)
    made.release("detector", 2, TWO)
    made.policy("detector", baseline=1)
    return made


@pytest.fixture
def server(repository: Repository) -> Iterator[Server]:
    with Server(repository) as running:
        yield running


@pytest.fixture
def agent(tmp_path: Path, server: Server) -> Iterator[Agent]:
    with Agent.open(tmp_path, options_of(server)) as opened:
        settled(opened)
        yield opened


def offers(repository: Repository, *steps: Step) -> None:
    index = DeltaIndex(model="detector", serial=2, steps=steps)
    repository.put(roles.policy_role("detector"), roles.deltas_path("detector", 2), documents.encode(index))
    repository.policy("detector", baseline=2)


def rubbish(repository: Repository, size: int, *, base: str, target: str, target_bytes: int) -> Step:
    """A patch that is served as it is signed, and makes nothing."""
    digest = repository.blob(random.Random(size).randbytes(size))
    return Step(base=base, target=target, target_bytes=target_bytes, sha256=digest, size_bytes=size)


def bytes_until_two(agent: Agent, server: Server) -> int:
    before = server.bytes_sent
    assert agent.cycle(force=True).models["detector"]["serial"] == 2
    return server.bytes_sent - before


def test_ways_that_lead_nowhere_cost_one_file_at_most(agent: Agent, repository: Repository, server: Server) -> None:
    large = [
        rubbish(repository, len(TWO) - 1 - number, base=digest_of(ONE), target=digest_of(TWO), target_bytes=len(TWO))
        for number in range(60)
    ]
    offers(repository, *large)
    assert bytes_until_two(agent, server) < 2 * len(TWO) + 50_000  # signed documents come besides


def test_many_small_ways_that_lead_nowhere_are_not_all_tried(
    agent: Agent, repository: Repository, server: Server
) -> None:
    small = [
        rubbish(repository, 100 + number, base=digest_of(ONE), target=digest_of(TWO), target_bytes=len(TWO))
        for number in range(200)
    ]
    offers(repository, *small)
    bytes_until_two(agent, server)
    assert sum("artifacts/" in each for each in server.asked) <= limits.DELTA_TRIES + 2


def test_chain_that_claims_gigabytes_blocks_nothing(agent: Agent, repository: Repository, server: Server) -> None:
    between = "b" * 64
    offers(
        repository,
        rubbish(repository, 200, base=digest_of(ONE), target=between, target_bytes=limits.ARTIFACT_BYTES),
        rubbish(repository, 201, base=between, target=digest_of(TWO), target_bytes=len(TWO)),
    )
    assert bytes_until_two(agent, server) < len(TWO) + 50_000


def test_index_with_as_many_steps_as_are_allowed_is_searched_at_once(
    agent: Agent, repository: Repository, server: Server
) -> None:
    """4,096 steps between 64 artifacts took four minutes of processor time."""
    names = [digest_of(ONE), *(f"{number:064x}" for number in range(62)), digest_of(TWO)]
    pairs = itertools.islice(itertools.product(names, names), limits.DELTA_STEPS)
    steps = (
        Step(base=base, target=target, target_bytes=len(TWO), sha256=f"{number:064x}", size_bytes=1)
        for number, (base, target) in enumerate(pairs)
    )
    offers(repository, *steps)
    bytes_until_two(agent, server)
