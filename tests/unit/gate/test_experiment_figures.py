"""An experiment's intervals and sentences, whole, and each computed beside the code."""

import math
import random
from typing import Any

import msgspec
import pytest

from support.experiments import written
from whimbrel.gate.differences import adjusted, correlation, difference, slope
from whimbrel.gate.experiment_gate import ExperimentInput, ExperimentVerdict, judge_experiment
from whimbrel.gate.experiment_ledger import ExperimentLedger
from whimbrel.gate.verdict import Counts
from whimbrel.health.panel import Panel, moved
from whimbrel.health.tally import Cell
from whimbrel.plan.experiment import Experiment

COUNTS = Counts(assigned_t=40, assigned_c=40, activated_t=40, placebo_c=40, reported_t=40, reported_c=40)
ARMS = {
    "variants": [{"id": name, "model_version": "wake@1.0.0"} for name in ("control", "a", "b")],
    "allocation": {"control": 0.4, "a": 0.3, "b": 0.3},
}


def panel(mean: float, n: int = 40, *, known: int = 0, seed: int = 1, sd: float = 1.0, at_most: bool = False) -> Panel:
    """`n` devices around `mean`, of which the first `known` tell what they were before."""
    chance, total = random.Random(seed), Panel()
    raw = [chance.gauss(0, sd) for _ in range(n)]
    middle = sum(raw) / n
    for index, each in enumerate(raw):
        before = 5 + each + chance.gauss(0, 0.3) if index < known else None
        total = total.plus(moved(old=None, new=mean + each - middle, before=before))
    return total


def cells(window: int, treated: Panel, control: Panel, *, metric: str = "watch_time", **more: Any) -> list[Cell]:
    n = 40
    return [
        Cell(window=window, role=role, at_risk=n, sessions=n, panels={metric: each}, **{"stage": 0} | more)
        for role, each in (("treated", treated), ("control", control))
    ]


def looked_at(
    plan: Experiment,
    *windows: list[Cell],
    days: float = 0.1,
    counts: dict[int, Counts] | None = None,
    ledger: ExperimentLedger | None = None,
    **more: Any,
) -> ExperimentVerdict:
    now = ExperimentInput(
        elapsed_s=86400 * days, counts=counts or dict.fromkeys(range(len(plan.treated)), COUNTS), **more
    )
    told = [cell for window in windows for cell in window]
    return judge_experiment(plan, now, ledger or ExperimentLedger(plan), told)


NOTHING = Panel()


def width(variance: float, *, first: float, alpha: float, sample: float, devices: int) -> float:
    """Half of the interval: its mixture is tightest at the first variance, or at the sample that is asked for."""
    log = 2 * math.log(1 / alpha)
    rho = (1 / first) * max(1.0, sample / devices) / (log + math.log(1 + log))
    v = 1 / variance
    return math.sqrt((v + rho) * (log + math.log((v + rho) / rho))) / v


@pytest.mark.parametrize("sample", [60, 400])
def test_the_interval_is_that_of_the_panels_with_a_mixture_fixed_by_the_window_before(sample: int) -> None:
    plan = written(minimum_sample_size=sample)
    first, second = (panel(2.0), panel(1.5, seed=2)), (panel(0.2, seed=3), NOTHING)
    figures = looked_at(plan, cells(1, *first), cells(2, *second)).evidence["arms"]["large"]
    before, now = difference(*first), difference(first[0].plus(second[0]), first[1])
    assert before is not None
    assert now is not None
    half = width(now.variance, first=before.variance, alpha=0.05, sample=sample, devices=80)
    assert (
        figures["deciding"]
        == figures["plain"]
        == {
            "estimate": pytest.approx(now.estimate, abs=1e-9),
            "low": pytest.approx(now.estimate - half, abs=1e-9),
            "high": pytest.approx(now.estimate + half, abs=1e-9),
        }
    )
    assert (figures["devices"], figures["devices_control"], figures["with_before"]) == (80, 40, 0)
    assert (figures["theta"], figures["explained"]) == (0.0, 0.0)


def test_what_devices_were_before_decides_by_the_slope_of_the_window_before() -> None:
    first = panel(2.0, known=40), panel(1.5, known=35, seed=2)
    more = panel(0.2, seed=3), NOTHING
    verdict = looked_at(written(), cells(1, *first), cells(2, *more))
    figures = verdict.evidence["arms"]["large"]
    theta = slope(list(first))
    assert theta is not None
    now = first[0].plus(more[0]), first[1]
    settled, plain, before = adjusted(*now, theta=theta), difference(*now), difference(*first)
    assert settled is not None
    assert plain is not None
    assert before is not None
    assert settled.variance < plain.variance
    half = width(settled.variance, first=before.variance, alpha=0.05, sample=60, devices=120)
    half_plain = width(plain.variance, first=before.variance, alpha=0.05, sample=60, devices=120)
    assert figures["theta"] == pytest.approx(theta, abs=1e-9)
    explained = correlation(list(now)) ** 2
    assert figures["explained"] == pytest.approx(explained, abs=1e-9)
    assert figures["deciding"]["low"] == pytest.approx(settled.estimate - half, abs=1e-9)
    assert figures["plain"]["high"] == pytest.approx(plain.estimate + half_plain, abs=1e-9)
    assert figures["with_before"] == 35
    look = figures["deciding"]
    assert verdict.because == (
        f"nothing is proven yet: large: watch_time {look['estimate']:+.4g} (95% interval {look['low']:+.4g} to "
        f"{look['high']:+.4g}, what devices were before explains {explained:.0%} of the variance)"
    )


def test_devices_that_count_as_one_widen_the_interval_and_must_be_more() -> None:
    plan = written(bucket_by="label:user_id", devices_per_value=2)
    few = looked_at(plan, cells(1, panel(2.0, 59), panel(1.5, 60)), cells(2, NOTHING, NOTHING))
    assert few.evidence["arms"]["large"]["deciding"] is None
    first = panel(2.0, 60), panel(1.5, 60, seed=2)
    figures = looked_at(plan, cells(1, *first), cells(2, NOTHING, NOTHING)).evidence["arms"]["large"]["deciding"]
    one = difference(*first)
    assert one is not None
    half = width(2 * one.variance, first=2 * one.variance, alpha=0.05, sample=60, devices=120)
    assert figures["high"] - figures["estimate"] == pytest.approx(half, abs=1e-9)


def test_each_of_two_arms_is_compared_by_itself_at_half_of_alpha() -> None:
    plan = written(**ARMS)
    control = panel(1.5, seed=2)
    one, two = panel(2.0), panel(1.0, seed=3)
    told = [cells(w, *arms) for w, arms in ((1, (one, control)), (2, (NOTHING, NOTHING)))]
    told = [
        [*each, *cells(w + 1, *((two, control) if w == 0 else (NOTHING, NOTHING)), stage=1)]
        for w, each in enumerate(told)
    ]
    arms = looked_at(plan, *told).evidence["arms"]
    for name, treated in (("a", one), ("b", two)):
        each = difference(treated, control)
        assert each is not None
        half = width(each.variance, first=each.variance, alpha=0.025, sample=60, devices=80)
        assert arms[name]["deciding"]["estimate"] == pytest.approx(each.estimate, abs=1e-9)
        assert arms[name]["deciding"]["low"] == pytest.approx(each.estimate - half, abs=1e-9)


# --- the decisions, in words ---


def decided(
    effect: float, *, plan: Experiment | None = None, days: float = 0.1, sd: float = 1.0, **changes: Any
) -> ExperimentVerdict:
    first = panel(1.5 + effect, sd=sd), panel(1.5, seed=2, sd=sd)
    return looked_at(plan or written(**changes), cells(1, *first), cells(2, NOTHING, NOTHING), days=days)


def interval(verdict: ExperimentVerdict, arm: str = "large", sure: str = "95") -> str:
    look = verdict.evidence["arms"][arm]["deciding"]
    return f"watch_time {look['estimate']:+.4g} ({sure}% interval {look['low']:+.4g} to {look['high']:+.4g})"


@pytest.mark.parametrize(
    ("effect", "changes", "days", "move", "start"),
    [
        (3.0, {}, 0.1, "ship", "large is better than control: "),
        (-3.0, {}, 0.1, "keep", "no arm is better than control at all: large: "),
        (0.1, {}, 0.1, "wait", "nothing is proven yet: large: "),
        (0.1, {}, 0.5, "end", "its 0.5 days are over, and nothing is proven: large: "),
        (
            0.2,
            {"primary_metric": {"name": "watch_time", "minimum_effect": 5.0}},
            0.1,
            "keep",
            "no arm is better than control by 5 or more: large: ",
        ),
        (
            -3.0,
            {"primary_metric": {"name": "watch_time", "direction": "decrease"}},
            0.1,
            "ship",
            "large is better than control: ",
        ),
        (
            3.0,
            {"primary_metric": {"name": "watch_time", "minimum_effect": 3.1}},
            0.1,
            "wait",
            "nothing is proven yet: ",
        ),
    ],
)
def test_each_decision_is_told_with_its_interval(
    effect: float, changes: dict[str, Any], days: float, move: str, start: str
) -> None:
    verdict = decided(effect, days=days, **changes)
    assert verdict.move == move
    assert verdict.because.startswith(start)
    assert verdict.because.endswith(interval(verdict))
    assert verdict.arm == ("large" if move == "ship" else None)


def two_arms(one: float, two: float, *, plan: Experiment | None = None, days: float = 0.1) -> ExperimentVerdict:
    control = panel(1.5, seed=2)
    told = [
        [*cells(1, panel(1.5 + one), control), *cells(1, panel(1.5 + two, seed=3), control, stage=1)],
        [*cells(2, NOTHING, NOTHING), *cells(2, NOTHING, NOTHING, stage=1)],
    ]
    return looked_at(plan or written(**ARMS), *told, days=days)


def test_of_two_better_arms_the_surer_is_shipped_and_the_other_named() -> None:
    close = two_arms(3.0, 3.3)
    assert (close.move, close.arm) == ("ship", "b")
    assert close.because == (f"b is better than control: {interval(close, 'b', '97.5')}; it is not told apart from a")
    apart = two_arms(9.0, 3.3)
    assert (apart.arm, apart.because) == ("a", f"a is better than control: {interval(apart, 'a', '97.5')}")


def test_the_control_is_kept_where_no_arm_may_be_better_and_each_is_told() -> None:
    both = two_arms(-3.0, -4.0)
    assert both.because == (
        f"no arm is better than control at all: a: {interval(both, 'a', '97.5')}; b: {interval(both, 'b', '97.5')}"
    )
    assert two_arms(-3.0, 0.0).move == "wait"


def test_arms_that_told_too_little_are_named_and_the_time_ends_it() -> None:
    plan = written(**ARMS)
    told = cells(1, panel(1.5), panel(1.5, seed=2))
    start = "too few devices of a, b or of control have told watch_time"
    assert looked_at(plan, told).because == start
    over = looked_at(plan, told, days=0.5)
    assert (over.move, over.because) == ("end", f"its 0.5 days are over, and {start}")
    once = looked_at(plan, told, cells(2, NOTHING, NOTHING))
    assert once.because == "too few devices of b or of control have told watch_time"


def test_the_sample_and_the_least_time_are_waited_for_and_told() -> None:
    plan = written(**ARMS, minimum_sample_size=200, minimum_days=0.25)
    counts = dict.fromkeys((0, 1), msgspec.structs.replace(COUNTS, reported_t=70, reported_c=59))
    short = looked_at(plan, counts=counts, days=0.3)
    assert short.evidence["sample"] == {"reported": 199, "needed": 200}
    assert (short.move, short.because) == ("wait", "199 of the 200 devices that are asked for have reported")
    over = looked_at(plan, counts=counts, days=0.5)
    assert (over.move, over.because) == ("end", f"its 0.5 days are over, and {short.because}")
    counts = dict.fromkeys((0, 1), msgspec.structs.replace(COUNTS, reported_t=60, reported_c=80))
    early = looked_at(plan, counts=counts, days=0.2)
    assert (early.move, early.because) == ("wait", "it runs for 0.20 of at least 0.25 days")
    assert "too few devices" in looked_at(plan, counts=counts, days=0.25).because


@pytest.mark.parametrize("step", ["assigned", "activated", "reporting"])
def test_an_arm_that_loses_devices_holds_and_the_step_is_named(step: str) -> None:
    """Of three arms of 40%, 30% and 30%: a half of the second is missing."""
    fields = {"assigned": "assigned", "activated": "activated", "reporting": "reported"}
    whole = Counts(assigned_t=300, assigned_c=400, activated_t=300, placebo_c=400, reported_t=300, reported_c=400)
    some = msgspec.structs.replace(whole, **{f"{fields[step]}_t": 150})
    verdict = looked_at(written(**ARMS), counts={0: whole, 1: some})
    assert (verdict.move, verdict.evidence["mismatch"]) == ("hold", step)
    assert verdict.because == (
        f"the arms are not split as their buckets say: of 850 devices that are {step}, control 400 (40.0%), a 300 "
        "(30.0%), b 150 (30.0%) expected: an arm loses devices, so what is left cannot be compared"
    )
    averages = []
    for weight in (100, 1000, 10_000):
        log = math.lgamma(weight) - math.lgamma(weight + 850)
        for count, share in ((400, 0.4), (300, 0.3), (150, 0.3)):
            a = weight * share
            log += math.lgamma(a + count) - math.lgamma(a) - count * math.log(share)
        averages.append(log)
    factor = math.log(sum(math.exp(log) for log in averages) / 3)
    assert verdict.evidence["sample_ratio"][step] == pytest.approx(factor, abs=1e-5)
    assert max(log for name, log in verdict.evidence["sample_ratio"].items() if name != step) < 0
    over = looked_at(written(**ARMS), counts={0: whole, 1: some}, days=1)
    assert (over.move, over.because) == ("end", f"its 0.5 days are over, and {verdict.because}")
    stopped = looked_at(written(**ARMS), counts={0: whole, 1: some}, stopped=("b",))
    assert "mismatch" not in stopped.evidence


def test_devices_that_count_as_one_are_counted_so_in_the_split_too() -> None:
    counts = {0: msgspec.structs.replace(COUNTS, assigned_t=400, assigned_c=470)}
    alone, shared = (
        looked_at(written(**more), counts=counts).evidence["sample_ratio"]["assigned"]
        for more in ({}, {"bucket_by": "label:user_id", "devices_per_value": 10})
    )
    assert shared < 0 < alone


# --- arms that are stopped ---


def test_an_arm_whose_version_was_taken_back_stops_with_that_reason() -> None:
    verdict = looked_at(written(), withdrawn={"large": "was quarantined: harm"})
    assert (verdict.move, verdict.arm, verdict.because) == (
        "stop_arm",
        "large",
        "large is stopped: its version was quarantined: harm",
    )


def test_when_every_arm_was_stopped_the_control_stays() -> None:
    verdict = looked_at(written(), stopped=("large",))
    assert (verdict.move, verdict.because) == ("keep", "every arm was stopped, so control stays")
    assert verdict.evidence["arms"]["large"]["live"] is False


GUARD = {"guardrail_metrics": [{"name": "skips", "direction": "decrease", "margin": 0.5}]}
RISING = {"guardrail_metrics": [{"name": "skips", "direction": "increase", "margin": 0.5}]}


@pytest.mark.parametrize(("changes", "sign"), [(GUARD, 1), (RISING, -1)])
def test_a_guardrail_of_the_apps_own_stops_an_arm_in_its_bad_direction_beyond_the_margin(
    changes: dict[str, Any], sign: int
) -> None:
    """Half of the guardrails' budget is on own ones. Only harm beyond the margin counts: one of 0.9 is not proven."""

    def verdict(effect: float) -> ExperimentVerdict:
        first = panel(1.5 + effect), panel(1.5, seed=2)
        told = [[*cells(w, *each, metric="skips")] for w, each in ((1, first), (2, (NOTHING, NOTHING)))]
        return looked_at(written(**changes), *told)

    bad = verdict(3.0 * sign)
    look = bad.evidence["arms"]["large"]["own_guardrails"]["skips"]
    one = difference(panel(1.5 + 3.0 * sign), panel(1.5, seed=2))
    assert one is not None
    half = width(one.variance, first=one.variance, alpha=0.05, sample=60, devices=80)
    assert (look["low"], look["high"]) == pytest.approx((one.estimate - half, one.estimate + half))
    assert (bad.move, bad.because) == (
        "stop_arm",
        f"large is stopped: skips is worse than control's by more than 0.5 (difference {look['estimate']:+.4g}, "
        f"interval {look['low']:+.4g} to {look['high']:+.4g})",
    )
    assert abs(one.estimate) - half > 0.5 > 0.9 - half
    for effect in (-3.0 * sign, 0.9 * sign):
        assert verdict(effect).move == "wait"


def sliced(
    effects: dict[str, float], *, devices: dict[str, int] | None = None, changes: dict[str, Any] = GUARD
) -> ExperimentVerdict:
    """By hardware class, what the arm adds to `skips`."""
    plan = written(**changes)
    told: list[list[Cell]] = [[], [], []]
    for index, (name, effect) in enumerate(effects.items()):
        n = (devices or {}).get(name, 40)
        first = panel(1.5 + effect, n, seed=10 + index), panel(1.5, n, seed=30 + index)
        for w, each in enumerate((first, (NOTHING, NOTHING), (NOTHING, NOTHING))):
            told[w] += cells(w + 1, *each, metric="skips", hardware_class=name)
    return looked_at(plan, *told)


def test_the_slices_that_are_harmed_alone_are_named_with_their_figures() -> None:
    verdict = sliced({"a": 5.0, "b": 0.0, "c": 0.0})
    assert (verdict.move, verdict.arm, verdict.slices) == ("stop_slice", "large", ("a",))
    budget = 0.1 / 2 * 0.5 / 3
    one = difference(panel(6.5, seed=10), panel(1.5, seed=30))
    assert one is not None
    half = width(one.variance, first=one.variance, alpha=budget, sample=20, devices=80)
    assert verdict.because == (
        "large is stopped in a alone: skips is worse than control's by more than 0.5 there (a: difference "
        f"{one.estimate:+.4g}, interval {one.estimate - half:+.4g} to {one.estimate + half:+.4g}), and the others keep "
        "the margin"
    )


@pytest.mark.parametrize(
    ("effects", "devices", "move", "words"),
    [
        ({"a": 5.0, "b": 5.0, "c": 0.0, "d": 0.0}, {}, "stop_arm", "worse than control's by more than 0.5 (diff"),
        ({"a": 5.0, "b": 0.7, "c": 0.7}, {}, "stop_arm", "worse than control's by more than 0.5 (difference"),
        ({"a": 5.0, "b": 0.0, "c": 0.0}, {"a": 80}, "stop_arm", "worse than control's by more than 0.5 (difference"),
        ({"a": 5.0, "b": 0.0, "c": 0.0}, {"a": 79}, "stop_slice", "and the others keep the margin"),
        ({"a": 3.0, "b": -3.0}, {}, "stop_arm", "and the others are not clean"),
        ({"a": 0.0, "b": 0.0, "c": 0.0}, {}, "wait", "too few devices of large"),
    ],
    ids=["half of them", "the rest is harmed", "most devices", "fewer devices", "one of two", "none"],
)
def test_slices_are_stopped_alone_where_they_are_few_and_the_rest_is_clean(
    effects: dict[str, float], devices: dict[str, int], move: str, words: str
) -> None:
    verdict = sliced(effects, devices=devices)
    assert verdict.move == move, verdict.because
    assert words in verdict.because


# --- crash rates ---


def crashes(window: int, treated: int, control: int, *, age: int = 0, n: int = 2000) -> list[Cell]:
    return [
        Cell(stage=0, window=window, role="treated", at_risk=n, crashed=treated, age_bucket=age),
        Cell(stage=0, window=window, role="control", at_risk=n // 2, crashed=control, age_bucket=age),
    ]


def test_crash_rates_are_compared_by_their_ratio_and_told_in_words() -> None:
    plan = written(primary_metric="crash_rate")
    verdict = looked_at(plan, [*crashes(1, 8, 30), *crashes(1, 2, 5, age=1)], crashes(2, 10, 30))
    figures = verdict.evidence["arms"]["large"]
    assert figures["rates"] == pytest.approx([20 / 6000, 65 / 3000])
    look = figures["deciding"]
    assert look["estimate"] == pytest.approx((20 / 6000) / (65 / 3000), abs=1e-9)
    assert (verdict.move, verdict.because) == (
        "ship",
        f"large is better than control: crash rate {look['estimate']:.3g} times the control's (95% interval "
        f"{look['low']:.3g} to {look['high']:.3g})",
    )


@pytest.mark.parametrize(("least", "move"), [(None, "ship"), (0.8, "ship"), (0.9, "wait")])
def test_of_a_ratio_the_share_that_is_saved_must_be_the_least(least: float | None, move: str) -> None:
    """The arm crashes in 18 of 4,000 device-windows, and the control in 60 of 2,000: 85% are saved."""
    asked = {"name": "crash_rate"} | ({} if least is None else {"minimum_effect": least})
    assert looked_at(written(primary_metric=asked), crashes(1, 8, 30), crashes(2, 10, 30)).move == move


def test_the_control_is_kept_where_so_large_a_share_is_not_saved() -> None:
    asked = {"name": "crash_rate", "minimum_effect": 0.7}
    told = [crashes(w, 40, 20) for w in (1, 2, 3)]
    verdict = looked_at(written(primary_metric=asked), *told)
    assert verdict.move == "keep"
    assert verdict.because.startswith("no arm is better than control by 0.7 or more: large: crash rate 1 times the ")


def test_the_evidence_names_the_metric_the_days_and_the_windows() -> None:
    evidence = looked_at(written(), cells(3, panel(2.0), panel(1.5)), cells(7, NOTHING, NOTHING)).evidence
    assert (evidence["primary"], evidence["days"], evidence["windows"]) == ("watch_time", 0.1, 2)
    arm = evidence["arms"]["large"]
    assert (arm["live"], arm["counts"]["assigned_c"], "rates" in arm) == (True, 40, False)
    assert arm["log_e_needed"] == pytest.approx(math.log(10), abs=1e-6)
    rehearsed = ExperimentInput(elapsed_s=36.0, hour_s=2.0, counts={})
    assert rehearsed.days == 0.75


def test_a_window_is_folded_once() -> None:
    ledger, told = ExperimentLedger(written()), cells(1, panel(2.0), panel(1.5))
    looked_at(written(), told, ledger=ledger)
    again = looked_at(written(), told, ledger=ledger)
    assert (again.evidence["windows"], again.evidence["arms"]["large"]["devices"]) == (1, 40)
    assert [(window, place) for window, place, _ in ledger.history] == [(1, 0)]
