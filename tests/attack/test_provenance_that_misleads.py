"""What is told of a version is what its publisher signed, in full, whatever a server or a careless question says."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from support.model_signing import NOW, key_files, sign_model
from whimbrel.cli.provenance import _asked
from whimbrel.cli.publish_provenance import _written_anew
from whimbrel.cli.signer_files import signer_of
from whimbrel.errors import UntrustedInput
from whimbrel.flows.publishing.provenance import ProvenanceView, contradiction, signed_facts
from whimbrel.interop.cyclonedx import bill_of_materials
from whimbrel.interop.model_signing.bundle import read_bundle
from whimbrel.interop.model_signing.signature import verify_signature
from whimbrel.model.documents import encode
from whimbrel.model.provenance import Dataset, Kept, ModelSignature, ModelSigner, Parent, SourceCode
from whimbrel.model.release import File, Release, Training, Variant

KEPT = Kept(sha256="3" * 64, size_bytes=1)
RELEASE = Release(
    model="wake",
    serial=3,
    version="2026.03.05.1",
    semantic_version="1.2.0",
    build_hash=12 * "a",
    created="2026-03-05T10:00:00Z",
    variants=(Variant(name="any", files=(File(name="a.onnx", size_bytes=1, sha256="1" * 64, format="onnx"),)),),
    metrics={"accuracy": 0.987654321, "parameters": 123456789},
    training=Training(
        datasets=(Dataset(name="speech", digest="sha256:" + "2" * 64),),
        code=SourceCode(url="https://git.example.com/wake", commit="1f3b5a7c"),
        framework="pytorch",
        parents=(Parent(model="wake", serial=2, version="2026.03.04.1"),),
        recipe=KEPT,
    ),
    model_signatures=(
        ModelSignature(method="key", signer="key sha256:1", bundle=KEPT, anchor=KEPT, variants=("any",)),
    ),
)
OTHERS: dict[str, Any] = {
    "files": [],
    "datasets": [],
    "code": None,
    "framework": "tensorflow",
    "parents": [],
    "recipe": None,
    "metrics": {"accuracy": 1.0},
    "model_signatures": [],
    "version": "2026.03.05.2",
    "created": "2020-03-05T10:00:00Z",
}


def view() -> ProvenanceView:
    return ProvenanceView(
        namespace="default",
        **signed_facts(RELEASE, encode(RELEASE)),
        publisher_role="publisher-wake",
        release_signed_by=["k"],
        published_at=1.0,
        published_by="anna",
        rollouts=[],
    )


def test_server_that_tells_another_origin_than_was_signed_is_contradicted() -> None:
    """`--verify` verified the release, and showed the data, code and signer of the server's own answer."""
    assert contradiction(view(), RELEASE, encode(RELEASE)) is None
    for name, value in OTHERS.items():
        told = msgspec.structs.replace(view(), **{name: value})
        assert contradiction(told, RELEASE, encode(RELEASE)) == name


def test_identity_that_is_asked_for_is_never_passed_over(tmp_path: Path) -> None:
    """`--verify --model-signature-identity anna@example.com` without roots said "good" of anybody's signature."""
    with pytest.raises(UntrustedInput, match="give the roots that may vouch"):
        _asked(None, None, "anna@example.com")
    _, public = key_files(tmp_path)
    with pytest.raises(UntrustedInput, match="give the roots that may vouch"):
        _asked(public, None, "anna@example.com")


def test_key_is_the_same_with_other_line_ends_and_remarks(tmp_path: Path) -> None:
    private, public = key_files(tmp_path / "keys")
    (crlf := tmp_path / "crlf.pub").write_bytes(b"# of the team\r\n" + public.read_bytes().replace(b"\n", b"\r\n"))
    same = signer_of(crlf, method="key", identity="")
    assert same == signer_of(public, method="key", identity="")
    assert _written_anew(ModelSigner(method="key", anchor=crlf.read_bytes().decode())) == same
    (model := tmp_path / "a.onnx").write_bytes(b"model")
    bundle = sign_model(model, private, tmp_path / "model.sig").read_bytes()
    assert verify_signature(read_bundle(bundle), same, at=NOW).files


def test_bill_of_materials_rounds_and_claims_nothing() -> None:
    """It had metrics of six digits, said that files were complete, and gave parents a version of another kind."""
    bill = bill_of_materials(view())
    component = bill["metadata"]["component"]
    values = {
        each["type"]: each["value"] for each in component["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    }
    assert {name: float(value) for name, value in values.items()} == dict(RELEASE.metrics)
    assert "complete" not in {each["aggregate"] for each in bill["compositions"]}
    (parent,) = component["pedigree"]["ancestors"]
    assert "version" not in parent
    assert {"name": "whimbrel:serial", "value": "2"} in parent["properties"]
