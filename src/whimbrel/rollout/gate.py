"""May this rollout move, must it go back? The verdict over a rollout's closed windows.

1. Proven harm goes back: the weighted average of all E-values (guardrails, stages' cohorts, hardware classes) reaches
   1/alpha. The weights are fixed by the plan before anything is seen, so the whole rollout has one false-alarm budget.
   A guardrail whose severity is `hold` or `warn` is left out of it: with `hold` it stops, with `warn` it is only said.
2. Where e-BH names slices of one label (hardware classes, operating systems, regions) and the rest is clean, only
   these go back and the rest goes on.
3. The kill switch is not statistical: went_back >= max(2, 10% of those activated), or 1 of 1.
4. A stage is promoted when it soaked, enough devices reported, nothing was proven, every estimate keeps its limit and
   the sample ratio is clean; with `when_proven` also every test turned round. Missing data never promotes.
5. A shadow stage is judged by what its candidate showed (`shadow_gate`), and by how the app fared beside it.
6. The verdict explains itself, and says how large a harm would have been seen.

Called by the controller after every window, and by anyone who replays stored windows. Pure: the same windows give the
same verdict, byte for byte.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from whimbrel.health.evidence import (
    detectable_ratio,
    log_mean_exp,
    one_sample_log_e,
    one_sample_reverse_log_e,
    ratio_bounds,
    ratio_mismatch_log_bf,
)
from whimbrel.health.sketch import count_above
from whimbrel.health.tally import Cell
from whimbrel.rollout.criteria import Severity, SuccessCriteria
from whimbrel.rollout.estimates import add_user_reports, asked, broken_limits, describe, estimates_of
from whimbrel.rollout.guardrails import (
    BETS,
    LATENCY_TAIL,
    PROVEN_ALPHA,
    QUANTILES,
    RARE,
    cohort_share,
)
from whimbrel.rollout.ledger import Cohort, Ledger
from whimbrel.rollout.naming import Named, named
from whimbrel.rollout.plan import Plan
from whimbrel.rollout.shadow_gate import weigh
from whimbrel.rollout.shadow_ledger import serving_part, shadow_part
from whimbrel.rollout.totals import Totals

_LITTLE = 1.0  # ln E: what the clean rest of a fleet shows by chance
Move = Literal["wait", "hold", "advance", "finish", "roll_back", "slice_back"]


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Distinct devices of one stage, from their announcements and reports."""

    assigned_t: int = 0
    assigned_c: int = 0
    activated_t: int = 0
    placebo_c: int = 0
    reported_t: int = 0  # of those activated, with at least one report since
    reported_c: int = 0
    failed_t: int = 0  # could not install or did not pass the probe
    went_back_t: int = 0  # activated, and went back by themselves
    shadowed_t: int = 0  # of those in the shadow: told of at least one input
    gave_up_t: int = 0  # of these: refused it, since what tried it died again and again

    def told(self) -> dict[str, int]:
        """As evidence says it: what concerns shadow stages, where there is any."""
        shadow = {"shadowed_t", "gave_up_t"}
        return {name: n for name in self.__struct_fields__ if (n := getattr(self, name)) or name not in shadow}

    def plus(self, other: "Counts") -> "Counts":
        """Both together."""
        return Counts(**{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__})


class Verdict(msgspec.Struct, frozen=True):
    """What to do, why in one sentence, and the figures behind it. `classes`: the slice that `slice_back` is about."""

    move: Move
    because: str
    evidence: dict[str, Any]
    classes: tuple[str, ...] = ()


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate looks at: closed windows only, and the counts of each stage so far.

    `cohort`: the stage whose devices speak for the present one; itself, unless none of a small fleet falls in it.
    `shares`: the buckets of each stage entered; none, and the sample ratio is not tested. `without`: slices that went
    back.
    """

    stage: int
    soaked_s: float
    cells: Sequence[Cell] = ()
    counts: Mapping[int, Counts]
    hour_s: float = 3600.0
    cohort: int | None = None
    shares: tuple[int, ...] = ()
    without: tuple[str, ...] = ()
    users_heard: bool = False  # whether tickets of users, or the news that there are none, came since it began

    @property
    def judged(self) -> int:
        """The stage whose estimates and counts promotion looks at."""
        return self.stage if self.cohort is None else self.cohort


def judge(plan: Plan, now: Situation, ledger: Ledger | None = None) -> Verdict:
    """The verdict. Never raises for a valid plan; what it cannot tell it holds.

    `ledger`: one that has folded the windows already; `now.cells` are then folded on top. Without one, a new one does.
    """
    if ledger is None:
        ledger = Ledger(plan, without=now.without)
    ledger.fold(now.cells)
    if plan.shadows:
        if plan.stages[now.stage].shadow is not None:
            return _judge_shadow(plan, now, ledger)
        plan, now = serving_part(plan), _served(plan, now)
    return _judge_served(plan, now, ledger)


def _judge_served(plan: Plan, now: Situation, ledger: Ledger) -> Verdict:
    total = Counts()
    for counts in now.counts.values():
        total = total.plus(counts)
    weighed = _weigh(plan, now, ledger, total)
    criteria = plan.criteria(now.stage)
    estimates = estimates_of(ledger.cohorts.get(now.judged, Cohort()).totals, criteria, own=tuple(ledger.margins.own))
    if "user_reports" in ledger.weights:
        add_user_reports(estimates, ledger.cohorts.get(now.judged, Cohort()).totals, heard=now.users_heard)
    if ledger.drift_limits:
        for role in ("treated", "control"):
            index = ledger.drift(now.judged, role)
            estimates[role]["drift_psi"] = None if index is None else round(index, 6)
    needed = math.log(1 / plan.alpha)
    evidence: dict[str, Any] = {
        "log_e": round(weighed.log_e(), 6),
        "log_e_needed": round(needed, 6),
        "guardrails": weighed.best,
        "estimates": estimates,
        "counts": now.counts.get(now.judged, Counts()).told(),
        "windows": ledger.windows,
    }
    if now.without:
        evidence["without"] = list(now.without)
    if stopped := _kill_switch(total):
        return _harm(plan, now, stopped, evidence, severe=True)
    severity = weighed.proven(needed)
    if severity is None:
        return _promotion(plan, now, ledger, criteria, evidence)
    if severity == "rollback" and (slices := _slice(plan, ledger, evidence)):
        return _slice_back(plan, now, ledger, slices, evidence)
    kinds = _UP_TO[severity]
    worst, broken = weighed.lead(*kinds), broken_limits(criteria, estimates)
    evidence["crash_ratio"] = _bounds(ledger, now.judged, plan.alpha)
    sentence = (
        f"harm is proven: {worst} (ln E {evidence['guardrails'][worst]:.2f}, of all {weighed.log_e(*kinds):.2f}, "
        f"needed {needed:.2f}; {describe(worst, estimates)})"
        f"{'; past the limit of ' + ', '.join(broken) if broken else ''}"
    )
    if severity == "rollback":
        return _harm(plan, now, sentence, evidence, severe=bool(broken))
    evidence["severity"] = severity
    if severity == "hold":
        return Verdict("hold", f"{sentence}; the plan says hold, so a person decides", evidence)
    evidence["warnings"] = [sentence]
    verdict = _promotion(plan, now, ledger, criteria, evidence)
    return msgspec.structs.replace(verdict, because=f"{verdict.because}; a warning: {sentence}")


# What is weighed where a proof of this severity is asked for: all that is as severe, or more so.
_UP_TO: dict[Severity, tuple[Severity, ...]] = {
    "rollback": ("rollback",),
    "hold": ("rollback", "hold"),
    "warn": ("rollback", "hold", "warn"),
}


def _served(plan: Plan, now: Situation) -> Situation:
    """The situation of the part that serves: its stages count from its first."""
    first = plan.shadows
    return msgspec.structs.replace(
        now,
        stage=now.stage - first,
        cells=(),
        counts={stage - first: counts for stage, counts in now.counts.items() if stage >= first},
        cohort=None if now.cohort is None else now.cohort - first,
        shares=now.shares[first:],
    )


def _judge_shadow(plan: Plan, now: Situation, ledger: Ledger) -> Verdict:
    """The candidate first, then the app beside which it runs, then whether enough is known of both."""
    app = ledger.app if ledger.app is not None else Ledger(shadow_part(plan))
    counts = now.counts.get(now.stage, Counts())
    seen = weigh(plan, now.stage, ledger.shadow, devices=counts.shadowed_t, slices=app.slices or {})
    # Whom an earlier shadow stage treated, the present one treats: its share is all of it.
    shares = (*(plan.range.start for _ in now.shares[: now.stage]), *now.shares[now.stage : now.stage + 1])
    beside = msgspec.structs.replace(
        now, cells=(), counts={s: each for s, each in now.counts.items() if s < plan.shadows}, shares=shares
    )
    harm = _judge_served(shadow_part(plan), beside, app)
    name = plan.stages[now.stage].name
    evidence = {**harm.evidence, **seen.evidence, "app": {k: harm.evidence[k] for k in ("log_e", "log_e_needed")}}
    evidence["guardrails"] = {
        **seen.evidence["guardrails"],
        **{f"app_{k}": v for k, v in harm.evidence["guardrails"].items()},
    }
    if stopped := _shadow_kill_switch(counts):
        return _harm(plan, now, f"stage {name}: {stopped}", evidence, severe=True)
    if seen.bad:
        verdict = _harm(plan, now, f"stage {name}: {seen.because}", evidence, severe=True)
        if verdict.move == "roll_back" and seen.classes:
            return Verdict("slice_back", verdict.because, evidence, seen.classes)
        return verdict
    if harm.move in {"roll_back", "slice_back"}:
        sentence = f"stage {name}: on devices that try it in the shadow {harm.because}"
        return Verdict(harm.move, sentence, evidence, harm.classes)
    if harm.move in {"wait", "hold"}:
        return Verdict(harm.move, harm.because, evidence, harm.classes)
    if seen.doubt:
        return Verdict("hold", f"stage {name} has soaked, but {seen.doubt}", evidence)
    return Verdict("advance", f"{seen.because}; of the app beside it: {harm.because}", evidence)


def _harm(plan: Plan, now: Situation, sentence: str, evidence: dict[str, Any], *, severe: bool) -> Verdict:
    if not plan.rollback_at(now.stage).auto_rollback:
        return Verdict("hold", f"{sentence}; auto_rollback is off, so a person decides", evidence)
    if not severe and plan.on_small_harm == "hold":
        return Verdict("hold", f"{sentence}; it is within the plan's limits and on_small_harm is hold", evidence)
    return Verdict("roll_back", sentence, evidence)


def _kill_switch(total: Counts) -> str | None:
    went_back, activated = total.went_back_t, total.activated_t
    if went_back and (went_back >= max(2, math.ceil(0.1 * activated)) or activated == 1):
        return f"the kill switch: {went_back} of {activated} activated devices went back by themselves"
    return None


def _shadow_kill_switch(counts: Counts) -> str | None:
    """The same in the shadow: a device that refuses a candidate tells no windows of it any more."""
    gave_up, tried = counts.gave_up_t, counts.shadowed_t
    if gave_up and (gave_up >= max(2, math.ceil(0.1 * tried)) or tried == 1):
        return (
            f"the kill switch: {gave_up} of {tried} devices that tried it refused it themselves; it has answered nobody"
        )
    return None


def _slice(plan: Plan, ledger: Ledger, evidence: dict[str, Any]) -> Named | None:
    """The slices of one label that go back alone: named by e-BH, less than half of them and of the devices.

    The rest must be clean. Where several labels explain the harm, the one that leaves no evidence among the rest is
    taken, and of those the smallest slice.
    """
    needed = math.log(1 / plan.alpha)
    found = [each for each in named(ledger).values() if each.bad]
    if not found:
        return None
    best = min(found, key=lambda each: (not each.clean(needed=needed), each.rest > _LITTLE, each.devices))
    evidence["classes"] = {name: round(log, 6) for name, log in best.logs.items()}
    evidence["bad_classes"] = best.bad
    evidence["rest_log_e"] = round(best.rest, 6) if math.isfinite(best.rest) else None
    return best if best.clean(needed=needed) else None


def _slice_back(plan: Plan, now: Situation, ledger: Ledger, slices: Named, evidence: dict[str, Any]) -> Verdict:
    cohort = ledger.cohorts.get(now.judged, Cohort())
    said = []
    for name in slices.bad:
        totals = {role: cohort.class_totals.get((name, role), Totals()) for role in ("treated", "control")}
        said.append(f"{name} ({describe(slices.leads[name], estimates_of(totals, SuccessCriteria()))})")
    sentence = (
        f"harm is proven in {', '.join(said)} and nowhere else (ln E of the others {slices.rest:.2f}): "
        f"{'this slice goes' if len(slices.bad) == 1 else 'these slices go'} back, the rest goes on"
    )
    classes = tuple(slices.bad)
    if not plan.rollback_at(now.stage).auto_rollback:
        return Verdict("hold", f"{sentence}; auto_rollback is off, so a person decides", evidence, classes)
    return Verdict("slice_back", sentence, evidence, classes)


# --- evidence ---


class _Weighed(msgspec.Struct, frozen=True):
    """All tests of a rollout: guardrail, weight, ln E."""

    lanes: list[tuple[str, float, float]]
    severities: Mapping[str, Severity]

    def log_e(self, *kinds: Severity) -> float:
        """ln of the weighted sum of the E-values whose proof does one of these things; no kinds: of all."""
        lanes = [(weight, log) for name, weight, log in self.lanes if not kinds or self.severities[name] in kinds]
        return log_mean_exp([log for _, log in lanes], [weight for weight, _ in lanes]) if lanes else -math.inf

    def lead(self, *kinds: Severity) -> str:
        """The guardrail that carries most of it."""
        carried: dict[str, float] = {}
        for name, weight, log in self.lanes:
            if not kinds or self.severities[name] in kinds:
                carried[name] = max(carried.get(name, -math.inf), log + math.log(weight))
        return max(sorted(carried), key=carried.__getitem__)

    @property
    def best(self) -> dict[str, float]:
        """The greatest ln E of every guardrail."""
        table: dict[str, float] = {}
        for name, _, log in self.lanes:
            table[name] = max(table.get(name, -math.inf), log)
        return {name: round(log, 6) for name, log in sorted(table.items())}

    def proven(self, needed: float) -> Severity | None:
        """What is to be done, if anything is proven. The groups are nested: every alarm is one of the whole budget."""
        if self.log_e("rollback") >= needed:
            return "rollback"
        if self.log_e("rollback", "hold") >= needed:
            return "hold"
        return "warn" if self.log_e() >= needed else None


def _weigh(plan: Plan, now: Situation, ledger: Ledger, total: Counts) -> _Weighed:
    criteria = plan.criteria(now.stage)
    lanes = [(name, weight, log) for name, _, _, weight, log in ledger.lanes(bound=criteria.latency_p99_max_ms)]
    for stage in range(len(plan.stages)):
        share = cohort_share(len(plan.stages), stage)
        cohort = ledger.cohorts.get(stage)
        for name, limit in (("error_limit", criteria.error_rate_max), ("latency_limit", criteria.latency_p99_max_ms)):
            if name in ledger.weights:
                lanes.append((name, ledger.weights[name] * share, _limit(cohort, name, limit)))
    lanes += ledger.bound_lanes(criteria)
    if "version_reports" in ledger.weights:
        lanes.append(("version_reports", ledger.weights["version_reports"], ledger.version_reports.log_e(BETS)))
    lanes += ledger.drift_lanes(now.stage)
    attempts = total.activated_t + total.failed_t
    failures = one_sample_log_e(
        events=total.failed_t + total.went_back_t, trials=attempts, limit=ledger.margins.failure
    )
    lanes.append(("failure", ledger.weights["failure"], failures))
    return _Weighed(lanes, ledger.severities)


def _limit(cohort: Cohort | None, name: str, limit: float | None) -> float:
    """One sample against an absolute limit; no evidence where the control breaks it too, or none is in force."""
    if cohort is None or not limit:
        return 0.0
    share = limit if name == "error_limit" else LATENCY_TAIL
    if share >= 1:
        return 0.0

    def counted(totals: Totals) -> tuple[float, float]:
        if name == "error_limit":
            return totals.error_share, totals.error_units
        return count_above(totals.latency, limit), sum(totals.latency.values())

    events, trials = counted(cohort.totals["treated"])
    events_c, trials_c = counted(cohort.totals["control"])
    if trials_c and events_c / trials_c > share:
        return 0.0
    return one_sample_log_e(events=events, trials=trials, limit=share)


def _bounds(ledger: Ledger, stage: int, alpha: float) -> dict[str, float | None]:
    """The confidence set of the crash rate's ratio in the judged cohort."""
    cohort = ledger.cohorts.get(stage)
    low, high = ratio_bounds(cohort.crashes if cohort else [], alpha=alpha)
    return {"low": round(low, 4), "high": round(high, 4) if math.isfinite(high) else None}


# --- promotion ---


def _promotion(
    plan: Plan,
    now: Situation,
    ledger: Ledger,
    criteria: SuccessCriteria,
    evidence: dict[str, Any],
) -> Verdict:
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
    evidence["crash_ratio"] = _bounds(ledger, now.judged, plan.alpha)
    seen = _would_have_seen(plan, now, ledger, evidence)
    proven = " beyond the margins, which is proven" if plan.promote == "when_proven" else ""
    sentence = f"no harm{proven} in {counts.reported_t} devices of stage {judged}; {seen}"
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


def _mismatch(plan: Plan, now: Situation, counts: Counts, evidence: dict[str, Any]) -> str | None:
    """Whether the arms are split as their buckets say, at every step: lost devices are lost evidence. It only holds."""
    several = any(stage.selector != plan.stages[0].selector for stage in plan.stages[: now.stage + 1])
    if now.judged != now.stage or len(now.shares) <= now.stage or several:
        return None  # several selectors: the buckets alone do not tell the split
    before = now.shares[now.stage - 1] if now.stage else plan.range.start
    treated, control = now.shares[now.stage] - before, plan.range.end - now.shares[now.stage]
    if treated <= 0 or control <= 0:
        return None
    expected = (treated / (treated + control), control / (treated + control))
    found = {}
    for name, pair in (
        ("assigned", (counts.assigned_t, counts.assigned_c)),
        ("activated", (counts.activated_t, counts.placebo_c)),
        ("reporting", (counts.reported_t, counts.reported_c)),
    ):
        found[name] = round(ratio_mismatch_log_bf([pair], expected)[-1], 6)
        if found[name] >= math.log(1 / plan.alpha):
            evidence["sample_ratio"] = found
            return (
                f"{pair[0]} and {pair[1]} devices of the arms are {name}, and {expected[0]:.2%} were expected on the "
                "new version: one arm loses devices, so what is left cannot be compared"
            )
    evidence["sample_ratio"] = found
    return None


def _unproven(
    plan: Plan, now: Situation, ledger: Ledger, criteria: SuccessCriteria, evidence: dict[str, Any]
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
    rare = {
        "crash": (treated.crashed, treated.at_risk, RARE),
        "error": (treated.error_share, treated.error_units, criteria.error_rate_max or RARE),
        "silence": (treated.overdue, treated.due, RARE),
    }
    for name, (events, trials, limit) in rare.items():
        if 0 < limit < 1:
            logs[name] = max(logs[name], one_sample_reverse_log_e(events=events, trials=trials, limit=limit))
    asked = {"crash", "silence"} | {name for name in tests.rates if name == "user_reports"}
    asked |= {"error"} if treated.error_units or criteria.error_rate_max is not None else set()
    if treated.latency or criteria.latency_p99_max_ms is not None or criteria.latency_increase_max is not None:
        asked |= set(QUANTILES)
    asked |= {n for n in tests.means if n in treated.metrics}
    asked |= {"accuracy"} if criteria.accuracy_drop_max is not None else set()
    asked |= {"battery"} if criteria.battery_increase_max is not None else set()
    asked = {name for name in asked if ledger.severities.get(name) != "warn"}
    evidence["proofs"] = {name: round(logs[name], 6) for name in sorted(asked)}
    missing = [name for name in sorted(asked) if logs[name] < needed]
    if not missing:
        return None
    return f"it is not proven yet that {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} within the margin"


def _would_have_seen(plan: Plan, now: Situation, ledger: Ledger, evidence: dict[str, Any]) -> str:
    """How large a harm this stage would have shown, with 80% and 95% chance: what silence here is worth."""
    cohort = ledger.cohorts.get(now.judged, Cohort())
    treated, control = cohort.totals["treated"], cohort.totals["control"]
    weight = max(
        share for name, copy, each, share, _ in ledger.lanes(bound=None)
        if name == "crash" and each is None and copy.cohort == now.judged
    )  # fmt: skip
    seen = {
        power: detectable_ratio(
            exposure_t=treated.at_risk,
            exposure_c=control.at_risk,
            events_c=control.crashed,
            alpha=plan.alpha * weight,
            power=power,
            tolerance=ledger.margins.ratios["crash"],
        )
        for power in (0.8, 0.95)
    }
    evidence["detectable_crash_ratio"] = {str(power): ratio and round(ratio, 2) for power, ratio in seen.items()}
    eighty, most = seen[0.8], seen[0.95]
    if eighty is None or most is None:
        return "too few devices to have seen any crash rate, so nothing is proven"
    return f"a crash rate of {eighty:.1f}x the control's would have been seen with 80% chance, {most:.1f}x with 95%"
