"""May a stage without proven harm move on? Its soak, its reports, its limits, the split of its arms, its proofs.

1. Missing data never promotes: enough devices reported, half of the activated ones, and whatever a limit is set on.
2. The arms are split as their buckets say, at every step: lost devices are lost evidence.
3. With `when_proven` every test that concerns the plan, turned round, must have spoken.
4. The sentence says how large a harm would have been seen, and so what "no harm" is worth.

Called by the gate, where no harm is proven that goes back.
"""

import math
from typing import Any

from whimbrel.gate.combined_evidence import crash_ratio
from whimbrel.gate.estimates import asked
from whimbrel.gate.evidence import detectable_ratio, one_sample_reverse_log_e, ratio_mismatch_log_bf
from whimbrel.gate.guardrails import PROVEN_ALPHA, RARE
from whimbrel.gate.ledger import Cohort, Ledger
from whimbrel.gate.totals import Totals
from whimbrel.gate.verdict import Counts, GateInput, Verdict
from whimbrel.plan.criteria import SuccessCriteria
from whimbrel.plan.measures import MEASURES, Quantile, Rate
from whimbrel.plan.plan import Plan


def promotion(
    plan: Plan,
    now: GateInput,
    ledger: Ledger,
    criteria: SuccessCriteria,
    evidence: dict[str, Any],
) -> Verdict:
    """The verdict that moves on, or says why not yet. Figures are added to `evidence`."""
    estimates: dict[str, Any] = evidence["estimates"]
    stage = plan.stages[now.stage]
    soak_s = stage.duration_hours * now.hour_s
    if now.soaked_s < soak_s:
        return Verdict("wait", f"stage {stage.name} has soaked {now.soaked_s:.0f} of {soak_s:.0f} s", evidence)
    counts = now.counts.get(now.judged, Counts())
    doubt = (
        _doubt(plan, counts, criteria, estimates)
        or _mismatch(plan, now, counts, evidence)
        or _unproven(plan, now, ledger, criteria, evidence)
    )
    if doubt:
        sentence = f"stage {stage.name} has soaked, but {doubt}"
        if stage.max_hours is not None and now.soaked_s < stage.max_hours * now.hour_s:
            return Verdict("wait", f"{sentence}; it bakes for at most {stage.max_hours:g} h", evidence)
        return Verdict("hold", sentence, evidence)
    judged = plan.stages[now.judged].name
    evidence["crash_ratio"] = crash_ratio(ledger, now.judged, plan.alpha)
    detectable = _would_have_seen(plan, now, ledger, evidence)
    proven = " beyond the margins, which is proven" if plan.promote == "when_proven" else ""
    sentence = f"no harm{proven} in {counts.reported_t} devices of stage {judged}; {detectable}"
    if now.without:
        sentence += f"; without {', '.join(now.without)}, which went back"
    if plan.share_buckets(now.stage) >= plan.range.buckets:
        sentence += "; without a holdback only absolute limits and silence could be judged"
    return Verdict("finish" if now.stage == len(plan.stages) - 1 else "advance", sentence, evidence)


def _doubt(plan: Plan, counts: Counts, criteria: SuccessCriteria, estimates: dict[str, Any]) -> str | None:
    """Why a stage that soaked may not be promoted; None where nothing speaks against it."""
    if counts.reported_t < max(plan.min_reports, plan.min_devices):
        return (
            f"{counts.reported_t} of {counts.activated_t} activated devices have reported, "
            f"and {max(plan.min_reports, plan.min_devices)} must"
        )
    if counts.reported_t * 2 < counts.activated_t:
        return f"only {counts.reported_t} of {counts.activated_t} activated devices have reported; half must"
    for each in asked(criteria, estimates):
        if each.value is None:
            return f"{each.name} is asked for, and nothing about it was reported"
        if each.broken:
            return str(each)
    return None


def _mismatch(plan: Plan, now: GateInput, counts: Counts, evidence: dict[str, Any]) -> str | None:
    """Whether the arms are split as their buckets say, at every step: lost devices are lost evidence. It only holds."""
    several = any(stage.selector != plan.stages[0].selector for stage in plan.stages[: now.stage + 1])
    if now.judged != now.stage or len(now.shares) <= now.stage or several:
        return None  # several selectors: the buckets alone do not tell the split
    before = now.shares[now.stage - 1] if now.stage else plan.range.start
    treated, control = now.shares[now.stage] - before, plan.range.end - now.shares[now.stage]
    if treated <= 0 or control <= 0:
        return None
    expected = (treated / (treated + control), control / (treated + control))
    log_factors = {}
    for name, pair in (
        ("assigned", (counts.assigned_t, counts.assigned_c)),
        ("activated", (counts.activated_t, counts.placebo_c)),
        ("reporting", (counts.reported_t, counts.reported_c)),
    ):
        log_factors[name] = round(ratio_mismatch_log_bf([pair], expected)[-1], 6)
        if log_factors[name] >= math.log(1 / plan.alpha):
            evidence["sample_ratio"] = log_factors
            return (
                f"{pair[0]} and {pair[1]} devices of the arms are {name}, and {expected[0]:.2%} were expected on the "
                "new version: one arm loses devices, so what is left cannot be compared"
            )
    evidence["sample_ratio"] = log_factors
    return None


def _unproven(
    plan: Plan, now: GateInput, ledger: Ledger, criteria: SuccessCriteria, evidence: dict[str, Any]
) -> str | None:
    """Which guardrails are not proven to be within their margins yet; None where none is, or no proof is asked for."""
    if plan.promote != "when_proven":
        return None
    cohort = ledger.cohorts.get(now.judged)
    tests = cohort.reverse if cohort else None
    if cohort is None or tests is None:
        return "nothing was reported that could prove it harmless"
    treated = cohort.totals["treated"]
    needed = math.log(1 / PROVEN_ALPHA)
    logs = {name: tests.log_e(name) for name in (*tests.rates, *tests.means)}
    for name in tests.rates:
        row = MEASURES[name]
        if row.rare and isinstance(row.test, Rate):
            limit = criteria.limit_on(row.estimate, "value") or RARE
            events, trials = treated[row.test.events], treated[row.test.exposure]
            if 0 < limit < 1:
                logs[name] = max(logs[name], one_sample_reverse_log_e(events=events, trials=trials, limit=limit))
    to_prove = {name for name in logs if _must_be_proven(name, treated, criteria)}
    to_prove = {name for name in to_prove if ledger.severities.get(name) != "warn"}
    evidence["proofs"] = {name: round(logs[name], 6) for name in sorted(to_prove)}
    missing = [name for name in sorted(to_prove) if logs[name] < needed]
    if not missing:
        return None
    return f"it is not proven yet that {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} within the margin"


def _must_be_proven(name: str, treated: Totals, criteria: SuccessCriteria) -> bool:
    """Whether a measure must be proven: something was reported about it, or the plan wants it to be."""
    row = MEASURES.get(name)
    if row is None:  # a metric of the devices' own
        return name in treated.metrics
    if row.prove == "always" or any(criteria.sets(limit) for limit in row.asked_by):
        return True
    match row.test:
        case Rate(exposure=exposure):
            return treated[exposure] > 0
        case Quantile():
            return bool(treated.latency)
    return name in treated.metrics


def _would_have_seen(plan: Plan, now: GateInput, ledger: Ledger, evidence: dict[str, Any]) -> str:
    """How large a harm this stage would have shown, with 80% and 95% chance."""
    cohort = ledger.cohorts.get(now.judged, Cohort())
    treated, control = cohort.totals["treated"], cohort.totals["control"]
    weight = max(
        lane.weight
        for lane in ledger.lanes(limit_ms=None)
        if lane.guardrail == "crash" and lane.slice is None and lane.copy and lane.copy.cohort == now.judged
    )
    ratios = {
        power: detectable_ratio(
            exposure_t=treated["at_risk"],
            exposure_c=control["at_risk"],
            events_c=control["crashed"],
            alpha=plan.alpha * weight,
            power=power,
            tolerance=ledger.margins.ratios["crash"],
        )
        for power in (0.8, 0.95)
    }
    evidence["detectable_crash_ratio"] = {str(power): ratio and round(ratio, 2) for power, ratio in ratios.items()}
    eighty, most = ratios[0.8], ratios[0.95]
    if eighty is None or most is None:
        return "too few devices to have seen any crash rate, so nothing is proven"
    return f"a crash rate of {eighty:.1f}x the control's would have been seen with 80% chance, {most:.1f}x with 95%"
