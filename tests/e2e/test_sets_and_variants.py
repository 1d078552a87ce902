"""Models that change together or not at all, and the variant that a device can bear."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.repository import Repository, Server, onnx_model, variant_of
from whimbrel import Agent, AgentOptions, limits
from whimbrel.agent.disk import RealDisk
from whimbrel.device.journal import seal, unseal
from whimbrel.device.ports import ProbeRequest, ProbeResult
from whimbrel.device.slots import Pointer, back
from whimbrel.model.release import Requirement

PAIR = "encoder", "decoder"
BIG, SMALL = onnx_model(factor=2.0, padding=4000), onnx_model(factor=2.0)


def content(model: str, serial: int) -> bytes:
    return onnx_model(factor=float(serial), padding=len(model) + (model == PAIR[0]))


class Probes:
    """Fails what it was told to; a file of more than `budget` bytes is too large."""

    def __init__(self, budget: int = 2**40) -> None:
        self.budget = budget
        self.bad: set[bytes] = set()
        self.seen: list[int] = []

    def probe(self, request: ProbeRequest) -> ProbeResult:
        found = Path(request.path).read_bytes()
        self.seen.append(len(found))
        if len(found) > self.budget:
            return ProbeResult(passed=False, reason="it holds too much memory", over_budget=True)
        return ProbeResult(passed=found not in self.bad, reason="bad", latency_ms=1.0)


class Ended(BaseException):
    """The process is gone."""


class EndsAt(RealDisk):
    """A disk whose process ends before its `last`-th change of a pointer, journal or record."""

    def __init__(self, last: int) -> None:
        self.left = last

    def _count(self, path: Path) -> None:
        if path.name in {"pointer", "journal", ".set"}:
            self.left -= 1
            if self.left < 0:
                raise Ended

    def write(self, path: Path, content: bytes, *, mode: int = 0o644) -> None:
        self._count(path)
        super().write(path, content, mode=mode)

    def remove(self, path: Path) -> None:
        self._count(path)
        super().remove(path)


@pytest.fixture
def server() -> Iterator[Server]:
    repository = Repository(PAIR)
    for model, other in (PAIR, PAIR[::-1]):
        for serial in (1, 2):
            requires = (Requirement(model=other, serial=serial),)
            repository.release(model, serial, content(model, serial), requires=requires)
        repository.policy(model, baseline=1)
    with Server(repository) as running:
        yield running


Opened = Callable[..., Agent]


@pytest.fixture
def opened(tmp_path: Path, server: Server) -> Iterator[Opened]:
    agents: list[Agent] = []

    def make(**changes: Any) -> Agent:
        given: dict[str, Any] = {
            "server": server.url,
            "root": server.repository.root_bytes,
            "enrol_token": server.enrol_token,
            "probes": Probes(),
            "models": PAIR,
            "durable_sessions": False,
            **changes,
        }
        agents.append(Agent.open(given.pop("folder", tmp_path / "device"), AgentOptions(**given)))
        return agents[-1]

    yield make
    for agent in agents:
        agent.close()


def pair(agent: Agent) -> tuple[int, int]:
    """What an app that opens both gets."""
    with agent.session("encoder") as one, agent.session("decoder") as other:
        for model, session in zip(PAIR, (one, other), strict=True):
            assert session.path.read_bytes() == content(model, session.serial)
        return one.serial, other.serial


def settle(agent: Agent, times: int = 3) -> None:
    for _ in range(times):
        agent.cycle(force=True)
        for _ in range(limits.TRIAL_HEALTHY_SESSIONS):
            pair(agent)
    agent.cycle(force=True)


def want(server: Server, serial: int) -> None:
    for model in PAIR:
        server.repository.policy(model, baseline=serial)


def test_set_is_staged_and_probed_and_then_swapped_as_one(opened: Opened, server: Server) -> None:
    agent = opened()
    settle(agent)
    want(server, 2)
    seen = set()
    for _ in range(4):
        agent.cycle(force=True)
        seen.add(pair(agent))
    assert (2, 2) in seen
    assert seen <= {(1, 1), (2, 2)}


def test_set_waits_while_one_of_it_is_in_use(opened: Opened, server: Server) -> None:
    agent = opened()
    settle(agent)
    want(server, 2)
    with agent.session("decoder"):
        for _ in range(3):
            found = agent.cycle(force=True).models
        assert [found[model]["serial"] for model in PAIR] == [1, 1]
        assert [found[model]["state"] for model in PAIR] == ["ready", "ready"]
    agent.cycle(force=True)
    assert pair(agent) == (2, 2)


def test_set_of_which_one_fails_its_probe_changes_nothing(opened: Opened, server: Server) -> None:
    probes = Probes()
    probes.bad.add(content("decoder", 2))
    agent = opened(probes=probes)
    settle(agent)
    want(server, 2)
    settle(agent)
    assert pair(agent) == (1, 1)
    found = agent.cycle(force=True).models
    assert found["decoder"]["state"] == "quarantined"
    assert "decoder" in str(found["encoder"]["waits_for"])


def test_mixture_that_a_power_cut_left_is_undone(opened: Opened, server: Server, tmp_path: Path) -> None:
    agent = opened()
    settle(agent)
    want(server, 2)
    settle(agent)
    assert pair(agent) == (2, 2)
    place = tmp_path / "device/models/encoder/pointer"
    pointer = unseal(Pointer, place.read_bytes(), what="the pointer")
    place.write_bytes(seal(back(pointer)))
    assert pair(agent) == (1, 2)
    agent.cycle()
    assert pair(agent) in {(1, 1), (2, 2)}


def test_set_of_which_one_goes_back_goes_back_as_a_whole(opened: Opened, server: Server) -> None:
    agent = opened()
    settle(agent)
    want(server, 2)
    agent.cycle(force=True)
    agent.cycle(force=True)
    assert pair(agent) == (2, 2)
    for _ in range(limits.TRIAL_FAILED_SESSIONS):
        with pytest.raises(ZeroDivisionError), agent.session("encoder"):
            raise ZeroDivisionError
    agent.cycle(force=True)
    assert pair(agent) == (1, 1)
    settle(agent)
    assert pair(agent) == (1, 1)


@pytest.mark.long
def test_process_that_ends_within_the_swap_of_a_set_leaves_no_mixture(
    opened: Opened, server: Server, tmp_path: Path
) -> None:
    for last in range(60):
        folder = tmp_path / str(last)
        want(server, 1)
        settle(opened(folder=folder))
        want(server, 2)
        agent = opened(folder=folder, disk=EndsAt(last))
        try:
            for _ in range(2):
                agent.cycle(force=True)
        except Ended:
            again = opened(folder=folder)
            assert pair(again) in {(1, 1), (2, 2)}  # before any agent ran
            settle(again)
            assert pair(again) == (2, 2)
            assert not (folder / "models" / ".set").exists()
        else:
            assert last > 15
            return
    raise AssertionError("it never came to an end")


# --- variants ---


@pytest.fixture
def shelf() -> Iterator[Server]:
    repository = Repository()
    variants = tuple(variant_of(each, name=name) for each, name in ((BIG, "big"), (SMALL, "small")))
    repository.release("detector", 1, BIG, SMALL, variants=variants)
    repository.release("detector", 2, BIG, SMALL, variants=variants)
    repository.policy("detector", baseline=1)
    with Server(repository) as running:
        yield running


def agent_of(shelf: Server, folder: Path, probes: Probes) -> Agent:
    return Agent.open(
        folder, AgentOptions(server=shelf.url, root=shelf.repository.root_bytes, probes=probes, models=["detector"])
    )


def test_first_variant_of_the_signed_order_is_taken_where_it_keeps_its_budget(shelf: Server, tmp_path: Path) -> None:
    with agent_of(shelf, tmp_path, Probes()) as agent:
        agent.cycle()
        with agent.session("detector") as model:
            assert model.path.read_bytes() == BIG


def test_variant_over_its_budget_gives_way_to_the_smaller_one_and_is_not_tried_again(
    shelf: Server, tmp_path: Path
) -> None:
    probes = Probes(budget=len(SMALL))
    with agent_of(shelf, tmp_path, probes) as agent:
        agent.cycle()
        found = agent.cycle(force=True).models["detector"]
        assert (found["serial"], found["refused"]) == (1, {})
        with agent.session("detector") as model:
            assert model.path.read_bytes() == SMALL
        for _ in range(2):
            with agent.session("detector"):
                pass
        agent.cycle()
        probes.seen.clear()
        shelf.repository.policy("detector", baseline=2)
        assert agent.cycle(force=True).models["detector"]["serial"] == 2
        assert probes.seen == [len(SMALL)]


def test_version_of_which_no_variant_keeps_its_budget_is_refused(shelf: Server, tmp_path: Path) -> None:
    with agent_of(shelf, tmp_path, Probes(budget=1)) as agent:
        for _ in range(4):
            found = agent.cycle(force=True).models["detector"]
        assert (found["state"], found["serial"], list(found["refused"])) == ("quarantined", None, ["1"])


def test_variant_that_answers_wrongly_is_no_matter_of_budgets(shelf: Server, tmp_path: Path) -> None:
    probes = Probes()
    probes.bad.add(BIG)
    with agent_of(shelf, tmp_path, probes) as agent:
        found = agent.cycle().models["detector"]
        assert (found["state"], list(found["refused"])) == ("quarantined", ["1"])
