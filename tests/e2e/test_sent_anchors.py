"""Anchors of the audit log leave a server by themselves, and prove afterwards what the log was."""

import json
from pathlib import Path

import pytest

from support.accounts import person
from support.receivers import Listening, receivers
from support.server import done, repository, serving, whimbrel
from whimbrel.server.app import Repository, open_repository
from whimbrel.server.config import Folder
from whimbrel.server.controllers.anchoring import ANCHORED

DAY_S = 86400.0


class Clock:
    """A clock that tests set."""

    now = 2e9

    def __call__(self) -> float:
        return self.now


def receiver(folder: Path, url: str, *events: str, form: str = "generic") -> None:
    receivers(folder, f'name = "vault"\nform = "{form}"\nurl = "{url}"\non = {json.dumps(events)}')


def test_an_anchor_reaches_a_receiver_by_itself_and_proves_the_log(tmp_path: Path) -> None:
    folder = repository(tmp_path / "repo", versions=1)
    with Listening().open() as vault:
        receiver(folder, vault.url, "audit_anchor")
        with serving(folder):
            (got,) = vault.wait(1)
    alert = got.json
    assert (alert["moment"], alert["severity"], alert["status"]) == ("audit_anchor", "info", "note")
    assert alert["evidence"]["hash"] in alert["because"]
    assert alert["thread"] == "default/audit"
    kept = tmp_path / "kept.jsonl"
    other = alert | {"moment": "held", "evidence": {}}
    kept.write_text("".join(json.dumps(each) + "\n" for each in (alert, other, alert["evidence"])))  # as they came
    verify = ("audit", "verify", "-R", folder, "--anchor", kept, "--root", folder / "root.json")
    assert done(*verify)["problem"] is None
    alert["evidence"]["hash"] = "0" * 64
    kept.write_text(json.dumps(alert))
    said = whimbrel(*verify)
    assert (said.status, "the signature of the anchor" in said.err) == (2, True), said


def written(opened: Repository) -> int:
    from whimbrel.stores.transaction import transaction

    with transaction(opened.database, "default") as stores:
        return len(stores.audit.newest(action=ANCHORED, limit=100))


@pytest.mark.parametrize(("events", "expected"), [(["audit_anchor"], [0, 1, 1, 2]), (["held"], [0, 0, 0, 0])])
def test_an_anchor_is_written_once_a_period_for_who_asks(
    tmp_path: Path, events: list[str], expected: list[int]
) -> None:
    """And not before the receiver is known to the alert loop, which would not send it."""
    folder, clock = repository(tmp_path / "repo", versions=0), Clock()
    receiver(folder, "http://127.0.0.1:9/", *events)
    with open_repository(Folder.open(folder), clock=clock) as opened:
        counts = []
        for step_s, introduce in ((0, False), (10, True), (DAY_S - 100, False), (200, False)):
            clock.now += step_s
            if introduce:
                opened.alerts.introduce()
            assert opened.controllers.leader.take()
            opened.controllers.anchoring.anchor("default")
            counts.append(written(opened))
        assert counts == expected


@pytest.mark.parametrize("form", ["slack", "pagerduty", "alertmanager"])
def test_every_form_holds_the_whole_anchor_or_names_its_hash(tmp_path: Path, form: str) -> None:
    from whimbrel.flows.alerts import Alert
    from whimbrel.server.alert_forms import posted
    from whimbrel.server.receivers import Destination, Receiver

    made = Receiver(name="x", form=form, url="http://127.0.0.1:9/", secret_from="env:X")
    alert = Alert(
        key="default/1/x",
        namespace="default",
        receiver="x",
        event="audit_anchor",
        at=2e9,
        because="entry 7 has the hash abc",
        actor="controller",
        evidence={"sequence": 7, "hash": "abc"},
    )
    body = posted(alert, Destination(made, made.url, "s"), plot=None, now=2e9).body.decode()
    assert "entry 7" in body
    assert "rollout" not in body


def test_a_change_of_keys_that_waits_is_told_to_who_asks(tmp_path: Path) -> None:
    folder = repository(tmp_path / "repo", versions=1)
    with (folder / "whimbrel.toml").open("a") as file:
        file.write("second_person_for_keys = true\n")
    with Listening().open() as office:
        receiver(folder, office.url, "keys_proposed", "keys_decided")
        with serving(folder) as server, person(server, "ada", "security") as ada:
            token = tmp_path / "ada.token"
            token.write_text(ada.headers["authorization"].removeprefix("Bearer "))
            where = ("--server", server.admin, "--token-file", token, "--keys", folder / "keys" / "offline")
            done("keys", "rotate", "timestamp", "--yes", "--because", "it was in a log", *where)
            (got,) = office.wait(1)
            (waiting,) = done("keys", "proposals", *where)
            done("keys", "reject", waiting["id"], "--because", "it was not", *where)
            decided = office.wait(2)[1]
    assert (decided.json["status"], decided.json["thread"]) == ("resolved", got.json["thread"])
    assert (got.json["title"], got.json["severity"]) == (
        "a change of keys of default waits for a second person",
        "warning",
    )
    assert (got.json["actor"], got.json["because"]) == ("ada", "it was in a log")
    assert "timestamp: key" in " ".join(got.json["evidence"]["changes"])
