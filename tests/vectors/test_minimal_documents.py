"""Golden minimal documents: what a document says that leaves out all it may leave out.

A default is a part of what was signed, though no byte of the document holds it: a device that reads another default
runs another policy under the same signature. So each default stands here as a literal. A change here changes what
documents mean that were signed before, and needs a decision record.
"""

import importlib
import pkgutil
from collections.abc import Iterator

import msgspec
import pytest

import whimbrel.model
import whimbrel.plan
import whimbrel.policy
from whimbrel.model.documents import Document, encode, parse
from whimbrel.model.local_limits import LocalLimits
from whimbrel.model.provenance import ModelSigner
from whimbrel.model.recipe import Recipe
from whimbrel.model.release import (
    File,
    Line,
    Probe,
    Reference,
    Release,
    Signature,
    TensorSpec,
    Training,
    Variant,
)
from whimbrel.model.selector import Expression, Selector
from whimbrel.model.ways import DeltaIndex, Step
from whimbrel.plan.criteria import Guardrail, SuccessCriteria
from whimbrel.plan.experiment import Experiment, ExperimentVariant, GuardrailMetric, PrimaryMetric
from whimbrel.plan.governance import Approval, BlastRadius, OnFailure, OnSuccess
from whimbrel.plan.objectives import Objective
from whimbrel.plan.plan import Plan, Rollback, Stage
from whimbrel.plan.schedule import Freeze, Schedule
from whimbrel.policy.policy import Arm, Conditions, Entry, Layer, Pin, Policy, Quarantine, Window
from whimbrel.policy.shadow import Shadow, ShadowStage

A, B = 64 * "a", 64 * "b"
FILE = f'{{"format":"onnx","name":"m","sha256":"{A}","size_bytes":0}}'
VARIANT = f'{{"files":[{FILE}],"name":"cpu"}}'
EVERYONE = Selector()

# By type: the smallest document, and all that it leaves out with the value that it means.
MINIMAL: dict[type[Document], tuple[str, dict[str, object]]] = {
    # --- what publishers sign ---
    Release: (
        '{"build_hash":"a1b2c3d4e5f6","created":"2026-03-05T10:00:00Z","format":"whimbrel-release-1","model":"wake",'
        f'"semantic_version":"2.4.1","serial":3,"variants":[{VARIANT}],"version":"2026.03.05.1"}}',
        {
            "training": Training(),
            "metrics": {},
            "changelog": (),
            "requires": (),
            "reference": None,
            "unchecked": (),
            "local_limits": None,
            "model_signatures": (),
        },
    ),
    Variant: (VARIANT, {"selector": EVERYONE, "runtime": "", "precision": "", "signature": None, "probe": None}),
    File: (FILE, {"packed": False, "sealed": None}),
    Signature: ("{}", {"inputs": (), "outputs": ()}),
    TensorSpec: ('{"dtype":"float32","name":"x"}', {"shape": ()}),
    Probe: (
        "{}",
        {
            "inputs": {},
            "outputs": {},
            "absolute_tolerance": 0.0001,
            "relative_tolerance": 0.001,
            "latency_ms_max": None,
            "memory_mib_max": None,
            "output_ranges": {},
            "validation": None,
            "smoke": True,
        },
    ),
    Reference: ('{"bins":[0.5],"shares":[0.25,0.75]}', {"kind": "numbers"}),
    Training: (
        "{}",
        {
            "date": "",
            "dataset": "",
            "framework": "",
            "run": "",
            "parent": "",
            "architecture": "",
            "build_hash": "",
            "target_hardware": (),
            "datasets": (),
            "code": None,
            "parents": (),
            "recipe": None,
        },
    ),
    LocalLimits: (
        "{}",
        {
            "crash_loop": None,
            "sessions": None,
            "error_rate_max": None,
            "latency_ms_p95_max": None,
            "accuracy_min": None,
            "probe_every_s": None,
            "on_failed_probe": None,
        },
    ),
    Line: ('{"format":"whimbrel-line-1","model":"wake","sequence":1}', {"minimum_serial": 1, "revoked": ()}),
    Recipe: (
        '{"command":["make"],"format":"whimbrel-recipe-1","outputs":[{"file":"m","name":"out","variant":"cpu"}]}',
        {"inputs": (), "lock": None, "environment": ""},
    ),
    ModelSigner: ('{"anchor":"-----BEGIN","method":"key"}', {"identity": ""}),
    # --- what the online key signs ---
    Policy: (
        '{"format":"whimbrel-policy-1","model":"wake","sequence":1}',
        {
            "baseline": None,
            "known_good": (),
            "layers": (),
            "quarantine": (),
            "overrides": (),
            "pins": (),
            "conditions": Conditions(),
            "on_revoked": "keep",
            "refresh_s": 300.0,
            "report_s": 300.0,
            "activate_max_age_s": 3600.0,
            "report_labels": (),
            "hardware_label": "hardware",
            "slice_labels": (),
            "set_leads": (),
            "local_limits": None,
        },
    ),
    Layer: ('{"salt":42}', {"entries": ()}),
    Entry: (
        '{"arms":[],"rollout":"r1"}',
        {
            "selector": EVERYONE,
            "start": 0,
            "end": 1_000_000,
            "before": (),
            "delays_s": (),
            "delays_by_class": {},
            "bucket_by": None,
        },
    ),
    Arm: (
        '{"end":9,"name":"canary","role":"treated","serial":2,"stage":0,"start":0}',
        {"selector": EVERYONE, "conditions": None, "shadow": None},
    ),
    Shadow: ('{"sample_ppm":1}', {"compare": "auto", "tolerance": 0.05}),
    Conditions: (
        "{}",
        {
            "unmetered": False,
            "charging": False,
            "battery_min": None,
            "idle": False,
            "window_utc": None,
            "windows": (),
            "storage_mib_min": None,
            "metered_mib_a_day": None,
            "start_jitter_s": 0,
        },
    ),
    Window: ('{"end_s":1,"start_s":0}', {"zone": "UTC", "days": ()}),
    Quarantine: ('{"serial":2}', {"selector": EVERYONE}),
    Pin: ('{"selector":{},"serial":2}', {"devices": ()}),
    Selector: ("{}", {"match_labels": {}, "match_expressions": ()}),
    Expression: ('{"key":"os","operator":"Exists"}', {"values": ()}),
    DeltaIndex: ('{"format":"whimbrel-deltas-1","model":"wake","serial":3}', {"steps": ()}),
    Step: (
        f'{{"base":"{A}","sha256":"{A}","size_bytes":1,"target":"{B}","target_bytes":0}}',
        {"codec": "whimbrel-delta-1", "sealed": False},
    ),
    # --- what people ask for: stored as they wrote it, and read again for as long as the rollout runs ---
    Plan: (
        '{"model_version":"wake@2.0.0","stages":[{"name":"all","success_criteria":{},"target_percent":100.0}]}',
        {
            "strategy": "staged",
            "rollback": Rollback(),
            "guardrails": (),
            "promote": "when_no_harm",
            "on_small_harm": "rollback",
            "holdback_percent": None,
            "min_devices": 1,
            "min_reports": 1,
            "alpha": 0.1,
            "blast_radius": None,
            "range_percent": (0.0, 100.0),
            "on_running": "refuse",
            "schedule": None,
            "freeze": (),
            "on_success": OnSuccess(),
            "on_failure": OnFailure(),
            "alerts": (),
        },
    ),
    Stage: (
        '{"name":"all","target_percent":100.0}',
        {
            "duration_hours": 0.0,
            "soak_hours": None,
            "max_hours": None,
            "approval": None,
            "success_criteria": SuccessCriteria(),
            "rollback": None,
            "regions": (),
            "user_segments": (),
            "only": EVERYONE,
            "shadow": None,
            "conditions": None,
        },
    ),
    Rollback: ("{}", {"auto_rollback": True, "health_check_interval_sec": None}),
    ShadowStage: (
        "{}",
        {
            "sample_percent": 5.0,
            "agreement_min": 0.98,
            "error_rate_max": 0.01,
            "latency_ratio_max": None,
            "min_inputs": 100,
            "compare": "auto",
            "tolerance": 0.05,
        },
    ),
    SuccessCriteria: (
        "{}",
        {
            "accuracy_drop_max": None,
            "error_rate_max": None,
            "latency_p99_max_ms": None,
            "crash_ratio_max": None,
            "latency_increase_max": None,
            "battery_increase_max": None,
            "user_reports_ratio_max": None,
            "drift_psi_max": None,
            "size_bytes_max": None,
            "accuracy_min": None,
            "feedback_min": None,
            "battery_max": None,
            "memory_mb_max": None,
            "metrics_min": {},
            "metrics_max": {},
        },
    ),
    Guardrail: (
        '{"metric":"crash"}',
        {"margin": None, "direction": None, "severity": "rollback", "weight": None},
    ),
    Approval: ("{}", {"count": 1, "note": ""}),
    BlastRadius: ('{"percent":5.0}', {"devices": None}),
    OnSuccess: ("{}", {"alias": None, "retire_previous": False}),
    OnFailure: ("{}", {"alias": None, "retire_target": False, "abort_queued": False}),
    Freeze: ('{"from":"fri","to":"sun"}', {"zone": "UTC", "note": ""}),
    Schedule: ('{"start_at":"2026-12-01"}', {"zone": None}),
    Objective: (
        '{"at_most":5.0,"measure":"battery"}',
        {"at_least": None, "peak": False, "window": "day", "least": 20, "action": "alert"},
    ),
    Experiment: (
        '{"allocation":{"a":0.5,"b":0.5},"name":"A","primary_metric":"accuracy",'
        '"variants":[{"id":"a","model_version":"wake@1.0.0"},{"id":"b","model_version":"wake@2.0.0"}]}',
        {
            "guardrail_metrics": (),
            "id": None,
            "control": None,
            "minimum_sample_size": 10_000,
            "duration_days": 7.0,
            "minimum_days": 0.0,
            "range_percent": (0.0, 100.0),
            "reshuffle": True,
            "selector": EVERYONE,
            "bucket_by": "device",
            "devices_per_value": None,
            "alpha": 0.05,
            "guardrail_alpha": 0.1,
            "check_interval_sec": 300.0,
            "on_decision": "record",
            "rollout": None,
        },
    ),
    ExperimentVariant: ('{"id":"a","model_version":"wake@1.0.0"}', {"description": ""}),
    PrimaryMetric: ('{"name":"accuracy"}', {"direction": None, "minimum_effect": None, "spread": None}),
    GuardrailMetric: ('{"name":"skips"}', {"direction": None, "margin": 0.0}),
}
# Fields with fields of their own are written even where they say nothing: `{}`.
WRITTEN_EMPTY: dict[type[Document], tuple[str, ...]] = {
    Release: ("training",),
    Policy: ("conditions",),
    Plan: ("rollback", "on_success", "on_failure"),
    Stage: ("success_criteria",),
}
KINDS = pytest.mark.parametrize("kind", MINIMAL, ids=lambda kind: kind.__name__)


@KINDS
def test_a_minimal_document_means_its_defaults(kind: type[Document]) -> None:
    text, defaults = MINIMAL[kind]
    document, written = parse(kind, text.encode(), what="it"), msgspec.json.decode(text)
    left_out = [field.name for field in msgspec.structs.fields(kind) if field.encode_name not in written]
    assert {name: getattr(document, name) for name in left_out} == defaults


@KINDS
def test_a_minimal_document_has_no_byte_to_spare(kind: type[Document]) -> None:
    text, _ = MINIMAL[kind]
    assert encode(parse(kind, text.encode(), what="it")) == written_of(kind)


@KINDS
def test_a_default_that_is_written_out_is_the_default(kind: type[Document]) -> None:
    """Another writer may write every field, and means the same."""
    text, defaults = MINIMAL[kind]
    keys = {field.name: field.encode_name for field in msgspec.structs.fields(kind)}
    explicit = {keys[name]: msgspec.to_builtins(value) for name, value in defaults.items()}
    whole = msgspec.json.encode(msgspec.json.decode(text) | explicit)
    assert parse(kind, whole, what="it") == parse(kind, text.encode(), what="it")


def written_of(kind: type[Document]) -> bytes:
    """The bytes that we write for the minimal document."""
    if kind not in WRITTEN_EMPTY:
        return MINIMAL[kind][0].encode()
    empty: dict[str, object] = {name: {} for name in WRITTEN_EMPTY[kind]}
    return msgspec.json.encode(msgspec.json.decode(MINIMAL[kind][0]) | empty, order="sorted")


def test_every_document_with_a_default_has_its_minimal_form() -> None:
    optional = {
        kind
        for kind in documents()
        if kind.__module__.startswith(("whimbrel.model.", "whimbrel.plan.", "whimbrel.policy."))
        and not all(field.required for field in msgspec.structs.fields(kind))
    }
    assert {kind.__name__ for kind in optional - MINIMAL.keys()} == set()


def documents(kind: type[Document] = Document) -> Iterator[type[Document]]:
    """All kinds of documents of the nouns that are signed or asked for."""
    if kind is Document:
        for package in (whimbrel.model, whimbrel.plan, whimbrel.policy):
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{package.__name__}.{module.name}")
    for each in kind.__subclasses__():
        yield each
        yield from documents(each)
