"""May a rollout move on, or must it go back? The verdict over a rollout's closed windows.

1. Proven harm goes back: the weighted average of all E-values (guardrails, stages' cohorts, hardware classes) reaches
   1/alpha. The weights are fixed by the plan before anything is seen, so the whole rollout has one false-alarm budget.
   A guardrail whose severity is `hold` or `warn` is left out of it: with `hold` the rollout stops, with `warn` the
   verdict only says it.
2. Where e-BH names slices of one label (hardware classes, operating systems, regions) and the rest is clean, only
   these go back and the rest goes on.
3. The kill switch: so many devices went back by themselves that the version is stopped at once (`kill_switch`).
4. A stage is promoted when it soaked, enough devices reported, nothing was proven, every estimate keeps its limit and
   the sample ratio is clean; with `when_proven` also every test turned round. Missing data never promotes.
5. A shadow stage is judged by what its candidate showed (`shadow_gate`), and by how the app fared beside it.
6. The verdict explains itself: with the figures of the test that proves harm (`harm_figures`), and with how large a
   harm would have been seen.

Called by the controller after every window, and by anyone who replays stored windows. Pure: the same windows give the
same verdict, byte for byte.
"""

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from whimbrel.gate.combined_evidence import combine, crash_ratio
from whimbrel.gate.estimates import describe, estimates_of
from whimbrel.gate.harm_figures import harm_figures
from whimbrel.gate.kill_switch import kill_switch, shadow_kill_switch, unsettled
from whimbrel.gate.ledger import Cohort, Lane, Ledger
from whimbrel.gate.limit_checks import broken_limits
from whimbrel.gate.promotion import promotion
from whimbrel.gate.shadow_gate import judge_candidate
from whimbrel.gate.shadow_ledger import serving_part, shadow_part
from whimbrel.gate.slices import HarmedSlices, harmed_slices
from whimbrel.gate.totals import Totals
from whimbrel.gate.verdict import Counts, GateInput, Verdict
from whimbrel.health.report import Role
from whimbrel.plan.criteria import SuccessCriteria
from whimbrel.plan.measures import Severity
from whimbrel.plan.plan import Plan

_PERSON = "rollout rollback, rollout finish or rollout abort"  # the commands
_ARMS: tuple[Role, ...] = ("treated", "control")
_LITTLE = 1.0  # ln E: what the clean rest of a fleet shows by chance


def judge(plan: Plan, now: GateInput, ledger: Ledger | None = None) -> Verdict:
    """The verdict. It never raises for a valid plan; it holds where it cannot decide.

    `ledger`: has folded earlier windows; `now.cells` are folded after them. Without one, a new one is made.
    """
    if ledger is None:
        ledger = Ledger(plan, without=now.without)
    ledger.fold(now.cells)
    if plan.shadows:
        if plan.stages[now.stage].shadow is not None:
            return _judge_shadow(plan, now, ledger)
        plan, now = serving_part(plan), _served(plan, now)
    return _judge_served(plan, now, ledger)


def _judge_served(plan: Plan, now: GateInput, ledger: Ledger) -> Verdict:
    total = Counts()
    for counts in now.counts.values():
        total = total.plus(counts)
    combined = combine(plan, now, ledger, total)
    criteria = plan.criteria(now.stage)
    estimates = _estimates(now, ledger, ledger.cohorts.get(now.judged, Cohort()).totals, criteria)
    if ledger.drift_limits:
        for role in ("treated", "control"):
            index = ledger.drift(now.judged, role)
            estimates[role]["drift_psi"] = None if index is None else round(index, 6)
    needed = math.log(1 / plan.alpha)
    evidence: dict[str, Any] = {
        "log_e": round(combined.log_e(), 6),
        "log_e_needed": round(needed, 6),
        "guardrails": combined.best,
        "estimates": estimates,
        "counts": now.counts.get(now.judged, Counts()).as_evidence(),
        "windows": ledger.windows,
    }
    if now.without:
        evidence["without"] = list(now.without)
    if stopped := kill_switch(total, natural=now.natural_go_back):
        return _harm(plan, now, stopped, evidence, severe=True)
    severity = combined.proven(needed)
    if severity is None:
        return _promotion(plan, now, ledger, criteria, evidence, total=total)
    if severity == "rollback" and (slices := _slice(plan, ledger, evidence)):
        return _slice_back(plan, now, ledger, slices, evidence)
    kinds = _UP_TO[severity]
    lead, broken = combined.lead(*kinds), broken_limits(criteria, estimates)
    worst, figures = lead.guardrail, _lead_words(plan, now, ledger, lead, evidence)
    evidence["crash_ratio"] = crash_ratio(ledger, now.judged, plan.alpha)
    sentence = (
        f"harm is proven: {worst} (ln E {evidence['guardrails'][worst]:.2f}, of all {combined.log_e(*kinds):.2f}, "
        f"needed {needed:.2f}; {figures})"
        f"{'; past the limit of ' + ', '.join(broken) if broken else ''}"
    )
    if severity == "rollback":
        return _harm(plan, now, sentence, evidence, severe=bool(broken))
    evidence["severity"] = severity
    if severity == "hold":
        return Verdict("hold", f"{sentence}; the plan says hold, so a person decides: {_PERSON}", evidence)
    evidence["warnings"] = [sentence]
    verdict = _promotion(plan, now, ledger, criteria, evidence, total=total)
    return msgspec.structs.replace(verdict, because=f"{verdict.because}; a warning: {sentence}")


def _estimates(
    now: GateInput, ledger: Ledger, totals: Mapping[str, Totals], criteria: SuccessCriteria
) -> dict[str, Any]:
    return estimates_of(
        totals,
        criteria,
        watched=ledger.weights.keys(),
        own=tuple(ledger.margins.own),
        heard=now.users_heard,
    )


def _lead_words(plan: Plan, now: GateInput, ledger: Ledger, lead: Lane, evidence: dict[str, Any]) -> str:
    """The figures of the test that carries most of the evidence, for a sentence; those of its last hours to `evidence`,
    where a copy that began anew carries it.
    """
    if lead.stage is None:
        return describe(lead.guardrail, evidence["estimates"])
    about = f", in {lead.slice}" if lead.slice is not None else ""
    about += f", in stage {plan.stages[lead.stage].name}" if lead.stage != now.judged else ""
    criteria = plan.criteria(now.stage)
    figures = harm_figures(
        ledger, lead.guardrail, stage=lead.stage, slice_name=lead.slice, limit_ms=criteria.latency_p99_max_ms
    )
    if figures is not None:
        evidence["last_hours"] = [figures.as_evidence(plan.stages)]
        return f"{figures.words()}{about}"
    if not about:
        return describe(lead.guardrail, evidence["estimates"])
    cohort = ledger.cohorts.get(lead.stage, Cohort())
    totals = _slice_totals(ledger, lead.slice, stage=lead.stage) if lead.slice is not None else cohort.totals
    return f"{describe(lead.guardrail, _estimates(now, ledger, totals, criteria))}{about}"


def _promotion(
    plan: Plan, now: GateInput, ledger: Ledger, criteria: SuccessCriteria, evidence: dict[str, Any], *, total: Counts
) -> Verdict:
    """The verdict where nothing is proven that goes back: no version goes on that half of its devices left."""
    verdict = promotion(plan, now, ledger, criteria, evidence)
    doubt = unsettled(total)
    if doubt is None or verdict.move not in {"advance", "finish"}:
        return verdict
    return Verdict("hold", f"stage {plan.stages[now.stage].name} has soaked, but {doubt}", evidence)


# The severities whose evidence counts where harm of this severity is proven: this one, and the more severe ones.
_UP_TO: dict[Severity, tuple[Severity, ...]] = {
    "rollback": ("rollback",),
    "hold": ("rollback", "hold"),
    "warn": ("rollback", "hold", "warn"),
}


def _served(plan: Plan, now: GateInput) -> GateInput:
    """The input of the part that serves: its stages count from its first."""
    first = plan.shadows
    return msgspec.structs.replace(
        now,
        stage=now.stage - first,
        cells=(),
        counts={stage - first: counts for stage, counts in now.counts.items() if stage >= first},
        cohort=None if now.cohort is None else now.cohort - first,
        shares=now.shares[first:],
    )


def _judge_shadow(plan: Plan, now: GateInput, ledger: Ledger) -> Verdict:
    """Judge the candidate first, then the app that it runs beside, then whether enough is known of both."""
    app = ledger.app if ledger.app is not None else Ledger(shadow_part(plan))
    counts = now.counts.get(now.stage, Counts())
    candidate = judge_candidate(plan, now.stage, ledger.shadow, devices=counts.shadowed_t, slices=app.slices or {})
    # Whom an earlier shadow stage treated, the present one treats: its share is all of it.
    shares = (*(plan.range.start for _ in now.shares[: now.stage]), *now.shares[now.stage : now.stage + 1])
    beside = msgspec.structs.replace(
        now, cells=(), counts={s: each for s, each in now.counts.items() if s < plan.shadows}, shares=shares
    )
    harm = _judge_served(shadow_part(plan), beside, app)
    name = plan.stages[now.stage].name
    evidence = {**harm.evidence, **candidate.evidence, "app": {k: harm.evidence[k] for k in ("log_e", "log_e_needed")}}
    evidence["guardrails"] = {
        **candidate.evidence["guardrails"],
        **{f"app_{k}": v for k, v in harm.evidence["guardrails"].items()},
    }
    if stopped := shadow_kill_switch(counts):
        return _harm(plan, now, f"stage {name}: {stopped}", evidence, severe=True)
    if candidate.bad:
        verdict = _harm(plan, now, f"stage {name}: {candidate.because}", evidence, severe=True)
        if verdict.move == "roll_back" and candidate.classes:
            return Verdict("slice_back", verdict.because, evidence, candidate.classes)
        return verdict
    if harm.move in {"roll_back", "slice_back"}:
        sentence = f"stage {name}: on devices that try it in the shadow {harm.because}"
        return Verdict(harm.move, sentence, evidence, harm.classes)
    if harm.move in {"wait", "hold"}:
        return Verdict(harm.move, harm.because, evidence, harm.classes)
    if candidate.doubt:
        return Verdict("hold", f"stage {name} has soaked, but {candidate.doubt}", evidence)
    return Verdict("advance", f"{candidate.because}; of the app beside it: {harm.because}", evidence)


def _harm(plan: Plan, now: GateInput, sentence: str, evidence: dict[str, Any], *, severe: bool) -> Verdict:
    if not plan.rollback_at(now.stage).auto_rollback:
        return Verdict("hold", f"{sentence}; auto_rollback is off, so a person decides: {_PERSON}", evidence)
    if not severe and plan.on_small_harm == "hold":
        return Verdict("hold", f"{sentence}; it is within the plan's limits and on_small_harm is hold", evidence)
    return Verdict("roll_back", sentence, evidence)


def _slice(plan: Plan, ledger: Ledger, evidence: dict[str, Any]) -> HarmedSlices | None:
    """The slices of one label that go back alone: named by e-BH, less than half of them and of the devices.

    The rest must be clean. Where several labels explain the harm, the one that leaves no evidence among the rest is
    taken, and of those the smallest slice.
    """
    needed = math.log(1 / plan.alpha)
    by_label = [each for each in harmed_slices(ledger).values() if each.bad]
    if not by_label:
        return None
    best = min(by_label, key=lambda each: (not each.clean(needed=needed), each.rest > _LITTLE, each.devices))
    evidence["classes"] = {name: round(log, 6) for name, log in best.logs.items()}
    evidence["bad_classes"] = best.bad
    evidence["rest_log_e"] = round(best.rest, 6) if math.isfinite(best.rest) else None
    return best if best.clean(needed=needed) else None


def _slice_back(plan: Plan, now: GateInput, ledger: Ledger, slices: HarmedSlices, evidence: dict[str, Any]) -> Verdict:
    harmed = []
    watched = ledger.weights.keys()
    for name in slices.bad:
        guardrail, of_stage = slices.leads[name]
        figures = harm_figures(ledger, guardrail, stage=of_stage, slice_name=name, limit_ms=None)
        if figures is not None:
            evidence.setdefault("last_hours", []).append(figures.as_evidence(plan.stages))
            harmed.append(f"{name} ({figures.words()})")
            continue
        estimates = estimates_of(_slice_totals(ledger, name, stage=now.judged), SuccessCriteria(), watched=watched)
        harmed.append(f"{name} ({describe(guardrail, estimates)})")
    others = round(slices.rest, 2) + 0.0  # never -0.00
    sentence = (
        f"harm is proven in {', '.join(harmed)} and nowhere else (ln E of the others {others:.2f}): "
        f"{'this slice goes' if len(slices.bad) == 1 else 'these slices go'} back, the rest goes on"
    )
    classes = tuple(slices.bad)
    if not plan.rollback_at(now.stage).auto_rollback:
        return Verdict("hold", f"{sentence}; auto_rollback is off, so a person decides: {_PERSON}", evidence, classes)
    return Verdict("slice_back", sentence, evidence, classes)


def _slice_totals(ledger: Ledger, name: str, *, stage: int) -> dict[str, Totals]:
    """What a slice's devices told, by arm: those of `stage`, or of the last stage before it that any of them was in."""
    for each in sorted((each for each in ledger.cohorts if each <= stage), reverse=True):
        totals = ledger.cohorts[each].class_totals
        if (name, "treated") in totals:
            return {role: totals.get((name, role), Totals()) for role in _ARMS}
    return {role: Totals() for role in _ARMS}
