"""Who signs offline gets the state of today from the server: a thief there has nothing signed on top of a lie.

Each thief writes into the server's database. A person then runs an honest command, with the offline keys at hand.
"""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, TargetFile, Targets

from support.server import done, model_file, repository, whimbrel
from whimbrel.stores.proven_roles import ProvenRoles
from whimbrel.stores.signed_metadata import SERIALIZER, add_signature

PUBLISHER = "publisher-wake"
MANY = 9 * 10**15


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return repository(tmp_path / "repo", versions=1)


def within(repo: Path, statement: str, *values: Any) -> list[Any]:
    """A statement on the server's database."""
    with sqlite3.connect(repo / "whimbrel.db") as connection:
        rows = connection.execute(statement, values).fetchall()
    connection.close()
    return rows


def newest(repo: Path, role: str) -> tuple[int, bytes]:
    rows = within(repo, "SELECT version, body FROM role_document WHERE role = ? ORDER BY version DESC", role)
    return int(rows[0][0]), bytes(rows[0][1])


def forge(repo: Path, role: str, change: Callable[[Targets], object]) -> None:
    """Change a role in place, and leave its signatures, or sign it as somebody."""
    version, body = newest(repo, role)
    metadata = Metadata.from_bytes(body)
    change(metadata.signed)
    add_signature(metadata, CryptoSigner.generate_ed25519())
    statement = "UPDATE role_document SET body = ? WHERE role = ? AND version = ?"
    within(repo, statement, metadata.to_bytes(SERIALIZER), role, version)


def refused(repo: Path, *command: object, because: str) -> None:
    """The command signs nothing, and says why."""
    before = {role: newest(repo, role)[0] for role in ("root", "targets", PUBLISHER)}
    answer = whimbrel(*command, "-R", repo)
    assert answer.status != 0
    assert because in " ".join(answer.err.split())
    assert {role: newest(repo, role)[0] for role in before} == before


def test_a_release_of_a_thief_is_not_signed_with_the_next_one(repo: Path, tmp_path: Path) -> None:
    """The publisher's key signed whatever the server listed beside the version that was published."""
    evil = TargetFile.from_data("models/wake/2.json", b"{}", ["sha256"])
    forge(repo, PUBLISHER, lambda signed: signed.targets.update({"models/wake/2.json": evil}))
    why = f"the server tells of {PUBLISHER} version 2, and those who may sign it did not sign that"
    refused(repo, "publish", "-m", "wake", model_file(tmp_path, 2), because=why)
    refused(repo, "keys", "renew", PUBLISHER, "--yes", because=why)


@pytest.mark.parametrize(
    "command",
    [
        ("model", "add", "sleep"),
        ("keys", "renew", "targets", "--yes"),
        ("keys", "rotate", PUBLISHER, "--yes"),
        ("floor", "require", "wake", "--expires-days", 30, "--yes"),
    ],
    ids=lambda command: " ".join(map(str, command[:2])),
)
def test_a_publisher_of_a_thief_is_not_signed_with_the_next_targets(repo: Path, command: tuple[object, ...]) -> None:
    thief = CryptoSigner.generate_ed25519()
    forge(repo, "targets", lambda signed: signed.add_key(thief.public_key, PUBLISHER))
    refused(repo, *command, because="the server tells of targets version 2, and those who may sign it did not sign")


def test_a_line_that_nobody_signed_is_not_carried_into_the_next_one(repo: Path, tmp_path: Path) -> None:
    """A line that forbids every version for ever would have been signed with an honest revocation."""
    done("publish", "-m", "wake", model_file(tmp_path, 2), "-R", repo, "--semantic-version", "2.0.0")
    line = f'{{"format":"whimbrel-line-1","minimum_serial":{MANY},"model":"wake","sequence":1}}'
    within(repo, "UPDATE target_document SET body = ? WHERE path = 'models/wake/line.json'", line.encode())
    why = f"the server tells of a models/wake/line.json that {PUBLISHER} did not sign"
    refused(repo, "version", "revoke", "2.0.0", "-m", "wake", "--yes", because=why)


def test_an_old_line_gets_no_fresh_floor(repo: Path, tmp_path: Path) -> None:
    """A pipeline signed "line 1 is the newest" anew for a thief who hid the revocation: the floor was worth nothing."""
    done("publish", "-m", "wake", model_file(tmp_path, 2), "-R", repo, "--semantic-version", "2.0.0")
    done("floor", "require", "wake", "--expires-days", 30, "--yes", "-R", repo)
    done("version", "revoke", "2.0.0", "-m", "wake", "-R", repo, "--yes")
    done("floor", "renew", "wake", "-R", repo)
    version, _ = newest(repo, PUBLISHER)
    within(repo, "DELETE FROM role_document WHERE role = ? AND version = ?", PUBLISHER, version)
    why = f"the server tells of {PUBLISHER} version {version - 1}, and"
    refused(repo, "floor", "renew", "wake", because=why)
    refused(repo, "publish", "-m", "wake", model_file(tmp_path, 3), because=why)
    refused(repo, "keys", "rotate", PUBLISHER, "--yes", because=why)


def test_a_serial_that_leaps_is_not_signed(repo: Path, tmp_path: Path) -> None:
    """No later version could have had a serial."""
    within(repo, "UPDATE version SET serial = ?", MANY)
    refused(repo, "publish", "-m", "wake", model_file(tmp_path, 2), because="has signed serials up to 1: nothing is")


def test_keys_of_one_repository_sign_nothing_of_another(repo: Path, tmp_path: Path) -> None:
    """A thief's own repository, which names the person's keys, is another one."""
    keys = repo / "keys" / "offline"
    done("model", "add", "sleep", "-R", repo)
    other = tmp_path / "other"
    done("init", other)
    answer = whimbrel("model", "add", "wake", "-R", other, "--keys", keys)
    assert answer.status != 0
    assert "do not contain the root that" in answer.err


def test_a_folder_that_cannot_be_written_signs_and_says_so(repo: Path, tmp_path: Path) -> None:
    """A pipeline's secrets are mounted to be read only."""
    folder, notes = tmp_path / "secrets", list[str]()
    folder.mkdir()
    proven = ProvenRoles(lambda role: newest(repo, role)[1], folder=folder, namespace="default", note=notes.append)
    folder.rmdir()
    assert proven.role("targets") == newest(repo, "targets")[1]
    assert notes
    assert all("cannot remember what was signed" in note for note in notes)
