"""A Python agent enrols with an attestation: what its attester makes of the server's challenge is verified there."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.agents import AllGood
from support.android_keys import Maker
from support.server import Running, done, repository, serving, whimbrel
from whimbrel import Agent, AgentOptions
from whimbrel.agent.attestation import GROUP
from whimbrel.errors import Unavailable, UntrustedInput
from whimbrel.trust.enrolment import Attestation
from whimbrel.trust.possession import base64url

MAKER = Maker()


class Phone:
    """An attester: its key store signs the challenge that it gets, or another one."""

    def __init__(self, *, answers: bytes | None = None) -> None:
        self.answers = answers

    def attest(self, challenge: bytes) -> Attestation:
        chain = MAKER.chain(self.answers or challenge)
        return Attestation(kind="android-key", chain=tuple(base64url(each) for each in chain))


class Broken:
    def attest(self, challenge: bytes) -> Attestation:
        raise RuntimeError("the key store is locked")


class Odd:
    def attest(self, challenge: bytes) -> Any:
        return {"kind": "android-key"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = repository(tmp_path_factory.mktemp("served") / "repo", versions=1)
    (folder / "roots.pem").write_bytes(MAKER.root_pem)
    with (folder / "whimbrel.toml").open("a") as file:
        file.write('\n[attestation.android-key]\nroots = "roots.pem"\n')
    with serving(folder) as here:
        yield here


def options(server: Running, device_id: str, **changes: Any) -> AgentOptions:
    given: dict[str, Any] = {
        "server": server.devices,
        "root": server.folder / "root.json",
        "models": ["wake"],
        "device_id": device_id,
        "enrol_token": (server.folder / "enrol.token").read_text(),
        "probes": AllGood(),
    }
    return AgentOptions(**(given | changes))


def test_an_agent_answers_the_challenge_and_is_attested(server: Running, tmp_path: Path) -> None:
    with Agent.open(tmp_path / "device", options(server, "phone", attester=Phone())) as agent:
        assert agent.cycle(force=True).problems == ()
        assert agent.status()["labels"]["attestation.level"] == "tee"
    shown = done("device", "show", "phone", "-R", server.folder)
    assert (shown["admission"], shown["granted_labels"]["attestation"]) == ("attested", "android-key")


@pytest.mark.parametrize(
    ("attester", "sentence"),
    [
        (Phone(answers=b"d" * 32), "another challenge"),
        (Broken(), "the key store is locked"),
        (Odd(), "returned dict; expected an Attestation"),
    ],
    ids=["replayed", "broken", "odd"],
)
def test_an_agent_that_cannot_be_attested_does_not_enrol_without(
    server: Running, tmp_path: Path, attester: Any, sentence: str
) -> None:
    device_id = f"not-{type(attester).__name__.lower()}"
    with Agent.open(tmp_path / "device", options(server, device_id, attester=attester)) as agent:
        problems = agent.cycle(force=True).problems
        assert any(sentence in problem for problem in problems), problems
    assert whimbrel("device", "show", device_id, "-R", server.folder).status == 4


def installed(folder: Path, code: str, *, kind: str = "android-key") -> None:
    """A package with one attester, as pip would install it."""
    module = f"attester_{kind.replace('-', '_')}"  # each a module of its own: what was imported once stays
    info = folder / "our_attester-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: our-attester\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{kind} = {module}:open_attester\n")
    (folder / f"{module}.py").write_text(code)


def test_an_installed_attester_is_found_by_its_kind_and_the_folder_remembers_it(
    server: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "from test_attested_agents import Phone\n\ndef open_attester(folder):\n    return Phone()\n"
    installed(tmp_path / "site", code)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setitem(sys.modules, "test_attested_agents", sys.modules[__name__])
    with Agent.open(tmp_path / "device", options(server, "board", attestation="android-key")):
        pass
    token = (server.folder / "enrol.token").read_text()
    with Agent.open(tmp_path / "device", AgentOptions(enrol_token=token, probes=AllGood())) as agent:
        assert agent.cycle(force=True).problems == ()
        assert agent.status()["labels"]["attestation.boot"] == "verified"


def test_an_attester_that_is_not_there_or_does_not_load_is_said_at_once(
    server: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UntrustedInput, match="makes attestations of kind 'tpm-quote'; there are: none"):
        Agent.open(tmp_path / "one", options(server, "odd", attestation="tpm-quote"))
    said = whimbrel("agent", "check", "--folder", tmp_path / "two", "--attestation", "tpm-quote")
    assert (said.status, f"an entry point of the group {GROUP}" in said.err) == (2, True)
    installed(tmp_path / "site", "raise ImportError('no TPM library')\n", kind="tpm-quote")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    with Agent.open(tmp_path / "three", options(server, "odd-3", attestation="tpm-quote")) as agent:
        assert any("no TPM library" in problem for problem in agent.cycle(force=True).problems)
    with pytest.raises(UntrustedInput, match="attester is"):
        AgentOptions(attester="tpm")


def test_what_an_attester_says_itself_is_kept(server: Running, tmp_path: Path) -> None:
    class Busy:
        def attest(self, challenge: bytes) -> Attestation:
            raise Unavailable("the chip is busy")

    with Agent.open(tmp_path / "device", options(server, "busy", attester=Busy())) as agent:
        assert "the chip is busy" in agent.cycle(force=True).problems
