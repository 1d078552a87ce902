"""May a stage without proven harm move on? Its soak, its reports, its limits, the split of its arms, its proofs.

1. Missing data never promotes: enough devices reported, half of the activated ones, and whatever a limit is set on.
   Where no device can be a control, a relative limit is compared with the past (`limit_checks`). Where that is not
   known either, the limit compares nothing, and the sentence says so: a fleet of one device must be able to complete.
2. The devices were heard of lately, and used and labelled as the control's (`exposure`).
3. The arms are split as their buckets say, at every step: lost devices are lost evidence.
4. With `when_proven` every test that concerns the plan, turned round, must have spoken.
5. The sentence says how large a harm would have been seen, and so what "no harm" is worth.

Called by the gate, where no harm is proven that goes back.
"""

import math
from collections.abc import Sequence
from typing import Any

from whimbrel.gate.combined_evidence import crash_ratio
from whimbrel.gate.evidence import one_sample_reverse_log_e, ratio_mismatch_log_bf
from whimbrel.gate.exposure import exposure_doubt
from whimbrel.gate.guardrails import PROVEN_ALPHA, RARE
from whimbrel.gate.ledger import Ledger
from whimbrel.gate.limit_checks import LimitCheck, limit_checks
from whimbrel.gate.power import detectable_ratio
from whimbrel.gate.totals import Totals
from whimbrel.gate.verdict import Counts, GateInput, Past, Verdict
from whimbrel.plan.criteria import SuccessCriteria
from whimbrel.plan.measures import MEASURES, Quantile, Rate
from whimbrel.plan.plan import Plan, Stage
from whimbrel.plan.selector_words import selector_words

_HOUR_S = 3600.0
RECENT_H = 3  # hours of a stage whose harm the sentence of a promotion speaks of: it may have begun in these


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
        return Verdict("wait", _soak_words(stage, now), evidence)
    counts = now.counts.get(now.judged, Counts())
    checks = limit_checks(criteria, estimates, past=now.past)
    doubt = (
        _missing_devices(plan, now, counts)
        or _alone_doubt(now, counts, ledger)
        or exposure_doubt(plan, now, ledger)
        or _limit_doubt(checks, stage, now)
        or _mismatch(plan, now, counts, evidence)
        or _unproven(plan, now, ledger, criteria, evidence)
    )
    if doubt:
        sentence = f"stage {stage.name} has soaked, but {doubt}"
        if stage.max_hours is not None and now.soaked_s < stage.max_hours * now.hour_s:
            return Verdict("wait", f"{sentence}; it bakes for at most {stage.max_hours:g} h", evidence)
        return Verdict("hold", sentence, evidence)
    evidence["crash_ratio"] = crash_ratio(ledger, now.judged, plan.alpha)
    detectable = _would_have_seen(plan, now, ledger, evidence)
    sentence = _harmless_words(plan, now, checks, evidence, detectable=detectable)
    return Verdict("finish" if now.stage == len(plan.stages) - 1 else "advance", sentence, evidence)


def _soak_words(stage: Stage, now: GateInput) -> str:
    """How long a stage has soaked: in hours, or in the seconds of a rehearsal."""
    if now.hour_s >= _HOUR_S:
        return f"stage {stage.name} has soaked {_hours(now.soaked_s / now.hour_s)} of {_hours(stage.duration_hours)} h"
    return (
        f"stage {stage.name} has soaked {now.soaked_s:.0f} of {stage.duration_hours * now.hour_s:.0f} s "
        f"(an hour of the plan lasts {now.hour_s:g} s)"
    )


def _hours(hours: float) -> str:
    return f"{hours:.1f}".removesuffix(".0")


def _missing_devices(plan: Plan, now: GateInput, counts: Counts) -> str | None:
    """Which devices are missing, before a stage that soaked may be promoted; None where enough reported."""
    name, least = plan.stages[now.judged].name, max(plan.min_reports, plan.min_devices)
    if counts.reported_t < least and not counts.activated_t:
        if now.devices != 0 or counts.assigned_t:
            known = counts.assigned_t or now.devices
            whom = f"none of the {_devices(known)}" if known else "no device"
            whose = _whom(plan.stages[now.judged])
            return f"{whom} of stage {name}{whose} has activated the version yet, and {least} must have reported"
        return (
            f"there is no device of stage {name}{_whom(plan.stages[now.judged])}, so nobody can take the version; it "
            "goes on when such a device enrols (or: rollout finish, rollout abort)"
        )
    if counts.reported_t < least:
        return f"{counts.reported_t} of {_devices(counts.activated_t, 'activated ')} reported, and {least} must"
    if counts.reported_t * 2 < counts.activated_t:
        return f"only {counts.reported_t} of {_devices(counts.activated_t, 'activated ')} reported, and half must"
    return None


def _alone_doubt(now: GateInput, counts: Counts, ledger: Ledger) -> str | None:
    """What a stage without a control must have shown first: a window of its own, and no device that went back."""
    if now.past is None:
        return None
    if counts.went_back_t:
        return (
            f"{counts.went_back_t} of {_devices(counts.activated_t, 'activated ')} went back by "
            f"{'itself' if counts.went_back_t == 1 else 'themselves'}, and there is no control to compare that with"
        )
    cohort = ledger.cohorts.get(now.judged)
    if cohort is None or not cohort.totals["treated"]["at_risk"]:
        return "no window of its reports is closed yet"
    return None


def _devices(count: int, kind: str = "") -> str:
    return f"{count:,} {kind}device{'' if count == 1 else 's'}"


def _whom(stage: Stage) -> str:
    words = selector_words(stage.selector)
    return f" (its selector: {words})" if words else ""


def _limit_doubt(checks: Sequence[LimitCheck], stage: Stage, now: GateInput) -> str | None:
    """The first limit that is broken, or of which not enough was told; None where all are kept."""
    for each in checks:
        if each.treated is None:
            return f"{each.name} asks for {each.words}, and nothing about it was reported in stage {stage.name}"
        if each.value is None and now.past is None:
            return f"{each.name} compares {each.words} with the control's, and the control reported nothing about it"
        if each.broken:
            return each.sentence(now.past)
    return None


def _harmless_words(
    plan: Plan, now: GateInput, checks: Sequence[LimitCheck], evidence: dict[str, Any], *, detectable: str
) -> str:
    """Why a stage goes on, and what that is worth. `detectable`: the harm that would have been seen, in words."""
    judged, stage = plan.stages[now.judged], plan.stages[now.stage]
    counts = now.counts.get(now.judged, Counts())
    proven = " beyond the margins, which is proven" if plan.promote == "when_proven" else ""
    harmless = f"no harm{proven} in {_devices(counts.reported_t)} of stage {judged.name}"
    if now.past is None:
        sentence = f"{harmless}; {detectable}"
        if plan.share_buckets(now.stage) >= plan.range.buckets:
            sentence += "; without a holdback only absolute limits and silence could be judged"
    else:
        sentence = f"{harmless}; {_without_control(now.past, checks)}"
        evidence["past"] = {
            "version": now.past.version,
            "device_windows": now.past.device_windows,
            "compared": {each.name: each.source for each in checks if each.relative and each.value is not None},
        }
    if now.judged != now.stage:
        sentence += f"; stage {stage.name} adds no device to these{_whom(stage)}"
    if now.without:
        sentence += f"; without {', '.join(now.without)}, which went back"
    return sentence


def _without_control(past: Past, checks: Sequence[LimitCheck]) -> str:
    """What stood in for the control."""
    compared = [each.comparison(past) for each in checks if each.relative]
    if not compared:
        return "no device can be its control, so only its absolute limits, its probe and its trial could speak"
    return f"no device can be its control, so it was compared with the past: {'; '.join(compared)}; that proves nothing"


def _mismatch(plan: Plan, now: GateInput, counts: Counts, evidence: dict[str, Any]) -> str | None:
    """Whether the arms are split as their buckets say, at every step: lost devices are lost evidence. It only holds."""
    several = any(stage.selector != plan.stages[0].selector for stage in plan.stages[: now.stage + 1])
    if now.judged != now.stage or len(now.shares) <= now.stage or several or now.past is not None:
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
                f"{pair[0]} and {pair[1]} devices of the arms are {name}, and {100 * expected[0]:.3g}% were expected "
                "on the new version: one arm loses devices, so what is left cannot be compared"
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
    """How large a harm this stage's last hours would have shown, with 80% and 95% chance: it may have begun late."""
    recent = ledger.recent(now.judged, "crash", hours=RECENT_H)
    ratios: dict[float, float | None] = dict.fromkeys((0.8, 0.95))
    if recent is not None:
        ratios = {
            power: detectable_ratio(
                exposure_t=recent.exposure_t,
                exposure_c=recent.exposure_c,
                events_c=recent.events_c,
                alpha=plan.alpha * recent.weight,
                power=power,
                tolerance=ledger.margins.ratios["crash"],
            )
            for power in ratios
        }
        if recent.hours is not None:
            evidence["detectable_hours"] = recent.hours
    evidence["detectable_crash_ratio"] = {str(power): ratio and round(ratio, 2) for power, ratio in ratios.items()}
    eighty, most = ratios[0.8], ratios[0.95]
    if eighty is None or most is None:
        return "too few devices to have seen any crash rate, so nothing is proven"
    lately = "" if recent is None or recent.hours is None else f" in its last {recent.hours} h"
    return (
        f"a crash rate of {eighty:.1f}x the control's{lately} would have been seen with 80% chance, "
        f"{most:.1f}x with 95%"
    )
