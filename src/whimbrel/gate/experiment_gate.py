"""May an experiment stop: is an arm better, or does one do harm? The verdict over an experiment's closed windows.

1. Every arm is watched by the gate of rollouts, on its own part of the guardrails' budget: an arm whose harm is proven
   is stopped at once, whatever the primary metric says. So is one whose version was taken back elsewhere.
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

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from whimbrel.gate.differences import Difference, adjusted, correlation, difference, half_width, slope, two_sided_rho
from whimbrel.gate.evidence import GAINS, log_mean_exp, ratio_mismatch_log_bf
from whimbrel.gate.gate import judge
from whimbrel.gate.ledger import Ledger
from whimbrel.gate.verdict import Counts, ExperimentMove, GateInput
from whimbrel.health.panel import Panel
from whimbrel.health.tally import Cell
from whimbrel.plan.experiment import Experiment, ExperimentVariant, GuardrailMetric

SRM_ALPHA = 0.01  # a split that is right is called wrong in at most this share of experiments
_DAY_HOURS = 24.0
_CONCENTRATIONS = (1e2, 1e3, 1e4)  # of the prior: 1e4 alone sees half an arm missing from some thousands of devices on


class ExperimentVerdict(msgspec.Struct, frozen=True):
    """What to do, why in one sentence, and the figures behind it. `arm`: which one is stopped or shipped."""

    move: ExperimentMove
    because: str
    evidence: dict[str, Any]
    arm: str | None = None


class ExperimentInput(msgspec.Struct, frozen=True, kw_only=True):
    """The gate's input without the windows. `counts`: by the place of an arm; `stopped`: arms that ended.

    `withdrawn`: by arm, why its version may no longer run.
    """

    elapsed_s: float
    hour_s: float = 3600.0
    counts: Mapping[int, Counts]
    stopped: tuple[str, ...] = ()
    withdrawn: Mapping[str, str] = {}

    @property
    def days(self) -> float:
        """How long it runs, in days of the plan."""
        return self.elapsed_s / self.hour_s / _DAY_HOURS


class Look(msgspec.Struct, frozen=True):
    """An arm against the control after a window: an estimate and its interval. Of `crash_rate`: the rates' ratio."""

    estimate: float
    low: float
    high: float


class ArmNow(msgspec.Struct):
    """What is known of an arm's primary metric: the look that decides, and the plain one beside it."""

    deciding: Look | None = None
    plain: Look | None = None
    theta: float = 0.0
    explained: float = 0.0  # the share of the variance between devices that what they were before explains


class _Compared:
    """One metric of one arm against the control, window by window: mixture parameters are fixed when first known."""

    def __init__(self, *, alpha: float, sample: float) -> None:
        self.alpha, self.sample = alpha, sample
        self.rhos: dict[str, float] = {}
        self.theta: float | None = None

    def look(self, treated: Panel, control: Panel) -> ArmNow:
        theta = self.theta
        plain = difference(treated, control)
        settled = adjusted(treated, control, theta=theta) if theta is not None else None
        # theta of the next window: this one's sums are then earlier ones.
        self.theta = slope([treated, control])
        devices = treated.n + control.n
        return ArmNow(
            deciding=self._interval("deciding", settled or plain, devices),
            plain=self._interval("plain", plain, devices),
            theta=theta if settled is not None and theta is not None else 0.0,
            explained=correlation([treated, control]) ** 2 if settled is not None else 0.0,
        )

    def _interval(self, name: str, estimate: Difference | None, devices: int) -> Look | None:
        if estimate is None:
            return None
        rho = self.rhos.get(name)
        if rho is None:
            # Tightest at about the sample that is asked for; what fixed it is not looked at itself.
            v_opt = estimate.information * max(1.0, self.sample / devices)
            self.rhos[name] = two_sided_rho(v_opt=v_opt, alpha=self.alpha)
            return None
        width = half_width(estimate, rho=rho, alpha=self.alpha)
        return Look(estimate.estimate, estimate.estimate - width, estimate.estimate + width)


class ExperimentLedger:
    """Everything an experiment's windows add up to. `keep`: called with every look, for a plot over time."""

    def __init__(self, plan: Experiment) -> None:
        self.plan = plan
        self.last = -1
        self.windows = 0
        self.ledgers = [Ledger(plan.guard_plan(variant)) for variant in plan.treated]
        self.panels: dict[tuple[int, str, str], Panel] = {}  # arm's place, role, metric
        self.arms = [ArmNow() for _ in plan.treated]
        self.guards: list[dict[str, Look]] = [{} for _ in plan.treated]
        self.history: list[tuple[int, int, ArmNow]] = []  # window, arm's place, what was known then
        self._crashes = [_Crashes() for _ in plan.treated]
        sample = float(plan.minimum_sample_size)
        self._primary = [_Compared(alpha=plan.arm_alpha, sample=sample) for _ in plan.treated]
        self._own = [
            {guard.name: _Compared(alpha=plan.own_guard_alpha(), sample=sample) for guard in plan.own_guardrails}
            for _ in plan.treated
        ]

    def fold(self, cells: Iterable[Cell]) -> None:
        """Closed windows, in order; each is folded once."""
        for window, group in itertools.groupby(cells, key=lambda cell: cell.window):
            if window <= self.last:
                continue
            self.last = window
            self.windows += 1
            self._window(window, list(group))

    def _window(self, window: int, cells: list[Cell]) -> None:
        for place, ledger in enumerate(self.ledgers):
            of_arm = [cell for cell in cells if cell.stage == place]
            if not of_arm:
                continue
            ledger.fold([msgspec.structs.replace(cell, stage=0) for cell in of_arm])
            for cell in of_arm:
                for metric, change in cell.panels.items():
                    key = place, cell.role, metric
                    self.panels[key] = self.panels.get(key, Panel()).plus(change)
            self._crashes[place].add(of_arm)
            self._look(window, place)

    def _look(self, window: int, place: int) -> None:
        name = self.plan.primary.name
        if self.plan.primary.is_ratio:
            look = self._crashes[place].look(alpha=self.plan.arm_alpha)
            now = ArmNow(deciding=look, plain=look)
        else:
            now = self._primary[place].look(self.panel(place, "treated", name), self.panel(place, "control", name))
        self.arms[place] = now
        self.history.append((window, place, now))
        for guard, compared in self._own[place].items():
            looks = compared.look(self.panel(place, "treated", guard), self.panel(place, "control", guard))
            if looks.deciding is not None:
                self.guards[place][guard] = looks.deciding

    def panel(self, place: int, role: str, metric: str) -> Panel:
        """The present sums of a metric."""
        return self.panels.get((place, role, metric), Panel())

    def rates(self, place: int) -> tuple[float | None, float | None]:
        """The crash rates of an arm and of its control."""
        return self._crashes[place].rates


class _Crashes:
    """Crashes of an arm and its control, by window and age: the confidence set of the ratio of the rates."""

    def __init__(self) -> None:
        self._rows: list[tuple[float, float, float, float]] = []

    def add(self, cells: Sequence[Cell]) -> None:
        ages: dict[int, list[float]] = {}
        for cell in cells:
            sums = ages.setdefault(cell.age_bucket, [0.0] * 4)
            first = 0 if cell.role == "treated" else 2
            sums[first] += cell.crashed
            sums[first + 1] += cell.at_risk
        self._rows += [(a, b, c, d) for _, (a, b, c, d) in sorted(ages.items()) if b > 0 and d > 0]

    @property
    def rates(self) -> tuple[float | None, float | None]:
        x_t, e_t, x_c, e_c = (sum(row[index] for row in self._rows) for index in range(4))
        return (x_t / e_t if e_t else None), (x_c / e_c if e_c else None)

    def look(self, *, alpha: float) -> Look | None:
        treated, control = self.rates
        if not self._rows or treated is None or control is None or not treated + control:
            return None
        low, high = ratio_set(np.array(self._rows), alpha=alpha / 2)  # two ends, each at half
        return Look(treated / control if control else math.inf, low, high)


def ratio_set(rows: "np.ndarray[Any, Any]", *, alpha: float) -> tuple[float, float]:
    """The ends of the confidence set of the rate ratio, each at `alpha`: `evidence.ratio_bounds` over arrays.

    `rows`: events and exposure of T, events and exposure of C, one window and stratum a row.
    """
    gains = np.array(GAINS)
    threshold = math.log(1 / alpha)

    def edge(x_t: Any, e_t: Any, x_c: Any, e_c: Any) -> float:
        def refuted(log_ratio: float) -> bool:
            null = math.exp(log_ratio) * e_t
            share = null / (null + e_c)
            logs = x_t.sum() * np.log(gains) - ((x_t + x_c)[:, None] * np.log1p(share[:, None] * (gains - 1))).sum(
                axis=0
            )
            top = float(logs.max())
            return top + math.log(float(np.exp(logs - top).mean())) >= threshold

        low, high = math.log(1e-4), math.log(1e4)
        if not refuted(low):
            return 0.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if refuted(middle) else (low, middle)
        return math.exp(low)

    x_t, e_t, x_c, e_c = rows.T
    above = edge(x_c, e_c, x_t, e_t)
    return edge(x_t, e_t, x_c, e_c), (1 / above if above else math.inf)


# --- the verdict ---


def judge_experiment(
    plan: Experiment, now: ExperimentInput, ledger: ExperimentLedger, cells: Iterable[Cell] = ()
) -> ExperimentVerdict:
    """The verdict. Never raises for a valid plan; what it cannot tell it waits for, until the time is over."""
    ledger.fold(cells)
    live = [(place, variant) for place, variant in enumerate(plan.treated) if variant.id not in now.stopped]
    evidence = _evidence(plan, now, ledger, live)
    for place, variant in live:
        if because := _harm(plan, now, ledger, place, evidence):
            return ExperimentVerdict("stop_arm", because, evidence, variant.id)
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


def _harm(
    plan: Experiment, now: ExperimentInput, ledger: ExperimentLedger, place: int, evidence: dict[str, Any]
) -> str | None:
    variant = plan.treated[place]
    if reason := now.withdrawn.get(variant.id):
        return f"{variant.id} is stopped: its version {reason}"
    counts = now.counts.get(place, Counts())
    gate_input = GateInput(stage=0, soaked_s=0.0, counts={0: counts}, hour_s=now.hour_s)
    verdict = judge(plan.guard_plan(variant), gate_input, ledger.ledgers[place])
    of_arm = evidence["arms"][variant.id]
    of_arm["guardrails"] = verdict.evidence["guardrails"]
    of_arm["log_e"], of_arm["log_e_needed"] = verdict.evidence["log_e"], verdict.evidence["log_e_needed"]
    if verdict.move in {"roll_back", "slice_back"}:
        return f"{variant.id} is stopped: {verdict.because}"
    for guard in plan.own_guardrails:
        look = ledger.guards[place].get(guard.name)
        if look is not None:
            of_arm["own_guardrails"][guard.name] = msgspec.to_builtins(look)
            if _worse(guard, look):
                return (
                    f"{variant.id} is stopped: {guard.name} is worse than {plan.control_id}'s by more than "
                    f"{guard.margin:g} (difference {look.estimate:+.4g}, interval {look.low:+.4g} to {look.high:+.4g})"
                )
    return None


def _worse(guard: GuardrailMetric, look: Look) -> bool:
    return look.high < -guard.margin if guard.rises else look.low > guard.margin


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
        log_factors[step] = round(_split_log_bf(counts, expected), 6)
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


def _split_log_bf(counts: Sequence[int], expected: Sequence[float]) -> float:
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
        if plan.primary.is_ratio:
            arms[variant.id]["rates"] = list(ledger.rates(place))
    return {"primary": plan.primary.name, "arms": arms, "days": round(now.days, 6), "windows": ledger.windows}


def _numbers(look: Look | None) -> dict[str, float | None] | None:
    if look is None:
        return None
    ends = {"estimate": look.estimate, "low": look.low, "high": look.high}
    return {name: round(value, 9) if math.isfinite(value) else None for name, value in ends.items()}
