"""The bounds of every field of a document, from both sides: the last value that is taken, and the first that is not.

A bound is a part of the format: what one version of Whimbrel writes and another refuses is a fleet that stands still.
"""

from typing import Any

import pytest

from whimbrel import limits
from whimbrel.errors import UntrustedInput
from whimbrel.model.documents import Document, convert
from whimbrel.model.local_limits import LocalLimits
from whimbrel.model.provenance import Dataset, Kept, ModelSignature, ModelSigner, Parent, SourceCode
from whimbrel.model.recipe import Input, Output, Recipe
from whimbrel.model.release import (
    File,
    Floor,
    Line,
    Probe,
    Reference,
    Release,
    Requirement,
    Sealed,
    Signature,
    Tensor,
    TensorSpec,
    Training,
    Validation,
    Variant,
)
from whimbrel.model.selector import Expression, Selector
from whimbrel.model.ways import DeltaIndex, Step
from whimbrel.plan.criteria import Guardrail, SuccessCriteria
from whimbrel.plan.experiment import Experiment, ExperimentVariant, GuardrailMetric, PrimaryMetric
from whimbrel.plan.governance import AlertRule, Approval, BlastRadius
from whimbrel.plan.objectives import Objective
from whimbrel.plan.plan import Plan, Rollback, Stage
from whimbrel.plan.schedule import Freeze, Schedule
from whimbrel.policy.policy import Arm, Conditions, Entry, Layer, Pin, Policy, Quarantine, SetLead, Window
from whimbrel.policy.shadow import Shadow, ShadowStage

SHA = 64 * "a"
SERIALS = ([1, 2**53 - 1], [0, 2**53])
SHARE = ([0, 1], [-0.001, 1.001])
WITHIN = ([0.001, 0.999], [0, 1])  # a share that is neither nothing nor all
NAMES = (["w", "0", "a-b_c", "w" * 64], ["", "-w", "w-", "_w", "w_", "W", "w w", "w.w", "w\n", "w" * 65])
LABELS = (["a", "A.b_c/d-9", "a" * 64], ["", "-a", "a/", "a b", "a" * 65, "é", "a\n"])
TEXTS = (["", "é \u202e", "a" * 128], ["a" * 129, "a\n", "\x00", "\x1f", "\x7f"])
DIGESTS = ([SHA, "0123456789abcdef" * 4], ["a" * 63, "a" * 65, "A" * 64, "g" * 64, f"{SHA}\n"])
ARTIFACT = limits.ARTIFACT_BYTES


def length(most: int, one: Any = "a", *, least: int = 0) -> tuple[list[Any], list[Any]]:
    """A list, or a text where `one` is None, of the last lengths that are taken, and of the first that are not."""
    made = (lambda n: n * "a") if one is None else (lambda n: [one] * n)
    return [made(least), made(most)], [made(most + 1), *([made(least - 1)] if least else [])]


def named(most: int, one: Any, *, least: int = 0) -> tuple[list[Any], list[Any]]:
    """The same of fields by their names."""
    taken, refused = length(most, least=least)
    return [_fields(len(n), one) for n in taken], [_fields(len(n), one) for n in refused]


def _fields(count: int, one: Any) -> dict[str, Any]:
    return {f"n{number}": one for number in range(count)}


FILE = {"name": "m", "size_bytes": 1, "sha256": SHA, "format": "onnx"}
VARIANT = {"name": "cpu", "files": [FILE]}
TENSOR = {"dtype": "int8", "shape": [], "values": [1]}
KEPT = {"sha256": SHA, "size_bytes": 1}
ARM = {"role": "treated", "name": "canary", "stage": 0, "serial": 2, "start": 0, "end": 9}
STAGE = {"name": "all", "target_percent": 100}
MADE = {"name": "out", "variant": "cpu", "file": "m"}
STEP = {"base": SHA, "target": SHA, "target_bytes": 1, "sha256": SHA, "size_bytes": 1}
WINDOW = {"start_s": 0, "end_s": 1}
ARMS = [{"id": "a", "model_version": "wake@1.0.0"}, {"id": "b", "model_version": "wake@2.0.0"}]
DATASET = {"name": "speech", "digest": f"sha256:{SHA}"}
PARENT = {"model": "wake", "serial": 1, "version": "2026.03.05.1"}
SIGNED = {"method": "key", "signer": "a key", "bundle": KEPT, "anchor": KEPT, "variants": ["cpu"]}
TERM = {"key": "os", "operator": "Exists"}

# A valid document of each type; a row changes one of its fields.
VALID: dict[type[Document], dict[str, Any]] = {
    Release: {
        "format": "whimbrel-release-1",
        "model": "wake",
        "serial": 1,
        "version": "2026.03.05.1",
        "semantic_version": "1.0.0",
        "build_hash": "0" * 12,
        "created": "2026-03-05T10:00:00Z",
        "variants": [VARIANT],
    },
    Line: {"format": "whimbrel-line-1", "model": "wake", "sequence": 1},
    Floor: {"format": "whimbrel-floor-1", "model": "wake", "sequence": 1, "days": 1},
    Variant: VARIANT,
    File: FILE,
    Sealed: KEPT,
    Kept: KEPT,
    Tensor: TENSOR,
    TensorSpec: {"name": "x", "dtype": "int8"},
    Validation: {"inputs": {"x": TENSOR | {"shape": [1]}}, "labels": [0], "output": "y", "accuracy_min": 0.5},
    Reference: {"bins": [0], "shares": [0.5, 0.5]},
    Requirement: {"model": "wake", "serial": 1},
    Parent: PARENT,
    Dataset: DATASET,
    SourceCode: {"url": "https://git.example.com/wake", "commit": "1f3b5a7"},
    ModelSignature: SIGNED,
    ModelSigner: {"method": "key", "anchor": "-----BEGIN"},
    Recipe: {"format": "whimbrel-recipe-1", "command": ["make"], "outputs": [MADE]},
    Input: {"name": "in", "sha256": SHA, "size_bytes": 1},
    Output: MADE,
    Expression: TERM,
    DeltaIndex: {"format": "whimbrel-deltas-1", "model": "wake", "serial": 1},
    Step: STEP,
    Policy: {"format": "whimbrel-policy-1", "model": "wake", "sequence": 1},
    Layer: {"salt": 1},
    Entry: {"rollout": "r1", "arms": []},
    Arm: ARM,
    Quarantine: {"serial": 1},
    Pin: {"serial": 1, "devices": ["dev-1"]},
    SetLead: {"serial": 1, "model": "wake", "lead_serial": 1},
    Window: WINDOW,
    Shadow: {"sample_ppm": 1},
    Plan: {"model_version": "wake@1.0.0", "stages": [STAGE]},
    Stage: STAGE,
    Guardrail: {"metric": "fps", "direction": "lower_is_worse", "margin": 1},
    AlertRule: {"to": "oncall", "on": ["held"]},
    Freeze: {"from": "fri", "to": "sun"},
    Schedule: {"start_at": "2026-12-01"},
    Objective: {"measure": "fps", "at_most": 1},
    Experiment: {
        "name": "A",
        "variants": ARMS,
        "allocation": {"a": 0.5, "b": 0.5},
        "primary_metric": "accuracy",
    },
    ExperimentVariant: ARMS[0],
    PrimaryMetric: {"name": "accuracy"},
    GuardrailMetric: {"name": "skips"},
}

Row = tuple[list[Any], list[Any]]
BOUNDS: dict[type[Document], dict[str, Row]] = {
    Release: {
        "model": NAMES,
        "serial": SERIALS,
        "version": (["2026.03.05.1", "2026.12.31.999999"], ["2026.03.05.0", "2026.03.05.1000000", "2026.02.29.1"]),
        "semantic_version": (["0.0.0", "999999999.0.0-rc.1+a"], ["1000000000.0.0", "1.0", "v1.0.0", ""]),
        "build_hash": (["0123456789ab", "f" * 12], ["0" * 11, "0" * 13, "A" * 12, "g" * 12, f"{'0' * 12}\n"]),
        "created": (
            ["2026-03-05T10:00:00Z"],
            ["2026-03-05T10:00:00", "2026-03-05 10:00:00Z", "2026-3-05T10:00:00Z", "2026-03-05T10:00:00Z\n"],
        ),
        "variants": ([[VARIANT | {"name": f"v{n}"} for n in range(256)]], [[]]),
        "metrics": named(256, 1.5),
        "changelog": length(limits.CHANGELOG_LINES),
        "requires": length(16, {"model": "sleep", "serial": 1}),
        "unchecked": length(limits.OBJECTIONS),
        "model_signatures": length(limits.MODEL_SIGNATURES, SIGNED),
    },
    Line: {
        "model": NAMES,
        "sequence": ([1, limits.SEQUENCE_MAX], [0, limits.SEQUENCE_MAX + 1]),
        "minimum_serial": SERIALS,
        "revoked": length(limits.REVOKED, 1),
    },
    Floor: {
        "sequence": ([1, limits.SEQUENCE_MAX], [0, limits.SEQUENCE_MAX + 1]),
        "days": ([1, limits.FLOOR_DAYS], [0, limits.FLOOR_DAYS + 1]),
    },
    Variant: {
        "name": NAMES,
        "files": ([[FILE | {"name": f"f{n}"} for n in range(limits.FILES)]], [[]]),
        "runtime": length(64, None),
        "precision": length(64, None),
    },
    File: {
        "name": (
            ["_", "a" * 200, "A(b) c~d/e,f=g@h+i", "/".join("abcdefgh")],
            ["", "a" * 201, "a/", "-a", ".a", "a/.b", "/".join("abcdefghi"), "a\n", "é"],
        ),
        "size_bytes": ([0, ARTIFACT], [-1, ARTIFACT + 1]),
        "sha256": DIGESTS,
    },
    Sealed: {"size_bytes": ([1, limits.SEALED_BYTES], [0, limits.SEALED_BYTES + 1]), "sha256": DIGESTS},
    Kept: {"size_bytes": ([0, limits.PROVENANCE_FILE_BYTES], [-1, limits.PROVENANCE_FILE_BYTES + 1])},
    Signature: {
        "inputs": length(1024, {"name": "x", "dtype": "int8"}),
        "outputs": length(1024, {"name": "x", "dtype": "int8"}),
    },
    TensorSpec: {
        "name": length(1024, None),
        "dtype": length(64, None),
        "shape": length(16, "batch"),
    },
    Tensor: {
        "dtype": length(64, None),
        "shape": ([[1] * 16, [1]], [[1] * 17, [-1], [2**31 + 1]]),
    },
    Probe: {
        "inputs": named(64, TENSOR),
        "outputs": named(64, TENSOR),
        "output_ranges": named(64, [0, 1]),
        "absolute_tolerance": ([0, 1e300], [-1e-9]),
        "relative_tolerance": ([0, 1e300], [-1e-9]),
        "latency_ms_max": ([1e-9], [0]),
        "memory_mib_max": ([1], [0]),
    },
    Validation: {
        "inputs": ([_fields(64, TENSOR | {"shape": [1]})], [{}, _fields(65, TENSOR | {"shape": [1]})]),
        "labels": ([[0], [2**31]], [[], [-1], [2**31 + 1]]),
        "output": length(1024, None),
        "accuracy_min": SHARE,
    },
    Reference: {"shares": ([[1, 0], [0.495, 0.495], [0.505, 0.505]], [[1.001, 0], [-0.001, 1], [0.494, 0.495]])},
    Requirement: {"model": NAMES, "serial": SERIALS},
    Training: {
        "date": length(64, None),
        "dataset": length(256, None),
        "framework": length(256, None),
        "run": length(1024, None),
        "parent": length(256, None),
        "architecture": length(256, None),
        "build_hash": length(64, None),
        "target_hardware": length(limits.TARGET_HARDWARE, "pi"),
        "datasets": length(limits.DATASETS, DATASET),
        "parents": length(limits.PARENTS, PARENT),
    },
    Parent: {"version": length(64, None), "serial": SERIALS},
    Dataset: {
        "name": length(256, None, least=1),
        "digest": (
            [f"md5:{'0' * 32}", f"sha1:{'0' * 40}", f"sha384:{'0' * 96}", f"sha512:{'0' * 128}", f"blake3:{SHA}"],
            [f"md5:{'0' * 33}", f"sha256:{'0' * 40}", f"sha512:{SHA}", f"crc:{'0' * 32}", f"SHA256:{SHA}", SHA, "md5:"],
        ),
    },
    SourceCode: {
        "url": (["a", "a" * 1024], ["", "a" * 1025, "a b", "a\tb", "a\x7f"]),
        "commit": (["0" * 7, "f" * 64], ["0" * 6, "0" * 65, "G" * 7, "A" * 7, f"{'0' * 7}\n"]),
    },
    ModelSignature: {
        "signer": length(limits.SIGNER_CHARS, None, least=1),
        "variants": length(limits.VARIANTS, "cpu", least=1),
    },
    ModelSigner: {
        "anchor": length(limits.ANCHOR_BYTES, None, least=1),
        "identity": length(limits.SIGNER_CHARS, None),
    },
    LocalLimits: {
        "crash_loop": ([0, limits.CRASHES_IN_A_ROW], [-1, limits.CRASHES_IN_A_ROW + 1]),
        "sessions": ([10, limits.LIMIT_SESSIONS_MOST], [9, limits.LIMIT_SESSIONS_MOST + 1]),
        "error_rate_max": WITHIN,
        "latency_ms_p95_max": ([0.001, 1e9], [0, 1e9 + 1]),
        "accuracy_min": WITHIN,
        "probe_every_s": ([3600, 31_536_000], [3599, 31_536_001]),
    },
    Recipe: {
        "command": length(limits.RECIPE_ARGUMENTS, least=1),
        "outputs": ([[MADE | {"name": f"o{n}"} for n in range(limits.RECIPE_FILES)]], [[]]),
        "environment": length(limits.RECIPE_ARGUMENT_CHARS, None),
    },
    Input: {"name": length(1024, None, least=1), "size_bytes": ([0, ARTIFACT], [-1, ARTIFACT + 1])},
    Output: {"name": length(1024, None, least=1), "file": length(1024, None)},
    Selector: {
        "match_labels": (
            [_fields(limits.LABELS, "a"), {"os": "a" * 128}],
            [_fields(limits.LABELS + 1, "a"), {"": "a"}],
        ),
        "match_expressions": length(limits.EXPRESSIONS, TERM),
    },
    Expression: {"key": LABELS},
    DeltaIndex: {"serial": SERIALS, "steps": length(limits.DELTA_STEPS, STEP)},
    Step: {
        "target_bytes": ([0, ARTIFACT], [-1, ARTIFACT + 1]),
        "size_bytes": ([1, ARTIFACT], [0, ARTIFACT + 1]),
        "codec": (["whimbrel-delta-1"], ["whimbrel-delta-2"]),
    },
    Policy: {
        "model": NAMES,
        "sequence": ([1, limits.SEQUENCE_MAX], [0, limits.SEQUENCE_MAX + 1]),
        "baseline": SERIALS,
        "known_good": length(64, 1),
        "layers": length(limits.LAYERS, {"salt": 1}),
        "quarantine": length(1000, {"serial": 1}),
        "overrides": length(1000, 1),
        "pins": length(1000, {"serial": 1, "selector": {}}),
        "refresh_s": ([0.1, 2_592_000], [0.09, 2_592_001]),
        "report_s": ([0.1, 2_592_000], [0.09, 2_592_001]),
        "activate_max_age_s": ([1, 1e12], [0.999]),
        "report_labels": length(limits.LABELS, "os"),
        "hardware_label": LABELS,
        "slice_labels": length(limits.SLICE_LABELS, "os"),
        "set_leads": length(limits.SET_LEADS, {"serial": 1, "model": "wake", "lead_serial": 1}),
    },
    Layer: {"salt": ([0, 2**53 - 1], [-1, 2**53]), "entries": length(limits.ENTRIES, {"rollout": "r1", "arms": []})},
    Entry: {
        "arms": length(limits.ARMS, ARM),
        "start": ([0, 1_000_000], [-1, 1_000_001]),
        "end": ([0, 1_000_000], [-1, 1_000_001]),
        "before": length(limits.BEFORE, "fps"),
        "delays_s": (
            [[0], [limits.DELAY_S], [1] * limits.DELAYS],
            [[-0.001], [limits.DELAY_S + 1], [1] * (limits.DELAYS + 1)],
        ),
        "delays_by_class": named(limits.DELAY_CLASSES, [1]),
        "bucket_by": LABELS,
    },
    Arm: {
        "name": NAMES,
        "serial": SERIALS,
        "stage": ([0, limits.STAGES - 1], [-1, limits.STAGES]),
        "start": ([0, 9], [-1, 10]),
        "end": ([0, 1_000_000], [-1, 1_000_001]),
    },
    Quarantine: {"serial": SERIALS},
    Pin: {
        "serial": SERIALS,
        "devices": (
            [["A"], ["a" * 128], ["9_.:@-"]],
            [[""], ["a" * 129], ["-a"], [".a"], ["a b"], ["a/b"], ["a\n"], ["é"]],
        ),
    },
    SetLead: {"serial": SERIALS, "lead_serial": SERIALS},
    Conditions: {
        "battery_min": SHARE,
        "window_utc": ([[0, 86400], [86400, 0]], [[-1, 0], [0, 86401], [86401, 0], [0, -1], [0], [0, 1, 2]]),
        "windows": length(limits.WINDOWS, WINDOW),
        "storage_mib_min": ([0, 2**40], [-1, 2**40 + 1]),
        "metered_mib_a_day": ([0, 2**40], [-1, 2**40 + 1]),
        "start_jitter_s": ([0, 604_800], [-0.001, 604_801]),
    },
    Window: {
        "start_s": ([0, 86400], [-1, 86401]),
        "end_s": ([0, 86400], [-1, 86401]),
        "zone": (
            ["UTC", "local", "a" * 32, "America/Argentina/Buenos_Aires", "Etc/GMT+3"],
            ["", "a" * 33, "a/b/c/d", "a/", "/a", "../a", "a b", "a\n"],
        ),
        "days": length(7, "mon"),
    },
    Shadow: {"sample_ppm": ([1, 1_000_000], [0, 1_000_001]), "tolerance": ([0, 1000], [-0.001, 1000.001])},
    ShadowStage: {
        "sample_percent": ([0.001, 100], [0, 100.001]),
        "agreement_min": WITHIN,
        "error_rate_max": WITHIN,
        "latency_ratio_max": ([0.001, 1000], [0, 1000.001]),
        "min_inputs": ([1, 10**12], [0, 10**12 + 1]),
        "tolerance": ([0, 1000], [-0.001, 1000.001]),
    },
    Plan: {
        "model_version": length(256, None, least=1),
        "stages": (
            [[STAGE | {"name": f"s{n}"} for n in range(limits.STAGES)]],
            [[], [STAGE | {"name": f"s{n}"} for n in range(limits.STAGES + 1)]],
        ),
        "holdback_percent": ([0, 50], [-0.001, 50.001]),
        "min_devices": ([1, 10**9], [0, 10**9 + 1]),
        "min_reports": ([1, 10**9], [0, 10**9 + 1]),
        "alpha": ([0.001, 0.2], [0, 0.201]),
        "range_percent": ([[0, 100], [0, 0.0001]], [[-0.001, 100], [0, 100.001], [5, 5], [0, 0.00001], [0]]),
        "guardrails": (
            [[VALID[Guardrail] | {"metric": f"m{n}"} for n in range(limits.GUARDRAILS)]],
            [[VALID[Guardrail] | {"metric": f"m{n}"} for n in range(limits.GUARDRAILS + 1)]],
        ),
        "freeze": length(limits.FREEZES, VALID[Freeze]),
        "alerts": length(limits.ALERT_RULES, VALID[AlertRule]),
    },
    Stage: {
        "name": (["a", "A b._-9", "a" * 64], ["", "a" * 65, " a", "_a", "a\n", "é"]),
        "target_percent": ([0.001, 100], [0, 100.001]),
        "duration_hours": ([0, 8760], [-0.001, 8760.001]),
        "soak_hours": ([0, 8760], [-0.001, 8760.001]),
        "max_hours": ([0, 8760], [-0.001, 8760.001]),
        "regions": length(256, "NZ"),
        "user_segments": length(256, "beta"),
    },
    Rollback: {"health_check_interval_sec": ([0.5, 86400], [0.499, 86401])},
    SuccessCriteria: {
        "accuracy_drop_max": SHARE,
        "error_rate_max": SHARE,
        "latency_p99_max_ms": ([0.001, 1e12], [0]),
        "crash_ratio_max": ([1, 1000], [0.999, 1000.001]),
        "latency_increase_max": ([0.001, 100], [0, 100.001]),
        "battery_increase_max": ([0.001, 100], [0, 100.001]),
        "user_reports_ratio_max": ([1, 1000], [0.999, 1000.001]),
        "drift_psi_max": ([0.001, 100], [0, 100.001]),
        "size_bytes_max": ([1, ARTIFACT], [0, ARTIFACT + 1]),
        "accuracy_min": SHARE,
        "feedback_min": SHARE,
        "battery_max": ([0.001, 1e15], [0, 1e15 + 1]),
        "memory_mb_max": ([0.001, 1e15], [0, 1e15 + 1]),
        "metrics_min": (
            [_fields(limits.GUARDRAILS, 1), {"fps": -1e15}, {"fps": 1e15}],
            [_fields(limits.GUARDRAILS + 1, 1), {"fps": -1e15 - 1}, {"fps": 1e15 + 1}],
        ),
        "metrics_max": (
            [_fields(limits.GUARDRAILS, 1), {"fps": -1e15}, {"fps": 1e15}],
            [_fields(limits.GUARDRAILS + 1, 1), {"fps": -1e15 - 1}, {"fps": 1e15 + 1}],
        ),
    },
    Guardrail: {"margin": ([0, 1e15], [-0.001, 1e15 + 1]), "weight": ([0.01, 100], [0.009, 100.001])},
    Approval: {"count": ([1, limits.APPROVERS], [0, limits.APPROVERS + 1]), "note": length(500, None)},
    BlastRadius: {"percent": ([0.001, 100], [0, 100.001]), "devices": ([1, 10**10], [0, 10**10 + 1])},
    AlertRule: {"to": NAMES, "on": length(32, "held", least=1)},
    Freeze: {
        "from": (["mon", "fri"], ["fr", "Fri", "monday", "fri 8:00", "fri 24:00", "fri 08:60", "fri\n"]),
        "note": length(500, None),
        "zone": (["UTC", "Europe/Oslo"], ["", "a b"]),
    },
    Schedule: {
        "start_at": (
            ["2026-12-01", "2026-12-01T09:00", "2026-12-01T09:00:59Z", "2026-12-01T23:59+14:00"],
            ["2026-13-01", "2026-12-32", "2026-12-01T24:00", "2026-12-01T09:60", "2026-12-01 09:00", "09:00", "fri"],
        ),
    },
    Objective: {
        "at_most": ([-1e15, 1e15], [-1e15 - 1, 1e15 + 1]),
        "least": ([1, 10**9], [0, 10**9 + 1]),
        "measure": LABELS,
    },
    Experiment: {
        "name": length(200, None, least=1),
        "guardrail_metrics": (
            [[f"m{n}" for n in range(limits.GUARDRAILS)]],
            [[f"m{n}" for n in range(limits.GUARDRAILS + 1)]],
        ),
        "minimum_sample_size": ([2, 10**9], [1, 10**9 + 1]),
        "duration_days": ([0.001, 365], [0, 365.001]),
        "minimum_days": ([0, 7], [-0.001, 7.001]),
        "range_percent": ([[0, 100], [99, 100]], [[-0.001, 100], [0, 100.001], [5, 5], [6, 5]]),
        "bucket_by": (
            [f"label:{'a' * 64}", "label:A.b_c/d-9", "device"],
            [f"label:{'a' * 65}", "label:", "label:-a", "label:a-", "label:a\n", "a" * 257],
        ),
        "alpha": ([0.001, 0.2], [0, 0.201]),
        "guardrail_alpha": ([0.001, 0.2], [0, 0.201]),
        "check_interval_sec": ([0.5, 86400], [0.499, 86401]),
    },
    ExperimentVariant: {"model_version": length(256, None, least=1), "description": length(2000, None)},
    PrimaryMetric: {"minimum_effect": ([1e-9, 1e12], [0, 1e12 + 1]), "spread": ([1e-9, 1e12], [0, 1e12 + 1])},
    GuardrailMetric: {"margin": ([0, 1e12], [-0.001, 1e12 + 1])},
}
FIELDS = pytest.mark.parametrize(
    ("kind", "field"),
    [pytest.param(kind, field, id=f"{kind.__name__}.{field}") for kind, rows in BOUNDS.items() for field in rows],
)


@FIELDS
def test_the_last_values_within_the_bounds_are_taken(kind: type[Document], field: str) -> None:
    for value in BOUNDS[kind][field][0]:
        convert(kind, VALID.get(kind, {}) | {field: value}, what=f"{value!r:.80}")


@FIELDS
def test_the_first_values_beyond_the_bounds_are_refused(kind: type[Document], field: str) -> None:
    """And the sentence names the field, in its own words or as the document has it."""
    name = field.removesuffix("s").replace("_", ".")
    for value in BOUNDS[kind][field][1]:
        with pytest.raises(UntrustedInput, match=f"(?i)cannot be read: .*{name}"):
            convert(kind, VALID.get(kind, {}) | {field: value}, what=f"{value!r:.80}")
