"""Does this device have the private key that it names? The challenge, the bytes that a device signs, and their check.

1. A device makes an Ed25519 key and keeps it. It sends the public key: 32 bytes as base64url without padding.
2. It gets a challenge from the server and signs a text of lines, which names what the signature is for, so that a
   signature for one purpose serves no other. docs/reference/http.md has both texts.
3. Text in base64url has one valid spelling: no padding, no other alphabet, no bits that are left over.
"""

import base64
import binascii
from typing import Annotated

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from msgspec import Meta

from whimbrel.errors import NotAllowed, UntrustedInput
from whimbrel.model.documents import Document, digest_of
from whimbrel.model.patterns import matching

PublicKey = Annotated[str, matching(r"^[A-Za-z0-9_-]{43}\Z", "a public key of 43 characters of base64url")]  # 32 bytes
Signature = Annotated[str, matching(r"^[A-Za-z0-9_-]{86}\Z", "a signature of 86 characters of base64url")]  # 64 bytes
_Challenge = Annotated[str, Meta(min_length=16, max_length=512)]


class Challenge(Document, frozen=True):
    """The answer to POST challenge: a text that is good for two minutes, and for one enrolment of a device."""

    challenge: _Challenge


class ChallengeRequest(Document, frozen=True):
    """POST challenge: it says nothing, so that everybody gets a challenge."""


class Proof(Document, frozen=True):
    """A device's answer to a challenge: its public key, and its signature over the text of the request."""

    public_key: PublicKey
    challenge: _Challenge
    signature: Signature


def enrolment_text(*, challenge: str, device_id: str, public_key: str, enrol_token: str | None) -> bytes:
    """What a device signs to enrol. The enrolment token is in it as its SHA-256; "" where it sends none."""
    digest = "" if enrol_token is None else digest_of(enrol_token.encode())
    return "\n".join(("whimbrel enrol 1", challenge, device_id, public_key, digest)).encode()


def token_text(*, challenge: str, device_id: str, public_key: str, credential: str) -> bytes:
    """What a device signs to get a token. The credential is in it as its SHA-256."""
    return "\n".join(("whimbrel token 1", challenge, device_id, public_key, digest_of(credential.encode()))).encode()


def recipient_text(*, challenge: str, device_id: str, public_key: str, recipient: str) -> bytes:
    """What a device signs to name, as it enrols, the key that release keys are sealed to for it."""
    return "\n".join(("whimbrel recipient 1", challenge, device_id, public_key, recipient)).encode()


def attestation_challenge(*, challenge: str, device_id: str, public_key: str) -> bytes:
    """The 32 bytes that a device's hardware signs in an attestation: they bind its key, its id, and this enrolment."""
    return bytes.fromhex(digest_of("\n".join(("whimbrel attest 1", challenge, device_id, public_key)).encode()))


def public_key_of(key: Ed25519PrivateKey) -> str:
    """The public key of a private one, as devices send it."""
    return base64url(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))


def prove(key: Ed25519PrivateKey, text: bytes, *, challenge: str) -> Proof:
    """A proof of `key`. `text`: what the request says to sign."""
    return Proof(public_key=public_key_of(key), challenge=challenge, signature=base64url(key.sign(text)))


def check_proof(proof: Proof, text: bytes) -> None:
    """Raise `NotAllowed` where the signature was not made with the key that the proof names."""
    try:
        key = Ed25519PublicKey.from_public_bytes(from_base64url(proof.public_key))
        key.verify(from_base64url(proof.signature), text)
    except (InvalidSignature, ValueError, UntrustedInput) as error:
        raise NotAllowed(
            "the signature is not by the key that the request names, or not over this request; sign the text that "
            "docs/reference/http.md gives, with a challenge of this server"
        ) from error


def base64url(content: bytes) -> str:
    """RFC 4648 section 5, without padding."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def from_base64url(text: str) -> bytes:
    """The bytes of such a text. Raises `UntrustedInput` for any spelling but the one that `base64url` gives."""
    try:
        content = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (ValueError, binascii.Error) as error:
        raise UntrustedInput("a text is not base64url; expected letters, digits, - and _ without padding") from error
    if base64url(content) != text:
        raise UntrustedInput("a text is not in the one valid spelling of base64url, without padding or spare bits")
    return content
