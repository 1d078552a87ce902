"""POST release-key: an entitled device gets the key of a sealed release for itself alone, and not without end."""

import logging

import pytest

from support.device_problems import problem_of
from support.rollouts_in_memory import audited
from support.sealing import Asking
from support.server_in_memory import ServerInMemory, server_in_memory
from support.values import selector
from whimbrel import agefile, limits
from whimbrel.flows.devices.records import EnrolTokenTerms
from whimbrel.model.documents import convert
from whimbrel.server import release_keys
from whimbrel.stores.sealing_key import SealingKey, keep_release_key
from whimbrel.trust.possession import public_key_of
from whimbrel.trust.sealing import SealedReleaseKey, open_key, recipient_key_of

IDENTITY = agefile.new_identity()
PRO, PLAIN = "enrol-token-of-pro", "enrol-token-of-plain"


@pytest.fixture
def sealed(server: ServerInMemory) -> ServerInMemory:
    """A server with the sealed model `secret`, whose first version's key is for devices of the tier `pro`."""
    server.add_model("secret", sealed_for=selector(tier="pro"))
    recipient = SealingKey(server.folder.sealing_key).make()
    keep(server, "secret", recipient)
    with server.stores() as stores:
        for secret, labels in ((PRO, {"tier": "pro"}), (PLAIN, {})):
            terms = EnrolTokenTerms(granted_labels=labels)
            stores.enrolments.add_token(secret[15:], [secret], terms=terms, at=server.clock.now)
    return server


def keep(server: ServerInMemory, named: str, recipient: str) -> None:
    """Keep the key of `secret` at serial 1, with the model that it says it is of."""
    kept = keep_release_key(IDENTITY, recipient, namespace="default", model=named, serial=1)
    with server.stores() as stores:
        stores.sealed.add("secret", 1, release_key=kept, steps=(), at=server.clock.now)


def board(server: ServerInMemory, token: str = PRO, device_id: str = "board-1") -> Asking:
    made = Asking(server.public(), device_id, token)
    server.clock.now += 1
    return made


def test_an_entitled_device_gets_the_key_sealed_to_itself(sealed: ServerInMemory) -> None:
    device = board(sealed)
    answer = device.ask()
    assert (answer.status_code, answer.json().keys()) == (200, {"model", "serial", "sealed"})
    key = convert(SealedReleaseKey, answer.json(), what="the answer")
    named = {"namespace": "default", "model": "secret", "serial": 1, "device_id": "board-1"}
    assert open_key(key, device.recipient, **named) == IDENTITY
    recipient = recipient_key_of(device.recipient)
    (entry,) = audited(sealed, "hand_out_release_key")
    assert (entry.model, entry.device, entry.actor) == ("secret", "board-1", "board-1")
    assert entry.because == "the key of serial 1, sealed to the device"
    assert entry.evidence == {"serial": 1, "recipient": recipient}
    with sealed.stores() as stores:
        known = stores.enrolments.known("board-1")
    assert known is not None
    assert known.recipient == recipient


def test_a_device_that_is_not_entitled_gets_no_key(sealed: ServerInMemory) -> None:
    status, title, detail = problem_of(board(sealed, PLAIN).ask())
    assert (status, title) == (403, "Refused")
    assert detail.startswith("board-1 is not entitled: the keys of this model are for tier=pro")
    assert audited(sealed, "hand_out_release_key") == []


def test_a_label_of_an_operator_entitles_a_device_and_its_own_word_does_not(sealed: ServerInMemory) -> None:
    device = board(sealed, PLAIN)
    with sealed.stores() as stores:
        stores.inventory.set_operator_labels("board-1", {"tier": "pro"})
    assert device.ask().status_code == 200


def test_a_request_for_another_recipient_than_the_signed_one_is_no_proof(sealed: ServerInMemory) -> None:
    device, thief = board(sealed), board(sealed, PLAIN, "board-2")
    body = device.request() | {"recipient": recipient_key_of(thief.recipient)}
    status, _, detail = problem_of(device.ask(body))
    assert (status, detail.startswith("the signature is not by the key that the request names")) == (401, True)


def test_a_key_that_is_not_the_devices_own_gets_none(sealed: ServerInMemory) -> None:
    device = board(sealed)
    thief = Asking.__new__(Asking)
    thief.__dict__ |= device.__dict__
    thief.key = board(sealed, PLAIN, "board-2").key
    thief.public_key = public_key_of(thief.key)
    sentence = "the request is not signed with the key of board-1; it gets no release key"
    assert problem_of(thief.ask()) == (401, "Not allowed", sentence)


def test_a_challenge_that_is_over_gets_no_key(sealed: ServerInMemory) -> None:
    device = board(sealed)
    body = device.request()
    sealed.clock.now += limits.CHALLENGE_LIFE_S + 1
    status, _, detail = problem_of(device.ask(body))
    assert (status, detail.partition(";")[0]) == (401, "this challenge is over, or of another namespace")


@pytest.mark.parametrize(("model", "serial"), [("secret", 2), ("wake", 1)])
def test_a_version_that_is_not_sealed_has_no_key(sealed: ServerInMemory, model: str, serial: int) -> None:
    sentence = f"{model} has no sealed version with serial {serial}; whoever has its files can open them"
    assert problem_of(board(sealed).ask(model=model, serial=serial)) == (404, "Not found", sentence)


def test_a_device_gets_so_many_keys_an_hour(sealed: ServerInMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RELEASE_KEYS_AN_HOUR", 2)
    device, other = board(sealed), board(sealed, PRO, "board-2")
    began = sealed.clock.now
    for _ in range(2):
        assert device.ask().status_code == 200
    answer = device.ask()
    sentence = "board-1 asked for 2 release keys within an hour; a device gets at most 2: come again later"
    assert problem_of(answer) == (429, "Too many at once", sentence)
    assert answer.headers["retry-after"] == "5"
    assert other.ask().status_code == 200
    sealed.clock.now = began + 3599.5
    for each in (device, other):
        each.headers = each.bearer(each.credential)
    assert device.ask().status_code == 429
    sealed.clock.now = began + 3600
    assert device.ask().status_code == 200
    sealed.clock.now -= 1  # a clock that went back keeps nobody out
    assert device.ask().status_code == 200


def test_who_has_a_devices_token_without_its_key_does_not_use_its_share_up(
    sealed: ServerInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RELEASE_KEYS_AN_HOUR", 1)
    device = board(sealed)
    thief = Asking(sealed.public(), "board-2", PLAIN)
    thief.headers, thief.device_id = device.headers, device.device_id
    for status in (401, 429):
        assert thief.ask().status_code == status
    assert device.ask().status_code == 200


def test_what_is_remembered_of_devices_is_bounded(sealed: ServerInMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RELEASE_KEYS_AN_HOUR", 1)
    monkeypatch.setattr(limits, "RELEASE_KEY_DEVICES", 1)
    first, second = board(sealed), board(sealed, PRO, "board-2")
    assert [first.ask().status_code, first.ask().status_code] == [200, 429]
    assert [second.ask().status_code, first.ask().status_code] == [200, 200]  # the first one was forgotten


def test_a_flood_of_keys_has_some_entries_of_its_own_and_one_that_counts(
    sealed: ServerInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "AUDIT_BOUNDED_OWN", 1)
    device = board(sealed)
    for _ in range(3):
        device.ask()
    sealed.acts.write()
    assert [entry.because for entry in audited(sealed, "hand_out_release_key")] == [
        "the key of serial 1, sealed to the device",
        "2 further release keys were handed out, of secret",
    ]


def test_a_key_that_the_server_cannot_open_is_told_in_its_log_once_in_a_while(
    sealed: ServerInMemory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, logger=release_keys.__name__)
    device = board(sealed)
    recipient = SealingKey(sealed.folder.sealing_key).recipient
    assert recipient is not None
    with sealed.stores() as stores:
        other = keep_release_key(IDENTITY, recipient, namespace="default", model="other", serial=1)
        stores.sealed.set_release_key("secret", 1, other)
    sentence = "the server cannot open the key of secret at serial 1 now; its log says why"
    for step_s in (0.0, limits.DAMPED_LOG_S - 0.5, 0.5):
        sealed.clock.now += step_s
        assert problem_of(device.ask()) == (503, "Not available now", sentence)
    assert [each.getMessage() for each in caplog.records] == [
        "the key of secret at serial 1 cannot be handed out: the key that is kept for secret at serial 1 of default is "
        "that of other at serial 1 of default"
    ] * 2


def test_a_server_without_a_sealing_key_says_that_it_cannot_open_the_key(sealed: ServerInMemory) -> None:
    sealed.folder.sealing_key.unlink()
    assert problem_of(board(sealed).ask())[0] == 503


def test_a_body_that_is_no_request_for_a_key_is_refused(sealed: ServerInMemory) -> None:
    device = board(sealed)
    status, _, detail = problem_of(device.ask({"model": "secret"}))
    assert (status, detail.startswith("a request for a release key cannot be read: ")) == (400, True)


def test_a_server_that_keeps_no_keys_says_so() -> None:
    with server_in_memory(versions=0) as server:
        server.device_api._release_keys = None
        device = server.device("board-1")
        answer = device.post("/device/v1/release-key", json={})
        assert problem_of(answer) == (404, "Not found", "this server keeps no keys of sealed releases")
