"""What the admin API answers about verdicts: what to do, why, the figures behind it, and whether it comes out again."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from whimbrel.flows.judging import ReplayedVerdict
from whimbrel.gate.verdict import Move, Verdict

Estimate = int | float | None | dict[str, float | None]  # None where nothing was reported; of `means`: by metric


class ShadowEstimates(msgspec.Struct, frozen=True, kw_only=True):
    """What the candidate of a shadow stage showed, over device-windows. Shares are None where nothing was told."""

    inputs: int
    compared: int
    device_windows: int
    agreement: float | None
    agreement_min: float
    failures: float | None
    crashed_windows: int
    errors: int
    crashed: int
    dropped: float | None
    skipped: int
    latency_ratio: float | None
    active_p50_ms: float | None
    active_p99_ms: float | None
    candidate_p50_ms: float | None
    candidate_p99_ms: float | None


class RatioBounds(msgspec.Struct, frozen=True, kw_only=True):
    """The confidence set of a ratio of rates. `high`: None where there is no bound."""

    low: float
    high: float | None


class PastEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """What a stage without any control was compared with.

    `device_windows`: of its own devices, while they ran `version`. `compared`: whose figure each limit was held to.
    """

    version: str | None
    device_windows: int
    compared: dict[str, str]


class EvidenceSum(msgspec.Struct, frozen=True, kw_only=True):
    """ln E of all evidence of harm together, and what proves harm."""

    log_e: float
    log_e_needed: float


class HarmFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The rate or mean of a guardrail in both arms over the last hours of the plan, in which the harm is proven.

    `slice`: that of the test; None for all devices of the stage. Of latency: the share of slow sessions.
    """

    guardrail: str
    hours: int
    stage: str
    slice: str | None
    treated: float | None
    control: float | None


class GateEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """The figures behind a verdict of the gate. A key is there where the gate looked at that far.

    `guardrails`: ln E of each; `estimates` and `counts`: of the stage that is judged, by role and by step.
    """

    log_e: float
    log_e_needed: float
    guardrails: dict[str, float]
    estimates: dict[str, dict[str, Estimate]] | UnsetType = UNSET
    counts: dict[str, int] | UnsetType = UNSET
    windows: int | UnsetType = UNSET
    without: list[str] | UnsetType = UNSET  # slices that went back
    classes: dict[str, float] | UnsetType = UNSET  # ln E by slice of the label that explains the harm best
    sample_ratio: dict[str, float] | UnsetType = UNSET  # ln of the Bayes factor against the expected split, by step
    crash_ratio: RatioBounds | UnsetType = UNSET
    detectable_crash_ratio: dict[str, float | None] | UnsetType = UNSET  # by the chance that it would have been seen
    last_hours: list[HarmFigures] | UnsetType = UNSET  # of the tests that prove harm, where it began late
    detectable_hours: int | UnsetType = UNSET  # the last hours of the stage that this speaks of; else all of them
    severity: str | UnsetType = UNSET
    warnings: list[str] | UnsetType = UNSET
    shadow: ShadowEstimates | UnsetType = UNSET
    bad_classes: list[str] | UnsetType = UNSET  # the slices that harm is proven in
    rest_log_e: float | UnsetType | None = UNSET  # of the other slices
    proofs: dict[str, float] | UnsetType = UNSET  # ln E that a guardrail is within its margin
    past: PastEvidence | UnsetType = UNSET
    app: EvidenceSum | UnsetType = UNSET  # of the app beside a candidate in the shadow


class VerdictView(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate says of a rollout now."""

    move: Move
    because: str
    evidence: GateEvidence


class ReplayView(msgspec.Struct, frozen=True, kw_only=True):
    """Every stored verdict, asked again of the stored windows. `same`: whether every move and figure came out."""

    id: str
    same: bool
    verdicts: list[ReplayedVerdict]


def evidence_of(evidence: Mapping[str, Any]) -> GateEvidence:
    """A gate's figures as a view."""
    return msgspec.convert(msgspec.to_builtins(evidence), type=GateEvidence)


def verdict_view(verdict: Verdict) -> VerdictView:
    """A verdict of the gate as a view."""
    return VerdictView(move=verdict.move, because=verdict.because, evidence=evidence_of(verdict.evidence))


def replay_view(identifier: str, verdicts: list[ReplayedVerdict]) -> ReplayView:
    """Replayed verdicts of one comparison as a view."""
    return ReplayView(id=identifier, same=all(verdict.same for verdict in verdicts), verdicts=verdicts)
