"""A model signature that proves nothing: too large, of another kind, over other files, by somebody else, expired.

Each ends in one sentence, and before anything is uploaded.
"""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from model_signing import hashing

from support.model_signing import DAY, NOW, Authority, key_files, sign_model
from whimbrel import limits
from whimbrel.errors import UntrustedInput
from whimbrel.flows.wording import signer_words
from whimbrel.interop.model_signing.bundle import read_bundle
from whimbrel.interop.model_signing.coverage import Contents, uncovered
from whimbrel.interop.model_signing.signature import read_anchor, verify_signature
from whimbrel.model.provenance import ModelSigner

ANNA = "anna@example.com"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "onnx").mkdir(parents=True)
    (folder / "onnx" / "detector.onnx").write_bytes(b"weights")
    (folder / "README.md").write_text("a model")
    return folder


@pytest.fixture
def signed(tmp_path: Path, model: Path) -> tuple[bytes, ModelSigner]:
    """A good bundle, and whose it is."""
    private, public = key_files(tmp_path / "keys")
    bundle = sign_model(model, private, tmp_path / "model.sig").read_bytes()
    return bundle, ModelSigner(method="key", anchor=public.read_text())


def refusal(bundle: bytes, by: ModelSigner) -> str:
    with pytest.raises(UntrustedInput) as refused:
        verify_signature(read_bundle(bundle), by, at=NOW)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def changed(bundle: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    document = json.loads(bundle)
    change(document)
    return json.dumps(document).encode()


def restated(bundle: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """The bundle over a statement that was changed, with the signature of the one before."""

    def restate(document: dict[str, Any]) -> None:
        envelope = document["dsseEnvelope"]
        statement = json.loads(base64.b64decode(envelope["payload"]))
        change(statement)
        envelope["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()

    return changed(bundle, restate)


def test_the_honest_bundle_is_taken(signed: tuple[bytes, ModelSigner]) -> None:
    bundle, by = signed
    files = verify_signature(read_bundle(bundle), by, at=NOW)
    assert files.signer.startswith("key sha256:")
    assert set(files.files) == {"README.md", "onnx/detector.onnx"}


def test_a_bundle_that_is_too_large_is_not_read() -> None:
    with pytest.raises(UntrustedInput, match="at most"):
        read_bundle(b'{"mediaType": "' + b"x" * limits.PROVENANCE_FILE_BYTES + b'"}')


@pytest.mark.parametrize(
    "text", [b"[" * 100_000, b'{"a":' * 100_000, b'{"mediaType":' + b"[" * 500 + b"]" * 500 + b"}"]
)
def test_a_bundle_that_is_nested_deep_is_not_read(text: bytes) -> None:
    with pytest.raises(UntrustedInput, match="nested deeper than 16"):
        read_bundle(text)


def test_a_statement_that_is_nested_deep_is_not_read(signed: tuple[bytes, ModelSigner]) -> None:
    deep: list[Any] = []
    for _ in range(100):
        deep = [deep]
    with pytest.raises(UntrustedInput, match="nested deeper than 16"):
        read_bundle(restated(signed[0], lambda statement: statement.update(more=deep)))


def test_a_statement_over_files_without_number_is_not_read(signed: tuple[bytes, ModelSigner]) -> None:
    one = {"name": "a", "algorithm": "sha256", "digest": "00" * 32}

    def grow(statement: dict[str, Any]) -> None:
        statement["predicate"]["resources"] = [one] * (limits.SIGNED_FILES + 1)

    with pytest.raises(UntrustedInput, match=r"at most 20000 of them"):
        read_bundle(restated(signed[0], grow))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda b: b.update(mediaType="application/json"), "is of the type 'application/json'"),
        (lambda b: b["dsseEnvelope"].update(payloadType="text/plain"), "is over 'text/plain'"),
        (lambda b: b["dsseEnvelope"].update(signatures=[]), "cannot be read"),
        (lambda b: b["dsseEnvelope"].update(signatures=b["dsseEnvelope"]["signatures"] * 2), "expected one"),
        (lambda b: b.pop("dsseEnvelope"), "cannot be read"),
        (lambda b: b.update(verificationMaterial={}), "either a public key or a chain"),
        (lambda b: b.update(verificationMaterial={"certificate": {"rawBytes": "AAAA"}}), "keyless"),
        (lambda b: b.update(verificationMaterial={"publicKey": {}}), "does not say which key"),
        (
            lambda b: b.update(
                verificationMaterial={"x509CertificateChain": {"certificates": [{"rawBytes": "AAAA"}] * 9}}
            ),
            "cannot be read",
        ),
    ],
)
def test_a_bundle_of_another_kind_is_refused(
    signed: tuple[bytes, ModelSigner], change: Callable[[dict[str, Any]], object], words: str
) -> None:
    assert words in refusal(changed(signed[0], change), signed[1])


@pytest.mark.parametrize("text", [b"", b"null", b"[]", b"PK\x03\x04", b"\xff\xfe", b'{"mediaType": 7}'])
def test_what_is_no_bundle_is_refused(text: bytes) -> None:
    with pytest.raises(UntrustedInput):
        read_bundle(text)


def test_a_signature_that_is_moved_to_other_digests_is_refused(signed: tuple[bytes, ModelSigner]) -> None:
    def swap(statement: dict[str, Any]) -> None:
        statement["predicate"]["resources"][0]["digest"] = "00" * 32

    assert "signature is wrong" in refusal(restated(signed[0], swap), signed[1])


def test_a_file_that_is_named_twice_is_refused(signed: tuple[bytes, ModelSigner]) -> None:
    def twice(statement: dict[str, Any]) -> None:
        statement["predicate"]["resources"] *= 2

    assert "names a file twice" in refusal(restated(signed[0], twice), signed[1])


def test_digests_that_a_release_does_not_have_are_refused(tmp_path: Path, model: Path) -> None:
    private, public = key_files(tmp_path / "keys")
    by = ModelSigner(method="key", anchor=public.read_text())
    for config in (
        hashing.Config().use_file_serialization(hashing_algorithm="blake2"),
        hashing.Config().use_shard_serialization(shard_size=4),
    ):
        bundle = sign_model(model, private, tmp_path / "odd.sig", config=config).read_bytes()
        assert "expected files by sha256" in refusal(bundle, by)


def test_a_signature_by_another_key_is_refused(tmp_path: Path, signed: tuple[bytes, ModelSigner]) -> None:
    _, other = key_files(tmp_path / "other", curve=ec.SECP384R1())
    by = ModelSigner(method="key", anchor=other.read_text())
    assert "another key" in refusal(signed[0], by)
    # A thief names the right key in the bundle and signs with his own.
    thief, _ = key_files(tmp_path / "thief")
    forged = sign_model(tmp_path / "model", thief, tmp_path / "forged.sig").read_bytes()
    material = json.loads(signed[0])["verificationMaterial"]
    forged = changed(forged, lambda bundle: bundle.update(verificationMaterial=material))
    assert "signature is wrong" in refusal(forged, signed[1])


def test_a_signature_by_another_identity_is_refused(tmp_path: Path, model: Path) -> None:
    root = Authority(tmp_path / "root")
    bundle = root.sign(model, tmp_path / "m.sig", identity="mallory@example.com").read_bytes()
    by = ModelSigner(method="certificate", anchor=root.file.read_text(), identity=ANNA)
    assert "signed by mallory@example.com; asked for is anna@example.com" in refusal(bundle, by)


def test_a_certificate_of_another_root_is_refused(tmp_path: Path, model: Path) -> None:
    root, other = Authority(tmp_path / "root"), Authority(tmp_path / "other")  # two roots of one name
    bundle = other.sign(model, tmp_path / "m.sig", identity=ANNA).read_bytes()
    by = ModelSigner(method="certificate", anchor=root.file.read_text(), identity=ANNA)
    assert "no root that is asked for vouches" in refusal(bundle, by)


def test_an_expired_chain_is_refused_and_was_good_in_its_time(tmp_path: Path, model: Path) -> None:
    root = Authority(tmp_path / "root")
    bundle = root.sign(model, tmp_path / "m.sig", identity=ANNA, days=(-300, -200)).read_bytes()
    by = ModelSigner(method="certificate", anchor=root.file.read_text(), identity=ANNA)
    assert "is valid from" in refusal(bundle, by)
    assert verify_signature(read_bundle(bundle), by, at=NOW - 250 * DAY).signer == ANNA
    ended = Authority(tmp_path / "ended", days=(-400, -100))  # the root has expired, and not the signer
    bundle = ended.sign(model, tmp_path / "e.sig", identity=ANNA, days=(-300, 300)).read_bytes()
    by = ModelSigner(method="certificate", anchor=ended.file.read_text(), identity=ANNA)
    assert "is valid from" in refusal(bundle, by)


def test_a_certificate_that_may_not_sign_is_refused(tmp_path: Path, model: Path) -> None:
    root = Authority(tmp_path / "root")
    bundle = root.sign(model, tmp_path / "m.sig", identity=ANNA, signs=False).read_bytes()
    by = ModelSigner(method="certificate", anchor=root.file.read_text(), identity=ANNA)
    assert "is not for signatures" in refusal(bundle, by)


def test_what_is_asked_for_is_public_and_of_a_known_kind(tmp_path: Path, signed: tuple[bytes, ModelSigner]) -> None:
    private, _ = key_files(tmp_path / "other", curve=ec.SECP256K1())
    with pytest.raises(UntrustedInput, match="private key"):
        read_anchor(private.read_bytes(), method="key", what="the key")
    for method in ("key", "certificate"):
        with pytest.raises(UntrustedInput, match="does not hold"):
            read_anchor(b"nothing", method=method, what="the file")
    public = (tmp_path / "other" / "signer.pub").read_text()
    assert "P-256" in refusal(signed[0], ModelSigner(method="key", anchor=public))
    assert "no public key" in refusal(signed[0], ModelSigner(method="key", anchor="nothing"))
    assert "asked for is a certificate" in refusal(
        signed[0], ModelSigner(method="certificate", anchor=public, identity=ANNA)
    )


def test_other_files_than_the_signed_ones_are_not_covered() -> None:
    signed = {"README.md": "0" * 64, "onnx/a.onnx": "1" * 64, "onnx/a.data": "2" * 64, "old/a.onnx": "3" * 64}
    good, data = Contents("a.onnx", sha256="1" * 64), Contents("a.data", sha256="2" * 64)
    assert uncovered([good], signed) is None
    assert uncovered([good, data], signed) is None
    assert "has the SHA-256 4444" in str(uncovered([Contents("a.onnx", sha256="4" * 64)], signed))
    assert "'b.onnx' is not among" in str(uncovered([Contents("b.onnx", sha256="1" * 64)], signed))
    # Each file is signed, but in another folder than the first: nobody signed the two together.
    assert uncovered([Contents("a.onnx", sha256="3" * 64)], signed) is None
    assert uncovered([Contents("a.onnx", sha256="3" * 64), data], signed) is not None
    assert "has the SHA-256" in str(uncovered([good], {".": "9" * 64}))
    assert uncovered([good], {".": "1" * 64}) is None
    assert "one file was signed, and 2 are published" in str(uncovered([good, data], {".": "1" * 64}))
    packed = Contents("m.mlpackage", inside={"Manifest.json": "5" * 64, "Data/w": "6" * 64})
    assert uncovered([packed], {"Manifest.json": "5" * 64, "Data/w": "6" * 64}) is None
    assert uncovered([packed], {"x/m.mlpackage/Manifest.json": "5" * 64, "x/m.mlpackage/Data/w": "6" * 64}) is None
    assert "'m.mlpackage/Data/w' is not" in str(uncovered([packed], {"m.mlpackage/Manifest.json": "5" * 64}))


def test_a_demanded_key_is_named_as_its_signatures_name_it(signed: tuple[bytes, ModelSigner]) -> None:
    bundle, by = signed
    assert signer_words(by) == verify_signature(read_bundle(bundle), by, at=NOW).signer
    assert signer_words(ModelSigner(method="key", anchor="???")) == "one given key"
