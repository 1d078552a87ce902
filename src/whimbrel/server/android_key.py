"""Android Key Attestation: is this key in the secure hardware of a phone that booted what its maker signed?

Source: https://source.android.com/docs/security/features/keystore/attestation (the schema of the extension, versions 1
to 400) and https://developer.android.com/privacy-and-security/security-key-attestation (what a verifier checks).

1. Each certificate is signed by the next one, all are in their time, all but the leaf may sign, none is revoked, and
   the last one is a root of the operator's.
2. The leaf alone has the extension: whoever can sign below an attested key would add a certificate of his own.
3. The hardware signed our challenge: it binds the device's own key, its id, and this enrolment.
4. The key is in a trusted environment (`tee`, `strongbox`), the boot loader is locked, and the system is verified.
5. What is not understood is refused, a field of a later schema too.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from whimbrel.errors import Refused, UntrustedInput, reason_of
from whimbrel.model.document_errors import sentence
from whimbrel.model.documents import Document, convert

EXTENSION = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.1.17")
_LEVELS = {1: "tee", 2: "strongbox"}  # SecurityLevel; 0 is software
_VERIFIED = 0  # VerifiedBootState
_ROOT_OF_TRUST = 704
_ENUMERATED = b"\x0a"
_ROOTS_BYTES, _REVOKED_BYTES = 1 << 20, 64 << 20


@asn1.sequence
class _RootOfTrust:
    verified_boot_key: bytes
    device_locked: bool
    verified_boot_state: asn1.TLV
    verified_boot_hash: bytes | None


# The fields of AuthorizationList by tag and type, in the order of the schema. All are optional, and explicitly tagged.
_INTEGERS = (2, 3, 8, 10, 200, 400, 401, 402, 405, 502, 504, 505, 701, 702, 705, 706, 718, 719)
_SETS = (1, 4, 5, 6, 203)  # of integers
_NULLS = (7, 303, 305, 503, 506, 507, 508, 509, 600, 703, 720)
_BYTES = (601, *range(709, 718), 723, 724)
_FIELDS: dict[int, Any] = {
    **dict.fromkeys(_INTEGERS, int),
    **dict.fromkeys(_SETS, asn1.SetOf[int]),
    **dict.fromkeys(_NULLS, asn1.Null),
    **dict.fromkeys(_BYTES, bytes),
    _ROOT_OF_TRUST: _RootOfTrust,
}
_AuthorizationList: Any = asn1.sequence(
    type(
        "AuthorizationList",
        (),
        {
            "__annotations__": {
                f"tag_{tag}": Annotated[kind | None, asn1.Explicit(tag)] for tag, kind in sorted(_FIELDS.items())
            }
        },
    )
)


@asn1.sequence
class _KeyDescription:
    attestation_version: int
    attestation_security_level: asn1.TLV
    keymint_version: int
    keymint_security_level: asn1.TLV
    attestation_challenge: bytes
    unique_id: bytes
    software_enforced: _AuthorizationList
    hardware_enforced: _AuthorizationList


class _Settings(Document, frozen=True):
    """`[attestation.android-key]`: a PEM file of roots, and the file of revoked serials that Google publishes."""

    roots: str
    revoked: str | None = None


class _Revocations(msgspec.Struct, frozen=True):
    entries: dict[str, Any]


class AndroidKey:
    """Verifies chains of Android Key Attestation against the roots of the operator."""

    def __init__(self, roots: Sequence[x509.Certificate], *, revoked: frozenset[str] = frozenset()) -> None:
        """`revoked`: serial numbers of certificates, in lower-case hexadecimal."""
        self._roots = {_key_of(root) for root in roots}
        self._revoked = revoked

    def verify(self, chain: Sequence[bytes], *, challenge: bytes, now: float) -> dict[str, str]:
        """The labels of a device. Raises `Refused` or `UntrustedInput`."""
        try:
            certificates = [x509.load_der_x509_certificate(each) for each in chain]
            self._check_chain(certificates, now=datetime.fromtimestamp(now, UTC))
            description = _description_of(certificates)
        except (ValueError, TypeError, x509.DuplicateExtension) as error:
            raise UntrustedInput(f"the attestation cannot be read: {error}") from error
        if description.attestation_challenge != challenge:
            raise Refused("the attestation is for another challenge; it must name this enrolment, its id and its key")
        level = min(
            _enumerated(description.attestation_security_level), _enumerated(description.keymint_security_level)
        )
        if level not in _LEVELS:
            raise Refused(f"the attested key is of security level {level}, in software; expected a TEE or StrongBox")
        _check_boot(description.hardware_enforced)
        return {"attestation": "android-key", "attestation.level": _LEVELS[level], "attestation.boot": "verified"}

    def _check_chain(self, certificates: Sequence[x509.Certificate], *, now: datetime) -> None:
        for number, each in enumerate(certificates):
            if not each.not_valid_before_utc <= now <= each.not_valid_after_utc:
                raise Refused(f"certificate {number} of the attestation is not valid at this time")
            if f"{each.serial_number:x}" in self._revoked:
                raise Refused(f"certificate {number} of the attestation is revoked")
            if number == 0:
                continue
            if not _may_sign(each, below=number - 1):
                raise Refused(f"certificate {number} of the attestation may sign no others")
            try:
                certificates[number - 1].verify_directly_issued_by(each)
            except (InvalidSignature, ValueError, TypeError) as error:
                raise Refused(f"certificate {number - 1} of the attestation is not signed by the next one") from error
        if len(certificates) < 2 or _key_of(certificates[-1]) not in self._roots:
            raise Refused("the attestation does not end at a root of this server")


def open_android_key(settings: Mapping[str, Any], folder: Path) -> AndroidKey:
    """The verifier of a repository; relative paths are below `folder`. Raises `UntrustedInput`."""
    given = convert(_Settings, dict(settings), what="[attestation.android-key]")
    try:
        roots = x509.load_pem_x509_certificates(_read(folder / given.roots, most=_ROOTS_BYTES))
    except ValueError as error:
        raise UntrustedInput(f"{folder / given.roots} has no certificates in PEM: {error}") from error
    revoked: frozenset[str] = frozenset()
    if given.revoked is not None:
        content = _read(folder / given.revoked, most=_REVOKED_BYTES)
        try:
            listed = msgspec.json.decode(content, type=_Revocations)
        except msgspec.DecodeError as error:
            raise UntrustedInput(
                f"{folder / given.revoked} is no list of revoked certificates: {sentence(str(error))}"
            ) from error
        revoked = frozenset(serial.lower().lstrip("0") for serial in listed.entries)
    return AndroidKey(roots, revoked=revoked)


def _read(path: Path, *, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise UntrustedInput(f"{path} of [attestation.android-key] cannot be read: {reason_of(error)}") from error
    if len(content) > most:
        raise UntrustedInput(f"{path} has over {most} bytes; expected a file of certificates or serial numbers")
    return content


def _key_of(certificate: x509.Certificate) -> bytes:
    """What a root is known by: its subject and public key, since Google renews its roots with the same key."""
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return certificate.subject.public_bytes() + key


def _may_sign(certificate: x509.Certificate, *, below: int) -> bool:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return False
    return constraints.ca and (constraints.path_length is None or constraints.path_length >= below)


def _description_of(certificates: Sequence[x509.Certificate]) -> _KeyDescription:
    held = [
        (number, extension.value)
        for number, each in enumerate(certificates)
        for extension in each.extensions
        if extension.oid == EXTENSION
    ]
    if [number for number, _ in held] != [0]:
        raise Refused("the extension of Android Key Attestation is not in the leaf alone")
    value = held[0][1]
    if not isinstance(value, x509.UnrecognizedExtension):
        raise UntrustedInput("the extension of Android Key Attestation is of another kind")
    return asn1.decode_der(_KeyDescription, value.value)


def _check_boot(hardware: Any) -> None:
    root: _RootOfTrust | None = getattr(hardware, f"tag_{_ROOT_OF_TRUST}")
    if root is None:
        raise Refused("the attestation tells no root of trust by its hardware")
    if not root.device_locked:
        raise Refused("the boot loader of the attested device is unlocked")
    state = _enumerated(root.verified_boot_state)
    if state != _VERIFIED:
        raise Refused(f"the attested device booted in state {state}; expected 0, a system that its maker signed")


def _enumerated(value: asn1.TLV) -> int:
    if bytes(value.tag_bytes) != _ENUMERATED or len(value.data) != 1:
        raise UntrustedInput("the attestation has another type where a level or state should be")
    return int(value.data[0])
