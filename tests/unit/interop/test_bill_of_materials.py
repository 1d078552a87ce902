"""Each field of a bill of materials is where CycloneDX has it; what is not known is left out, and named."""

import uuid
from typing import Any

import msgspec
import pytest

from whimbrel.flows.publishing.provenance import ProvenanceFile, ProvenanceView, RolloutProvenance
from whimbrel.interop.cyclonedx import bill_of_materials, unknown_parts
from whimbrel.model.provenance import Dataset, Kept, ModelSignature, Parent, SourceCode
from whimbrel.version import __version__

BARE = ProvenanceView(
    namespace="default",
    model="wake",
    version="2026.01.01.7",
    semantic_version="2.1.0",
    serial=7,
    build_hash="abcdef012345",
    created="2026-01-01T00:00:00Z",
    release_sha256="9" * 64,
    files=[ProvenanceFile(variant="plain", name="m.onnx", format="onnx", sha256="1" * 64, size_bytes=5, packed=False)],
    trained_at="",
    datasets=[],
    dataset="",
    code=None,
    framework="",
    architecture="",
    parents=[],
    parent="",
    run="",
    recipe=None,
    metrics={},
    model_signatures=[],
    publisher_role="publisher-wake",
    release_signed_by=[],
    published_at=86400.0,
    published_by=None,
    rollouts=[],
)
KEPT = Kept(sha256="2" * 64, size_bytes=10)
FULL = msgspec.structs.replace(
    BARE,
    files=[
        *BARE.files,
        ProvenanceFile(
            variant="apple", name="m.mlpackage", format="coreml", sha256="3" * 64, size_bytes=6, packed=True
        ),
    ],
    trained_at="2025-12",
    datasets=[Dataset(name="voices", digest="sha256:" + "4" * 64), Dataset(name="noise", digest="md5:" + "5" * 32)],
    dataset="voices of May",
    code=SourceCode(url="git@example.com:team/wake", commit="6" * 40),
    framework="torch 2.9",
    architecture="cnn",
    parents=[Parent(model="base", serial=2, version="2025.01.01.2")],
    parent="base",
    run="run-1",
    recipe=KEPT,
    metrics={"recall": 0.875, "accuracy": 0.93},
    model_signatures=[
        ModelSignature(
            method="key",
            signer="key sha256:77",
            bundle=Kept(sha256="8" * 64, size_bytes=1),
            anchor=KEPT,
            variants=("plain",),
        )
    ],
    release_signed_by=["k1", "k2"],
    published_by="anna",
    rollouts=[
        RolloutProvenance(
            id="r1", state="running", started_at=172800.0, started_by="ben", approved_by={"canary": ["cleo", "dora"]}
        ),
        RolloutProvenance(id="r2", state="finished", started_at=0.0, started_by=None, approved_by={}),
    ],
)


def facts(view: ProvenanceView) -> list[tuple[str, str]]:
    properties: list[dict[str, str]] = bill_of_materials(view)["metadata"]["component"]["properties"]
    return [(each["name"], each["value"]) for each in properties]


def test_the_document_is_about_the_version_and_depends_on_its_parts() -> None:
    bill = bill_of_materials(FULL)
    assert {name: bill[name] for name in ("bomFormat", "specVersion", "version", "$schema")} == {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
    }
    assert bill["metadata"]["timestamp"] == "2026-01-01T00:00:00Z"
    assert bill["metadata"]["tools"]["components"] == [
        {"type": "application", "name": "whimbrel", "version": __version__}
    ]
    component = bill["metadata"]["component"]
    assert {name: component[name] for name in ("type", "bom-ref", "group", "name", "version")} == {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "group": "default",
        "name": "wake",
        "version": "2.1.0",
    }
    refs = ["file:0", "file:1", "data:0", "data:1", "framework"]
    assert [each["bom-ref"] for each in bill["components"]] == refs
    assert bill["dependencies"] == [{"ref": "model", "dependsOn": refs}]
    assert bill["compositions"] == [{"aggregate": "unknown", "dependencies": ["model"]}]


def test_the_same_release_has_the_same_serial_number_and_another_another() -> None:
    own = bill_of_materials(BARE)["serialNumber"]
    assert own == f"urn:uuid:{uuid.uuid5(uuid.UUID('f0a1c5a6-5f2b-5a0e-9d0c-0b7b1d2f7c11'), '9' * 64)}"
    assert bill_of_materials(msgspec.structs.replace(FULL, release_sha256="8" * 64))["serialNumber"] != own


def test_files_data_and_framework_are_components_with_their_digests() -> None:
    def properties(variant: str, form: str, *more: tuple[str, str]) -> list[dict[str, str]]:
        pairs = [("whimbrel:variant", variant), ("whimbrel:format", form), *more]
        return [{"name": name, "value": value} for name, value in pairs]

    plain, packed, voices, noise, framework = bill_of_materials(FULL)["components"]
    assert plain == {
        "type": "file",
        "bom-ref": "file:0",
        "name": "m.onnx",
        "hashes": [{"alg": "SHA-256", "content": "1" * 64}],
        "properties": properties("plain", "onnx"),
    }
    assert packed["properties"] == properties("apple", "coreml", ("whimbrel:packed", "true"))
    assert voices == {
        "type": "data",
        "bom-ref": "data:0",
        "name": "voices",
        "hashes": [{"alg": "SHA-256", "content": "4" * 64}],
        "data": [{"type": "dataset", "name": "voices"}],
    }
    assert noise["hashes"] == [{"alg": "MD5", "content": "5" * 32}]
    assert framework == {"type": "framework", "bom-ref": "framework", "name": "torch 2.9"}


def test_the_model_card_has_architecture_data_and_metrics_as_they_are() -> None:
    card = bill_of_materials(FULL)["metadata"]["component"]["modelCard"]
    assert card == {
        "modelParameters": {"modelArchitecture": "cnn", "datasets": [{"ref": "data:0"}, {"ref": "data:1"}]},
        "quantitativeAnalysis": {
            "performanceMetrics": [{"type": "accuracy", "value": "0.93"}, {"type": "recall", "value": "0.875"}]
        },
    }


def test_parents_code_recipe_and_signatures_are_where_the_form_has_them() -> None:
    component = bill_of_materials(FULL)["metadata"]["component"]
    assert component["pedigree"] == {
        "ancestors": [
            {
                "type": "machine-learning-model",
                "group": "default",
                "name": "base",
                "properties": [
                    {"name": "whimbrel:version", "value": "2025.01.01.2"},
                    {"name": "whimbrel:serial", "value": "2"},
                ],
            }
        ],
        "commits": [{"uid": "6" * 40, "url": "ssh://git@example.com/team/wake"}],
    }

    def reference(kind: str, digest: str, comment: str) -> dict[str, Any]:
        hashes = [{"alg": "SHA-256", "content": digest}]
        return {"type": kind, "url": f"urn:sha256:{digest}", "comment": comment, "hashes": hashes}

    assert component["externalReferences"] == [
        reference("digital-signature", "8" * 64, "OpenSSF model signature"),
        reference("formulation", "2" * 64, "recipe"),
        {"type": "vcs", "url": "ssh://git@example.com/team/wake"},
    ]


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://example.com/wake.git", "https://example.com/wake.git"),
        ("ssh://git@example.com/wake", "ssh://git@example.com/wake"),
        ("git@example.com:a/b", "ssh://git@example.com/a/b"),
        ("/srv/wake", None),
        ("https://example.com/é", None),
    ],
)
def test_code_has_a_url_where_it_has_one(url: str, told: str | None) -> None:
    view = msgspec.structs.replace(BARE, code=SourceCode(url=url, commit="6" * 40))
    component = bill_of_materials(view)["metadata"]["component"]
    assert component["pedigree"]["commits"] == [{"uid": "6" * 40} | ({} if told is None else {"url": told})]
    assert component.get("externalReferences") == (None if told is None else [{"type": "vcs", "url": told}])


def test_what_the_form_has_no_place_for_stands_in_properties() -> None:
    assert facts(FULL) == [
        ("whimbrel:version", "2026.01.01.7"),
        ("whimbrel:serial", "7"),
        ("whimbrel:build", "abcdef012345"),
        ("whimbrel:release:sha256", "9" * 64),
        ("whimbrel:code", f"git@example.com:team/wake@{'6' * 40}"),
        ("whimbrel:card:trained_at", "2025-12"),
        ("whimbrel:card:dataset", "voices of May"),
        ("whimbrel:card:parent", "base"),
        ("whimbrel:card:run", "run-1"),
        ("whimbrel:release:signed_by", "publisher-wake k1"),
        ("whimbrel:release:signed_by", "publisher-wake k2"),
        ("whimbrel:model:signed_by", "key sha256:77"),
        ("whimbrel:published:at", "1970-01-02T00:00:00Z"),
        ("whimbrel:published:by", "anna"),
        ("whimbrel:rollout", "r1 running 1970-01-03T00:00:00Z"),
        ("whimbrel:rollout:started_by", "r1 ben"),
        ("whimbrel:rollout:approved_by", "r1 canary cleo"),
        ("whimbrel:rollout:approved_by", "r1 canary dora"),
        ("whimbrel:rollout", "r2 finished 1970-01-01T00:00:00Z"),
    ]


def test_of_a_bare_version_nothing_is_claimed_and_all_that_is_unknown_is_named() -> None:
    bill = bill_of_materials(BARE)
    component = bill["metadata"]["component"]
    assert component["modelCard"] == {}
    assert {"pedigree", "externalReferences"}.isdisjoint(component)
    assert [each["bom-ref"] for each in bill["components"]] == ["file:0"]
    assert bill["compositions"][0]["aggregate"] == "incomplete"
    names = "data, code, framework, made from, recipe, model signed by, release signed by, published by"
    assert facts(BARE)[-1] == ("whimbrel:unknown", names)


@pytest.mark.parametrize(
    ("known", "name"),
    [
        ({"dataset": "x"}, "data"),
        ({"datasets": FULL.datasets}, "data"),
        ({"code": FULL.code}, "code"),
        ({"framework": "x"}, "framework"),
        ({"parent": "x"}, "made from"),
        ({"parents": FULL.parents}, "made from"),
        ({"recipe": KEPT}, "recipe"),
        ({"model_signatures": FULL.model_signatures}, "model signed by"),
        ({"release_signed_by": ["k"]}, "release signed by"),
        ({"published_by": "anna"}, "published by"),
    ],
)
def test_each_thing_that_is_known_is_unknown_no_more(known: dict[str, Any], name: str) -> None:
    missing = unknown_parts(msgspec.structs.replace(BARE, **known))
    assert set(unknown_parts(BARE)) - set(missing) == {name}
    assert unknown_parts(FULL) == []
