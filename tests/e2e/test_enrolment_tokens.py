"""A person makes enrolment tokens, hands them out, and lets a wiped device come back, all by the command line."""

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.enrolling import KeyedDevice
from support.server import Running, done, repository, serving, whimbrel
from whimbrel.server.device_access import PERIOD_S


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(repository(tmp_path_factory.mktemp("served") / "repo", versions=1)) as here:
        yield here


def test_a_factory_gets_a_file_of_single_use_tokens(server: Running, tmp_path: Path) -> None:
    lot = tmp_path / "lot-7.tokens"
    words = ("--count", "3", "--single-use", "--expires", "90d", "--require-key", "--give", "site=lab", "--out", lot)
    made = whimbrel("enrol-token", "create", "lot-7", *words, "-R", server.folder)
    assert (made.status, made.err) == (0, "")
    assert "3 enrolment tokens 'lot-7', one a line" in made.out
    assert stat.S_IMODE(lot.stat().st_mode) == 0o600
    tokens = lot.read_text().split()
    assert len(set(tokens)) == 3
    with server.public() as http:
        first = KeyedDevice(http, "lot-1")
        answer = first.enrol(tokens[0])
        assert (answer.status_code, answer.json()["labels"]) == (201, {"site": "lab"})
        second = KeyedDevice(http, "lot-2").enrol(tokens[0])
        assert (second.status_code, "let in 1 device, which is all" in second.json()["detail"]) == (401, True)
        bare = http.post("/device/v1/enrol", json={"device_id": "lot-3", "enrol_token": tokens[1]})
        assert (bare.status_code, "prove a key" in bare.json()["detail"]) == (403, True)
        lied = KeyedDevice(http, "lot-3").enrol(tokens[1], labels={"site": "office"})
        assert (lied.status_code, "has the label site=lab from the server" in lied.json()["detail"]) == (403, True)
        assert KeyedDevice(http, "lot-3").enrol(tokens[1]).status_code == 201  # the lie did not use it up
    shown = done("device", "show", "lot-1", "-R", server.folder)
    assert (shown["admission"], shown["enrol_token_name"], shown["has_key"]) == ("single_use", "lot-7", True)
    (listed,) = (each for each in done("enrol-token", "list", "-R", server.folder) if each["name"] == "lot-7")
    assert (listed["tokens"], listed["uses"], listed["uses_max"]) == (3, 2, 1)


def test_a_device_claims_only_the_labels_that_its_token_allows_also_later(server: Running) -> None:
    words = ("--label", "region=NZ,AU", "-R", server.folder)
    (token,) = done("enrol-token", "create", "oceania", *words)["tokens"]
    with server.public() as http:
        device = KeyedDevice(http, "claimer")
        assert device.enrol(token, labels={"region": "US"}).status_code == 403
        assert device.enrol(token, labels={"attestation": "android-tee"}).status_code == 403
        held = device.enrol(token, labels={"region": "NZ", "free": "yes"}).json()["credential"]
        bearer = device.bearer(held)
        for labels, status in (
            ({"region": "AU"}, 200),
            ({"region": "US"}, 403),
            ({"attestation.boot": "verified"}, 403),
        ):
            answer = http.post("/device/v1/check", headers=bearer, json={"models": {}, "labels": labels})
            assert answer.status_code == status, answer.text


def test_a_revoked_and_an_unknown_token_let_nobody_in(server: Running) -> None:
    (token,) = done("enrol-token", "create", "desk", "-R", server.folder)["tokens"]
    with server.public() as http:
        assert KeyedDevice(http, "desk-1").enrol(token).status_code == 201
        done("enrol-token", "revoke", "desk", "--yes", "--because", "it was in a photo", "-R", server.folder)
        refused = KeyedDevice(http, "desk-2").enrol(token)
        assert (refused.status_code, "was revoked" in refused.json()["detail"]) == (401, True)
        assert KeyedDevice(http, "desk-3").enrol("w" * 32).status_code == 401
    again = whimbrel("enrol-token", "revoke", "desk", "--yes", "-R", server.folder)
    assert (again.status, "revoked already" in again.err) == (4, True)
    taken = whimbrel("enrol-token", "create", "desk", "-R", server.folder)
    assert (taken.status, "there is an enrolment token 'desk' already" in taken.err) == (4, True)


def test_a_wiped_device_comes_back_by_a_persons_word_once(server: Running) -> None:
    token = (server.folder / "enrol.token").read_text().strip()
    with server.public() as http:
        before = KeyedDevice(http, "wiped")
        held = before.enrol(token).json()["credential"]
        after = KeyedDevice(http, "wiped")
        assert after.enrol(token).status_code == 403
        words = ("--for", "1h", "--key", after.public_key, "--because", "new disk")
        allowed = done("device", "allow-again", "wiped", *words, "-R", server.folder)
        assert allowed["allowed_again_until"] is not None
        assert KeyedDevice(http, "wiped").enrol(token).status_code == 403  # a third one, which nobody named
        assert after.enrol("w" * 32).status_code == 401  # the word of a person is no token
        new = after.enrol(token).json()["credential"]
        assert before.ask_token(held).status_code == 401
        assert before.enrol(token).status_code == 403
        assert after.ask_token(new).status_code == 200
    shown = done("device", "show", "wiped", "-R", server.folder)
    assert (shown["admission"], shown["allowed_again_until"], shown["credential_epoch"]) == ("person", None, 2)
    actions = [entry["action"] for entry in done("audit", "--device", "wiped", "-R", server.folder)]
    assert [each for each in actions if each != "enrol_device"] == ["enrol_again", "allow_again"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--single-use", "--uses", "2"), "a single-use token lets in one device"),
        (("--label", "region"), "has no value; write region=VALUE"),
        (("--give", "attestation=android-tee"), "comes from a verified attestation"),
        (("--give", "site=a", "--label", "site=a,b"), "name it once"),
        (("--label", "site=" + "a,b" * 200), "every device token carries them"),
        (("--expires", "soon"), "is no span of time"),
    ],
)
def test_odd_terms_get_one_sentence_and_make_no_token(server: Running, words: tuple[str, ...], sentence: str) -> None:
    refused = whimbrel("enrol-token", "create", "odd", *words, "-R", server.folder)
    assert (refused.status in {2, 4}, sentence in refused.err, refused.out) == (True, True, ""), refused.err
    assert "odd" not in [each["name"] for each in done("enrol-token", "list", "-R", server.folder)]


def test_the_memory_of_a_server_is_younger_than_what_is_promised() -> None:
    assert PERIOD_S < 5 / 2
