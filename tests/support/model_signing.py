"""People who sign models, as the tool `model_signing` does it: with a key, or with a certificate of a root's."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from model_signing import hashing
from model_signing._signing import sign_certificate, sign_ec_key, signing

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)


def key_files(folder: Path, name: str = "signer", *, curve: ec.EllipticCurve | None = None) -> tuple[Path, Path]:
    """A new private key and its public half, as PEM files."""
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(curve or ec.SECP256R1())
    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


def sign_model(model: Path, private: Path, signature: Path, *, config: hashing.Config | None = None) -> Path:
    """Sign a file or a folder with a key; `signature` is written, as `model_signing sign key` does."""
    manifest = (config or hashing.Config()).hash(model)
    sign_ec_key.Signer(private).sign(signing.Payload(manifest)).write(signature)
    return signature


class Authority:
    """A root that gives out certificates. `days`: from when until when it is valid, counted from now."""

    def __init__(self, folder: Path, name: str = "root", *, days: tuple[int, int] = (-400, 400)) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.name = folder, name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = _certificate(name, self.key, issuer=name, by=self.key, days=days, authority=True)
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def sign(
        self, model: Path, signature: Path, *, identity: str, days: tuple[int, int] = (-1, 90), signs: bool = True
    ) -> Path:
        """Sign a model as `identity`, an e-mail address, with a certificate that is valid on these days."""
        private, _ = key_files(self.folder, "leaf")
        key = serialization.load_pem_private_key(private.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        leaf = _certificate("leaf", key, issuer=self.name, by=self.key, days=days, identity=identity, signs=signs)
        place = self.folder / "leaf.pem"
        place.write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
        payload = signing.Payload(hashing.hash(model))
        sign_certificate.Signer(private, place, [self.file]).sign(payload).write(signature)
        return signature


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    *,
    issuer: str,
    by: ec.EllipticCurvePrivateKey,
    days: tuple[int, int],
    authority: bool = False,
    identity: str = "",
    signs: bool = True,
) -> x509.Certificate:
    usage: dict[str, Any] = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(_named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + days[0] * DAY)
        .not_valid_after(NOW + days[1] * DAY)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=signs and not authority, key_cert_sign=authority, crl_sign=authority, **usage
            ),
            critical=True,
        )
    )
    if identity:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.RFC822Name(identity)]), critical=False)
    return builder.sign(by, hashes.SHA256())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
