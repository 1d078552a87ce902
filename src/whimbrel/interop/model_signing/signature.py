"""Who signed a bundle? Its signature is verified against a public key, or against root certificates and an identity.

1. The library verifies. Its verifiers are not among the names that it documents, because those compare a whole folder
   with all that was signed; so the versions of the library are bounded in `pyproject.toml`.
2. A certificate, and all that lead from it to a root, must be valid at the time that is asked about: the library asks
   about the day on which the certificate began, and takes expired ones.
3. Whoever signed must be who is asked for: every root vouches for many.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from whimbrel import limits
from whimbrel.errors import Unavailable, UntrustedInput
from whimbrel.interop.model_signing.bundle import Bundle
from whimbrel.model.provenance import ModelSigner
from whimbrel.plain_text import one_line


class SignedFiles(msgspec.Struct, frozen=True):
    """What a verified bundle proves: who signed, in words, and the SHA-256 of each file by its path."""

    signer: str
    files: dict[str, str]


def read_anchor(content: bytes, *, method: str, what: str) -> str:
    """The PEM text of a public key, or of root certificates, as `method` says. Raises `UntrustedInput`.

    It is written anew: remarks and line ends of the file do not make another signer.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    kind = "root certificates" if method == "certificate" else "a public key"
    if len(content) > limits.ANCHOR_BYTES:
        raise UntrustedInput(
            f"{what} has {len(content)} bytes; a public key or root certificates have fewer than {limits.ANCHOR_BYTES}"
        )
    try:
        text = content.decode("ascii")
    except UnicodeDecodeError as error:
        raise UntrustedInput(f"{what} is no PEM text; expected a public key, or certificates") from error
    if "PRIVATE KEY" in text:
        raise UntrustedInput(f"{what} holds a private key; give its public half, and keep the private one to yourself")
    with _parsing(f"{what} does not hold {kind} in PEM (-----BEGIN ...) that can be read"):
        if method == "certificate":
            pems = [each.public_bytes(serialization.Encoding.PEM) for each in x509.load_pem_x509_certificates(content)]
        else:
            key = serialization.load_pem_public_key(content)
            _check_curve(key, what=what)
            pems = [key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)]
    return b"".join(pems).decode("ascii")


def verify_signature(bundle: Bundle, by: ModelSigner, *, at: datetime) -> SignedFiles:
    """Who signed the bundle, and what. `at`: when it must hold, in UTC: now, or when its version was published.

    Raises `UntrustedInput` where it is not signed by whom `by` says, and `Unavailable` without the library.
    """
    if bool(bundle.certificates) != (by.method == "certificate"):
        made, asked = ("a certificate", "a key") if bundle.certificates else ("a key", "a certificate")
        raise UntrustedInput(
            f"the model was signed with {made}; asked for is {asked} (or name the other kind of signer)"
        )
    try:
        if by.method == "key":
            return _by_key(bundle, by)
        return _by_certificate(bundle, by, at=at)
    except ModuleNotFoundError as error:
        raise Unavailable(
            f"model signatures cannot be verified here: {error.name} is missing; pip install 'whimbrel[signing]'"
        ) from error


def _by_key(bundle: Bundle, by: ModelSigner) -> SignedFiles:
    from cryptography.hazmat.primitives import serialization
    from model_signing._signing import sign_ec_key

    with _parsing("the key of the model's signer is no public key in PEM"):
        key = serialization.load_pem_public_key(by.anchor.encode())
    _check_curve(key, what="the key of the model's signer")
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    signer = f"key {_fingerprint(key)}"
    if sha256(pem).hexdigest() != bundle.hint:
        raise UntrustedInput(f"the model was signed with another key than the one that is asked for ({signer})")
    with tempfile.TemporaryDirectory(prefix="whimbrel-") as scratch:
        (place := Path(scratch, "key.pem")).write_bytes(pem)
        _verify(bundle, sign_ec_key.Verifier(place), scratch=Path(scratch))
    return SignedFiles(signer, bundle.files)


def _by_certificate(bundle: Bundle, by: ModelSigner, *, at: datetime) -> SignedFiles:
    from cryptography import x509
    from model_signing._signing import sign_certificate

    with _parsing("a certificate of the model signature, or a root, cannot be read"):
        chain = [x509.load_der_x509_certificate(each) for each in bundle.certificates]
        roots = x509.load_pem_x509_certificates(by.anchor.encode())
        _check_curve(chain[0].public_key(), what="the certificate of the model's signer")
        _check_valid(chain, at=at)
        identities = list(_names_of(chain[0]))
    if by.identity and by.identity not in identities:
        names = ", ".join(one_line(each)[:80] for each in identities[:3]) or "nobody"
        raise UntrustedInput(f"the model was signed by {names}; asked for is {by.identity}")
    with tempfile.TemporaryDirectory(prefix="whimbrel-") as scratch:
        (place := Path(scratch, "roots.pem")).write_text(by.anchor)
        _verify(bundle, sign_certificate.Verifier([place]), scratch=Path(scratch))
    _check_path(chain, roots, at=at)
    if not (signer := by.identity or next(iter(identities), "")):
        raise UntrustedInput(
            "the certificate of the model's signer names nobody; expected an e-mail address, URI or name"
        )
    return SignedFiles(signer[: limits.SIGNER_CHARS], bundle.files)


def _verify(bundle: Bundle, verifier: Any, *, scratch: Path) -> None:
    """Raises `UntrustedInput` where the signature is wrong, or is over something else than was read."""
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from model_signing._signing import sign_sigstore_pb
    from OpenSSL import crypto

    place = scratch / "bundle.json"
    place.write_bytes(bundle.content)
    try:
        manifest = verifier.verify(sign_sigstore_pb.Signature.read(place))
    except InvalidSignature as error:
        raise UntrustedInput("the model signature is wrong: it was changed, or was made with another key") from error
    except crypto.X509StoreContextError as error:
        raise UntrustedInput(f"no root that is asked for vouches for the model's signer: {_words(error)}") from error
    except (ValueError, TypeError, KeyError, LookupError, RecursionError, UnsupportedAlgorithm, crypto.Error) as error:
        raise UntrustedInput(f"the model signature is not valid: {_words(error)}") from error
    signed = {each.identifier: each.digest.digest_hex for each in manifest.resource_descriptors()}
    if signed != bundle.files:
        raise UntrustedInput("the model signature is over other names than it lists")


def _check_path(chain: Sequence[Any], roots: Sequence[Any], *, at: datetime) -> None:
    """Raises `UntrustedInput` where no path of certificates that are valid at that time leads to a root."""
    from OpenSSL import crypto

    store = crypto.X509Store()
    for root in roots:
        store.add_cert(crypto.X509.from_cryptography(root))
    store.set_time(at)
    first, *between = (crypto.X509.from_cryptography(each) for each in chain)
    try:
        crypto.X509StoreContext(store, first, between).verify_certificate()
    except crypto.X509StoreContextError as error:
        raise UntrustedInput(
            f"at {at:%Y-%m-%d} no root that is asked for vouched for the model's signer: {_words(error)}"
        ) from error


def _check_valid(chain: Sequence[Any], *, at: datetime) -> None:
    from cryptography import x509

    for certificate in chain:
        begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if not begins <= at <= ends:
            name = one_line(certificate.subject.rfc4514_string())[:120]
            raise UntrustedInput(
                f"the certificate of {name} is valid from {begins:%Y-%m-%d} to {ends:%Y-%m-%d}, and not at "
                f"{at:%Y-%m-%d}; sign the model again with a valid one"
            )
    try:
        usage = chain[0].extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound as error:
        raise UntrustedInput("the certificate of the model's signer does not say what its key may do") from error
    if not usage.digital_signature:
        raise UntrustedInput("the certificate of the model's signer is not for signatures")


@contextmanager
def _parsing(refusal: str) -> Iterator[None]:
    """Turn what the library raises for a key or certificate that it cannot read into a refusal."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        yield
    except (
        ValueError,
        TypeError,
        UnsupportedAlgorithm,
        x509.AttributeNotFound,
        x509.DuplicateExtension,
        x509.ExtensionNotFound,
        x509.InvalidVersion,
        x509.UnsupportedGeneralNameType,
    ) as error:
        raise UntrustedInput(f"{refusal} ({_words(error)})") from error


def _check_curve(key: object, *, what: str) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in {"secp256r1", "secp384r1", "secp521r1"}:
        raise UntrustedInput(f"{what} is of a kind that model_signing does not use; expected P-256, P-384 or P-521")


def _names_of(certificate: Any) -> Iterator[str]:
    """Whom a certificate names: in its subject's alternative names, or else its common name."""
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        for attribute in certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME):
            yield str(attribute.value)
        return
    for kind in (x509.RFC822Name, x509.UniformResourceIdentifier, x509.DNSName):
        yield from names.get_values_for_type(kind)


def _fingerprint(key: Any) -> str:
    from cryptography.hazmat.primitives import serialization

    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return f"sha256:{sha256(der).hexdigest()}"


def _words(error: Exception) -> str:
    """What a library says, in one line that may be shown."""
    return one_line(" ".join(str(error).split()))[:200] or type(error).__name__


def utc(text: str) -> datetime:
    """When a release was created, as a time."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
