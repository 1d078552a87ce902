"""What the device makes of each answer of the device API: as what it is refused, and what it asks then."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from whimbrel import limits
from whimbrel.agent.answers import Misfit
from whimbrel.agent.backoff import Busy
from whimbrel.agent.device_api import BadBody, DeviceApi, TooLarge
from whimbrel.agent.disk import RealDisk
from whimbrel.device.ports import Answer
from whimbrel.errors import NotAllowed, Unavailable, UntrustedInput
from whimbrel.health.report import Batch, Window
from whimbrel.model import documents
from whimbrel.trust.enrolment import Credential

SECRET = "s" * 32
BATCH = Batch(epoch="0" * 16, windows=(Window(model="wake", serial=1, first=1, last=1),))


def answered(status: int, body: object = None, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, named, b"" if body is None else json.dumps(body).encode())


def problem(status: int, **headers: str) -> Answer:
    return answered(status, {"title": "Refused", "detail": "as the test says"}, **headers)


NO_CHALLENGE = problem(404)
ENROLLED = answered(201, {"device_id": "dev-1", "credential": SECRET})
TOKEN = answered(200, {"token": "t1", "expires_in_s": 1000})
STORED = answered(204)


class Desk:
    """A device whose server answers as scripted: by path, one after the other, the last one for ever."""

    def __init__(self, folder: Path, *, credential: bool = False, confidential: bool = True, **answers: Any) -> None:
        self.answers: dict[str, list[Answer]] = {
            "challenge": [NO_CHALLENGE],
            "enrol": [ENROLLED],
            "token": [TOKEN],
            "reports": [STORED],
            **{name: list(each) for name, each in answers.items()},
        }
        self.asked: list[str] = []
        self.bodies: list[tuple[dict[str, str], bytes]] = []
        self.uptime = 0.0
        path = folder / "credential.json"
        if credential:
            path.write_bytes(documents.encode(Credential(device_id="dev-1", credential=SECRET)))
        self.api = DeviceApi(
            path,
            url="https://s/default",
            device_id="dev-1",
            labels=dict,
            enrol_token=None if credential else "e" * 32,
            disk=RealDisk(),
            network=self,
            clock=lambda: self.uptime,
            confidential=confidential,
        )

    def ask(self, method: str, url: str, *, headers: dict[str, str], body: bytes, bytes_max: int) -> Answer:
        assert (method, bytes_max) == ("POST", limits.ANSWER_BYTES)
        name = url.removeprefix("https://s/default/device/v1/")
        self.asked.append(name)
        self.bodies.append((headers, body))
        answers = self.answers[name]
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def report(self) -> None:
        self.asked.clear()
        self.api.report(BATCH)


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (problem(400), BadBody, "POST reports answered 400: as the test says"),
        (problem(413), BadBody, "POST reports answered 413: as the test says"),
        (problem(403), NotAllowed, "POST reports answered 403: as the test says"),
        (problem(404), Unavailable, "POST reports answered 404: as the test says"),
        (problem(500), Unavailable, "POST reports answered 500: as the test says"),
        (problem(503), Unavailable, "POST reports answered 503: as the test says"),
        (problem(503, retry_after="120"), Busy, "POST reports answered 503, and asks to come again later"),
        # An answer of somebody on the way makes the device forget nothing.
        (Answer(413, {}, b"too large"), TooLarge, "POST reports answered 413: too large"),
        (Answer(400, {}, b"no"), Unavailable, "POST reports answered 400: no"),
        (Answer(401, {}, b"no"), Unavailable, "POST reports answered 401: no"),
        (Answer(403, {}, b"no"), Unavailable, "POST reports answered 403: no"),
        (Answer(200, {}, b"welcome"), Misfit, "POST reports answered 200: welcome"),
        (Answer(302, {}, b"elsewhere"), Misfit, "POST reports answered 302: elsewhere"),
    ],
)
def test_only_the_servers_own_word_ends_a_report_and_all_else_is_tried_later(
    tmp_path: Path, answer: Answer, kind: type[Exception], words: str
) -> None:
    desk = Desk(tmp_path, reports=[answer])
    with pytest.raises(kind) as caught:
        desk.report()
    assert type(caught.value) is kind
    assert str(caught.value) == words
    if isinstance(caught.value, BadBody):
        assert caught.value.status == answer.status


def test_a_device_enrols_gets_a_token_and_reports_and_asks_for_neither_again(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.report()
    assert desk.asked == ["challenge", "enrol", "challenge", "token", "reports"] or desk.asked[-2:] == [
        "token",
        "reports",
    ]
    assert desk.bodies[-1][0] == {"Content-Type": "application/json", "Authorization": "Bearer t1"}
    desk.report()
    assert desk.asked == ["reports"]


def test_an_unknown_token_is_replaced_once_and_then_the_device_enrols_once(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.report()
    desk.answers["reports"] = [problem(401), STORED]
    desk.report()
    assert [name for name in desk.asked if name != "challenge"] == ["reports", "token", "reports"]
    desk.answers["reports"] = [problem(401), problem(401), STORED]
    desk.report()
    assert [name for name in desk.asked if name != "challenge"] == [
        "reports", "token", "reports", "enrol", "token", "reports",
    ]  # fmt: skip
    desk.answers["reports"] = [problem(401)]
    with pytest.raises(NotAllowed) as caught:
        desk.report()
    assert str(caught.value) == "POST reports answered 401: as the test says; check the enrolment token"
    assert desk.asked.count("reports") == 3


@pytest.mark.parametrize(("expires_in_s", "lasts_s"), [(1000, 940), (120, 60), (100, 50), (10, 5)])
def test_a_token_is_renewed_a_minute_before_it_ends_and_a_short_one_at_its_half(
    tmp_path: Path, expires_in_s: int, lasts_s: float
) -> None:
    desk = Desk(tmp_path, token=[answered(200, {"token": "t1", "expires_in_s": expires_in_s})])
    desk.report()
    desk.uptime = lasts_s - 0.01
    desk.report()
    assert "token" not in desk.asked
    desk.uptime = lasts_s
    desk.report()
    assert "token" in desk.asked


def test_without_tls_nothing_secret_is_sent_again_to_whoever_answers_401(tmp_path: Path) -> None:
    desk = Desk(tmp_path, confidential=False, reports=[problem(401)])
    with pytest.raises(NotAllowed) as caught:
        desk.report()
    assert str(caught.value) == (
        "POST reports answered 401 without TLS, as anybody on the way may do; nothing secret is sent again. Give the "
        "server's https:// address; or, where the network is your own, enrol anew by removing "
        f"{tmp_path / 'credential.json'}"
    )
    assert desk.asked.count("reports") == 1


def test_a_report_is_compressed_from_its_limit_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(tmp_path)
    content = documents.encode(BATCH)
    for limit, encoding, body in ((len(content), None, content), (len(content) - 1, "gzip", None)):
        monkeypatch.setattr(limits, "GZIP_FROM_BYTES", limit)
        desk.report()
        headers, sent = desk.bodies[-1]
        assert headers.get("Content-Encoding") == encoding
        assert (sent if body is not None else gzip.decompress(sent)) == content


def test_a_device_that_has_no_way_in_says_what_lacks(tmp_path: Path) -> None:
    desk = Desk(tmp_path, credential=True, token=[problem(401)])
    with pytest.raises(NotAllowed) as caught:
        desk.report()
    words = "the server knows no keys of devices, and there is no enrolment token; give one"
    other = "the server does not know this device, and there is no enrolment token; give one"
    assert str(caught.value) == (words if desk.api.key is not None else other)


@pytest.mark.parametrize("refusal", [problem(400), problem(403), problem(401)])
def test_a_server_that_takes_no_key_for_a_credential_is_asked_for_a_token_by_it_alone(
    tmp_path: Path, refusal: Answer
) -> None:
    desk = Desk(tmp_path, credential=True, challenge=[answered(200, {"challenge": "c" * 32})], enrol=[refusal])
    desk.report()
    assert desk.asked[-1] == "reports"
    token = json.loads(desk.bodies[desk.asked.index("token")][1])
    assert token == {"device_id": "dev-1", "credential": SECRET}


def test_an_enrolment_of_another_device_is_refused(tmp_path: Path) -> None:
    desk = Desk(tmp_path, enrol=[answered(201, {"device_id": "dev-2", "credential": SECRET})])
    with pytest.raises(UntrustedInput, match="the server enrolled 'dev-2'; expected 'dev-1'"):
        desk.report()
    assert not (tmp_path / "credential.json").exists()


def test_a_success_that_is_not_the_servers_is_said_to_be_none(tmp_path: Path) -> None:
    desk = Desk(tmp_path, enrol=[Answer(200, {}, b"<html>sign in</html>")])
    with pytest.raises(Misfit) as caught:
        desk.report()
    assert str(caught.value) == (
        "POST enrol answered 200, and not as the server does: a page for people; something on the way (a sign-in page, "
        "a proxy) answers instead of the server"
    )
