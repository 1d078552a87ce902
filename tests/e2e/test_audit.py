"""The audit log from outside: listed, exported, checked with and without a server, and anchored elsewhere."""

import json
import sqlite3
from pathlib import Path

import pytest

from support.server import Said, done, repository, whimbrel


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository whose log has some entries."""
    folder = repository(tmp_path / "repo", versions=1)
    for refresh_s in (60, 61, 62):
        done("model", "set", "wake", "--refresh-s", refresh_s, "-R", folder)
    return folder


def by_hand(folder: Path, statement: str) -> None:
    """What somebody does who can write the database."""
    with sqlite3.connect(folder / "whimbrel.db") as connection:
        assert connection.execute(statement).rowcount > 0
    connection.close()


def written_anew(folder: Path) -> None:
    """Every entry of the chain, with another actor and hashes that fit."""
    from whimbrel.flows.audit_chain import BEFORE_THE_FIRST, chained
    from whimbrel.flows.records import AuditRecord
    from whimbrel.model.documents import encode
    from whimbrel.stores.database import Database
    from whimbrel.stores.transaction import transaction

    database, previous = Database(f"sqlite:///{folder}/whimbrel.db"), BEFORE_THE_FIRST
    with transaction(database, "default") as stores:
        for held in stores.audit.after(0, limit=1000):
            fields = {name: getattr(held, name) for name in AuditRecord.__struct_fields__}
            made = chained(AuditRecord(**fields | {"actor": "bob"}), sequence=held.sequence, previous=previous)
            previous = made.hash
            stores.connection.exec_driver_sql(
                "UPDATE audit SET actor = ?, previous = ?, hash = ?, evidence = ? WHERE sequence = ?",
                ("bob", made.previous, made.hash, encode(made.evidence), made.sequence),
            )
        stores.connection.exec_driver_sql("UPDATE audit_head SET hash = ?", (previous,))
    database.close()


def anchor_file(folder: Path, path: Path) -> Path:
    with path.open("a") as file:
        file.write(whimbrel("audit", "anchor", "-R", folder).out)
    return path


def verified(*arguments: object) -> Said:
    return whimbrel("audit", "verify", *arguments)


def test_the_log_is_listed_with_and_without_a_verb(folder: Path) -> None:
    listed = done("audit", "-R", folder)
    assert listed == done("audit", "list", "-R", folder) == done("audit", "--limit", 10, "-R", folder)
    assert [entry["sequence"] for entry in listed] == list(range(len(listed), 0, -1))
    assert {entry["action"] for entry in done("audit", "--action", "set", "-R", folder)} <= {"set"}
    said = whimbrel("audit", "--model", "wake", "-R", folder)
    assert (said.status, "when (UTC)" in said.out) == (0, True)
    assert "verify" in whimbrel("audit", "--help").out


def test_a_log_that_nobody_touched_fits_on_the_server_and_in_a_file(folder: Path, tmp_path: Path) -> None:
    check = done("audit", "verify", "-R", folder)
    assert (check["first"], check["problem"], check["entries"]) == (1, None, check["last"])
    file = tmp_path / "log.jsonl"
    written = done("audit", "export", "-o", file, "-R", folder)
    assert (written["entries"], written["hash"]) == (check["entries"], check["hash"])
    assert done("audit", "verify", file) == check
    assert file.read_text() == whimbrel("audit", "export", "-R", folder).out
    assert "no anchor was given" in verified(file).out
    part = tmp_path / "part.jsonl"
    done("audit", "export", "-o", part, "--after", 2, "-R", folder)
    fits = verified(part, "--after", 2)
    assert (fits.status, "they begin at 3, and nothing is said of those before it" in fits.out) == (0, True)


def test_an_export_that_lost_its_beginning_or_all_of_it_does_not_fit(folder: Path, tmp_path: Path) -> None:
    """A script saw success: the first line was cut off, or the file was empty."""
    part, empty = tmp_path / "part.jsonl", tmp_path / "empty.jsonl"
    done("audit", "export", "-o", part, "--after", 2, "-R", folder)
    empty.write_text("")
    cut = verified(part)
    assert (cut.status, "entry 1 is missing: it begins at 3" in cut.out) == (1, True)
    nothing = verified(empty)
    assert (nothing.status, "there is no entry at all" in nothing.out) == (1, True)


def test_an_entry_that_was_changed_in_the_database_or_in_a_file_is_named(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    done("audit", "export", "-o", file, "-R", folder)
    lines = file.read_text().splitlines()
    changed = json.loads(lines[2]) | {"actor": "somebody else"}
    file.write_text("\n".join([*lines[:2], json.dumps(changed), *lines[3:]]))
    said = verified(file)
    assert (said.status, "the log does NOT fit: entry 3 was changed" in said.out) == (1, True)
    by_hand(folder, "DELETE FROM audit WHERE sequence = 2")
    said = verified("-R", folder, "--json")
    assert (said.status, said.json["problem"]) == (1, "entry 2 is missing: entry 3 follows entry 1")


def test_an_anchor_proves_that_a_log_was_not_written_anew(folder: Path, tmp_path: Path) -> None:
    """Without an anchor it fits: whoever can write the database can compute hashes, too."""
    anchors = anchor_file(folder, tmp_path / "anchors.jsonl")
    done("model", "set", "wake", "--refresh-s", 70, "-R", folder)
    anchor_file(folder, anchors)
    root = folder / "root.json"
    said = verified("-R", folder, "--anchor", anchors, "--root", root)
    assert (said.status, "2 anchors fit (signed): nothing up to entry" in said.out) == (0, True)
    written_anew(folder)
    assert verified("-R", folder).status == 0
    said = verified("-R", folder, "--anchor", anchors)
    assert (said.status, "is not the one that the anchor names" in said.out) == (1, True)


def test_an_anchor_proves_that_a_log_was_not_cut_off(folder: Path, tmp_path: Path) -> None:
    anchors = anchor_file(folder, tmp_path / "anchors.jsonl")
    newest = json.loads(anchors.read_text())["sequence"]
    by_hand(folder, f"DELETE FROM audit WHERE sequence = {newest}")
    assert verified("-R", folder).status == 0
    said = verified("-R", folder, "--anchor", anchors, "--json")
    assert (said.status, said.json["problem"]) == (
        1,
        f"the log was cut off: an anchor names entry {newest}, and the log ends with entry {newest - 1}",
    )


def test_an_anchor_that_the_server_did_not_sign_is_refused(folder: Path, tmp_path: Path) -> None:
    anchors, root = anchor_file(folder, tmp_path / "anchors.jsonl"), folder / "root.json"
    changed = json.loads(anchors.read_text()) | {"at": 1.0}
    anchors.write_text(json.dumps(changed))
    said = verified("-R", folder, "--anchor", anchors, "--root", root)
    assert (said.status, "the signature of the anchor" in said.err) == (2, True)
    other = repository(tmp_path / "other" / "repo", versions=0)
    said = verified("-R", folder, "--anchor", anchors, "--root", other / "root.json")
    assert "is wrong" in said.err or "no timestamp key of this root" in said.err


def test_what_is_no_export_and_no_anchor_is_said_in_one_sentence(folder: Path, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("hello\n")
    assert (verified(text).status, "line 1 of the export cannot be read" in verified(text).err) == (2, True)
    assert "line 1 of" in verified("-R", folder, "--anchor", text).err
    text.write_text("\n")
    assert "holds no anchor" in verified("-R", folder, "--anchor", text).err
    assert "there is no file" in verified(tmp_path / "nothing").err
    assert "is a folder" in verified(tmp_path).err
    assert "name it with -o FILE" in whimbrel("audit", "export", "--json", "-R", folder).err
