"""May a candidate in the shadow go on to serve, or must it be stopped? The verdict over a shadow stage's windows.

1. It is stopped when it is proven to disagree, to fail, to end its process or to be slower than the plan allows: one
   sample against each limit, in device-windows. A device's windows are alike, and its calls within a window more so:
   a device-window is one value in [0, 1], and is bet on (`bets`).
2. Where only some slices (hardware classes, systems) are bad and the rest is clean, these alone are stopped.
3. It goes on when enough inputs were compared on enough devices and every estimate keeps its limit; with `when_proven`
   also every test turned round. Missing data never promotes.
4. Time: the share of device-windows whose ratio is over the limit. A candidate that keeps it is over in at most half.

Called by the gate, which also compares the app of these devices with its control.
"""

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from whimbrel.gate.bets import over_log_e, under_log_e
from whimbrel.gate.evidence import e_bh, log_mean_exp
from whimbrel.gate.guardrails import CLASS_SHARE, PROVEN_ALPHA
from whimbrel.gate.shadow_ledger import ShadowLedger, candidate_alpha
from whimbrel.health.shadow import Units
from whimbrel.health.sketch import GAMMA, count_above, quantile_key
from whimbrel.plan.measures import FAILURE_LIMIT
from whimbrel.plan.plan import Plan
from whimbrel.policy.shadow import ShadowStage

_YES = 1  # the bucket that begins at 1: for what happened in a device-window or did not
_HALF = 0.5  # of the device-windows may be over the ratio of times by chance

# Parts of the stage's budget.
_PARTS = {"agreement": 3.0, "failures": 2.0, "crash": 2.0}
_LATENCY = {"latency": 1.0}


class CandidateFinding(msgspec.Struct, frozen=True):
    """`bad`: the candidate is stopped, or in `classes` alone. Else `doubt` says what is missing; "" for nothing."""

    bad: bool
    because: str
    doubt: str
    evidence: dict[str, Any]
    classes: tuple[str, ...] = ()


def judge_candidate(
    plan: Plan, stage: int, ledger: ShadowLedger, *, devices: int, slices: Mapping[str, tuple[str, ...]]
) -> CandidateFinding:
    """Judge the candidate by the windows of its shadow stage. `devices`: how many reported an input. `slices`: those
    that have a share of the budget, by label.
    """
    asked = plan.stages[stage].shadow
    if asked is None:
        raise ValueError(f"stage {stage} of the plan is no shadow stage")
    units = ledger.totals.get(stage, Units())
    of_slices = ledger.slices.get(stage, {})
    by_label = {label: {name: of_slices.get(name, Units()) for name in names} for label, names in slices.items()}
    parts = _PARTS | (_LATENCY if asked.latency_ratio_max is not None else {})
    weights = {name: part / sum(parts.values()) for name, part in parts.items()}
    alpha = candidate_alpha(plan)
    logs = _logs(units, asked)
    slice_logs = {
        label: {name: _logs(each, asked) for name, each in units_of.items()} for label, units_of in by_label.items()
    }
    lanes = [(logs[name], weight * (1 - CLASS_SHARE if slices else 1)) for name, weight in weights.items()]
    for of_label in slice_logs.values():
        part = CLASS_SHARE / len(slice_logs) / len(of_label)
        lanes += [(each[name], weight * part) for each in of_label.values() for name, weight in weights.items()]
    log_e, needed = log_mean_exp([log for log, _ in lanes], [weight for _, weight in lanes]), math.log(1 / alpha)
    estimates = _estimates(units, asked)
    evidence: dict[str, Any] = {
        "log_e": round(log_e, 6),
        "log_e_needed": round(needed, 6),
        "guardrails": {name: round(logs[name], 6) for name in sorted(weights)},
        "shadow": estimates,
    }
    if log_e >= needed:
        bad = _harmed(slice_logs, weights, alpha, evidence)
        every = (logs, *(each for of_label in slice_logs.values() for each in of_label.values()))
        lead = max(sorted(weights), key=lambda name: max(log[name] for log in every))
        about = _estimates(of_slices[bad[0]], asked) if bad else estimates
        where = f" on {', '.join(bad)}, and nowhere else" if bad else ""
        sentence = (
            f"{_sentence(lead, about, asked)}{where}, which is proven (ln E {log_e:.2f}, needed {needed:.2f}; "
            f"{about['inputs']} inputs in {about['device_windows']} device-windows); it has answered nobody"
        )
        return CandidateFinding(True, sentence, "", evidence, bad)
    doubt = _doubt(plan, asked, units, estimates, devices) or _unproven(plan, asked, units, evidence)
    return CandidateFinding(False, "" if doubt else _clean(units, estimates, devices), doubt, evidence)


def _tests(units: Units, asked: ShadowStage) -> dict[str, tuple[dict[int, int], int, float]]:
    """Of every test: the device-windows' values in buckets but for zeros, their number, and the limit of the mean."""
    slow = timed = 0
    if asked.latency_ratio_max is not None:
        slow, timed = count_above(units.ratios, asked.latency_ratio_max), sum(units.ratios.values())
    return {
        "agreement": (units.disagreed, units.compared_windows, 1 - asked.agreement_min),
        "failures": (units.failed, units.windows, asked.error_rate_max),
        "crash": ({_YES: units.crashed_windows}, units.windows, FAILURE_LIMIT),
        "latency": ({_YES: slow}, timed, _HALF),
    }


def _logs(units: Units, asked: ShadowStage) -> dict[str, float]:
    return {
        name: over_log_e(values, count=count, limit=limit) if count else 0.0
        for name, (values, count, limit) in _tests(units, asked).items()
    }


def _harmed(
    slice_logs: dict[str, dict[str, dict[str, float]]],
    weights: dict[str, float],
    alpha: float,
    evidence: dict[str, Any],
) -> tuple[str, ...]:
    """The slices of one label that are stopped alone: by e-BH, fewer than half, the rest clean, and the cleanest."""
    best: tuple[float, list[str]] | None = None
    for of_label in slice_logs.values():
        names = sorted(of_label)
        own = [log_mean_exp([of_label[n][lane] for lane in weights], list(weights.values())) for n in names]
        bad = [names[index] for index in e_bh(own, alpha=alpha)]
        if not bad or 2 * len(bad) >= len(names):
            continue
        rest = [log for name, log in zip(names, own, strict=True) if name not in bad]
        left = log_mean_exp(rest, [1 / len(rest)] * len(rest))
        if left < math.log(1 / alpha) / 2 and (best is None or left < best[0]):
            best = left, bad
    if best is None:
        return ()
    evidence["bad_classes"], evidence["rest_log_e"] = best[1], round(best[0], 6)
    return tuple(best[1])


def _estimates(units: Units, asked: ShadowStage) -> dict[str, Any]:
    """Point estimates, over device-windows; None where nothing was told."""
    sampled = units.inputs + units.dropped + units.skipped
    median = quantile_key(units.ratios, 0.5)
    estimates: dict[str, Any] = {
        "inputs": units.inputs,
        "compared": units.compared,
        "device_windows": units.windows,
        "agreement": _share(units.compared_windows - units.disagreed_share, units.compared_windows),
        "agreement_min": asked.agreement_min,
        "failures": _share(units.failed_share, units.windows),
        "crashed_windows": units.crashed_windows,
        "errors": units.errors,
        "crashed": units.crashed,
        "dropped": _share(units.dropped, sampled),
        "skipped": units.skipped,
        "latency_ratio": None if median is None else round(GAMMA**median, 3),
    }
    for name, buckets in (("active", units.active), ("candidate", units.candidate)):
        for text, p in (("p50", 0.5), ("p99", 0.99)):
            key = quantile_key(buckets, p)
            estimates[f"{name}_{text}_ms"] = None if key is None else round(GAMMA**key, 3)
    return estimates


def _share(part: float, whole: float) -> float | None:
    return round(part / whole, 9) if whole else None


def _sentence(lead: str, estimates: dict[str, Any], asked: ShadowStage) -> str:
    match lead:
        case "agreement":
            return (
                f"the candidate gives the active version's answer on {_percent(estimates['agreement'])} of the inputs, "
                f"and the plan asks for {_percent(asked.agreement_min)}"
            )
        case "failures":
            also = f" (it ended its process on {estimates['crashed']})" if estimates["crashed"] else ""
            return (
                f"the candidate fails on {_percent(estimates['failures'])} of the inputs that the active version "
                f"answers{also}, over the limit of {_percent(asked.error_rate_max)}"
            )
        case "crash":
            ended, windows = estimates["crashed_windows"], estimates["device_windows"]
            return f"the candidate ended its process in {ended} of {windows} windows"
    return (
        f"the candidate takes {_ratio(estimates['latency_ratio'])} the active version's time, "
        f"over the limit of {asked.latency_ratio_max:g}x"
    )


def _doubt(plan: Plan, asked: ShadowStage, units: Units, estimates: dict[str, Any], devices: int) -> str:
    if devices < plan.min_devices:
        return f"{devices} devices have told of an input in the shadow, and {plan.min_devices} must"
    if units.compared < asked.min_inputs:
        return f"{units.compared} inputs were compared in the shadow, and {asked.min_inputs} must be"
    agreement, failures = estimates["agreement"], estimates["failures"]
    if agreement is None or agreement < asked.agreement_min:
        return f"{_sentence('agreement', estimates, asked)}; that is not proven yet"
    if failures is None or failures > asked.error_rate_max:
        return f"{_sentence('failures', estimates, asked)}; that is not proven yet"
    if asked.latency_ratio_max is not None:
        if estimates["latency_ratio"] is None:
            return "latency_ratio_max is asked for, and no time was told"
        if estimates["latency_ratio"] > asked.latency_ratio_max:
            return f"{_sentence('latency', estimates, asked)}; that is not proven yet"
    return ""


def _unproven(plan: Plan, asked: ShadowStage, units: Units, evidence: dict[str, Any]) -> str:
    if plan.promote != "when_proven":
        return ""
    to_prove = ["agreement", "failures", *(["latency"] if asked.latency_ratio_max is not None else [])]
    tests = _tests(units, asked)
    logs = {name: under_log_e(tests[name][0], count=tests[name][1], limit=tests[name][2]) for name in to_prove}
    evidence["proofs"] = {name: round(log, 6) for name, log in sorted(logs.items())}
    missing = [name for name in to_prove if logs[name] < math.log(1 / PROVEN_ALPHA)]
    return f"it is not proven yet that {', '.join(missing)} keep within the plan's limits" if missing else ""


def _clean(units: Units, estimates: dict[str, Any], devices: int) -> str:
    sentence = (
        f"in the shadow the candidate gave the active version's answer on {_percent(estimates['agreement'])} of "
        f"{units.compared} inputs of {devices} devices; less than {_percent(agreement_proven(units))} is refuted"
    )
    if estimates["latency_ratio"] is not None:
        sentence += f"; it takes {_ratio(estimates['latency_ratio'])} the time"
    return sentence


def agreement_proven(units: Units) -> float:
    """The agreement that is proven at 95%, at any time: below it is refuted. 0 where nothing is."""
    low, high = 0.0, 1.0  # of disagreement: at `high` and above it is refuted
    for _ in range(40):
        middle = (low + high) / 2
        log = under_log_e(units.disagreed, count=units.compared_windows, limit=middle)
        low, high = (low, middle) if log >= math.log(1 / PROVEN_ALPHA) else (middle, high)
    return round(1 - high, 9)


def _percent(value: float | None) -> str:
    return "nothing told" if value is None else f"{100 * value:.2f}%"


def _ratio(value: float | None) -> str:
    return "an unknown multiple of" if value is None else f"{value:.2f}x"
