"""Tokens and challenges of devices: what they say, until when, by which key, and as what a bad one is refused."""

import hashlib
import hmac
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from whimbrel import limits
from whimbrel.errors import NotAllowed, UntrustedInput
from whimbrel.flows.devices.records import NewCredential
from whimbrel.server.auth import Claims, DeviceTokens, Gatekeeper, bearer
from whimbrel.server.challenges import Challenges
from whimbrel.server.device_token_keys import DeviceTokenKeys
from whimbrel.trust.possession import base64url, from_base64url

T0 = 1_800_000_000.0
HOUR_S = 3600.0
KEY = bytes(range(32))
TOKENS = DeviceTokens(KEY)


def signed(payload: bytes, *, key: bytes = KEY) -> str:
    """A token of any payload, by the rule of auth.py's docstring."""
    return f"{base64url(payload)}.{base64url(hmac.digest(key, payload, hashlib.sha256))}"


def verify(token: str | None, *, namespace: str = "default", now: float = T0, tokens: DeviceTokens = TOKENS) -> Claims:
    return tokens.verify(None if token is None else f"Bearer {token}", namespace=namespace, now=now)


# --- tokens ---


def test_a_token_says_who_until_when_of_which_credential_and_with_which_labels() -> None:
    token = TOKENS.issue(
        "default", "dev-1", now=T0, epoch=3, labels={"site": "oslo"}, claimable={"ring": ("beta", "all")}
    )
    claims = verify(token)
    assert claims == Claims(
        "default", "dev-1", T0 + HOUR_S, epoch=3, labels={"site": "oslo"}, claimable={"ring": ("beta", "all")}
    )
    assert claims.issued == T0


def test_a_token_is_good_for_an_hour_and_no_moment_longer() -> None:
    token = TOKENS.issue("default", "dev-1", now=T0)
    assert verify(token, now=T0 + HOUR_S).device == "dev-1"
    with pytest.raises(NotAllowed, match=r"this device token is over; get a new one with POST token"):
        verify(token, now=T0 + HOUR_S + 0.001)


def test_a_token_without_labels_or_epoch_is_small() -> None:
    """A default is left out: every request of every device carries it."""
    body, _, _ = TOKENS.issue("default", "dev-1", now=T0).partition(".")
    assert from_base64url(body) == b'{"namespace":"default","device":"dev-1","expires":1800003600.0}'
    old = verify(signed(b'{"namespace":"default","device":"dev-1","expires":1800003600.0}'))
    assert (old.epoch, old.labels, old.claimable) == (0, {}, {})


def test_a_token_of_another_namespace_is_refused() -> None:
    with pytest.raises(NotAllowed, match="this device token is for namespace 'other'"):
        verify(TOKENS.issue("other", "dev-1", now=T0))


GOOD = TOKENS.issue("default", "dev-1", now=T0)
NOT_MADE_HERE = "this device token was not made here; get a new one with POST token"
NO_TOKEN = "this is no device token; get one with POST token"


def flipped(token: str, place: int) -> str:
    return token[:place] + ("B" if token[place] == "A" else "A") + token[place + 1 :]


@pytest.mark.parametrize(
    ("token", "sentence"),
    [
        (flipped(GOOD, 5), NOT_MADE_HERE),
        (flipped(GOOD, GOOD.index(".") + 3), NOT_MADE_HERE),
        (DeviceTokens(bytes(32)).issue("default", "dev-1", now=T0), NOT_MADE_HERE),
        (GOOD.partition(".")[0], NOT_MADE_HERE),  # no signature
        (f"{GOOD.partition('.')[0]}.", NOT_MADE_HERE),
        (f"{GOOD}=", NO_TOKEN),
        (f"{GOOD}.x", NO_TOKEN),
        ("ünicode", NO_TOKEN),
        ("!", NO_TOKEN),
        (signed(b"{}"), NO_TOKEN),
        (signed(b"no JSON"), NO_TOKEN),
        (signed(b"\xff"), NO_TOKEN),
        (signed(b'{"namespace":"default","device":"dev-1","expires":"soon"}'), NO_TOKEN),
    ],
)
def test_what_is_no_token_of_this_server_is_refused_and_not_said_more(token: str, sentence: str) -> None:
    with pytest.raises(NotAllowed) as caught:
        verify(token)
    assert (str(caught.value), caught.value.status) == (sentence, 401)


def test_a_token_is_taken_up_to_its_greatest_length() -> None:
    def of_payload(size_bytes: int) -> str:
        claims = Claims("default", "dev-1", T0 + HOUR_S, labels={"a": ""})
        padding = "x" * (size_bytes - len(msgspec.json.encode(claims)))
        return signed(msgspec.json.encode(msgspec.structs.replace(claims, labels={"a": padding})))

    assert len(of_payload(3039)) == 4096
    assert verify(of_payload(3039)).device == "dev-1"
    with pytest.raises(NotAllowed, match="was not made here"):
        verify(of_payload(3040))


def test_no_token_at_all_is_told_how_to_get_one() -> None:
    for authorization in (None, "", "Bearer", "Bearer ", f"bearer {GOOD}", f"Basic {GOOD}", GOOD):
        with pytest.raises(NotAllowed, match=r"this needs a device token: Authorization: Bearer \.\.\.; get one"):
            TOKENS.verify(authorization, namespace="default", now=T0)
    assert (bearer("Bearer abc"), bearer("Bearer a b")) == ("abc", "a b")


# --- the keys of tokens ---


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "device-tokens.key"


def test_the_key_is_made_once_private_and_kept(path: Path) -> None:
    key = DeviceTokenKeys(path).current(T0)
    assert (len(key), path.read_bytes(), path.stat().st_mode & 0o777) == (32, key, 0o600)
    assert DeviceTokenKeys(path).current(T0) == key
    assert DeviceTokenKeys(path).accepted(T0) == (key,)


@pytest.mark.parametrize(("size", "taken"), [(31, False), (32, True), (33, True)])
def test_a_key_that_is_too_short_is_refused(path: Path, size: int, taken: bool) -> None:
    path.write_bytes(bytes(size))
    if taken:
        assert DeviceTokenKeys(path).current(T0) == bytes(size)
        return
    with pytest.raises(UntrustedInput, match=r"device-tokens\.key has 31 bytes; expected 32 random ones"):
        DeviceTokens.open(path)


def test_tokens_of_a_replaced_key_are_taken_for_as_long_as_they_live(path: Path) -> None:
    keys = DeviceTokenKeys(path)
    tokens = DeviceTokens(keys)
    before = tokens.issue("default", "dev-1", now=T0)
    old = keys.current(T0)
    assert keys.replace(at_once=False, now=T0) == T0 + HOUR_S
    new = keys.current(T0)
    assert new != old
    assert keys.accepted(T0 + HOUR_S - 1) == (new, old)
    assert keys.accepted(T0 + HOUR_S) == (new,)
    after = tokens.issue("default", "dev-1", now=T0 + 1)
    for token in (before, after):
        assert verify(token, now=T0 + HOUR_S - 1, tokens=tokens).device == "dev-1"
    with pytest.raises(NotAllowed, match="was not made here"):
        verify(before, now=T0 + HOUR_S, tokens=tokens)
    assert verify(after, now=T0 + HOUR_S, tokens=tokens).device == "dev-1"


def test_tokens_of_a_key_that_is_replaced_at_once_are_over_at_once(path: Path) -> None:
    keys = DeviceTokenKeys(path)
    tokens = DeviceTokens(keys)
    stolen = tokens.issue("default", "dev-1", now=T0)
    assert keys.replace(at_once=True, now=T0) == T0
    with pytest.raises(NotAllowed, match="was not made here"):
        verify(stolen, now=T0, tokens=tokens)


def test_another_process_takes_the_new_key_within_a_second(path: Path) -> None:
    here, there = DeviceTokenKeys(path), DeviceTokenKeys(path)
    old = there.current(T0)
    here.replace(at_once=False, now=T0)
    assert there.current(T0 + 0.999) == old
    assert there.current(T0 + 1.0) == here.current(T0)
    assert there.accepted(T0 + 1.0) == (here.current(T0), old)


def test_a_clock_that_went_back_looks_at_the_files_again(path: Path) -> None:
    here, there = DeviceTokenKeys(path), DeviceTokenKeys(path)
    there.current(T0)
    here.replace(at_once=False, now=T0)
    assert there.current(T0 - 0.001) == here.current(T0)


def test_the_files_of_a_replaced_key_are_private(path: Path) -> None:
    keys = DeviceTokenKeys(path)
    old = keys.current(T0)
    keys.replace(at_once=False, now=T0)
    before = path.with_name("device-tokens.before.key")
    assert before.read_bytes() == old + int(T0 + HOUR_S).to_bytes(8, "big")
    assert [each.stat().st_mode & 0o777 for each in (path, before)] == [0o600, 0o600]


# --- challenges ---

CHALLENGES = Challenges(TOKENS)


def made(*, challenges: Challenges = CHALLENGES, now: float = T0, namespace: str = "default") -> str:
    return challenges.make(namespace, now=now)


def test_a_challenge_is_known_again_with_the_moment_at_which_it_was_made() -> None:
    assert CHALLENGES.made_at(made(), namespace="default", now=T0 + 7) == T0
    assert made() != made()
    payload = msgspec.json.decode(from_base64url(made().partition(".")[0]))
    assert (payload["namespace"], payload["made_at"], len(from_base64url(payload["nonce"]))) == ("default", T0, 12)


@pytest.mark.parametrize(
    ("after_s", "good"),
    [(limits.CHALLENGE_LIFE_S, True), (limits.CHALLENGE_LIFE_S + 0.001, False), (-5.0, True), (-5.001, False)],
)
def test_a_challenge_is_good_for_two_minutes_and_a_little_before_its_time(after_s: float, good: bool) -> None:
    """Two servers of one repository, whose clocks differ: a challenge of the other one may come from the future."""
    if good:
        assert CHALLENGES.made_at(made(), namespace="default", now=T0 + after_s) == T0
        return
    with pytest.raises(NotAllowed, match="this challenge is over, or of another namespace; get a new one"):
        CHALLENGES.made_at(made(), namespace="default", now=T0 + after_s)


def test_a_challenge_of_another_namespace_is_refused() -> None:
    with pytest.raises(NotAllowed, match="of another namespace"):
        CHALLENGES.made_at(made(namespace="other"), namespace="default", now=T0)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda text: flipped(text, 3), "this challenge was not made here; get one with POST challenge"),
        (lambda text: text.partition(".")[0], "this challenge was not made here; get one with POST challenge"),
        (lambda text: f"{text}!", "this is no challenge; get one with POST challenge"),
        (lambda text: f"{text}=", "this is no challenge; get one with POST challenge"),
        (lambda _: GOOD, "this challenge was not made here; get one with POST challenge"),
    ],
)
def test_what_is_no_challenge_of_this_server_is_refused(spoil: Callable[[str], str], sentence: str) -> None:
    with pytest.raises(NotAllowed) as caught:
        CHALLENGES.made_at(spoil(made()), namespace="default", now=T0)
    assert (str(caught.value), caught.value.status) == (sentence, 401)


def test_a_challenge_is_no_token_and_its_key_makes_none() -> None:
    with pytest.raises(NotAllowed):
        verify(made())


def test_a_challenge_outlives_the_replacement_of_the_key(path: Path) -> None:
    keys = DeviceTokenKeys(path)
    challenges = Challenges(DeviceTokens(keys))
    asked = made(challenges=challenges)
    keys.replace(at_once=False, now=T0)
    assert challenges.made_at(asked, namespace="default", now=T0) == T0
    keys.replace(at_once=True, now=T0)
    with pytest.raises(NotAllowed, match="was not made here"):
        challenges.made_at(asked, namespace="default", now=T0)


# --- credentials that were replaced ---


def replaced(epoch: int, *, at: float = T0, namespace: str = "default") -> tuple[str, NewCredential]:
    return namespace, NewCredential(device_id="dev-1", epoch=epoch, made_at=at)


def test_tokens_of_former_credentials_are_refused_and_of_the_current_one_taken() -> None:
    gatekeeper = Gatekeeper()
    gatekeeper.note_credentials([replaced(3)], now=T0)
    for epoch in (0, 2):
        with pytest.raises(NotAllowed, match="this device enrolled again, and got another credential") as caught:
            gatekeeper.check("default", "dev-1", issued=T0, epoch=epoch)
        assert caught.value.status == 401
    gatekeeper.check("default", "dev-1", issued=T0, epoch=3)
    gatekeeper.check("default", "dev-2", issued=T0, epoch=0)
    gatekeeper.check("other", "dev-1", issued=T0, epoch=0)


def test_an_older_credential_that_is_read_later_does_not_let_a_former_one_in() -> None:
    gatekeeper = Gatekeeper()
    gatekeeper.note_credentials([replaced(3)], now=T0)
    gatekeeper.note_credentials([replaced(2, at=T0 - 60)], now=T0)
    with pytest.raises(NotAllowed):
        gatekeeper.check("default", "dev-1", issued=T0, epoch=2)


def test_a_device_that_was_removed_and_begins_again_is_known_by_its_newest_credential() -> None:
    gatekeeper = Gatekeeper()
    gatekeeper.note_credentials([replaced(7)], now=T0)
    gatekeeper.note_credentials([replaced(1, at=T0 + 60)], now=T0 + 60)
    gatekeeper.check("default", "dev-1", issued=T0 + 60, epoch=1)


def test_a_replacement_is_forgotten_when_no_token_of_before_it_lives() -> None:
    gatekeeper = Gatekeeper()
    gatekeeper.note_credentials([replaced(3)], now=T0)
    gatekeeper.note_credentials([], now=T0 + HOUR_S)
    with pytest.raises(NotAllowed):
        gatekeeper.check("default", "dev-1", issued=T0, epoch=2)
    gatekeeper.note_credentials([], now=T0 + HOUR_S + 0.001)
    gatekeeper.check("default", "dev-1", issued=T0, epoch=2)
