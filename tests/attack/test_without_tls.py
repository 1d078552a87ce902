"""Without TLS whoever listens reads, and whoever is on the way answers: it is refused, or little is told."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.agents import AllGood, options_of
from support.repository import Repository, Server, onnx_model
from support.tls import over_tls
from whimbrel import Agent, AgentOptions, limits
from whimbrel.agent import app
from whimbrel.errors import Refused


@pytest.fixture
def server() -> Iterator[Server]:
    repository = Repository()
    repository.release("detector", 1, onnx_model())
    repository.policy("detector", baseline=1)
    with Server(repository) as running:
        yield running


@pytest.mark.parametrize("host", ["models.example.com", "10.0.0.7", "[fd00::1]:8080", "localhost.example.com"])
def test_server_on_another_machine_is_not_asked_without_tls(tmp_path: Path, server: Server, host: str) -> None:
    with pytest.raises(Refused, match="without TLS"):
        Agent.open(tmp_path, options_of(server, server=f"http://{host}"))
    assert not (tmp_path / "agent.json").exists()
    Agent.open(tmp_path, options_of(server, server=f"http://{host}", insecure_http=True)).close()
    Agent.open(tmp_path, AgentOptions(probes=AllGood())).close()  # it is kept
    with pytest.raises(Refused, match="without TLS"):
        Agent.open(tmp_path, AgentOptions(insecure_http=False))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "[::1]:9"])
def test_this_machine_is_asked_without_tls(tmp_path: Path, server: Server, host: str) -> None:
    Agent.open(tmp_path, options_of(server, server=f"http://{host}")).close()


def test_nothing_secret_is_sent_again_to_whoever_answers_401(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BACKOFF_FIRST_S", 0.0)
    monkeypatch.setattr(app, "is_confidential", lambda _: False)  # as over a network
    with Agent.open(tmp_path, options_of(server)) as agent:
        agent.cycle(force=True)
        agent.cycle(force=True)
        assert len(server.enrolled) == 1
        server.answers = {"announce": 401, "reports": 401, "token": 401}  # somebody on the way
        problems: set[str] = set()
        for _ in range(4):
            time.sleep(0.11)
            with agent.session("detector"):
                pass
            problems.update(agent.cycle(force=True).problems)
        assert any("answered 401 without TLS" in problem for problem in problems), problems
        assert len(server.enrolled) == 1


# --- a private authority ---


def test_private_authority_is_trusted_where_it_is_given(tmp_path: Path, server: Server) -> None:
    folder = tmp_path / "device"
    with over_tls(server, tmp_path) as (url, place):
        with Agent.open(folder, options_of(server, server=url)) as agent:
            assert any("its certificate is not trusted" in problem for problem in agent.cycle().problems)
        with Agent.open(folder, AgentOptions(ca_file=str(place), probes=AllGood())) as agent:
            assert agent.cycle(force=True).models["detector"]["serial"] == 1
        with Agent.open(folder, AgentOptions(probes=AllGood())) as agent:  # it is kept
            assert agent.cycle(force=True).problems == ()
        with Agent.open(folder, AgentOptions(ca_file="", probes=AllGood())) as agent:
            assert any("its certificate is not trusted" in problem for problem in agent.cycle(force=True).problems)
