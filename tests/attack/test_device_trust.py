"""Metadata that is old, replayed, mixed, unsigned, expired or from a thief moves no device."""

import gzip
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root

from support.agents import AllGood
from support.repository import Repository, Server, onnx_model, variant_of
from whimbrel import Agent, AgentOptions, limits
from whimbrel.agent.app import CycleResult
from whimbrel.errors import UntrustedInput
from whimbrel.model import documents
from whimbrel.model.release import Line
from whimbrel.policy.policy import Policy
from whimbrel.trust import roles

ONE, TWO = onnx_model(factor=2.0), onnx_model(factor=3.0)


@pytest.fixture
def repository() -> Repository:
    made = Repository(models=("detector", "wakeword"))
    made.release("detector", 1, ONE)
    made.release("detector", 2, TWO)
    made.policy("detector", baseline=1)
    return made


@pytest.fixture
def server(repository: Repository) -> Iterator[Server]:
    with Server(repository) as running:
        yield running


@pytest.fixture
def agent(tmp_path: Path, server: Server, repository: Repository) -> Iterator[Agent]:
    with Agent.open(
        tmp_path,
        AgentOptions(
            server=server.url, root=repository.root_bytes, device_id="dev-1", probes=AllGood(), models=["detector"]
        ),
    ) as opened:
        assert opened.cycle().models["detector"]["serial"] == 1
        for _ in range(limits.TRIAL_HEALTHY_SESSIONS):
            with opened.session("detector"):
                pass
        assert opened.cycle(force=True).models["detector"]["state"] == "committed"
        yield opened


NOT_TRUSTED = "the signed metadata cannot be trusted: "
NOT_TRUSTED_POLICY = "refused: policy/detector.json cannot be trusted: "


def stays(agent: Agent, problem: str, *, now: float | None = None) -> CycleResult:
    """The device runs what it ran, and says why, as distrust or as absence: what it says begins with `problem`."""
    result = agent.cycle(now, force=True)
    assert result.models["detector"]["serial"] == 1
    (told,) = result.problems
    assert told.startswith(problem)
    return result


def test_replayed_timestamp_moves_no_device(agent: Agent, repository: Repository) -> None:
    repository.policy("detector", baseline=1)
    old = dict(repository.files)
    repository.line("detector", revoked=(1,))
    repository.policy("detector", baseline=2, on_revoked="keep")
    assert agent.cycle(force=True).models["detector"]["serial"] == 2
    repository.files = old
    result = agent.cycle(force=True)
    assert result.models["detector"]["serial"] == 2
    assert any("must be >=" in problem for problem in result.problems)


def test_policy_with_a_lower_sequence_is_refused_even_when_it_is_signed(agent: Agent, repository: Repository) -> None:
    repository.policy("detector", baseline=1)
    agent.cycle(force=True)
    repository.sequences["policy detector"] = 0
    repository.policy("detector", baseline=2)
    stays(agent, "refused: policy/detector.json has sequence 1, and 2 was seen before")


def test_lower_sequence_is_refused_after_a_restart_too(
    agent: Agent, repository: Repository, server: Server, tmp_path: Path
) -> None:
    repository.policy("detector", baseline=1)
    agent.cycle(force=True)
    agent.close()
    repository.sequences["policy detector"] = 0
    repository.policy("detector", baseline=2)
    with Agent.open(tmp_path, AgentOptions(probes=AllGood())) as again:
        stays(again, "refused: policy/detector.json has sequence 1, and 2 was seen before")


def test_line_with_a_lower_sequence_is_refused(agent: Agent, repository: Repository) -> None:
    repository.line("detector", minimum_serial=1)
    agent.cycle(force=True)
    role = roles.publisher_role("detector")
    old = Line(model="detector", sequence=1, revoked=(1,))
    repository.put(role, roles.line_path("detector"), documents.encode(old))
    stays(agent, "refused: models/detector/line.json has sequence 1, and 2 was seen before")


def test_role_from_another_snapshot_is_refused(agent: Agent, repository: Repository) -> None:
    role = roles.policy_role("detector")
    version = repository.delegated[role].version
    old = repository.files[f"metadata/{version}.{role}.json"]
    repository.policy("detector", baseline=2)
    repository.files[f"metadata/{version + 1}.{role}.json"] = old
    stays(agent, f"{NOT_TRUSTED_POLICY}Expected {role} v{version + 1}, got v{version}")


def test_unsigned_policy_is_refused(agent: Agent, repository: Repository) -> None:
    repository.policy("detector", baseline=2)
    role = roles.policy_role("detector")
    name = f"metadata/{repository.delegated[role].version}.{role}.json"
    metadata = Metadata.from_bytes(repository.files[name])
    metadata.signatures.clear()
    repository.files[name] = metadata.to_bytes()
    stays(agent, f"{NOT_TRUSTED_POLICY}its policy-detector is not signed by the key that it needs")


def test_policy_signed_by_another_models_key_is_refused(agent: Agent, repository: Repository) -> None:
    repository.signers[roles.policy_role("detector")] = repository.signers[roles.policy_role("wakeword")]
    repository.policy("detector", baseline=2)
    stays(agent, f"{NOT_TRUSTED_POLICY}its policy-detector is not signed by the key that it needs")


def test_policy_bytes_that_were_changed_on_the_way_are_refused(agent: Agent, repository: Repository) -> None:
    repository.policy("detector", baseline=2)
    for name, content in repository.files.items():
        if name.startswith("targets/policy/"):
            repository.files[name] = content.replace(b'"baseline":2', b'"baseline":9')
    stays(agent, f"{NOT_TRUSTED_POLICY}Observed hash ")


def test_expired_timestamp_is_refused_whatever_the_device_clock_says(agent: Agent, repository: Repository) -> None:
    later = datetime.now(UTC) + timedelta(days=3)
    repository.timestamp.expires = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    repository.policy("detector", baseline=2)
    stays(agent, f"{NOT_TRUSTED}timestamp.json is expired; this device takes it to be ")
    stays(agent, f"{NOT_TRUSTED}timestamp.json is expired; ", now=later.timestamp())


def test_clock_that_was_set_back_makes_no_old_metadata_young(agent: Agent, repository: Repository) -> None:
    expired = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2)
    repository.delegated[roles.policy_role("detector")].expires = expired
    repository.policy("detector", baseline=2)
    stays(agent, f"{NOT_TRUSTED_POLICY}New policy-detector is expired", now=1000.0)


def test_frozen_server_is_noticed_when_the_cached_metadata_expires(agent: Agent) -> None:
    assert not agent.cycle(force=True).problems
    stays(agent, f"{NOT_TRUSTED}timestamp.json is expired; ", now=datetime.now(UTC).timestamp() + 2 * 86400)


def test_root_that_the_old_root_did_not_sign_is_refused(agent: Agent, repository: Repository) -> None:
    thief = CryptoSigner.generate_ed25519()
    root = Root(version=2, expires=datetime.now(UTC).replace(microsecond=0) + timedelta(days=9))
    for role in ("root", "targets", "snapshot", "timestamp"):
        root.add_key(thief.public_key, role)
    metadata = Metadata(root)
    metadata.sign(thief)
    repository.files["metadata/2.root.json"] = metadata.to_bytes()
    repository.policy("detector", baseline=2)
    stays(agent, f"{NOT_TRUSTED}its root is not signed by the key that it needs; ")


def test_stolen_online_key_cannot_offer_what_no_publisher_signed(agent: Agent, repository: Repository) -> None:
    release = repository.release("detector", 3, TWO)
    publisher = roles.publisher_role("detector")
    del repository.delegated[publisher].targets[roles.release_path("detector", 3)]
    repository.delegated[publisher].version += 1
    repository.sign(publisher)
    repository.put(roles.policy_role("detector"), roles.release_path("detector", 3), documents.encode(release))
    repository.policy("detector", baseline=3)
    stays(agent, "the repository has no release 3 of detector")


def test_stolen_online_key_cannot_go_below_the_lines_floor(agent: Agent, repository: Repository) -> None:
    repository.line("detector", minimum_serial=2)
    repository.policy("detector", baseline=2)
    agent.cycle(force=True)
    repository.policy("detector", baseline=1)
    found = agent.cycle(force=True).models["detector"]
    assert found["serial"] == 2
    assert "below the line's floor" in found["because"]


def test_policy_of_another_model_is_refused(agent: Agent, repository: Repository) -> None:
    policy = Policy(model="wakeword", sequence=9, baseline=2)
    repository.put(roles.policy_role("detector"), roles.policy_path("detector"), documents.encode(policy))
    stays(agent, "refused: policy/detector.json is about 'wakeword'; expected 'detector'")


@pytest.mark.parametrize("change", [{"model": "wakeword"}, {"serial": 2}])
def test_release_of_another_model_or_serial_is_refused(
    agent: Agent, repository: Repository, change: dict[str, object]
) -> None:
    release = documents.convert(
        dict,
        {**documents.parse(dict, documents.encode(repository.release("detector", 3, TWO)), what="it"), **change},
        what="it",
    )
    repository.put(roles.publisher_role("detector"), roles.release_path("detector", 3), documents.encode(release))
    repository.policy("detector", baseline=3)
    stays(agent, "the release is about serial ")


@pytest.mark.parametrize(
    "name", ["../../model.onnx", "/etc/passwd", "a/../b", "a//b", "..", ".hidden", "a\\b", "nul\0"]
)
def test_file_name_that_is_a_path_is_refused(agent: Agent, repository: Repository, name: str, tmp_path: Path) -> None:
    release = documents.parse(dict, documents.encode(repository.release("detector", 3, TWO)), what="it")
    release["variants"][0]["files"][0]["name"] = name
    repository.put(roles.publisher_role("detector"), roles.release_path("detector", 3), documents.encode(release))
    repository.policy("detector", baseline=3)
    stays(agent, "release 3 of detector cannot be read")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"format":"whimbrel-policy-9"}', b"{" * 100_000])
def test_policy_that_is_not_understood_keeps_what_is_here(agent: Agent, repository: Repository, content: bytes) -> None:
    repository.put(roles.policy_role("detector"), roles.policy_path("detector"), content)
    stays(agent, "refused: policy/detector.json cannot be read: ")


Fault = Callable[[BaseHTTPRequestHandler], None]


def answering(body: bytes, *, times: int = 1, **headers: str) -> Fault:
    def fault(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Connection", "close")
        handler.end_headers()
        try:
            for _ in range(times):
                handler.wfile.write(body)
        except OSError:
            pass  # the agent hung up, as it should
        handler.close_connection = True

    return fault


def test_endless_timestamp_is_cut_off(agent: Agent, server: Server) -> None:
    server.faults["metadata/timestamp.json"] = answering(b" " * 100_000, times=10_000)
    stays(agent, f"{server.url}/default/metadata/timestamp.json answered with more than 16384 bytes")


def test_metadata_that_unpacks_without_end_is_cut_off(agent: Agent, server: Server) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    server.faults["metadata/timestamp.json"] = answering(bomb, Content_Encoding="gzip")
    stays(agent, f"{server.url}/default/metadata/timestamp.json answered with more than 16384 bytes")


@pytest.mark.parametrize("status", [301, 400, 403, 500, 503])
def test_server_that_answers_anything_else_moves_no_device(agent: Agent, server: Server, status: int) -> None:
    def fault(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Location", "http://127.0.0.1:9/elsewhere")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    server.faults["metadata/timestamp.json"] = fault
    stays(agent, f"{server.url}/default/metadata/timestamp.json answered {status}; expected 200 or 304")


@pytest.mark.parametrize("root", [b"", b"{}", b"not json", b'{"signed":{},"signatures":[]}'])
def test_root_that_does_not_verify_itself_opens_no_agent(tmp_path: Path, root: bytes) -> None:
    with pytest.raises(UntrustedInput, match="the root file cannot be used"):
        Agent.open(tmp_path / "new", AgentOptions(server="http://127.0.0.1:9", root=root, models=["detector"]))
    assert not (tmp_path / "new" / "agent.json").exists()


# --- artifacts ---


def install_two(agent: Agent, repository: Repository) -> CycleResult:
    repository.policy("detector", baseline=2)
    return agent.cycle(force=True)


def artifact(content: bytes) -> str:
    return f"artifacts/{documents.digest_of(content)}"


def test_artifact_with_a_wrong_hash_is_thrown_away_and_tried_later(
    agent: Agent, repository: Repository, server: Server
) -> None:
    wrong = bytes([TWO[0] ^ 1]) + TWO[1:]
    server.faults[artifact(TWO)] = answering(wrong, Content_Length=str(len(wrong)))
    result = install_two(agent, repository)
    assert result.models["detector"]["serial"] == 1
    assert "SHA-256" in result.problems[0]
    assert not list((agent.folder / "incoming").glob("*.part"))


def test_artifact_that_is_always_wrong_is_never_evidence_against_the_version(
    agent: Agent, repository: Repository, server: Server
) -> None:
    """After five wrong hashes a good version was quarantined on the device for ever."""
    server.faults[artifact(TWO)] = answering(b"x" * len(TWO), Content_Length=str(len(TWO)))
    now = datetime.now(UTC).timestamp()
    install_two(agent, repository)
    for number in range(1, 8):
        found = agent.cycle(now + 60 * number, force=True).models["detector"]
    assert (found["state"], found["serial"], found["refused"]) == ("offered", 1, {})
    server.faults.clear()
    assert agent.cycle(now + 36_000, force=True).models["detector"]["serial"] == 2


def test_endless_artifact_is_cut_off_and_leaves_nothing(agent: Agent, repository: Repository, server: Server) -> None:
    server.faults[artifact(TWO)] = answering(b"x" * 100_000, times=10_000)
    result = install_two(agent, repository)
    assert "longer than the" in result.problems[0]
    assert not list((agent.folder / "incoming").glob("*.part"))


def test_artifact_that_is_too_short_waits_for_the_rest(agent: Agent, repository: Repository, server: Server) -> None:
    server.faults[artifact(TWO)] = answering(TWO[:50], ETag='"one"')
    result = install_two(agent, repository)
    assert result.models["detector"]["state"] == "downloading"
    assert "bytes of" in result.problems[0]


def test_compressed_artifact_is_refused(agent: Agent, repository: Repository, server: Server) -> None:
    server.faults[artifact(TWO)] = answering(gzip.compress(bytes(len(TWO))), Content_Encoding="gzip")
    assert "must come as they are" in install_two(agent, repository).problems[0]


@pytest.mark.parametrize("content_range", ["", "bytes 0-9/100", "bytes 3-1/2", "nonsense"])
def test_range_that_was_not_asked_for_starts_again(
    agent: Agent, repository: Repository, server: Server, content_range: str
) -> None:
    server.faults[artifact(TWO)] = answering(TWO[:50], ETag='"one"')
    install_two(agent, repository)

    def other_range(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(206)
        handler.send_header("Content-Range", content_range)
        handler.send_header("Content-Length", "10")
        handler.end_headers()
        handler.wfile.write(b"x" * 10)

    server.faults[artifact(TWO)] = other_range
    now = datetime.now(UTC).timestamp()
    assert "another range" in agent.cycle(now + 60).problems[0]
    server.faults.clear()
    assert agent.cycle(now + 120).models["detector"]["serial"] == 2


def test_new_bytes_behind_a_resume_start_again(agent: Agent, repository: Repository, server: Server) -> None:
    server.faults[artifact(TWO)] = answering(b"y" * 50, ETag='"another"')
    install_two(agent, repository)
    server.faults.clear()
    now = datetime.now(UTC).timestamp()
    agent.cycle(now + 60)  # the server begins with other bytes than those here: neither is believed yet
    assert agent.cycle(now + 120).models["detector"]["serial"] == 2


def test_variant_for_other_devices_is_not_offered(agent: Agent, repository: Repository) -> None:
    from whimbrel.model.selector import Selector

    only = variant_of(TWO, selector=Selector(match_labels={"hardware": "phone"}))
    repository.release("detector", 3, variants=(only,))
    repository.policy("detector", baseline=3)
    found = agent.cycle(force=True).models["detector"]
    assert found["serial"] == 1
    assert "a variant of serial 3" in found["waits_for"]
