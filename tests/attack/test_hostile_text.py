"""Attack: text that moves a terminal's cursor, forges a line, turns the direction of writing or brings markup.

It comes in by every door that takes text (tickets, reasons, labels, the words of a device, a changelog, an experiment's
name and description, the names of things), and every output that shows it is read.
"""

import email.policy
import html
import json
import logging
import re
import time
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.experiments import TEXT
from support.server import Running, Said, done, model_file, plan_file, repository, serving, whimbrel
from support.values import EPOCH
from whimbrel.flows.alerts import Alert
from whimbrel.plain_text import one_line
from whimbrel.server.alert_forms import mail, posted
from whimbrel.server.logs import JsonLines, TextLines, fields
from whimbrel.server.receivers import Destination, Receiver

MARKUP = "<script>alert(1)</script> <!channel> [red]x[/red] :bomb: **md**"
SEEN = f"\u202egnp.exe\u2066\u200b\u2028forged line\x9b31m\x85{MARKUP}"
HOSTILE = f"\x1b[31mRED\x1b[0m\x1b]0;title\x07\nforged line\r\tb\x08\x7f {SEEN}"
SHOWN_SEEN, SHOWN = one_line(SEEN), one_line(HOSTILE)


def is_plain(text: str) -> bool:
    """Whether every character can be seen, but for the line breaks of the output itself; and no line was forged."""
    return all(one_line(line) == line and not line.startswith("forged line") for line in text.split("\n"))


def test_the_check_of_this_test_sees_what_it_should() -> None:
    for bad in ("\x1b[31m", "a\rb", "\u202e", "\u200b", "\u2028", "\x9b", "\x85", "x\nforged line"):
        assert not is_plain(bad)
    assert is_plain(f"a line\nanother line\n{SHOWN}\n")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = repository(tmp_path_factory.mktemp("hostile") / "repo")
    path = model_file(folder.parent, 3)
    done("publish", "-m", "wake", path, "-R", folder, "--semantic-version", "3.0.0", "--changelog", HOSTILE)
    with serving(folder) as running:
        send_everything(running)
        yield running


def send_everything(running: Running) -> None:
    with running.enrolled("dev-1") as device:
        told = {"epoch": EPOCH, "models": ["wake"], "waiting": {"wake": SEEN}, "labels": {"region": SEEN}}
        device.post("/device/v1/reports", json=told).raise_for_status()
    with running.people() as people:

        def send(path: str, body: Any) -> Any:
            return people.post(path, json=body).raise_for_status().json()

        for _ in range(200):
            if people.get("/devices/dev-1").json()["models"]:
                break
            time.sleep(0.05)
        send("/devices/dev-1/labels", {"labels": {"owner": SEEN}, "because": HOSTILE})
        send("/devices/dev-1/block", {"because": HOSTILE})
        send("/devices/dev-1/unblock", {"because": HOSTILE})
        send("/devices/dev-1/block", {"because": HOSTILE})
        ticket = {"ticket": "t-1", "model": "wake", "version": "1.0.0", "text": HOSTILE}
        send("/user-reports", {"reports": [ticket]})
        people.post("/enrol-tokens", params={"name": SEEN[:40]})
        plan = plan_file(running.folder.parent).read_text()
        rollout = send("/rollouts", {"plan": plan, "file_name": "plan.yaml"})["id"]
        send(f"/rollouts/{rollout}/pause", {"because": HOSTILE})
        send(f"/rollouts/{rollout}/abort", {"because": HOSTILE})
        named = TEXT.replace("name: A larger encoder", f"name: {json.dumps(HOSTILE)}")
        named = named.replace("description: twice the width", f"description: {json.dumps(HOSTILE)}")
        answer = people.post("/experiments", json={"plan": named, "file_name": "e.yaml"})
        if answer.is_error:  # a name is one line: the door is shut, and its words are read below
            named = TEXT.replace("description: twice the width", f"description: {json.dumps(SEEN)}")
            send("/experiments", {"plan": named, "file_name": "e.yaml"})
        send("/experiments/e1/stop", {"because": HOSTILE})
        send("/models/wake/versions/3.0.0/retire", {"because": HOSTILE})


def shown(running: Running, *words: object) -> Said:
    said = whimbrel(*words, "--server", running.admin, "--token-file", running.folder / "admin.token")
    assert is_plain(said.out), said.out.encode("unicode_escape")
    assert is_plain(said.err), said.err.encode("unicode_escape")
    return said


@pytest.mark.parametrize(
    ("words", "holds"),
    [
        (("audit",), SHOWN),
        (("audit", "export"), None),
        (("device", "list"), None),
        (("device", "show", "dev-1"), SHOWN_SEEN),
        (("feedback", "list", "--model", "wake"), None),
        (("rollout", "list"), None),
        (("experiment", "list"), None),
        (("experiment", "status", "e1"), None),
        (("version", "list", "--model", "wake"), None),
        (("version", "show", "3.0.0", "--model", "wake"), None),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_no_command_shows_what_cannot_be_seen(server: Running, words: tuple[str, ...], holds: str | None) -> None:
    said = shown(server, *words)
    assert said.status == 0, said.err
    # A table breaks its cells into lines: what was sent is looked for without the spaces.
    assert holds is None or _squeezed(holds)[:30] in _squeezed(said.out)
    if words[:2] != ("audit", "export"):
        answer = shown(server, *words, "--json")
        json.loads(answer.out)
        assert answer.out.isascii()


def _squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)


def test_json_for_scripts_holds_what_was_sent(server: Running) -> None:
    entries = json.loads(shown(server, "audit", "--device", "dev-1", "--json").out)
    assert {entry["because"] for entry in entries if entry["action"] == "block_device"} == {HOSTILE}


def test_words_of_a_rollout_and_an_error_are_plain(server: Running) -> None:
    (rollout,) = json.loads(shown(server, "rollout", "list", "--json").out)
    said = shown(server, "rollout", "status", rollout["id"])
    assert _squeezed("\\u001b[31mRED") in _squeezed(said.out)
    assert shown(server, "version", "show", HOSTILE, "--model", "wake").status == 4
    assert shown(server, "model", "show", SEEN).status == 4
    assert shown(server, "model", "show", SEEN, "--json").err.isascii()


@pytest.mark.parametrize("form", ["html", "md"])
def test_a_report_has_neither_markup_nor_hidden_characters(server: Running, tmp_path: Path, form: str) -> None:
    path = tmp_path / f"report.{form}"
    shown(server, "experiment", "report", "e1", "-o", path)
    text = path.read_text()
    assert is_plain(text)
    assert "<script>" not in re.sub(r"\\<", "", text)
    assert html.escape("<script>alert(1)</script>") in text or "\\<script\\>" in text
    assert form == "html" or "\\*\\*md\\*\\*" in text


# --- alerts ---

ALERT = Alert(
    key=f"default/1/{SEEN}",
    namespace="default",
    receiver="team",
    event="paused",
    at=1e9,
    because=HOSTILE,
    actor=HOSTILE,
    model="wake",
    rollout="r1",
    stage_name=HOSTILE,
    baseline=HOSTILE,
    target="2.0.0",
    evidence={HOSTILE: [HOSTILE, {"a": HOSTILE}]},
)


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield key
            yield from strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from strings(each)


def destination(form: str) -> Destination:
    url = "smtp://a.invalid" if form == "email" else "https://a.invalid"
    receiver = Receiver(
        name="team",
        form=form,
        url=url,
        secret_from="env:X",
        sender="a@b.c",
        to=("d@e.f",),
    )
    return Destination(receiver, url=url, secret="k")


@pytest.mark.parametrize("form", ["generic", "slack", "pagerduty", "alertmanager"])
def test_no_webhook_carries_hidden_characters(form: str) -> None:
    request = posted(ALERT, destination(form), plot=None, now=1e9)
    body = json.loads(request.body)
    texts = list(strings(body))
    assert any("RED" in text for text in texts)
    for text in texts:
        assert all(one_line(line) == line for line in text.split("\n")), text.encode("unicode_escape")
        assert "\nforged" not in text
    for value in request.headers.values():
        assert one_line(value) == value


def test_slack_shows_no_markup_and_calls_nobody() -> None:
    body = json.loads(posted(ALERT, destination("slack"), plot=None, now=1e9).body)
    assert body["mrkdwn"] is False
    kinds = {part["type"] for block in body["blocks"] for part in parts(block)}
    assert kinds == {"plain_text"}
    assert all("<!channel>" not in text for text in strings(body))


def parts(block: dict[str, Any]) -> list[dict[str, Any]]:
    return [block["text"]] if "text" in block else block.get("fields") or block["elements"]


def test_an_email_is_sent_and_plain() -> None:
    """A line break in a stage's name refused the whole message: nobody was told."""
    message = message_from_bytes(bytes(mail(ALERT, destination("email"), plot=None)), policy=email.policy.default)
    assert one_line(message["Subject"]) == message["Subject"]
    assert {"Subject", "From", "To"} <= set(message.keys())
    plain, page = (part.get_content() for part in message.iter_parts())
    for text in (plain, page):
        assert is_plain(text.replace("\r\n", "\n")), text.encode("unicode_escape")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_a_person_cannot_be_named_with_a_line_break(server: Running) -> None:
    with server.people() as people:
        answer = people.post("/devices/dev-1/unblock", json={"because": "", "actor": "ana\nroot"})
    assert isinstance(answer, httpx.Response)
    assert answer.status_code == 400


# --- logs ---


@pytest.mark.parametrize("formatter", [TextLines(), JsonLines()], ids=["text", "json"])
def test_a_record_of_the_log_is_one_line_of_what_can_be_seen(formatter: TextLines) -> None:
    record = logging.LogRecord("whimbrel.x", logging.INFO, "", 0, "rollout is paused: %s", (HOSTILE,), None)
    record.__dict__.update(fields(folder=HOSTILE))
    line = formatter.format(record)
    assert is_plain(line)
    assert "\n" not in line
    if isinstance(formatter, JsonLines):
        assert json.loads(line)["folder"] == HOSTILE
