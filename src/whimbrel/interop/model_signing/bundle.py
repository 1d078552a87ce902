"""What does a bundle say? A Sigstore bundle (v0.3, JSON) is read within limits, before any library sees it.

1. Size, nesting, and the numbers of files and certificates have bounds. What is read is written anew for the library,
   so that no field that was not read here reaches it.
2. Read: one DSSE envelope with one signature over an in-toto statement of `model_signing` 1.x, with the SHA-256 of
   whole files. The tool signs so unless it is asked for something else. Other digests and pieces of files are refused:
   a release names whole files by their SHA-256.

Formats: https://docs.sigstore.dev/about/bundle/, https://github.com/secure-systems-lab/dsse,
https://github.com/in-toto/attestation/tree/main/spec/v1
"""

import re
from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from whimbrel import limits
from whimbrel.errors import UntrustedInput
from whimbrel.model.documents import encode, parse
from whimbrel.model.ids import END
from whimbrel.model.patterns import matching

_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD = "application/vnd.in-toto+json"
_STATEMENT, _PREDICATE = "https://in-toto.io/Statement/v1", "https://model_signing/signature/v1.0"
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_ELSE = re.compile(rb"[^\[\]{}]+")


class _PublicKey(msgspec.Struct, frozen=True):
    hint: str = ""


class _Certificate(msgspec.Struct, frozen=True, rename="camel"):
    raw_bytes: bytes


class _Chain(msgspec.Struct, frozen=True):
    certificates: Annotated[tuple[_Certificate, ...], Meta(min_length=1, max_length=limits.SIGNATURE_CERTIFICATES)]


class _Material(msgspec.Struct, frozen=True, rename="camel"):
    public_key: _PublicKey | None = None
    x509_certificate_chain: _Chain | None = None
    certificate: _Certificate | None = None  # of the keyless form


class _DsseSignature(msgspec.Struct, frozen=True):
    sig: bytes


class _Envelope(msgspec.Struct, frozen=True, rename="camel"):
    payload: bytes
    payload_type: str
    signatures: Annotated[tuple[_DsseSignature, ...], Meta(min_length=1, max_length=limits.MODEL_SIGNATURES)]


class _Bundle(msgspec.Struct, frozen=True, rename="camel"):
    media_type: str
    verification_material: _Material
    dsse_envelope: _Envelope


class _Resource(msgspec.Struct, frozen=True):
    name: Annotated[str, Meta(max_length=4096)]
    algorithm: Annotated[str, Meta(max_length=64)]
    digest: Annotated[str, matching("^[0-9a-f]{2,256}" + END, "a digest in lower-case hexadecimal digits")]


class _Serialization(msgspec.Struct, frozen=True):
    method: Annotated[str, Meta(max_length=64)]
    hash_type: Annotated[str, Meta(max_length=64)]


class _Predicate(msgspec.Struct, frozen=True):
    serialization: _Serialization
    resources: Annotated[tuple[_Resource, ...], Meta(min_length=1, max_length=limits.SIGNED_FILES)]


class _Statement(msgspec.Struct, frozen=True, rename={"type_": "_type", "predicate_type": "predicateType"}):
    type_: str
    predicate_type: str
    predicate: _Predicate


class Bundle(msgspec.Struct, frozen=True):
    """A bundle that was read, and not verified.

    `hint`: of the key, where it was signed with one; `certificates`: the signer's first, in DER, where it was signed
    with a certificate. `files`: the SHA-256 of each signed file, by its path; a single file has the path ".".
    `content`: the bundle, written anew.
    """

    hint: str
    certificates: tuple[bytes, ...]
    files: dict[str, str]
    content: bytes


def read_bundle(content: bytes) -> Bundle:
    """Read a bundle. Raises `UntrustedInput`."""
    if len(content) > limits.PROVENANCE_FILE_BYTES:
        raise UntrustedInput(
            f"the model signature has {len(content)} bytes; at most {limits.PROVENANCE_FILE_BYTES} are read. Sign the "
            "model's own folder, and no more"
        )
    _check_depth(content, what="the model signature")
    parsed = parse(_Bundle, content, what="the model signature")
    if parsed.media_type != _BUNDLE:
        raise UntrustedInput(f"the model signature is of the type {parsed.media_type[:80]!r}; expected {_BUNDLE!r}")
    envelope, material = parsed.dsse_envelope, parsed.verification_material
    if envelope.payload_type != _PAYLOAD:
        raise UntrustedInput(f"the model signature is over {envelope.payload_type[:80]!r}; expected {_PAYLOAD!r}")
    if len(envelope.signatures) != 1:
        raise UntrustedInput(f"the model signature holds {len(envelope.signatures)} signatures; expected one")
    hint, certificates = _signed_with(material)
    return Bundle(
        hint=hint,
        certificates=certificates,
        files=_files(envelope.payload),
        content=_written(hint, certificates, envelope),
    )


def _signed_with(material: _Material) -> tuple[str, tuple[bytes, ...]]:
    """The hint of a key, or the certificates. Raises `UntrustedInput`."""
    if material.certificate is not None:
        raise UntrustedInput(
            "the model signature is keyless: its certificate is from Sigstore's service, which is verified with a "
            "network alone. Sign with a key or a certificate: model_signing sign key, or sign certificate"
        )
    if (material.public_key is None) == (material.x509_certificate_chain is None):
        raise UntrustedInput("the model signature must name either a public key or a chain of certificates")
    if material.x509_certificate_chain is not None:
        return "", tuple(each.raw_bytes for each in material.x509_certificate_chain.certificates)
    hint = material.public_key.hint if material.public_key is not None else ""
    if not re.fullmatch("[0-9a-f]{64}", hint):
        raise UntrustedInput("the model signature does not say which key signed it; sign again with model_signing 1.1")
    return hint, ()


def _files(payload: bytes) -> dict[str, str]:
    """The signed files and their digests. Raises `UntrustedInput`."""
    what = "the statement in the model signature"
    _check_depth(payload, what=what)
    statement = parse(_Statement, payload, what=what)
    if (statement.type_, statement.predicate_type) != (_STATEMENT, _PREDICATE):
        raise UntrustedInput(
            f"{what} is of the type {statement.predicate_type[:80]!r}; expected {_PREDICATE!r}: sign with "
            "model_signing 1.x"
        )
    serialization, resources = statement.predicate.serialization, statement.predicate.resources
    other = {each.algorithm for each in resources} | {serialization.hash_type}
    if serialization.method != "files" or other != {"sha256"}:
        words = f"{serialization.method[:32]} by {', '.join(sorted(other))[:80]}"
        raise UntrustedInput(
            f"{what} holds digests of {words}; expected files by sha256, as model_signing signs by itself"
        )
    files = {each.name: each.digest for each in resources}
    if len(files) < len(resources):
        raise UntrustedInput(f"{what} names a file twice")
    return files


def _check_depth(content: bytes, *, what: str) -> None:
    """Raises `UntrustedInput` where lists and objects are nested too deep. Only brackets outside of texts count."""
    depth = 0
    for bracket in _ELSE.sub(b"", _STRING.sub(b"", content)):
        depth += 1 if bracket in b"[{" else -1
        if depth > limits.SIGNATURE_DEPTH:
            raise UntrustedInput(f"{what} is nested deeper than {limits.SIGNATURE_DEPTH} levels")


def _written(hint: str, certificates: Iterable[bytes], envelope: _Envelope) -> bytes:
    material: dict[str, Any] = {"tlogEntries": []}
    if hint:
        material["publicKey"] = {"hint": hint}
    else:
        material["x509CertificateChain"] = {"certificates": [{"rawBytes": each} for each in certificates]}
    signatures = [{"sig": envelope.signatures[0].sig, "keyid": ""}]
    dsse = {"payload": envelope.payload, "payloadType": envelope.payload_type, "signatures": signatures}
    return encode({"mediaType": _BUNDLE, "verificationMaterial": material, "dsseEnvelope": dsse})
