"""One test for each way in which a network answers in place of the server: captive portals, proxies, odd caches.

An answer counts only when it is the server's: the device forgets nothing, refuses no version, and goes on afterwards.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.agents import AllGood
from support.interference import (
    PAGE,
    Interference,
    Request,
    artifacts,
    artifacts_without_a_range,
    documents,
    everything,
    posts,
)
from support.repository import Repository, Server, onnx_model
from whimbrel import Agent, AgentOptions, limits
from whimbrel.agent.app import CycleResult
from whimbrel.model.documents import encode
from whimbrel.model.ways import DeltaIndex
from whimbrel.trust import roles

ONE = onnx_model(factor=2.0)
TWO = onnx_model(factor=3.0, padding=1_000_000)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed is tried again at once."""
    monkeypatch.setattr(limits, "BACKOFF_FIRST_S", 0.0)


@pytest.fixture
def server() -> Iterator[Server]:
    repository = Repository()
    repository.release("detector", 1, ONE)
    repository.release("detector", 2, TWO)
    repository.policy("detector", baseline=1)
    with Server(repository) as running:
        yield running


@pytest.fixture
def network(server: Server) -> Iterator[Interference]:
    with Interference(server.url) as between:
        yield between


@pytest.fixture
def agent(tmp_path: Path, server: Server, network: Interference) -> Iterator[Agent]:
    """A device that runs serial 1 and is known to the server; everything goes through `network`."""
    with Agent.open(
        tmp_path,
        AgentOptions(
            server=network.url,
            root=server.repository.root_bytes,
            device_id="dev-1",
            probes=AllGood(),
            enrol_token=server.enrol_token,
            models=["detector"],
        ),
    ) as made:
        assert made.cycle().problems == ()
        use(made)
        assert made.cycle(force=True).models["detector"]["state"] == "committed"
        network.artifact_bytes = 0
        network.asked.clear()
        yield made


def use(agent: Agent) -> None:
    for _ in range(limits.TRIAL_HEALTHY_SESSIONS):
        with agent.session("detector") as model:
            model.record(latency_ms=1.0)


def pass_by(agent: Agent, times: int = 3) -> CycleResult:
    for _ in range(times):
        time.sleep(0.11)
        result = agent.cycle(force=True)
    return result


# --- what the device tells ---


@pytest.mark.parametrize("status", [200, 302, 400, 401, 413, 502])
def test_page_that_answers_posts_makes_the_device_forget_nothing(
    agent: Agent, server: Server, network: Interference, status: int
) -> None:
    """200 and HTML counted as stored; 400 and 413 as never to be sent again; 401 as an enrolment that is gone."""
    pass_by(agent, 1)
    told = sum(window.get("sessions", 0) for window in server.windows)
    network.pages_to(posts, status=status)
    server.announced.clear()
    server.repository.policy("detector", baseline=2)
    pass_by(agent)
    use(agent)
    result = pass_by(agent)
    assert (result.models["detector"]["state"], result.models["detector"]["serial"]) == ("committed", 2)
    assert any("POST" in problem and "<p>" not in problem for problem in result.problems)
    assert agent.status()["windows_waiting"] > 0
    network.leave()
    pass_by(agent)
    assert server.steps() == ["activating", "activated", "committed"]
    assert sum(window.get("sessions", 0) for window in server.windows) == told + limits.TRIAL_HEALTHY_SESSIONS
    assert len(network.asked_for("enrol")) == 0


@pytest.mark.parametrize("word", ["enrol", "token"])
def test_page_instead_of_a_credential_or_a_token_is_no_answer(
    tmp_path: Path, server: Server, network: Interference, word: str
) -> None:
    network.pages_to(lambda request: word in request[1])
    given = {"root": server.repository.root_bytes, "enrol_token": server.enrol_token, "probes": AllGood()}
    with Agent.open(
        tmp_path, AgentOptions(server=network.url, models=["detector"], device_id="dev-1", **given)
    ) as agent:
        result = pass_by(agent)
        assert any("not as the server does" in problem for problem in result.problems)
        network.leave()
        assert pass_by(agent).problems == ()
        assert server.steps() == ["activating", "activated"]


def test_way_that_takes_only_small_bodies_gets_small_ones(agent: Agent, server: Server, network: Interference) -> None:
    network.pages_to(posts, status=502)
    for _ in range(5):
        pass_by(agent, 1)
    waiting = agent.status()["windows_waiting"]
    assert waiting >= 4
    sizes: list[int] = []

    def too_large(request: Request) -> bool:
        if posts(request):
            sizes.append(int(request[2]["Content-Length"]))
        return posts(request) and sizes[-1] > 0.9 * sizes[0]

    network.pages_to(too_large, status=413)
    pass_by(agent, 1)
    assert agent.status()["windows_waiting"] < waiting
    assert sizes[0] > sizes[1]


# --- signed documents ---


@pytest.mark.parametrize(
    ("which", "body"), [(everything, PAGE), (documents, b"Please sign in"), (documents, PAGE * 20)]
)
def test_page_instead_of_signed_documents_moves_nothing(
    agent: Agent, server: Server, network: Interference, which: Callable[[Request], bool], body: bytes
) -> None:
    network.page = body
    network.pages_to(which)
    server.repository.policy("detector", baseline=2)
    result = pass_by(agent)
    assert result.models["detector"]["serial"] == 1
    assert result.problems
    assert not any("cannot be trusted" in problem for problem in result.problems)
    network.leave()
    pass_by(agent)
    assert pass_by(agent).models["detector"]["serial"] == 2


def test_page_instead_of_the_index_of_patches_is_no_reason_to_fetch_more(
    agent: Agent, server: Server, network: Interference
) -> None:
    """An index that cannot be trusted means no patch; one that did not come means later."""
    index = DeltaIndex(model="detector", serial=2, steps=())
    server.repository.put(roles.policy_role("detector"), roles.deltas_path("detector", 2), encode(index))
    server.repository.policy("detector", baseline=2)
    network.pages_to(lambda request: "deltas" in request[1])
    pass_by(agent)
    assert network.artifact_bytes == 0
    network.leave()
    pass_by(agent)
    assert network.artifact_bytes == len(TWO)


# --- the bytes of a model ---


def update(agent: Agent, server: Server) -> None:
    server.repository.policy("detector", baseline=2)
    pass_by(agent, 1)


def runs_two(agent: Agent, server: Server) -> None:
    """The network is good again: serial 2 runs, and nothing was held against it."""
    pass_by(agent)
    status = agent.status()["models"]["detector"]
    assert (status["serial"], status["refused"]) == (2, {})
    assert "failed" not in server.steps()
    with agent.session("detector") as model:
        assert model.path.read_bytes() == TWO


def part(agent: Agent) -> int:
    """Bytes that are here of serial 2."""
    return sum(each.stat().st_size for each in (agent.folder / "incoming").glob("*.part"))


PAGES = {
    "by its type": (PAGE, {"Content-Type": "text/html; charset=utf-8"}),
    "by its first bytes": (b"\r\n <!doctype html><p>Sign in" + bytes(len(TWO) - 28), {}),
    "by its length": (b"Please sign in", {}),
    "by its ETag": (bytes(len(TWO)), {"ETag": '"' + "0" * 64 + '"'}),
    "by its packing": (bytes(len(TWO)), {"Content-Encoding": "br"}),
}


@pytest.mark.parametrize("page", PAGES)
def test_page_instead_of_a_model_costs_its_head_only_and_refuses_nothing(
    agent: Agent, server: Server, network: Interference, page: str
) -> None:
    """It was put in front of the file; after five times the version was quarantined for ever, and 70 MB had moved
    for a model of 14.
    """
    network.page, network.page_headers = PAGES[page]
    network.pages_to(artifacts)
    update(agent, server)
    for _ in range(9):
        pass_by(agent, 1)
        assert part(agent) == 0
    network.leave()
    network.artifact_bytes = 0
    runs_two(agent, server)
    assert network.artifact_bytes == len(TWO)


@pytest.mark.parametrize("page", PAGES)
def test_page_in_the_middle_of_a_download_takes_nothing_away(
    agent: Agent, server: Server, network: Interference, page: str
) -> None:
    network.cut_after_bytes = 600_000
    update(agent, server)
    assert part(agent) == 600_000
    network.leave()
    network.page, network.page_headers = PAGES[page]
    network.pages_to(artifacts)
    for _ in range(6):
        pass_by(agent, 1)
        assert part(agent) == 600_000
    network.pages_to(artifacts_without_a_range)
    network.artifact_bytes = 0
    runs_two(agent, server)
    assert network.artifact_bytes == len(TWO) - 600_000


@pytest.mark.parametrize("coding", ["", "Identity", "identity", "aws-chunked", "aws-chunked, identity"])
def test_coding_that_changes_no_byte_is_none(agent: Agent, server: Server, network: Interference, coding: str) -> None:
    network.headers = {"Content-Encoding": coding}
    update(agent, server)
    runs_two(agent, server)
    assert network.artifact_bytes == len(TWO)


def test_server_that_gives_small_ranges_gives_all_of_them_in_one_pass(
    agent: Agent, server: Server, network: Interference
) -> None:
    network.cut_after_bytes = 100_000
    update(agent, server)
    network.leave()
    network.slice_bytes = 100_000
    network.asked.clear()
    assert pass_by(agent, 1).models["detector"]["serial"] == 2
    assert len(network.asked_for("artifacts")) == 10
    runs_two(agent, server)


def test_wrong_bytes_of_the_right_length_are_fetched_ever_less_often(
    agent: Agent, server: Server, network: Interference
) -> None:
    """A cache that keeps broken bytes: nothing tells them from the right ones before the hash."""
    network.page, network.page_headers = bytes(len(TWO)), {}
    network.pages_to(artifacts)
    update(agent, server)
    result = pass_by(agent, 12)
    assert network.artifact_bytes == 2 * len(TWO)
    assert "did not bring the bytes" in result.models["detector"]["waits_for"]
    network.leave()
    agent.cycle(time.time() + 61, force=True)
    status = agent.status()["models"]["detector"]
    assert (status["serial"], status["refused"]) == (2, {})
