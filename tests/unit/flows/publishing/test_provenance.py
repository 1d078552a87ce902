"""Where a version comes from: all that is known of it, from its release, the audit log and its rollouts."""

import msgspec

from support.values import T0, file, plan, release, rollout, stage, town
from whimbrel.flows.audit import audit
from whimbrel.flows.publishing.provenance import (
    ProvenanceFile,
    RolloutProvenance,
    contradiction,
    provenance_view,
    signed_facts,
)
from whimbrel.flows.records import ApprovalRecord
from whimbrel.model.documents import digest_of, encode
from whimbrel.model.provenance import Dataset, Kept, Parent, SourceCode
from whimbrel.model.release import Training, Variant
from whimbrel.plan.rollout_states import State

TRAINING = Training(
    date="2025-12-24",
    dataset="speech",
    framework="torch 2.9",
    run="https://runs.example/7",
    parent="wake@1.0.0",
    architecture="cnn",
    datasets=(Dataset(name="speech-2025", digest="sha256:" + "e" * 64),),
    code=SourceCode(url="https://git.example/wake", commit="f" * 40),
    parents=(Parent(model="wake", serial=1, version="2026.01.01.1"),),
    recipe=Kept(sha256="c" * 64, size_bytes=9),
)
BUILDS = (
    Variant(name="cpu", files=(file(), file("b" * 64, name="words.txt", format="other"))),
    Variant(name="npu", files=(file("d" * 64, name="npu.tar", size_bytes=7, packed=True),)),
)
RELEASE = release(3, variants=BUILDS, training=TRAINING, metrics={"accuracy": 0.9})
FILES = [
    ProvenanceFile(variant="cpu", name="model.onnx", format="onnx", sha256="a" * 64, size_bytes=100, packed=False),
    ProvenanceFile(variant="cpu", name="words.txt", format="other", sha256="b" * 64, size_bytes=100, packed=False),
    ProvenanceFile(variant="npu", name="npu.tar", format="onnx", sha256="d" * 64, size_bytes=7, packed=True),
]


def test_what_is_signed_is_told_field_by_field() -> None:
    content = encode(RELEASE)
    assert signed_facts(RELEASE, content) == {
        "model": "wake",
        "version": "2026.01.01.3",
        "semantic_version": "3.0.0",
        "serial": 3,
        "build_hash": RELEASE.build_hash,
        "created": "2026-01-01T00:00:00Z",
        "release_sha256": digest_of(content),
        "files": FILES,
        "trained_at": "2025-12-24",
        "datasets": list(TRAINING.datasets),
        "dataset": "speech",
        "code": TRAINING.code,
        "framework": "torch 2.9",
        "architecture": "cnn",
        "parents": list(TRAINING.parents),
        "parent": "wake@1.0.0",
        "run": "https://runs.example/7",
        "recipe": TRAINING.recipe,
        "metrics": {"accuracy": 0.9},
        "model_signatures": [],
    }


def test_the_view_adds_who_published_it_and_each_of_its_rollouts() -> None:
    with town() as here:
        registry = here.registry
        record = here.publish(3)
        for serial, actor in ((3, "anna"), (2, "bob"), (3, "later")):
            audit(
                registry,
                model="wake",
                actor=actor,
                action="publish" if actor != "later" else "retire",
                because="",
                now=T0,
                evidence={"serial": serial},
            )
        stages = plan(stage("canary", 5), stage("all", 100))
        done = {"plan": stages, "state": State.COMPLETED, "ended_at": T0 + 9}
        registry.add_rollout(rollout(id="new", target=3, created_at=T0 + 2, started_by="ada", **done), plan_text="")
        registry.add_rollout(rollout(id="old", target=3, created_at=T0 + 1, **done), plan_text="")
        registry.add_rollout(rollout(id="other", target=2, **done), plan_text="")
        carried = rollout(id="member", target=3, created_at=T0 + 3, lead="new", **done)
        registry.add_rollout(carried, plan_text="")
        for index, by in ((0, "bob"), (1, "cy"), (1, "bob"), (7, "eve")):
            registry.add_approval(ApprovalRecord(rollout="new", stage=index, by=by, note="", at=T0))
        view = provenance_view(registry, here.stores.audit, record, role="publisher-wake", signed_by=("k1", "k2"))
    approved = {"canary": ["bob"], "all": ["cy", "bob"], "7": ["eve"]}
    assert view.rollouts == [
        RolloutProvenance(id="old", state="completed", started_at=T0 + 1, started_by=None, approved_by={}),
        RolloutProvenance(id="new", state="completed", started_at=T0 + 2, started_by="ada", approved_by=approved),
        RolloutProvenance(id="member", state="completed", started_at=T0 + 3, started_by="ada", approved_by=approved),
    ]
    assert (view.published_by, view.published_at, view.namespace) == ("anna", T0, "default")
    assert (view.publisher_role, view.release_signed_by, view.serial) == ("publisher-wake", ["k1", "k2"], 3)


def test_what_nobody_recorded_is_unknown() -> None:
    with town() as here:
        record = here.publish(3)
        view = provenance_view(here.registry, here.stores.audit, record, role="publisher-wake", signed_by=())
        content = here.registry.release_bytes("wake", 3)
    assert (view.published_by, view.rollouts, view.release_signed_by) == (None, [], [])
    assert (view.datasets, view.code, view.recipe, view.parents, view.run) == ([], None, None, [], "")
    document = release(3, version=record.version, semantic_version=record.semantic_version)
    assert contradiction(view, document, content) is None
    assert contradiction(msgspec.structs.replace(view, run="x"), document, content) == "run"
    assert contradiction(msgspec.structs.replace(view, published_by="x"), document, content) is None
