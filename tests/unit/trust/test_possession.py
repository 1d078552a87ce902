"""What a device signs, word for word; and each way in which a proof is none."""

import base64
import hashlib

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from whimbrel.errors import NotAllowed, UntrustedInput
from whimbrel.model.documents import digest_of
from whimbrel.trust import possession, sealing
from whimbrel.trust.enrolment import is_reserved
from whimbrel.trust.possession import base64url, check_proof, from_base64url, prove, public_key_of
from whimbrel.trust.sealing import SealedReleaseKey, open_key, recipient_key_of, release_key_text, seal_key

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
PUBLIC = "O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik"  # RFC 8032's curve: the public key of 32 zero bytes
IDENTITY = "AGE-SECRET-KEY-1" + "Q" * 58


def test_texts_to_sign_name_their_purpose_first_and_hold_no_secret() -> None:
    about = {"challenge": "c" * 16, "device_id": "dev-1", "public_key": PUBLIC}
    lines = f"{'c' * 16}\ndev-1\n{PUBLIC}"
    token, credential = digest_of(b"t" * 16), digest_of(b"s" * 16)
    enrol = possession.enrolment_text(**about, enrol_token="t" * 16)
    assert enrol == f"whimbrel enrol 1\n{lines}\n{token}".encode()
    assert possession.enrolment_text(**about, enrol_token=None) == f"whimbrel enrol 1\n{lines}\n".encode()
    assert possession.token_text(**about, credential="s" * 16) == f"whimbrel token 1\n{lines}\n{credential}".encode()
    assert possession.recipient_text(**about, recipient="r") == f"whimbrel recipient 1\n{lines}\nr".encode()
    asked = release_key_text(**about, model="wake", serial=7, recipient="r")
    assert asked == f"whimbrel release key 1\n{lines}\nwake\n7\nr".encode()
    hardware = possession.attestation_challenge(**about)
    assert hardware == hashlib.sha256(f"whimbrel attest 1\n{lines}".encode()).digest()


def test_a_public_key_is_sent_as_43_characters() -> None:
    assert public_key_of(KEY) == PUBLIC


def test_a_proof_holds_for_its_own_text_and_key_alone() -> None:
    proof = prove(KEY, b"text", challenge="c" * 16)
    assert (proof.public_key, proof.challenge, len(proof.signature)) == (PUBLIC, "c" * 16, 86)
    check_proof(proof, b"text")
    other = public_key_of(Ed25519PrivateKey.from_private_bytes(b"\1" * 32))
    changed = prove(KEY, b"another", challenge="c" * 16)
    for wrong, text in (
        (proof, b"text2"),
        (msgspec.structs.replace(proof, public_key=other), b"text"),
        (msgspec.structs.replace(proof, signature=changed.signature), b"text"),
        (msgspec.structs.replace(proof, signature=proof.signature[:-4]), b"text"),
        (msgspec.structs.replace(proof, public_key="A" * 42), b"text"),
        (msgspec.structs.replace(proof, public_key="!" * 43), b"text"),
    ):
        with pytest.raises(NotAllowed, match="the signature is not by the key that the request names"):
            check_proof(wrong, text)


@pytest.mark.parametrize("size", range(8))
def test_base64url_comes_back_in_one_spelling(size: int) -> None:
    content = bytes(range(250, 250 - size, -1))
    text = base64url(content)
    assert text == base64.urlsafe_b64encode(content).decode().rstrip("=")
    assert from_base64url(text) == content


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A", "is not base64url"),
        ("AAAAA", "is not base64url"),
        ("AA=", "one valid spelling"),
        ("AA==", "one valid spelling"),
        ("AB", "one valid spelling"),
        ("+/+/", "one valid spelling"),
        ("A A", "is not base64url"),
        ("é", "is not base64url"),
    ],
)
def test_any_other_spelling_is_refused(text: str, words: str) -> None:
    with pytest.raises(UntrustedInput, match=words):
        from_base64url(text)


@pytest.mark.parametrize(
    ("label", "reserved"),
    [("attestation", True), ("attestation.kind", True), ("attestation.", True), ("attestations", False), ("a", False)],
)
def test_labels_of_a_verifier_are_the_servers(label: str, reserved: bool) -> None:
    assert is_reserved(label) is reserved


# --- keys of sealed releases ---

RECIPIENT = X25519PrivateKey.from_private_bytes(b"\7" * 32)
FOR = {"namespace": "default", "model": "wake", "serial": 7, "device_id": "dev-1"}


def sealed(**changes: object) -> SealedReleaseKey:
    text = seal_key(IDENTITY, recipient_key_of(RECIPIENT), **FOR | changes)
    return SealedReleaseKey(model="wake", serial=7, sealed=text)


def test_a_release_key_opens_for_its_device_and_its_version() -> None:
    assert open_key(sealed(), RECIPIENT, **FOR) == IDENTITY
    assert sealed().sealed != sealed().sealed


@pytest.mark.parametrize("change", [{"namespace": "other"}, {"model": "other"}, {"serial": 8}, {"device_id": "dev-2"}])
def test_a_release_key_opens_for_no_other(change: dict[str, object]) -> None:
    with pytest.raises(
        UntrustedInput, match=r"^the key of wake at serial 7 was not sealed to this device for this version"
    ):
        open_key(sealed(**change), RECIPIENT, **FOR)


def test_a_release_key_opens_with_its_own_key_alone() -> None:
    with pytest.raises(UntrustedInput, match="was not sealed to this device"):
        open_key(sealed(), X25519PrivateKey.generate(), **FOR)
    with pytest.raises(UntrustedInput, match="was not sealed to this device"):
        open_key(msgspec.structs.replace(sealed(), sealed="AAAA"), RECIPIENT, **FOR)


@pytest.mark.parametrize("recipient", ["AAAA", base64url(bytes(31)), base64url(bytes(33)), base64url(bytes(32))])
def test_a_recipient_that_is_no_key_is_refused(recipient: str) -> None:
    with pytest.raises(UntrustedInput, match=r"the recipient key cannot be used: .*; expected 32 bytes of X25519"):
        seal_key(IDENTITY, recipient, **FOR)


def test_what_a_release_key_is_bound_to_is_spelled_in_lines() -> None:
    """Anybody else's client opens it with the same bytes: RFC 9180, base mode."""
    from cryptography.hazmat.primitives import hpke

    suite = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305)
    info = b"whimbrel release key 1\ndefault\nwake\n7\ndev-1"
    assert suite.decrypt(from_base64url(sealed().sealed), RECIPIENT, info=info) == IDENTITY.encode()


@pytest.mark.parametrize("cut", [0, 1])
def test_an_identity_and_a_sealed_text_are_bounded(cut: int) -> None:
    longest = "A" * 4 * sealing.limits.RELEASE_KEY_BYTES
    document = {"model": "wake", "serial": 7, "sealed": longest + "A" * cut}
    if cut:
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(document, SealedReleaseKey)
    else:
        assert msgspec.convert(document, SealedReleaseKey).sealed == longest
