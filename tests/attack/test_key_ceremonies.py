"""Nobody changes who may sign but those who may: what a thief of some keys, or a liar on the server's API, cannot do.

Each attack is sent to a real server; afterwards nothing has changed, and devices go on.
"""

import base64
import copy
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import Delegations, Metadata, Root, Targets

from support.agents import AllGood
from support.server import Running, done, model_file, repository, serving, whimbrel
from whimbrel import Agent, AgentOptions
from whimbrel.agent.app import CycleResult
from whimbrel.server.auth import DeviceTokens
from whimbrel.stores.signed_metadata import SERIALIZER, add_signature
from whimbrel.stores.signer import load_signer

Change = Callable[[Any], object]
TIMESTAMP = "files/default/metadata/timestamp.json"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    with serving(repository(tmp_path / "repo", versions=1)) as running:
        yield running


def key(server: Running, name: str, *, folder: str = "offline") -> CryptoSigner:
    return load_signer(server.folder / "keys" / folder / f"{name}.pem")


def next_role(server: Running, role: str, change: Change, *signers: CryptoSigner) -> bytes:
    """The next version of a role as an attacker makes it."""
    with server.people() as people:
        metadata = Metadata.from_bytes(people.get(f"/roles/{role}").content)
    metadata.signed.version += 1
    metadata.signatures.clear()
    change(metadata.signed)
    for signer in signers:
        add_signature(metadata, signer)
    content: bytes = metadata.to_bytes(SERIALIZER)
    return content


def sent(server: Running, **documents: bytes) -> tuple[int, str]:
    """What the server answers to a change; it must have changed nothing."""
    body = {"documents": {role: base64.b64encode(content).decode() for role, content in documents.items()}}
    with server.people() as people:
        before = [people.get(f"/roles/{role}").content for role in ("root", "targets", "snapshot")]
        answer = people.post("/keys/changes", json=body)
        assert [people.get(f"/roles/{role}").content for role in ("root", "targets", "snapshot")] == before
    return answer.status_code, str(answer.json()["detail"])


def replaced_root(new: CryptoSigner) -> Change:
    def change(root: Root) -> None:
        root.revoke_key(root.roles["root"].keyids[0], "root")
        root.add_key(new.public_key, "root")

    return change


def test_root_that_the_old_keys_did_not_sign_is_refused(server: Running) -> None:
    thief = CryptoSigner.generate_ed25519()
    status, words = sent(server, root=next_role(server, "root", replaced_root(thief), thief))
    assert (status, "root is not signed" in words) == (400, True)


def test_root_that_the_new_keys_did_not_sign_is_refused(server: Running) -> None:
    """Devices would follow to a root that nobody can sign the next version of."""
    new = CryptoSigner.generate_ed25519()
    status, words = sent(server, root=next_role(server, "root", replaced_root(new), key(server, "root")))
    assert (status, "root is not signed" in words) == (400, True)


def test_one_key_under_two_ids_is_not_two_people(server: Running) -> None:
    real, thief = key(server, "root"), CryptoSigner.generate_ed25519()
    public = thief.public_key
    twin = SSlibKey("ab" * 32, public.keytype, public.scheme, public.keyval)

    def change(root: Root) -> None:
        for each in (public, twin):
            root.add_key(each, "root")
        root.roles["root"].threshold = 2

    status, words = sent(server, root=next_role(server, "root", change, real, thief))
    assert (status, "calls itself abababab" in words) == (400, True)


def test_threshold_that_nobody_could_reach_is_refused(server: Running) -> None:
    def change(root: Root) -> None:
        root.roles["timestamp"].threshold = 5

    status, words = sent(server, root=next_role(server, "root", change, key(server, "root")))
    assert (status, "5 of 1 keys" in words) == (403, True)


@pytest.mark.parametrize("version", [0, 5, 2**53])
def test_root_of_another_version_than_the_next_is_refused(server: Running, version: int) -> None:
    def change(root: Root) -> None:
        root.version = version or 1

    status, _ = sent(server, root=next_role(server, "root", change, key(server, "root")))
    assert status == 409


def test_root_that_expired_or_hides_versions_is_refused(server: Running) -> None:
    def expire(root: Root) -> None:
        root.expires = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)

    def hide(root: Root) -> None:
        root.consistent_snapshot = False

    assert "expired" in sent(server, root=next_role(server, "root", expire, key(server, "root")))[1]
    assert "find nothing" in sent(server, root=next_role(server, "root", hide, key(server, "root")))[1]


def test_online_key_that_the_server_does_not_hold_is_refused(server: Running) -> None:
    """It could sign no timestamp any more, and a day later every device would be without news."""
    foreign = CryptoSigner.generate_ed25519().public_key

    def change(root: Root) -> None:
        root.revoke_key(root.roles["timestamp"].keyids[0], "timestamp")
        root.add_key(foreign, "timestamp")

    status, words = sent(server, root=next_role(server, "root", change, key(server, "root")))
    assert (status, "does not hold" in words) == (403, True)


def test_new_targets_key_without_the_targets_that_it_signs_is_refused(server: Running) -> None:
    new = CryptoSigner.generate_ed25519()

    def change(root: Root) -> None:
        root.revoke_key(root.roles["targets"].keyids[0], "targets")
        root.add_key(new.public_key, "targets")

    assert sent(server, root=next_role(server, "root", change, key(server, "root")))[0] == 400


def test_new_publisher_key_without_what_it_signs_is_refused(server: Running) -> None:
    new = CryptoSigner.generate_ed25519()

    def change(targets: Any) -> None:
        targets.revoke_key(targets.delegations.roles["publisher-wake"].keyids[0], "publisher-wake")
        targets.add_key(new.public_key, "publisher-wake")

    status, words = sent(server, targets=next_role(server, "targets", change, key(server, "targets")))
    assert (status, "needs the next version of publisher-wake" in words) == (403, True)


def test_change_of_keys_changes_nothing_else(server: Running) -> None:
    def drop(targets: Any) -> None:
        del targets.delegations.roles["publisher-wake"]

    def widen(targets: Any) -> None:
        targets.delegations.roles["policy-wake"].paths.append("models/*")

    for change, sentence in (
        (drop, "drops publisher-wake"),
        (widen, "deltas/wake/*, models/*, which is not what a role of that name signs"),
    ):
        status, words = sent(server, targets=next_role(server, "targets", change, key(server, "targets")))
        assert (status, sentence in words) == (403, True), words


def drafted(server: Running, draft: Path, *roles: str, change: Callable[[dict[str, Any]], object]) -> None:
    """A draft that whoever passed it on has changed."""
    done("keys", "renew", *roles, "-R", server.folder, "--draft", draft)
    body = json.loads(draft.read_bytes())
    change(body["after"])
    draft.write_text(json.dumps(body))


def test_role_that_shadows_a_publisher_is_said_to_who_signs_and_refused(server: Running, tmp_path: Path) -> None:
    """A draft showed a further role by its name alone, and the server took it: its key signed versions of the model."""
    thief, draft = CryptoSigner.generate_ed25519().public_key, tmp_path / "renew.json"

    def shadow(after: dict[str, Any]) -> None:
        delegations = after["targets"]["signed"]["delegations"]
        delegations["keys"][thief.keyid] = thief.to_dict()
        helper = {"keyids": [thief.keyid], "name": "publisher-sleep", "paths": ["models/wake/*"], "threshold": 1}
        delegations["roles"].insert(0, helper | {"terminating": True})

    drafted(server, draft, "targets", change=shadow)
    warning = "publisher-sleep may sign models/wake/*, which is not what a role of that name signs"
    assert f"{warning}. DO NOT SIGN" in whimbrel("keys", "show", draft).out
    done("keys", "sign", draft, "--keys", server.folder / "keys" / "offline", "--yes")
    before = done("keys", "status", "-R", server.folder)
    answer = whimbrel("keys", "submit", draft, "-R", server.folder, "--yes")
    assert (answer.status, warning in answer.err) == (4, True)
    assert done("keys", "status", "-R", server.folder) == before


def test_publisher_that_lets_others_sign_is_neither_signed_nor_taken(server: Running, tmp_path: Path) -> None:
    thief, draft = CryptoSigner.generate_ed25519().public_key, tmp_path / "renew.json"
    helper = {"keyids": [thief.keyid], "name": "x", "paths": ["models/wake/*"], "threshold": 1, "terminating": True}
    delegations = {"keys": {thief.keyid: thief.to_dict()}, "roles": [helper]}
    role = "publisher-wake"
    drafted(server, draft, role, change=lambda after: after[role]["signed"].update(delegations=delegations))
    signed = whimbrel("keys", "sign", draft, "--keys", server.folder / "keys" / "offline", "--yes")
    assert (signed.status, "lets others sign for publisher-wake" in signed.err) == (2, True)

    def delegate(targets: Targets) -> None:
        targets.delegations = Delegations.from_dict(copy.deepcopy(delegations))

    status, words = sent(server, **{role: next_role(server, role, delegate, key(server, role))})
    assert (status, "delegates to others" in words) == (403, True)


def test_online_role_is_not_taken_from_people(server: Running) -> None:
    signer = key(server, "policy", folder="online")
    content = next_role(server, "policy-wake", lambda _: None, signer)
    status, words = sent(server, **{"policy-wake": content})
    assert (status, "signed by the server" in words) == (403, True)


def test_a_change_of_keys_prolongs_no_floor_and_names_no_other_line(server: Running) -> None:
    """A floor of an old line that lives longer would bring revoked versions back to new devices."""
    done("floor", "require", "wake", "--expires-days", 30, "--yes", "-R", server.folder)

    def later(targets: Any) -> None:
        targets.expires += timedelta(days=300)

    def empty(targets: Any) -> None:
        targets.targets.clear()

    for change in (later, empty):
        content = next_role(server, "floor-wake", change, key(server, "floor-wake"))
        status, words = sent(server, **{"floor-wake": content})
        assert (status, "names another line, or ends at another time" in words) == (403, True), words


def test_new_floor_key_without_the_floor_that_it_signs_is_refused(server: Running) -> None:
    done("floor", "require", "wake", "--expires-days", 30, "--yes", "-R", server.folder)
    new = CryptoSigner.generate_ed25519()

    def change(targets: Any) -> None:
        targets.revoke_key(targets.delegations.roles["floor-wake"].keyids[0], "floor-wake")
        targets.add_key(new.public_key, "floor-wake")

    status, words = sent(server, targets=next_role(server, "targets", change, key(server, "targets")))
    assert (status, "needs the next version of floor-wake" in words) == (403, True)


def test_a_model_or_a_floor_that_is_added_changes_the_keys_of_no_other_role(server: Running) -> None:
    """With the targets key, `POST models` and the routes of floors took a role that handed a publisher over."""
    thief = CryptoSigner.generate_ed25519()

    def hand_over(targets: Any) -> None:
        targets.revoke_key(targets.delegations.roles["publisher-wake"].keyids[0], "publisher-wake")
        targets.add_key(thief.public_key, "publisher-wake")

    def lower(targets: Any) -> None:
        targets.delegations.roles["policy-wake"].paths.append("models/*")

    line = base64.b64encode(b'{"model":"sleep","sequence":1,"minimum_serial":1,"revoked":[]}').decode()
    for change, role in ((hand_over, "publisher-wake"), (lower, "policy-wake")):
        content = base64.b64encode(next_role(server, "targets", change, key(server, "targets"))).decode()
        with server.people() as people:
            before = people.get("/roles/targets").content
            asked = {"name": "sleep", "targets": content, "publisher": "", "line": line, "salt": 1}
            answers = [
                people.post("/models", json=asked),
                people.post("/models/wake/floor/lift", json={"targets": content}),
            ]
            assert people.get("/roles/targets").content == before
        for answer in answers:
            assert answer.status_code == 403, answer.text
            assert role in answer.json()["detail"]


def test_change_without_the_admin_token_is_not_heard(server: Running) -> None:
    with server.people() as people:
        del people.headers["authorization"]
        for path in ("keys/changes", "keys/online", "keys/device-tokens"):
            assert people.post(f"/{path}", json={}).status_code == 401


# --- what a thief had, and what takes it back ---


def updated(agent: Agent) -> CycleResult:
    result = agent.cycle(force=True)
    assert result.problems == ()
    return result


def serves(server: Running, timestamp: bytes) -> None:
    """Have the server answer with this timestamp, as whoever is on it can."""
    (server.folder / TIMESTAMP).write_bytes(timestamp)
    with server.public() as public:
        for _ in range(100):
            if public.get("/metadata/timestamp.json").content == timestamp:
                return
            time.sleep(0.1)
    raise AssertionError("the server answers with another timestamp")


def test_thief_of_all_online_keys_is_undone_by_one_ceremony(server: Running, tmp_path: Path) -> None:
    """With a real server and agent: the thief's timestamp of version 2^40 keeps nothing back afterwards."""
    options = AgentOptions(
        server=server.devices,
        root=server.folder / "root.json",
        models=["wake"],
        enrol_token=(server.folder / "enrol.token").read_text().strip(),
        probes=AllGood(),
        insecure_http=True,
    )
    with Agent.open(tmp_path / "device", options) as agent:
        updated(agent)
        honest = (server.folder / TIMESTAMP).read_bytes()
        forged = Metadata.from_bytes(honest)
        forged.signed.version = 2**40
        forged.signatures.clear()
        add_signature(forged, key(server, "timestamp", folder="online"))
        serves(server, forged.to_bytes(SERIALIZER))
        updated(agent)
        serves(server, honest)
        assert agent.cycle(force=True).problems  # the honest one is older than what the thief signed
        done("keys", "rotate", "timestamp", "snapshot", "policy", "-R", server.folder, "--yes")
        result = updated(agent)
        assert result.models["wake"]["serial"] == 1


def test_stolen_token_key_is_worth_nothing_a_second_later(server: Running) -> None:
    stolen = (server.folder / "keys" / "online" / "device-tokens.key").read_bytes()
    with server.enrolled("dev-1") as device, server.public() as public:
        now = datetime.now(UTC).timestamp()
        public.headers["authorization"] = f"Bearer {DeviceTokens(stolen).issue('default', 'dev-2', now=now)}"
        assert public.post("/device/v1/check", json={"models": {"wake": None}}).status_code == 200
        done("keys", "replace-token-key", "-R", server.folder)
        assert device.post("/device/v1/check", json={"models": {"wake": None}}).status_code == 200  # for an hour
        done("keys", "replace-token-key", "--at-once", "--yes", "-R", server.folder)
        time.sleep(1.1)
        for client in (public, device):
            assert client.post("/device/v1/check", json={"models": {"wake": None}}).status_code == 401


def test_publisher_key_that_was_replaced_signs_no_version(server: Running, tmp_path: Path) -> None:
    done("keys", "rotate", "publisher-wake", "-R", server.folder, "--yes")
    stolen = server.folder / "stolen"
    stolen.mkdir()
    (server.folder / "keys" / "offline" / "publisher-wake.pem").rename(stolen / "publisher-wake.pem")
    file = model_file(tmp_path, 2)
    refused = whimbrel("publish", "-m", "wake", file, "-R", server.folder, "--keys", stolen)
    assert (refused.status, "that may sign publisher-wake" in refused.err) == (4, True)
    done("publish", "-m", "wake", file, "-R", server.folder)


def test_second_person_is_needed_where_the_threshold_says_so(server: Running, tmp_path: Path) -> None:
    """One stolen root key, of two that must sign, changes nothing."""
    done("keys", "init", "anna", "--keys", tmp_path / "anna", "--public", tmp_path / "anna.json")
    draft = tmp_path / "two.json"
    done("keys", "add", "root", tmp_path / "anna.json", "--threshold", 2, "--draft", draft, "-R", server.folder)
    refused = whimbrel("keys", "submit", draft, "-R", server.folder, "--yes")
    assert (refused.status, "is not signed yet" in refused.err) == (2, True)
    done("keys", "sign", draft, "--keys", server.folder / "keys" / "offline", "--yes")
    done("keys", "sign", draft, "--keys", tmp_path / "anna", "--yes")
    done("keys", "submit", draft, "-R", server.folder, "--yes")
    again = whimbrel("keys", "submit", draft, "-R", server.folder, "--yes")
    assert (again.status, "was submitted already" in again.err) == (4, True)
    alone = done("keys", "renew", "root", "-R", server.folder, "--draft", tmp_path / "alone.json")
    assert not alone["complete"]
    content = next_role(server, "root", lambda _: None, key(server, "root"))
    status, words = sent(server, root=content)
    assert (status, "signed by 1/2 keys" in words) == (400, True)


def test_model_is_added_by_two_people_where_targets_says_so(server: Running, tmp_path: Path) -> None:
    folder, office, anna = server.folder, server.folder / "keys" / "offline", tmp_path / "anna"
    done("keys", "init", "anna", "--keys", anna, "--public", tmp_path / "anna.json")
    draft = tmp_path / "draft.json"

    def all_sign() -> None:
        for keys in (office, anna):
            done("keys", "sign", draft, "--keys", keys, "--yes")
        done("keys", "submit", draft, "-R", folder, "--yes")

    done("keys", "add", "targets", tmp_path / "anna.json", "--threshold", 2, "--draft", draft, "-R", folder)
    all_sign()
    alone = whimbrel("model", "add", "sleep", "-R", folder)
    assert (alone.status, "have the others sign a draft" in alone.err) == (4, True)
    done("model", "add", "sleep", "-R", folder, "--draft", draft)
    all_sign()
    done("model", "add", "sleep", "-R", folder)
    done("publish", "-m", "sleep", model_file(tmp_path, 1), "-R", folder)
