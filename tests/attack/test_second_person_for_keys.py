"""Who holds enough keys, and a token that may change keys, is one person: where two are asked, nothing changes by that.

One server, whose whimbrel.toml has `second_person_for_keys`. Ada and Ben have the role security, Rae is a releaser.
"""

import base64
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata

from support.accounts import refusal, signed_in, token_of
from support.server import Running, done, repository, serving, whimbrel
from whimbrel import limits
from whimbrel.model.release import Floor
from whimbrel.server.app import open_repository
from whimbrel.server.config import Folder
from whimbrel.stores.floor_roles import sign_floor
from whimbrel.stores.key_proposals import key_proposals
from whimbrel.stores.signed_metadata import SERIALIZER, add_signature
from whimbrel.stores.signer import load_signer
from whimbrel.stores.transaction import transaction

Where = list[Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = repository(tmp_path_factory.mktemp("two") / "repo", versions=1)
    with (folder / "whimbrel.toml").open("a") as file:
        file.write("second_person_for_keys = true\n")
    with serving(folder) as running:
        yield running


@pytest.fixture(scope="module")
def people(server: Running) -> dict[str, Where]:
    """How the commands of each say where they work, and as whom."""
    places: dict[str, Where] = {}
    for name, role, who in (
        ("ada", "security", "ada"),
        ("ada-again", "security", "ada"),
        ("ben", "security", "ben"),
        ("rae", "releaser", "rae"),
        ("ci", "security", None),
    ):
        file = server.folder.parent / f"{name}.token"
        file.write_text(token_of(server, f"{name}-token" if who else name, role, person=who))
        places[name] = ["--server", server.admin, "--token-file", file]
    return places


@pytest.fixture(autouse=True)
def nothing_waits(server: Running) -> Iterator[None]:
    yield
    with server.people() as admin:
        for each in admin.get("/keys/proposals").json():
            admin.post(f"/keys/proposals/{each['id']}/reject", json={}).raise_for_status()


def rotated(server: Running, where: Where, *roles: str) -> dict[str, Any]:
    """A change of keys that its person signs alone, with all keys that it needs."""
    answer: dict[str, Any] = done(
        "keys", "rotate", *roles, "--yes", *where, "--keys", server.folder / "keys" / "offline"
    )
    return answer


def versions(server: Running) -> dict[str, int]:
    with server.people() as admin:
        return {
            role: admin.get(f"/roles/{role}").json()["signed"]["version"] for role in ("root", "targets", "timestamp")
        }


def entries(server: Running, action: str) -> list[dict[str, Any]]:
    with server.people() as admin:
        answer: list[dict[str, Any]] = admin.get("/audit", params={"action": action}).json()
        return answer


def test_one_person_with_all_keys_changes_nothing(server: Running, people: dict[str, Where]) -> None:
    before = versions(server)
    proposed = rotated(server, people["ada"], "timestamp")
    time.sleep(0.5)  # a round of the server
    assert versions(server) == before
    for again in ("ada", "ada-again"):
        said = whimbrel("keys", "approve", proposed["proposal"][:12], "--yes", *people[again])
        assert (said.status, "needs the approval of another person" in said.err) == (4, True), said
    assert versions(server) == before


def test_another_person_takes_it_and_the_log_shows_both(server: Running, people: dict[str, Where]) -> None:
    before = versions(server)
    proposed = rotated(server, people["ada"], "timestamp", "snapshot")
    (waiting,) = done("keys", "proposals", *people["ben"])
    assert (waiting["id"], waiting["proposed_by"]) == (proposed["proposal"], "ada")
    taken = done("keys", "approve", waiting["id"][:10], "--yes", *people["ben"])
    assert taken["changes"] == proposed["changes"]
    after = versions(server)
    assert (after["root"], after["timestamp"] > before["timestamp"]) == (before["root"] + 1, True)
    first, second = entries(server, "propose keys")[0], entries(server, "change keys")[0]
    assert (first["actor"], second["actor"]) == ("ada", "ben")
    assert (second["evidence"]["proposed_by"], second["evidence"]["approved_by"]) == ("ada", "ben")
    assert first["evidence"]["proposal"] == second["evidence"]["proposal"] == proposed["proposal"]
    said = whimbrel("keys", "approve", waiting["id"], "--yes", *people["ben"])
    assert (said.status, "waits here" in said.err) == (4, True), said


def test_the_draft_itself_is_approved_and_nothing_else(
    server: Running, people: dict[str, Where], tmp_path: Path
) -> None:
    """A server that shows a harmless sentence under a harmful change's id does not get the approval of the file."""
    keys, draft, other = server.folder / "keys" / "offline", tmp_path / "draft.json", tmp_path / "other.json"
    done("keys", "renew", "targets", "--draft", draft, *people["ada"], "--keys", keys)
    done("keys", "renew", "publisher-wake", "--draft", other, *people["ada"], "--keys", keys)
    unsigned = draft.read_bytes()
    done("keys", "sign", draft, "--keys", keys, "--yes")
    done("keys", "submit", draft, "--yes", *people["ada"])
    wrong = whimbrel("keys", "approve", other, "--yes", *people["ben"])
    assert (wrong.status, "does not wait here" in wrong.err) == (4, True), wrong
    draft.write_bytes(unsigned)  # what it says is the same, whoever signed it
    before = versions(server)["targets"]
    done("keys", "approve", draft, "--yes", *people["ben"])
    assert versions(server)["targets"] == before + 1


def test_who_may_not_change_keys_and_what_is_no_person_are_no_second_person(
    server: Running, people: dict[str, Where]
) -> None:
    proposed = rotated(server, people["ada"], "timestamp")["proposal"]
    for name, words in (("rae", "'keys'"), ("ci", "only people approve")):
        with signed_in(server, Path(people[name][3]).read_text()) as client:
            assert words in refusal(client.post(f"keys/proposals/{proposed}/approve", json={}))
    said = whimbrel("keys", "rotate", "snapshot", "--yes", *people["ci"], "--keys", server.folder / "keys" / "offline")
    assert (said.status, "is a machine's account, and here two people change keys" in said.err) == (4, True), said


def test_a_floor_is_not_lifted_by_one_person(server: Running, people: dict[str, Where]) -> None:
    keys = ["--keys", server.folder / "keys" / "offline"]
    admin = ["--server", server.admin, "--token-file", server.folder / "admin.token"]
    done("floor", "require", "wake", "--expires-days", 30, "--yes", *admin, *keys)
    assert "also changes floor-wake" in replaced_by_requiring(server)
    lifted = done("floor", "lift", "wake", "--yes", *people["ada"], *keys)
    assert len(done("floor", "show", *people["ada"])) == 1
    done("keys", "approve", lifted["proposal"], "--yes", *people["ben"])
    assert done("floor", "show", *people["ada"]) == []


def replaced_by_requiring(server: Running) -> str:
    """The floor's key is replaced by a targets role that comes with a floor, as if there had been none."""
    offline, thief = server.folder / "keys" / "offline", CryptoSigner.generate_ed25519()
    with server.people() as admin:
        targets = Metadata.from_bytes(admin.get("/roles/targets").content)
        targets.signed.version += 1
        targets.signed.revoke_key(targets.signed.delegations.roles["floor-wake"].keyids[0], "floor-wake")
        targets.signed.add_key(thief.public_key, "floor-wake")
        targets.signatures.clear()
        add_signature(targets, load_signer(offline / "targets.pem"))
        floor, role = sign_floor(
            Floor(model="wake", sequence=1, days=30), version=2, signers=[thief], now=datetime.now(UTC)
        )
        parts = {"floor": floor, "role": role, "targets": targets.to_bytes(SERIALIZER)}
        body = {name: base64.b64encode(content).decode() for name, content in parts.items()}
        return refusal(admin.put("/models/wake/floor", json=body))


def test_what_is_not_signed_or_waits_already_is_not_kept(server: Running, people: dict[str, Where]) -> None:
    with signed_in(server, Path(people["ada"][3]).read_text()) as ada:
        root = ada.get("roles/root").content
        body = {"documents": {"root": base64.b64encode(root).decode()}}
        assert ada.post("keys/changes", json=body).status_code == 409  # it is no next version
        rotated(server, people["ada"], "timestamp")
        assert len(ada.get("keys/proposals").json()) == 1


def test_a_change_that_was_overtaken_is_refused_and_says_what_to_do(server: Running, people: dict[str, Where]) -> None:
    first, second = (rotated(server, people["ada"], role)["proposal"] for role in ("timestamp", "snapshot"))
    done("keys", "approve", first, "--yes", *people["ben"])
    said = whimbrel("keys", "approve", second, "--yes", *people["ben"])
    assert (said.status, "something else was signed since" in said.err) == (4, True), said
    done("keys", "reject", second[:12], "--because", "overtaken", *people["ben"])
    (entry, *_) = entries(server, "reject keys")
    assert (entry["actor"], entry["because"], entry["evidence"]["proposed_by"]) == ("ben", "overtaken", "ada")


def test_a_proposal_is_over_after_two_weeks(server: Running, people: dict[str, Where]) -> None:
    proposed = rotated(server, people["ada"], "timestamp")["proposal"]
    with open_repository(Folder.open(server.folder)) as opened, transaction(opened.database, "default") as stores:
        old = time.time() - limits.KEY_PROPOSAL_S - 1
        stores.connection.execute(key_proposals.update().values(at=old))
    assert done("keys", "proposals", *people["ben"]) == []
    said = whimbrel("keys", "approve", proposed, "--yes", *people["ben"])
    assert said.status == 4
    rotated(server, people["ada"], "timestamp")  # and the same may be handed in again


def test_who_has_the_folder_waits_for_nobody(server: Running) -> None:
    before = versions(server)["root"]
    done("keys", "rotate", "timestamp", "--yes", "-R", server.folder)
    assert versions(server)["root"] == before + 1
