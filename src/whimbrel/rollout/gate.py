"""May this rollout move, must it go back? The verdict over a rollout's closed windows.

1. Proven harm goes back: the weighted average of the guardrails' E-values, over every stage's cohort, reaches 1/alpha.
   The weights are fixed by the plan before anything is seen, so the whole rollout has one false-alarm budget.
2. The kill switch is not statistical: went_back >= max(2, 10% of those activated), or 1 of 1.
3. A stage is promoted when it soaked, enough devices reported, nothing was proven, and every estimate keeps its limit.
   Missing data never promotes: what is asked for and not reported holds.
4. The verdict explains itself, and says how large a harm would have been seen.

Called by the controller after every window, and by anyone who replays stored windows. Pure: the same windows give the
same verdict.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from whimbrel.health.evidence import (
    MeanWindow,
    RateWindow,
    detectable_ratio,
    log_mean_exp,
    mean_log_e,
    mean_statistic,
    one_sample_log_e,
    one_sided_rho,
    rate_log_e,
)
from whimbrel.health.sketch import count_above
from whimbrel.health.tally import Cell
from whimbrel.rollout.plan import Plan, SuccessCriteria

TOLERATED_RATIO = 1.1  # crash, error, silence and latency rates within this of the control's are no harm
TOLERATED_DROP = 0.005  # half a point of accuracy
FAILURE_LIMIT = 0.02  # installs that fail or go back: the control's rate is 0, so one sample against this
LATENCY_TAIL = 0.01  # p99: at most this share over the limit
SEEN_DROP = 0.02  # the drop of accuracy at which the mean test is made sharpest

Move = Literal["wait", "hold", "advance", "finish", "roll_back"]


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Distinct devices of one stage, from their announcements and reports."""

    assigned_t: int = 0
    assigned_c: int = 0
    activated_t: int = 0
    placebo_c: int = 0
    reported_t: int = 0  # of those activated, with at least one report since
    failed_t: int = 0  # could not install or did not pass the probe
    went_back_t: int = 0  # activated, and went back by themselves

    def plus(self, other: "Counts") -> "Counts":
        """Both together."""
        return Counts(**{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__})


class Verdict(msgspec.Struct, frozen=True):
    """What to do, why in one sentence, and the figures behind it."""

    move: Move
    because: str
    evidence: dict[str, Any]


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate looks at: closed windows only, and the counts of each stage so far.

    `cohort`: the stage whose devices speak for the present one; itself, unless none of a small fleet falls in it.
    """

    stage: int
    soaked_s: float
    cells: Sequence[Cell]
    counts: Mapping[int, Counts]
    hour_s: float = 3600.0
    cohort: int | None = None

    @property
    def judged(self) -> int:
        """The stage whose estimates and counts promotion looks at."""
        return self.stage if self.cohort is None else self.cohort


def judge(plan: Plan, now: Situation) -> Verdict:
    """The verdict. Never raises for a valid plan; what it cannot tell it holds."""
    total = Counts()
    for counts in now.counts.values():
        total = total.plus(counts)
    guards = _guardrails(plan, now.stage)
    logs, weights, table = _weigh(plan, now, guards, total)
    log_e = log_mean_exp(logs, weights)
    criteria = plan.criteria(now.stage)
    estimates = _estimates(now)
    evidence: dict[str, Any] = {
        "log_e": round(log_e, 6),
        "log_e_needed": round(math.log(1 / plan.alpha), 6),
        "guardrails": table,
        "estimates": estimates,
        "counts": msgspec.to_builtins(now.counts.get(now.judged, Counts())),
        "windows": len({cell.window for cell in now.cells}),
    }
    if stopped := _kill_switch(total):
        return _harm(plan, now, stopped, evidence, severe=True)
    if log_e >= math.log(1 / plan.alpha):
        worst = max(table, key=lambda name: float(table[name]))
        broken = _broken_limits(criteria, estimates)
        sentence = (
            f"harm is proven: {worst} (ln E {log_e:.2f}, needed {math.log(1 / plan.alpha):.2f}; "
            f"{_describe(worst, estimates)}){'; past the limit of ' + ', '.join(broken) if broken else ''}"
        )
        return _harm(plan, now, sentence, evidence, severe=bool(broken))
    return _promotion(plan, now, criteria, estimates, evidence)


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


# --- evidence ---

Guardrail = Callable[[Sequence[Cell]], float]  # one stage's cells -> ln E


def _guardrails(plan: Plan, stage: int) -> dict[str, Guardrail]:
    criteria = plan.criteria(stage)
    guards: dict[str, Guardrail] = {
        "crash": lambda cells: _rate(cells, lambda cell: (cell.crashed, cell.at_risk)),
        "error": lambda cells: _rate(cells, lambda cell: (cell.error_share, cell.error_units)),
        "silence": lambda cells: _rate(cells, lambda cell: (cell.overdue, cell.due)),
        "accuracy": lambda cells: _mean(cells, "accuracy", alpha=plan.alpha),
    }
    # Criteria of any stage take their place in the budget from the start: weights are fixed before anything is seen.
    every = [plan.criteria(index) for index in range(len(plan.stages))]
    if any(each.error_rate_max for each in every):
        limit = criteria.error_rate_max
        guards["error_limit"] = lambda cells: _limit(cells, lambda cell: (cell.error_share, cell.error_units), limit)
    if any(each.latency_p99_max_ms for each in every):
        bound = criteria.latency_p99_max_ms
        guards["latency_limit"] = lambda cells: _limit(cells, _slow(bound), LATENCY_TAIL if bound else None)
        guards["latency"] = lambda cells: _rate(cells, _slow(bound)) if bound else 0.0
    return guards


def _weigh(
    plan: Plan, now: Situation, guards: Mapping[str, Guardrail], total: Counts
) -> tuple[list[float], list[float], dict[str, float]]:
    """The ln E of every guardrail and stage with its weight, and the ln E a guardrail (its best stage) for people."""
    stages = _stage_weights(len(plan.stages))
    share = 1 / (len(guards) + 1)
    logs, weights, table = [], [], {}
    by_stage: dict[int, list[Cell]] = defaultdict(list)
    for cell in now.cells:
        by_stage[cell.stage].append(cell)
    for name, guard in guards.items():
        each = [guard(by_stage[stage]) if stage in by_stage else 0.0 for stage in range(len(stages))]
        logs += each
        weights += [share * weight for weight in stages]
        table[name] = round(max(each), 6)
    attempts = total.activated_t + total.failed_t
    failures = one_sample_log_e(events=total.failed_t + total.went_back_t, trials=attempts, limit=FAILURE_LIMIT)
    logs.append(failures)
    weights.append(share)
    table["failure"] = round(failures, 6)
    return logs, weights, table


def _stage_weights(stages: int) -> list[float]:
    """Half on the first stage, the rest evenly: an average of E-processes that start at 1 stays one."""
    return [1.0] if stages == 1 else [0.5, *([0.5 / (stages - 1)] * (stages - 1))]


Read = Callable[[Cell], tuple[float, float]]  # a cell's events and exposure


def _pairs(cells: Iterable[Cell]) -> list[tuple[tuple[int, int], list[Cell], list[Cell]]]:
    """Cells of both arms by (window, age bucket), in order: like is compared with like."""
    groups: dict[tuple[int, int], tuple[list[Cell], list[Cell]]] = defaultdict(lambda: ([], []))
    for cell in cells:
        groups[cell.window, cell.age_bucket][cell.role == "control"].append(cell)
    return [(key, *groups[key]) for key in sorted(groups)]


def _rate(cells: Sequence[Cell], read: Read) -> float:
    return rate_log_e(
        (RateWindow(*_sum(treated, read), *_sum(control, read)) for _, treated, control in _pairs(cells)),
        ratio=TOLERATED_RATIO,
    )


def _limit(cells: Sequence[Cell], read: Read, limit: float | None) -> float:
    """One sample against an absolute limit; no evidence where the control breaks it too, or none is in force."""
    if not limit or limit >= 1:
        return 0.0
    events, trials = _sum([cell for cell in cells if cell.role == "treated"], read)
    events_c, trials_c = _sum([cell for cell in cells if cell.role == "control"], read)
    if trials_c and events_c / trials_c > limit:
        return 0.0
    return one_sample_log_e(events=events, trials=trials, limit=limit)


def _mean(cells: Sequence[Cell], metric: str, *, alpha: float) -> float:
    windows: dict[int, list[MeanWindow]] = defaultdict(list)
    for (window, _), treated, control in _pairs(cells):
        windows[window].append(MeanWindow(*_moments(treated, metric), *_moments(control, metric)))
    precision, total = mean_statistic((windows[window] for window in sorted(windows)), tolerance=TOLERATED_DROP)
    rho = one_sided_rho(v_opt=2 * math.log(1 / alpha) / (SEEN_DROP - TOLERATED_DROP) ** 2, alpha=alpha)
    return mean_log_e(precision=precision, total=total, rho=rho)


def _sum(cells: Iterable[Cell], read: Read) -> tuple[float, float]:
    events = exposure = 0.0
    for cell in cells:
        one, at = read(cell)
        events += one
        exposure += at
    return events, exposure


def _slow(bound_ms: float | None) -> Read:
    def read(cell: Cell) -> tuple[float, float]:
        return count_above(cell.latency, bound_ms or math.inf), sum(cell.latency.values())

    return read


def _moments(cells: Iterable[Cell], metric: str) -> tuple[float, float, float]:
    n = total = squares = 0.0
    for cell in cells:
        if seen := cell.metrics.get(metric):
            n, total, squares = n + seen.n, total + seen.sum, squares + seen.sumsq
    return n, total, squares


# --- promotion ---


def _estimates(now: Situation) -> dict[str, Any]:
    """Point estimates of the stage that is judged: rates and means of both arms, None where nothing was reported."""
    cells = [cell for cell in now.cells if cell.stage == now.judged]
    arms = {"treated": [], "control": []}  # type: dict[str, list[Cell]]
    for cell in cells:
        arms[cell.role].append(cell)

    def ratio(events: float, exposure: float) -> float | None:
        return round(events / exposure, 9) if exposure else None

    seen: dict[str, Any] = {}
    for role, group in arms.items():
        n, total, _ = _moments(group, "accuracy")
        seen[role] = {
            "device_windows": sum(cell.at_risk for cell in group),
            "crash_rate": ratio(*_sum(group, lambda cell: (cell.crashed, cell.at_risk))),
            "error_rate": ratio(*_sum(group, lambda cell: (cell.error_share, cell.error_units))),
            "silence": ratio(*_sum(group, lambda cell: (cell.overdue, cell.due))),
            "accuracy": ratio(total, n),
            "crashed": sum(cell.crashed for cell in group),
        }
    seen["latency"], seen["latency_control"] = _latency(arms["treated"]), _latency(arms["control"])
    return seen


def _latency(cells: Iterable[Cell]) -> dict[int, int]:
    merged: dict[int, int] = defaultdict(int)
    for key, count in itertools.chain.from_iterable(cell.latency.items() for cell in cells):
        merged[key] += count
    return dict(sorted(merged.items()))


def _share_over(latency: Mapping[int, int], bound_ms: float) -> float | None:
    total = sum(latency.values())
    return count_above(latency, bound_ms) / total if total else None


def _asked(criteria: SuccessCriteria, estimates: dict[str, Any]) -> list[tuple[str, float | None, float]]:
    """Every limit in force: its name, the estimate (None where nothing was reported), the limit."""
    treated, control = estimates["treated"], estimates["control"]
    asked: list[tuple[str, float | None, float]] = []
    if criteria.error_rate_max is not None:
        asked.append(("error_rate_max", treated["error_rate"], criteria.error_rate_max))
    if criteria.accuracy_drop_max is not None:
        both = treated["accuracy"] is not None and control["accuracy"] is not None
        drop = control["accuracy"] - treated["accuracy"] if both else None
        asked.append(("accuracy_drop_max", drop, criteria.accuracy_drop_max))
    if criteria.latency_p99_max_ms is not None:
        asked.append(
            ("latency_p99_max_ms", _share_over(estimates["latency"], criteria.latency_p99_max_ms), LATENCY_TAIL)
        )
    return asked


def _broken_limits(criteria: SuccessCriteria, estimates: dict[str, Any]) -> list[str]:
    return [name for name, value, limit in _asked(criteria, estimates) if value is not None and value > limit]


def _promotion(
    plan: Plan, now: Situation, criteria: SuccessCriteria, estimates: dict[str, Any], evidence: dict[str, Any]
) -> Verdict:
    stage = plan.stages[now.stage]
    soak_s = stage.duration_hours * now.hour_s
    if now.soaked_s < soak_s:
        return Verdict("wait", f"stage {stage.name} has soaked {now.soaked_s:.0f} of {soak_s:.0f} s", evidence)
    counts = now.counts.get(now.judged, Counts())
    if doubt := _doubt(plan, counts, criteria, estimates):
        return Verdict("hold", f"stage {stage.name} has soaked, but {doubt}", evidence)
    judged = plan.stages[now.judged].name
    sentence = f"no harm in {counts.reported_t} devices of stage {judged}; {_would_have_seen(plan, now, evidence)}"
    if plan.share_buckets(now.stage) >= 1_000_000:
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
    for name, value, limit in _asked(criteria, estimates):
        if value is None:
            return f"{name} is asked for, and nothing about it was reported"
        if value > limit:
            also = _control_breaks(name, estimates, criteria)
            return f"{name} is at {value:.4g}, over {limit:.4g}{' (the control breaks it too)' if also else ''}"
    return None


def _control_breaks(name: str, estimates: dict[str, Any], criteria: SuccessCriteria) -> bool:
    if name == "error_rate_max":
        rate, limit = estimates["control"]["error_rate"], criteria.error_rate_max
    elif name == "latency_p99_max_ms" and criteria.latency_p99_max_ms is not None:
        rate, limit = _share_over(estimates["latency_control"], criteria.latency_p99_max_ms), LATENCY_TAIL
    else:
        return False  # a drop is against the control
    return rate is not None and limit is not None and rate > limit


def _would_have_seen(plan: Plan, now: Situation, evidence: dict[str, Any]) -> str:
    """How large a harm this stage would have shown, with 80% and 95% chance: what silence here is worth."""
    cells = [cell for cell in now.cells if cell.stage == now.judged]
    treated = _sum([cell for cell in cells if cell.role == "treated"], lambda cell: (cell.crashed, cell.at_risk))
    control = _sum([cell for cell in cells if cell.role == "control"], lambda cell: (cell.crashed, cell.at_risk))
    weight = _stage_weights(len(plan.stages))[now.judged] / len(evidence["guardrails"])
    seen = {
        power: detectable_ratio(
            exposure_t=treated[1],
            exposure_c=control[1],
            events_c=control[0],
            alpha=plan.alpha * weight,
            power=power,
            tolerance=TOLERATED_RATIO,
        )
        for power in (0.8, 0.95)
    }
    evidence["detectable_crash_ratio"] = {str(power): ratio and round(ratio, 2) for power, ratio in seen.items()}
    eighty, most = seen[0.8], seen[0.95]
    if eighty is None or most is None:
        return "too few devices to have seen any crash rate, so nothing is proven"
    return f"a crash rate of {eighty:.1f}x the control's would have been seen with 80% chance, {most:.1f}x with 95%"


def _describe(guardrail: str, estimates: dict[str, Any]) -> str:
    treated, control = estimates["treated"], estimates["control"]
    field = {"crash": "crash_rate", "error": "error_rate", "error_limit": "error_rate"}.get(guardrail, guardrail)
    if field in treated:
        return f"{field.replace('_', ' ')} {_percent(treated[field])} against {_percent(control[field])} in the control"
    return f"{treated['device_windows']} device-windows on the new version"


def _percent(value: float | None) -> str:
    return "nothing reported" if value is None else f"{100 * value:.2f}%"
