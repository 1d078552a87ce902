"""Who may open a sealed release? How its key is asked for, and how it is sealed to one device.

1. A device makes an X25519 key beside its Ed25519 key, the *recipient key*. It names the public half in each request
   for a release's key, and signs the request with its Ed25519 key: so nobody has a key sealed to another recipient.
2. The answer is sealed by HPKE (RFC 9180, base mode): DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305. Its
   `info` names namespace, model, serial and device, so an answer opens for that device and that version alone.
3. The registry keeps a release's key as an age file, in which the names that it belongs to stand beside it: whoever
   exchanges rows of the database does not make it hand out the key of another model.

docs/reference/http.md has the texts. `cryptography` has HPKE from version 50 on; where it is older, `Unavailable`
says so.
"""

from typing import Annotated, Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from whimbrel import limits
from whimbrel.errors import Unavailable, UntrustedInput
from whimbrel.model.documents import Document
from whimbrel.model.ids import DeviceId, Name, Serial
from whimbrel.model.patterns import matching
from whimbrel.trust.possession import Proof, base64url, from_base64url

RecipientKey = Annotated[str, matching(r"^[A-Za-z0-9_-]{43}\Z", "a public key of 43 characters of base64url")]
Identity = Annotated[str, matching(r"^AGE-SECRET-KEY-1[A-Z0-9]{58}\Z", "an identity of age, AGE-SECRET-KEY-1...")]
_SealedText = Annotated[
    str, matching(r"^[A-Za-z0-9_-]+\Z", "bytes as base64url, without padding", max_length=4 * limits.RELEASE_KEY_BYTES)
]


class ReleaseKeyRequest(Document, frozen=True):
    """POST release-key: a device asks for the key of a version. The proof signs `release_key_text`."""

    model: Name
    serial: Serial
    recipient: RecipientKey
    proof: Proof


class SealedReleaseKey(Document, frozen=True):
    """The answer: the release's key, sealed to the device's recipient key."""

    model: Name
    serial: Serial
    sealed: _SealedText


class KeptReleaseKey(Document, frozen=True):
    """What the registry keeps, sealed to its own key: the release's key, and which release it opens."""

    namespace: Name
    model: Name
    serial: Serial
    identity: Identity


class BundledKeys(Document, frozen=True, tag_field="format", tag="whimbrel-release-keys-1"):
    """The release keys of one model in a bundle, each sealed to the devices that it is for, by their ids."""

    model: Name
    keys: dict[DeviceId, tuple[SealedReleaseKey, ...]]


def release_key_text(
    *, challenge: str, device_id: str, public_key: str, model: str, serial: int, recipient: str
) -> bytes:
    """What a device signs to get the key of a release."""
    lines = "whimbrel release key 1", challenge, device_id, public_key, model, str(serial), recipient
    return "\n".join(lines).encode()


def recipient_key_of(key: X25519PrivateKey) -> str:
    """The public half of a device's recipient key, as it is sent."""
    return base64url(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))


def seal_key(identity: str, recipient: str, *, namespace: str, model: str, serial: int, device_id: str) -> str:
    """The release's key `identity`, sealed to one device. Raises `UntrustedInput` for a recipient that is no key."""
    info = _info(namespace=namespace, model=model, serial=serial, device_id=device_id)
    try:
        public = X25519PublicKey.from_public_bytes(from_base64url(recipient))
        sealed: bytes = _suite().encrypt(identity.encode(), public, info=info)
    except ValueError as error:
        raise UntrustedInput(f"the recipient key cannot be used: {error}; expected 32 bytes of X25519") from error
    return base64url(sealed)


def open_key(
    sealed: SealedReleaseKey, key: X25519PrivateKey, *, namespace: str, model: str, serial: int, device_id: str
) -> str:
    """The release's key. Raises `UntrustedInput` for one that was sealed to another device, or for another version."""
    from cryptography.exceptions import InvalidTag

    info = _info(namespace=namespace, model=model, serial=serial, device_id=device_id)
    try:
        return str(_suite().decrypt(from_base64url(sealed.sealed), key, info=info), "ascii")
    except (InvalidTag, ValueError) as error:
        raise UntrustedInput(
            f"the key of {model} at serial {serial} was not sealed to this device for this version; it is "
            "asked for again"
        ) from error


def _info(*, namespace: str, model: str, serial: int, device_id: str) -> bytes:
    return "\n".join(("whimbrel release key 1", namespace, model, str(serial), device_id)).encode()


def _suite() -> Any:
    try:
        from cryptography.hazmat.primitives import hpke
    except ImportError as error:
        raise Unavailable(
            "this cryptography has no HPKE, so no sealed model can be opened here: pip install 'whimbrel[sealed]'"
        ) from error
    return hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305)
