"""May an experiment stop: is an arm better, or does one do harm? The verdict over an experiment's closed windows.

1. Every arm is watched by the gate of rollouts, on its own part of the guardrails' budget: an arm whose harm is proven
   is stopped at once, whatever the primary metric says. So is one whose version was taken back elsewhere. Where the
   harm is in a few slices alone (gate/slices.py, gate/slice_guardrails.py), the arm goes on without these.
2. Nothing is decided while the arms are not split as their buckets say (sample-ratio mismatch), below the minimum
   sample, or before the minimum time. Missing data decides nothing.
3. The primary metric has an interval that may be looked at after every window (health/panel.py: one value a device),
   or, for crashes, the confidence set of the rates' ratio. alpha is split evenly over the arms (Bonferroni).
4. Ship: an arm whose interval lies above no effect, and whose estimate is at least the minimum effect; of several the
   one that is surest. Keep: every arm's interval lies below the minimum effect. Else it goes on until its time is over,
   and is inconclusive then.
5. One process decides from the beginning: with what devices were before taken off, as far as it is known. The plain
   interval is shown beside it and decides nothing: two chances would spend the budget twice.

Called by the controller, and by anyone who replays stored windows or writes a report. Pure: the same windows give the
same verdict, byte for byte. Needs numpy; nothing that a device imports imports this.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from whimbrel.gate.evidence import log_mean_exp, ratio_mismatch_log_bf
from whimbrel.gate.experiment_ledger import ExperimentLedger, Look
from whimbrel.gate.gate import judge
from whimbrel.gate.slice_guardrails import guardrail_harm
from whimbrel.gate.verdict import Counts, ExperimentMove, GateInput
from whimbrel.health.tally import Cell
from whimbrel.plan.experiment import Experiment, ExperimentVariant

SRM_ALPHA = 0.01  # a split that is right is called wrong in at most this share of experiments
_DAY_HOURS = 24.0
_CONCENTRATIONS = (1e2, 1e3, 1e4)  # of the prior: 1e4 alone sees half an arm missing from some thousands of devices on


class ExperimentVerdict(msgspec.Struct, frozen=True):
    """What to do, why in one sentence, and the figures behind it. `arm`: which one is stopped or shipped."""

    move: ExperimentMove
    because: str
    evidence: dict[str, Any]
    arm: str | None = None

    @property
    def slices(self) -> tuple[str, ...]:
        """The slices in which the arm is stopped, where `move` says so."""
        return tuple(self.evidence.get("stopped_slices", ()))


class ExperimentInput(msgspec.Struct, frozen=True, kw_only=True):
    """The gate's input without the windows. `counts`: by the place of an arm; `stopped`: arms that ended.

    `withdrawn`: by arm, why its version may no longer run; `without`: by arm, its slices that went back.
    """

    elapsed_s: float
    hour_s: float = 3600.0
    counts: Mapping[int, Counts]
    stopped: tuple[str, ...] = ()
    withdrawn: Mapping[str, str] = {}
    without: Mapping[str, tuple[str, ...]] = {}

    @property
    def days(self) -> float:
        """How long it runs, in days of the plan."""
        return self.elapsed_s / self.hour_s / _DAY_HOURS


# --- the verdict ---


def judge_experiment(
    plan: Experiment, now: ExperimentInput, ledger: ExperimentLedger, cells: Iterable[Cell] = ()
) -> ExperimentVerdict:
    """The verdict. Never raises for a valid plan; what it cannot tell it waits for, until the time is over."""
    ledger.fold(cells)
    live = [(place, variant) for place, variant in enumerate(plan.treated) if variant.id not in now.stopped]
    evidence = _evidence(plan, now, ledger, live)
    for place, variant in live:
        if harm := _harm(plan, now, ledger, place, evidence):
            if harm.slices:
                evidence["stopped_slices"] = list(harm.slices)
                return ExperimentVerdict("stop_slice", harm.because, evidence, variant.id)
            return ExperimentVerdict("stop_arm", harm.because, evidence, variant.id)
    if not live:
        return ExperimentVerdict("keep", f"every arm was stopped, so {plan.control_id} stays", evidence)
    over = now.days >= plan.duration_days
    doubt = _mismatch(plan, now, live, evidence) or _too_little(plan, now, live, evidence)
    if doubt:
        if over:
            return ExperimentVerdict("end", f"its {plan.duration_days:g} days are over, and {doubt}", evidence)
        return ExperimentVerdict(
            "hold" if "sample_ratio" in evidence and "mismatch" in evidence else "wait", doubt, evidence
        )
    return _decision(plan, ledger, live, evidence, over=over)


class _Harm(msgspec.Struct, frozen=True):
    """Why an arm is stopped; `slices`: in these alone."""

    because: str
    slices: tuple[str, ...] = ()


def _harm(
    plan: Experiment, now: ExperimentInput, ledger: ExperimentLedger, place: int, evidence: dict[str, Any]
) -> _Harm | None:
    variant = plan.treated[place]
    if reason := now.withdrawn.get(variant.id):
        return _Harm(f"{variant.id} is stopped: its version {reason}")
    counts = now.counts.get(place, Counts())
    gone = tuple(sorted(now.without.get(variant.id, ())))
    gate_input = GateInput(stage=0, soaked_s=0.0, counts={0: counts}, hour_s=now.hour_s, without=gone)
    verdict = judge(plan.guard_plan(variant), gate_input, ledger.ledgers[place])
    of_arm = evidence["arms"][variant.id]
    of_arm["guardrails"] = verdict.evidence["guardrails"]
    of_arm["log_e"], of_arm["log_e_needed"] = verdict.evidence["log_e"], verdict.evidence["log_e_needed"]
    if "classes" in verdict.evidence:
        of_arm["slices"] = verdict.evidence["classes"]
    if verdict.move == "slice_back":
        return _stopped_in(variant, verdict.classes, verdict.because)
    if verdict.move == "roll_back":
        return _Harm(f"{variant.id} is stopped: {verdict.because}")
    for guard in plan.own_guardrails:
        look = ledger.guards[place].get(guard.name)
        if look is not None:
            of_arm["own_guardrails"][guard.name] = msgspec.to_builtins(look)
    for guard in plan.own_guardrails:
        harm = guardrail_harm(ledger, place, guard)
        if harm is not None and harm.slices:
            return _stopped_in(variant, harm.slices, harm.because)
        if harm is not None:
            return _Harm(f"{variant.id} is stopped: {harm.because}")
    return None


def _stopped_in(variant: ExperimentVariant, slices: tuple[str, ...], because: str) -> _Harm:
    return _Harm(f"{variant.id} is stopped in {', '.join(slices)} alone: {because}", slices)


def _mismatch(
    plan: Experiment, now: ExperimentInput, live: Sequence[tuple[int, ExperimentVariant]], evidence: dict[str, Any]
) -> str | None:
    """Whether devices fall into the arms as their buckets say, at every step; arms that were stopped are left out."""
    ranges = plan.ranges()
    names = [plan.control_id, *(variant.id for _, variant in live)]
    total = sum(ranges[name].buckets for name in names)
    expected = [ranges[name].buckets / total for name in names]
    first = now.counts.get(live[0][0], Counts())
    arms = [now.counts.get(place, Counts()) for place, _ in live]
    log_factors = {}
    because = None
    for step, control, treated in (
        ("assigned", first.assigned_c, [each.assigned_t for each in arms]),
        ("activated", first.placebo_c, [each.activated_t for each in arms]),
        ("reporting", first.reported_c, [each.reported_t for each in arms]),
    ):
        counts = [control, *treated]
        log_factors[step] = round(_split_log_bf([count / plan.cluster for count in counts], expected), 6)
        if because is None and log_factors[step] >= math.log(1 / SRM_ALPHA):
            evidence["mismatch"] = step
            shown = ", ".join(
                f"{name} {n} ({share:.1%})" for name, n, share in zip(names, counts, expected, strict=True)
            )
            because = (
                f"the arms are not split as their buckets say: of {sum(counts)} devices that are {step}, {shown} "
                "expected: an arm loses devices, so what is left cannot be compared"
            )
    evidence["sample_ratio"] = log_factors
    return because


def _split_log_bf(counts: Sequence[float], expected: Sequence[float]) -> float:
    """ln of the Bayes factor against the expected split: an average over priors, so that small fleets are seen too."""
    logs = [ratio_mismatch_log_bf([counts], expected, concentration=each)[-1] for each in _CONCENTRATIONS]
    return log_mean_exp(logs, [1 / len(logs)] * len(logs))


def _too_little(
    plan: Experiment, now: ExperimentInput, live: Sequence[tuple[int, ExperimentVariant]], evidence: dict[str, Any]
) -> str | None:
    reported = now.counts.get(live[0][0], Counts()).reported_c
    reported += sum(now.counts.get(place, Counts()).reported_t for place, _ in live)
    evidence["sample"] = {"reported": reported, "needed": plan.minimum_sample_size}
    if reported < plan.minimum_sample_size:
        return f"{reported} of the {plan.minimum_sample_size} devices that are asked for have reported"
    if now.days < plan.minimum_days:
        return f"it runs for {now.days:.2f} of at least {plan.minimum_days:g} days"
    return None


def _decision(
    plan: Experiment,
    ledger: ExperimentLedger,
    live: Sequence[tuple[int, ExperimentVariant]],
    evidence: dict[str, Any],
    *,
    over: bool,
) -> ExperimentVerdict:
    primary, floor = plan.primary, plan.primary.minimum_effect or 0.0
    looks = [(variant, ledger.arms[place]) for place, variant in live]
    missing = [variant.id for variant, now in looks if now.deciding is None]
    if missing:
        because = f"too few devices of {', '.join(missing)} or of {plan.control_id} have told {primary.name}"
        return ExperimentVerdict("end" if over else "wait", f"{_over(plan) * over}{because}", evidence)
    gains = {variant.id: benefit(plan, now.deciding) for variant, now in looks if now.deciding is not None}
    better = [name for name, gain in gains.items() if gain.low > 0 and gain.estimate >= floor]
    if better:
        best = max(better, key=lambda name: gains[name].low)
        sentence = f"{best} is better than {plan.control_id}: {words(plan, ledger, best)}"
        others = [name for name in gains if name != best and gains[name].high > gains[best].low]
        if others:
            sentence += f"; it is not told apart from {', '.join(others)}"
        return ExperimentVerdict("ship", sentence, evidence, best)
    if all(gain.high < floor or gain.high <= 0 for gain in gains.values()):
        worth = f"by {floor:g} or more" if floor else "at all"
        intervals = "; ".join(f"{name}: {words(plan, ledger, name)}" for name in gains)
        return ExperimentVerdict("keep", f"no arm is better than {plan.control_id} {worth}: {intervals}", evidence)
    intervals = "; ".join(f"{name}: {words(plan, ledger, name)}" for name in gains)
    if over:
        return ExperimentVerdict("end", f"{_over(plan)}nothing is proven: {intervals}", evidence)
    return ExperimentVerdict("wait", f"nothing is proven yet: {intervals}", evidence)


def _over(plan: Experiment) -> str:
    return f"its {plan.duration_days:g} days are over, and "


def benefit(plan: Experiment, look: Look) -> Look:
    """The look turned so that more is better; of a ratio, the share of the control's rate that is saved."""
    if plan.primary.is_ratio:
        saved = Look(1 - look.estimate, 1 - look.high, 1 - look.low)
        return Look(-saved.estimate, -saved.high, -saved.low) if plan.primary.rises else saved
    return look if plan.primary.rises else Look(-look.estimate, -look.high, -look.low)


def words(plan: Experiment, ledger: ExperimentLedger, arm: str) -> str:
    """An arm's interval, as a sentence says it."""
    place = [variant.id for variant in plan.treated].index(arm)
    now, sure = ledger.arms[place], f"{100 * (1 - plan.arm_alpha):g}%"
    if now.deciding is None:
        return "no interval yet"
    look = now.deciding
    if plan.primary.is_ratio:
        return f"crash rate {look.estimate:.3g} times the control's ({sure} interval {look.low:.3g} to {look.high:.3g})"
    text = f"{plan.primary.name} {look.estimate:+.4g} ({sure} interval {look.low:+.4g} to {look.high:+.4g}"
    if now.theta:
        text += f", what devices were before explains {now.explained:.0%} of the variance"
    return text + ")"


def _evidence(
    plan: Experiment, now: ExperimentInput, ledger: ExperimentLedger, live: Sequence[tuple[int, ExperimentVariant]]
) -> dict[str, Any]:
    arms: dict[str, Any] = {}
    alive = {variant.id for _, variant in live}
    for place, variant in enumerate(plan.treated):
        looks, name = ledger.arms[place], plan.primary.name
        treated, control = ledger.panel(place, "treated", name), ledger.panel(place, "control", name)
        arms[variant.id] = {
            "live": variant.id in alive,
            "counts": msgspec.to_builtins(now.counts.get(place, Counts())),
            "devices": treated.n,
            "devices_control": control.n,
            "with_before": min(treated.both, control.both),
            "deciding": _numbers(looks.deciding),
            "plain": _numbers(looks.plain),
            "theta": round(looks.theta, 9),
            "explained": round(looks.explained, 9),
            "own_guardrails": {},
        }
        if now.without.get(variant.id):
            arms[variant.id]["without"] = sorted(now.without[variant.id])
        if plan.primary.is_ratio:
            arms[variant.id]["rates"] = list(ledger.rates(place))
    return {"primary": plan.primary.name, "arms": arms, "days": round(now.days, 6), "windows": ledger.windows}


def _numbers(look: Look | None) -> dict[str, float | None] | None:
    if look is None:
        return None
    ends = {"estimate": look.estimate, "low": look.low, "high": look.high}
    return {name: round(value, 9) if math.isfinite(value) else None for name, value in ends.items()}
