"""Chains of Android Key Attestation as a phone gives them: real certificates, of a root that a test makes."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

EXTENSION = "1.3.6.1.4.1.11129.2.1.17"


def tlv(tag: bytes, *content: bytes) -> bytes:
    """DER: a tag, the length, the content."""
    body = b"".join(content)
    if len(body) < 128:
        return tag + bytes([len(body)]) + body
    length = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return tag + bytes([0x80 | len(length)]) + length + body


def explicit(number: int, content: bytes) -> bytes:
    """A field [number] EXPLICIT."""
    if number < 31:
        return tlv(bytes([0xA0 | number]), content)
    return tlv(bytes([0xBF, 0x80 | (number >> 7), number & 0x7F] if number > 127 else [0xBF, number]), content)


def integer(value: int) -> bytes:
    return tlv(b"\x02", value.to_bytes(value.bit_length() // 8 + 1, "big"))


def enumerated(value: int) -> bytes:
    return tlv(b"\x0a", bytes([value]))


class Phone(msgspec.Struct, kw_only=True):
    """What its hardware says. `level`: 0 software, 1 TEE, 2 StrongBox. `boot`: 0 verified, 1 self-signed, 2 not."""

    level: int = 1
    boot: int = 0
    locked: bool = True
    tells_boot: bool = True
    more: bytes = b""  # further fields of the hardware's list

    def description(self, challenge: bytes) -> bytes:
        """The extension, DER."""
        root = tlv(
            b"\x30",
            tlv(b"\x04", b"k" * 32),
            tlv(b"\x01", b"\xff" if self.locked else b"\x00"),
            enumerated(self.boot),
            tlv(b"\x04", b"h" * 32),
        )
        hardware = explicit(1, tlv(b"\x31", integer(2))) + explicit(2, integer(3)) + explicit(3, integer(256))
        hardware += explicit(503, tlv(b"\x05")) + explicit(702, integer(0))
        hardware += (explicit(704, root) if self.tells_boot else b"") + explicit(705, integer(150000)) + self.more
        software = explicit(701, integer(1_790_000_000_000)) + explicit(709, tlv(b"\x04", b"application"))
        return tlv(
            b"\x30",
            integer(300),
            enumerated(self.level),
            integer(300),
            enumerated(self.level),
            tlv(b"\x04", challenge),
            tlv(b"\x04"),
            tlv(b"\x30", software),
            tlv(b"\x30", hardware),
        )


class Maker:
    """A maker of phones: a root, and a key of a batch below it that signs the keys of phones."""

    def __init__(self, name: str = "Test Root", *, now: datetime | None = None) -> None:
        self.now = now or datetime.now(UTC)
        self._root_key, self._batch_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        self.root = self.certificate(name, self._root_key, issuer=name, signer=self._root_key, ca=True)
        self.batch = self.certificate("Batch", self._batch_key, issuer=name, signer=self._root_key, ca=True)

    @property
    def root_pem(self) -> bytes:
        return self.root.public_bytes(Encoding.PEM)

    def certificate(
        self,
        subject: str,
        key: Any,
        *,
        issuer: str,
        signer: Any,
        ca: bool = False,
        description: bytes | None = None,
        days: tuple[int, int] = (-10, 100),
    ) -> x509.Certificate:
        name, by = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each)]) for each in (subject, issuer))
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(by)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.now + timedelta(days=days[0]))
            .not_valid_after(self.now + timedelta(days=days[1]))
        )
        if ca:
            builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        if description is not None:
            extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(EXTENSION), description)
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(signer, hashes.SHA256())

    def chain(self, challenge: bytes, phone: Phone | None = None, **more: Any) -> list[bytes]:
        """The certificates of a new key of a phone, the leaf first, DER."""
        key = ec.generate_private_key(ec.SECP256R1())
        description = (phone or Phone()).description(challenge)
        leaf = self.certificate(
            "Android Keystore Key", key, issuer="Batch", signer=self._batch_key, description=description, **more
        )
        return ders(leaf, self.batch, self.root)

    def below_an_attested_key(self, challenge: bytes) -> list[bytes]:
        """A chain that somebody lengthened with a key that a phone attested, which may sign whatever he likes."""
        stolen, made = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        honest = Phone().description(b"c" * 32)
        middle = self.certificate(
            "Attested", stolen, issuer="Batch", signer=self._batch_key, description=honest, ca=True
        )
        lie = Phone(level=2).description(challenge)
        leaf = self.certificate("Made up", made, issuer="Attested", signer=stolen, description=lie)
        return ders(leaf, middle, self.batch, self.root)

    def signed_by_a_leaf(self, challenge: bytes) -> list[bytes]:
        """The same with a key whose certificate may sign no others, and has no extension."""
        stolen, made = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        middle = self.certificate("Leaf", stolen, issuer="Batch", signer=self._batch_key)
        description = Phone().description(challenge)
        leaf = self.certificate("Made up", made, issuer="Leaf", signer=stolen, description=description)
        return ders(leaf, middle, self.batch, self.root)


def ders(*certificates: x509.Certificate) -> list[bytes]:
    return [each.public_bytes(Encoding.DER) for each in certificates]
