"""What is wrong with signed metadata, in sentences for whoever set the device up: the model, the root, the port."""

from datetime import timedelta
from pathlib import Path

import pytest
from tuf.api.exceptions import DownloadHTTPError, RepositoryError, UnsignedMetadataError

from support.agents import AllGood
from support.power_cut import Device, World
from support.repository import Repository, Server
from whimbrel.agent.app import Agent
from whimbrel.agent.options import AgentOptions
from whimbrel.agent.trust_problems import metadata_problem, problem_of, signature_words, unknown_model
from whimbrel.agent.tuf_client import check_root
from whimbrel.errors import Refused, Unavailable, UntrustedInput
from whimbrel.sim.disk import ModelledDisk

URL = "http://models.example/default"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("timestamp was signed by 0/1 keys", "its timestamp is not signed by the key that it needs"),
        ("root was signed by 1/3 keys", "its root is signed by only 1 of the 3 keys that it needs"),
        ("targets was signed by 0/2 keys", "its targets is not signed by the 2 keys that it needs"),
        ("something else", "something else"),
    ],
)
def test_missing_signatures_are_told_in_words(error: str, words: str) -> None:
    assert signature_words(UnsignedMetadataError(error)) == words


def test_metadata_that_is_not_there_names_what_to_check() -> None:
    problem = metadata_problem(DownloadHTTPError("it answered 404", 404), url=URL)
    assert isinstance(problem, Unavailable)
    assert str(problem) == (
        f"there is no signed metadata at {URL}: it answered 404; check the server's address, its port (devices and "
        "people ask different ones) and the namespace"
    )
    assert isinstance(metadata_problem(DownloadHTTPError("it answered 503", 503), url=URL), Unavailable)
    assert isinstance(problem_of(RepositoryError("version 3, expected 4"), "policy/wake.json"), UntrustedInput)


def test_the_models_that_there_are_are_named_but_not_hundreds() -> None:
    assert unknown_model("wkae", known=["wake", "detector"]) == "the server has no model 'wkae'; it has detector, wake"
    assert unknown_model("wake", known=[]) == "the server has no model 'wake'; it has none yet"
    assert unknown_model("wake", known=[f"m{n}" for n in range(9)]).endswith("m6, m7, ...")


def test_a_root_that_is_none_is_told_without_internals() -> None:
    with pytest.raises(UntrustedInput, match=r"it is no signed metadata \(JSON\); expected the root.json"):
        check_root(b"\x08\x07onnx")


def test_an_agent_that_is_given_no_model_says_so(tmp_path: Path) -> None:
    """It kept `detector`, which nobody had named, and said for ever that models/detector/line.json is not there."""
    with pytest.raises(Refused, match=r"give server, root and models \(missing: models\)"):
        Agent.open(tmp_path / "device", AgentOptions(server="http://127.0.0.1:9", root=Repository().root_bytes))
    assert not (tmp_path / "device" / "agent.json").exists()


def test_wrong_models_roots_ports_and_namespaces_are_told_without_internals(tmp_path: Path) -> None:
    repository, other = Repository(), Repository()
    repository.release("detector", 1, b"x" * 100)
    repository.policy("detector", baseline=1)
    with Server(repository) as server:

        def problem(folder: str, *, model: str = "detector", root: bytes = repository.root_bytes, **given: str) -> str:
            with Agent.open(
                tmp_path / folder,
                AgentOptions(
                    server=given.get("server", server.url),
                    root=root,
                    models=[model],
                    namespace=given.get("namespace"),
                    probes=AllGood(),
                ),
            ) as agent:
                return "; ".join(agent.cycle(force=True).problems)

        assert problem("model", model="detectr") == "not yet: the server has no model 'detectr'; it has detector"
        assert problem("root", root=other.root_bytes).startswith(
            "the signed metadata cannot be trusted: its timestamp is not signed by the key that it needs; either the "
            "root.json of this device is another server's than that of http://127.0.0.1:"
        )
        assert problem("namespace", namespace="elsewhere").startswith(
            f"there is no signed metadata at {server.url}/elsewhere"
        )
        refused = problem("port", server="http://127.0.0.1:9")
        assert refused == (
            "the signed metadata cannot be fetched: http://127.0.0.1:9 cannot be reached: connection refused"
        )
        unknown = problem("name", server="https://no-such-host.invalid")
        assert "https://no-such-host.invalid cannot be reached" in unknown
        assert unknown.endswith("its name is not known here")


def test_a_timestamp_may_live_as_long_as_what_other_keys_signed_and_no_second_longer() -> None:
    """Else who holds its key alone makes a device believe that it is next year."""
    with World() as world:
        device = Device(world, ModelledDisk())
        device.settle(1)
        repository = world.repository
        most = min(repository.snapshot.expires, repository.targets.expires, repository.root.expires)
        for seconds, problems in ((0, 0), (1, 1)):
            repository.timestamp.expires = most + timedelta(seconds=seconds)
            repository.renew()
            world.now += 61
            assert len(device.agent.cycle(world.now, force=True).problems) == problems
        (problem,) = device.agent.cycle(world.now, force=True).problems
        day = most.strftime("%Y-%m-%d %H:%M UTC")
        assert problem == (
            f"the signed metadata cannot be trusted: timestamp.json expires at {day}, expected at most {day}"
        )
