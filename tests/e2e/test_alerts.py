"""Alerts reach real receivers over real sockets, once each, whatever these answer and whenever the server dies."""

import email.policy
import hashlib
import hmac
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller

from support.experiments import TEXT
from support.receivers import Answer, Got, Listening, receivers
from support.server import Running, done, plan_file, repository, serving, whimbrel

pytestmark = pytest.mark.long

QUICK = "  rollback: {health_check_interval_sec: 0.5}\n"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repository(tmp_path_factory.mktemp("template") / "repo")


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    return shutil.copytree(template, tmp_path / "repo")


def start(server: Running, tmp_path: Path, *, more: str = QUICK) -> str:
    plan = plan_file(tmp_path, more=more).read_text()
    with server.people() as people:
        return str(people.post("rollouts", json={"plan": plan}).raise_for_status().json()["id"])


def roll_back(server: Running, rollout: str, why: str = "it crashes on Fridays") -> None:
    with server.people() as people:
        people.post(f"rollouts/{rollout}/rollback", json={"because": why}).raise_for_status()


def alerts(server: Running) -> list[dict[str, Any]]:
    with server.people() as people:
        return list(people.get("alerts").raise_for_status().json())


def settled(server: Running, state: str, *, count: int = 1) -> list[dict[str, Any]]:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = [row for row in alerts(server) if row["state"] == state]
        if len(found) >= count:
            return found
        time.sleep(0.1)
    raise AssertionError(alerts(server))


def table(name: str, form: str, url: str, more: str = 'on = ["started", "rolled_back"]') -> str:
    return f'name = "{name}"\nform = "{form}"\nurl = "{url}"\n{more}'


def test_a_rollback_reaches_every_form_with_its_reason(folder: Path, tmp_path: Path) -> None:
    (folder / "key").write_text("s3cret\n")
    with Listening().open() as one, Listening().open() as two, Listening().open() as three, Listening().open() as four:
        receivers(
            folder,
            table("own", "generic", one.url, 'on = ["rolled_back"]\nsecret_from = "file:key"\nplot = true'),
            table("chat", "slack", two.url),
            table("pager", "pagerduty", three.url, 'on = ["rolled_back"]\nsecret_from = "file:key"'),
            table("prometheus", "alertmanager", four.url, 'on = ["rolled_back"]'),
        )
        with serving(folder) as server:
            rollout = start(server, tmp_path)
            two.wait(1)  # the chat heard of the start
            time.sleep(1.2)  # a window or two is judged: then there is something to draw
            roll_back(server, rollout)
            (own,) = one.wait(1)
            chat = two.wait(2)[1]
            (pager,) = three.wait(1)
            (prometheus,) = four.wait(1)
            rows = settled(server, "sent", count=5)
    said = own.json
    assert (said["moment"], said["because"], said["actor"]) == ("rolled_back", "it crashes on Fridays", "admin")
    assert (said["rollout"], said["baseline"], said["target"]) == (rollout, "1.0.0", "2.0.0")
    assert str(said["plot_png_base64"]).startswith("iVBOR")
    assert signature_holds(own, "s3cret")
    assert "it crashes on Fridays" in chat.body.decode()
    assert [block["type"] for block in chat.json["blocks"]] == ["header", "section", "section", "context"]
    event = pager.json
    assert (event["event_action"], event["routing_key"]) == ("trigger", "s3cret")
    assert event["dedup_key"] == f"default/{rollout}"
    assert event["payload"]["severity"] == "critical"
    (alert,) = json.loads(prometheus.body)
    assert alert["labels"]["alertname"] == "WhimbrelRollout"
    assert alert["annotations"]["description"] == "it crashes on Fridays"
    assert len(rows) == 5
    assert "s3cret" not in json.dumps(rows)


def signature_holds(got: Got, secret: str) -> bool:
    moment, _, signed = got.headers["whimbrel-signature"].partition(",v1=")
    moment = moment.removeprefix("t=")
    expected = hmac.new(secret.encode(), moment.encode() + b"." + got.body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(signed, expected)


def test_a_plan_names_who_is_told_of_its_rollout(folder: Path, tmp_path: Path) -> None:
    with Listening().open() as hook:
        receivers(folder, table("team", "generic", hook.url, ""))
        with serving(folder) as server:
            rollout = start(server, tmp_path, more=QUICK + "  alerts: [{to: team, on: [paused]}]\n")
            with server.people() as people:
                for move in ("pause", "resume", "pause"):
                    people.post(f"rollouts/{rollout}/{move}", json={"because": "lunch"}).raise_for_status()
            (got,) = hook.wait(1)
            (grouped,) = settled(server, "grouped")
    assert got.json["moment"] == "paused"
    assert grouped["said"] == "the same was told a short time ago"
    assert len(hook.got) == 1


def test_a_stopped_arm_and_the_end_of_its_experiment_are_told(folder: Path, tmp_path: Path) -> None:
    """Experiments were in the audit log only: an arm was stopped, its version quarantined, and nobody was told."""
    file = tmp_path / "e.yaml"
    file.write_text(TEXT.replace("reshuffle: false", "check_interval_sec: 0.5"))
    events = '["experiment_started", "arm_stopped", "experiment_kept"]'
    with Listening().open() as pager:
        receivers(folder, table("pager", "generic", pager.url, f"on = {events}"))
        with serving(folder) as server:
            to = ("--server", server.admin, "--token-file", folder / "admin.token")
            done("experiment", "start", file, *to)
            pager.wait(1)
            done("version", "retire", "2.0.0", "--model", "wake", "--yes", "--because", "it is too large", *to)
            told = {each.json["moment"]: each.json for each in pager.wait(3)}  # each is sent by itself, in any order
    started, stopped, kept = told["experiment_started"], told["arm_stopped"], told["experiment_kept"]
    assert (started["moment"], started["experiment"], started["arm"]) == ("experiment_started", "e1", "")
    assert (stopped["moment"], stopped["severity"], stopped["arm"]) == ("arm_stopped", "critical", "large")
    assert (stopped["baseline"], stopped["target"]) == ("1.0.0", "2.0.0")
    assert "large is stopped: its version" in stopped["because"]
    assert (kept["moment"], kept["status"], kept["thread"]) == ("experiment_kept", "resolved", stopped["thread"])


def test_a_receiver_that_fails_is_tried_again_when_it_says_and_takes_it_once(folder: Path, tmp_path: Path) -> None:
    answers = (Answer(500, body=b"boom"), Answer(429, {"Retry-After": "1"}), Answer(503))
    with Listening(*answers).open() as hook:
        receivers(folder, table("team", "generic", hook.url, 'on = ["rolled_back"]'))
        with serving(folder) as server:
            roll_back(server, start(server, tmp_path))
            hook.wait(1)
            (row,) = settled(server, "sent")
    assert row["tries"] == 4
    assert len({got.headers["idempotency-key"] for got in hook.got}) == 1


def test_a_slow_receiver_delays_nobody(folder: Path, tmp_path: Path) -> None:
    with Listening(Answer(wait_s=6.0)).open() as slow, Listening().open() as quick:
        receivers(folder, table("slow", "generic", slow.url), table("quick", "generic", quick.url))
        with serving(folder) as server:
            rollout = start(server, tmp_path)
            quick.wait(1)
            assert not slow.taken
            roll_back(server, rollout)
            with server.people() as people:
                assert people.get(f"rollouts/{rollout}").json()["state"] in {"rolling_back", "rolled_back"}
            slow.wait(2)


def test_redirects_are_not_followed(folder: Path, tmp_path: Path) -> None:
    with Listening().open() as inside, Listening(Answer(302, {"Location": inside.url})).open() as hook:
        receivers(folder, table("team", "generic", hook.url, 'on = ["rolled_back"]'))
        with serving(folder) as server:
            roll_back(server, start(server, tmp_path))
            (row,) = settled(server, "given_up")
    assert "redirects are not followed" in row["said"]
    assert inside.got == []


class Mailbox:
    """A real SMTP server's handler; refuses the first message."""

    def __init__(self) -> None:
        self.got: list[EmailMessage] = []
        self.refused = 0

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
        if not self.refused:
            self.refused += 1
            return "451 come again"
        message = BytesParser(policy=email.policy.default).parsebytes(envelope.content)
        assert isinstance(message, EmailMessage)
        self.got.append(message)
        return "250 OK"


@pytest.fixture
def mailbox() -> Iterator[tuple[Mailbox, int]]:
    with socket.create_server(("127.0.0.1", 0)) as free:  # the controller cannot choose one itself
        port = free.getsockname()[1]
    box = Mailbox()
    controller = Controller(box, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield box, port
    finally:
        controller.stop()


def test_an_e_mail_has_the_reason_the_figures_and_the_plot(
    folder: Path, tmp_path: Path, mailbox: tuple[Mailbox, int]
) -> None:
    box, port = mailbox
    more = 'on = ["rolled_back"]\nsender = "ota@example.com"\nto = ["ana@example.com", "ben@example.com"]'
    receivers(folder, table("mail", "email", f"smtp://127.0.0.1:{port}", more))
    with serving(folder) as server:
        rollout = start(server, tmp_path)
        time.sleep(1.2)
        roll_back(server, rollout)
        (row,) = settled(server, "sent")
    assert row["tries"] == 2
    (message,) = box.got
    assert message["Subject"] == "[critical] wake 2.0.0: the rollout is taken back (stage canary)"
    assert message["To"] == "ana@example.com, ben@example.com"
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    assert text is not None
    assert html is not None
    assert "it crashes on Fridays" in text.get_content()
    assert 'src="cid:plot"' in html.get_content()
    pictures = [part for part in message.walk() if part.get_content_type() == "image/png"]
    assert pictures[0].get_payload(decode=True).startswith(b"\x89PNG")


def test_receivers_are_read_again_without_a_restart(folder: Path, tmp_path: Path) -> None:
    """A receiver that was added, or whose address was mended, needed a new server."""
    with Listening().open() as hook, serving(folder) as server:
        started = start(server, tmp_path, more="")
        receivers(folder, table("team", "generic", hook.url, 'on = ["started", "paused", "rolled_back"]'))
        with server.people() as people:
            names = [each["name"] for each in people.get("receivers").raise_for_status().json()]
            time.sleep(2.5)  # a round of alerts notes it: what happened before is not told
            people.post(f"rollouts/{started}/pause", json={"because": "lunch"}).raise_for_status()
        (got,) = hook.wait(1)
        settings = folder / "whimbrel.toml"
        good = settings.read_text()
        settings.write_text(f"{good}[[receivers]\n")
        with server.people() as people:
            answer = people.get("receivers")
        assert (answer.status_code, "is not TOML" in answer.text) == (400, True)
        assert "the receivers of before stay in use: team" in answer.text
        roll_back(server, started)
        assert [each.json["moment"] for each in hook.wait(2)] == ["paused", "rolled_back"]
        settings.write_text(good.partition("[[receivers]]")[0])
        with server.people() as people:
            assert people.get("receivers").json() == []
    assert names == ["team"]
    assert got.json["moment"] == "paused"


def test_an_alert_survives_a_kill_between_telling_and_remembering(folder: Path, tmp_path: Path) -> None:
    servers: list[subprocess.Popen[str]] = []

    def kill_the_first(_: Got) -> None:
        if len(servers) == 1:
            os.kill(servers[0].pid, signal.SIGKILL)
            servers[0].wait()

    with Listening(before=kill_the_first).open() as hook:
        receivers(folder, table("team", "generic", hook.url, 'on = ["started"]'))
        try:
            servers.append(launch(folder))
            done("rollout", "start", plan_file(tmp_path, more=QUICK), "-R", folder)
            hook.wait(1)
            servers.append(launch(folder))
            first, again = hook.wait(2)
        finally:
            for process in servers:
                process.kill()
                process.wait()
                if process.stdout:
                    process.stdout.close()
    assert first.headers["idempotency-key"] == again.headers["idempotency-key"]
    assert first.json == again.json


def launch(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "whimbrel.cli",
            "serve",
            str(folder),
            "--listen",
            "127.0.0.1:0",
            "--admin-listen",
            "127.0.0.1:0",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


def test_a_test_alert_says_what_the_receiver_answered(folder: Path) -> None:
    with Listening(Answer(200, body=b"hello"), Answer(404, body=b"no such hook")).open() as hook:
        receivers(folder, table("team", "slack", hook.url, ""))
        assert done("alert", "receivers", "-R", folder) == [{"form": "slack", "name": "team", "on": []}]
        said = whimbrel("alert", "test", "team", "-R", folder)
        assert (said.status, said.out) == (0, "team took it: 200 hello\n")
        said = whimbrel("alert", "test", "team", "-R", folder)
        assert (said.status, said.out) == (1, "team did NOT take it: 404 no such hook\n")
    assert "TEST" in hook.got[0].body.decode()
    said = whimbrel("alert", "test", "nobody", "-R", folder)
    assert said.status != 0
    assert "there is no receiver 'nobody'; whimbrel.toml has: team" in said.err


def test_the_evidence_of_a_rollout_is_a_picture_and_a_table(folder: Path, tmp_path: Path) -> None:
    with serving(folder) as server:
        rollout = start(server, tmp_path)
        time.sleep(1.2)
    points = done("rollout", "evidence", rollout, "-R", folder, "-o", tmp_path / "evidence.svg")
    assert points[0]["needed"] > 0
    assert "harm is proven at" in (tmp_path / "evidence.svg").read_text()
    said = whimbrel("rollout", "evidence", rollout, "-R", folder, "-o", tmp_path / "evidence.gif")
    assert said.status != 0
    assert "it can: png, svg" in said.err
