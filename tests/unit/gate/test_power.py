"""What a stage is said to see, it sees: the forecast is asked of the real gate."""

import math

import pytest

from support.values import HOUR, cell, gate_input, plan, stage
from whimbrel.gate.evidence import mean_log_e, one_sided_rho
from whimbrel.gate.gate import judge
from whimbrel.gate.guardrails import guard_weights
from whimbrel.gate.power import Usage, detectable_harm, detectable_ratio, rate_events_needed
from whimbrel.gate.verdict import Counts
from whimbrel.plan.plan import Plan

PLAN = plan(stage("a", 5), stage("b", 100))
USAGE = Usage(active_an_hour=1, crash_rate=0.02, accuracy_sd=0.3)


def goes_back(said: Plan, *, ratio: float, hours: float, treated: int, control: int) -> bool:
    """Whether the gate takes it back when exactly what is expected happens, in windows of an hour."""
    rate = USAGE.crash_rate
    cells = []
    for window in range(round(hours)):
        so_far, before = (window + 1) * rate, window * rate
        cells += [
            cell(
                "treated", window, n=treated, crashed=round(treated * ratio * so_far) - round(treated * ratio * before)
            ),
            cell("control", window, n=control, crashed=round(control * so_far) - round(control * before)),
        ]
    counts = Counts(assigned_t=treated, assigned_c=control, activated_t=treated, placebo_c=control, reported_t=treated)
    return judge(said, gate_input(*cells, soaked_s=hours * HOUR, counts={0: counts})).move == "roll_back"


@pytest.mark.parametrize("ratio", [2.0, 3.0])
def test_harm_is_proven_in_about_the_hours_that_were_said(ratio: float) -> None:
    treated, control = 200, 3800
    harm = detectable_harm(PLAN, stage=0, treated=treated, control=control, hours=24, usage=USAGE)
    hours = harm.hours_to_see[f"{ratio:g}"]
    assert hours is not None
    assert goes_back(PLAN, ratio=ratio, hours=1.5 * hours, treated=treated, control=control)
    assert not goes_back(PLAN, ratio=ratio, hours=0.5 * hours, treated=treated, control=control)


def test_more_devices_and_more_time_see_less_harm() -> None:
    harms = [
        detectable_harm(PLAN, stage=0, treated=treated, control=19 * treated, hours=hours, usage=USAGE)
        for treated, hours in ((10, 24), (100, 24), (100, 240))
    ]
    ratios = [harm.crash_ratio for harm in harms]
    assert None not in ratios
    assert ratios == sorted(ratios, reverse=True)
    waits = [harm.hours_to_see["2"] for harm in harms]
    assert waits[0] > waits[1] == waits[2]
    drops = [harm.hours_to_see_drop for harm in harms]
    assert drops[0] > drops[1]


def test_an_arm_that_is_empty_sees_nothing() -> None:
    for treated, control in ((0, 100), (100, 0)):
        harm = detectable_harm(PLAN, stage=0, treated=treated, control=control, hours=24, usage=USAGE)
        assert (harm.crash_ratio, harm.hours_to_see_drop, set(harm.hours_to_see.values())) == (None, None, {None})


# --- the formulas ---

GAINS = (1.2, 1.5, 2, 3, 4, 6, 10)


def e_value(x_t: float, e_t: float, x_c: float, e_c: float, *, ratio: float) -> float:
    """The mixture over seven alternatives, of one window."""
    p0 = ratio * e_t / (ratio * e_t + e_c)
    p1 = [ratio * g * e_t / (ratio * g * e_t + e_c) for g in GAINS]
    return sum((p / p0) ** x_t * ((1 - p) / (1 - p0)) ** x_c for p in p1) / 7


def at_least(count: int, mean: float) -> float:
    return 1 - sum(math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(count))


@pytest.mark.parametrize("events_c", [0, 3, 40])
@pytest.mark.parametrize("power", [0.8, 0.95])
@pytest.mark.parametrize("tolerance", [1.1, 1.5])
def test_the_smallest_ratio_is_the_first_whose_events_prove_it_so_often(
    events_c: int, power: float, tolerance: float
) -> None:
    alpha, e_t, e_c = 0.01, 300.0, 5700.0
    needed = next(k for k in range(1, 999) if e_value(k, e_t, events_c, e_c, ratio=tolerance) >= 1 / alpha)
    base = max(events_c, 0.5) / e_c * e_t
    expected = next(1.02**n for n in range(400) if at_least(needed, 1.02**n * base) >= power)
    found = detectable_ratio(
        exposure_t=e_t, exposure_c=e_c, events_c=events_c, alpha=alpha, power=power, tolerance=tolerance
    )
    assert found == pytest.approx(expected)


def test_a_ratio_beyond_a_thousand_is_none_and_so_is_an_empty_arm() -> None:
    told = {"events_c": 0.0, "alpha": 0.01, "power": 0.8, "tolerance": 1.1}
    assert detectable_ratio(exposure_t=1, exposure_c=1, **told) is not None
    assert detectable_ratio(exposure_t=1, exposure_c=2000, **told) is None
    for empty in ({"exposure_t": 0, "exposure_c": 9}, {"exposure_t": 9, "exposure_c": 0}):
        assert detectable_ratio(**empty, **told) is None


def test_many_events_are_counted_as_a_normal_number_of_them() -> None:
    """20,000 expected treated events deviate by 141."""
    told = {"exposure_t": 2e4, "exposure_c": 1e5, "events_c": 1e5, "alpha": 0.01, "tolerance": 1.0}

    def log_e(x_t: int) -> float:
        logs = []
        for g in GAINS:
            p0, p1 = 1 / 6, g / (g + 5)
            logs.append(x_t * math.log(p1 / p0) + 1e5 * math.log((1 - p1) / (1 - p0)))
        return max(logs) + math.log(sum(math.exp(log - max(logs)) for log in logs) / 7)

    needed = next(k for k in range(20_000, 40_000) if log_e(k) >= math.log(100))
    for power in (0.01, 0.5, 0.99):
        expected = next(
            1.02**n
            for n in range(99)
            if 0.5 * math.erfc((needed - 0.5 - 2e4 * 1.02**n) / math.sqrt(2 * 2e4 * 1.02**n)) >= power
        )
        assert detectable_ratio(**told, power=power) == pytest.approx(expected)


def test_what_a_stage_would_see_is_by_its_own_share_of_the_budget() -> None:
    """Of the weight: the stage's cohort, half on all devices, and nine tenths from its beginning."""
    harm = detectable_harm(PLAN, stage=1, treated=300, control=2700, hours=10, usage=USAGE)
    weights = guard_weights(PLAN)
    alpha = 0.1 * weights["crash"] * 0.2 * 0.5 * 0.9
    smallest = detectable_ratio(exposure_t=3000, exposure_c=27000, events_c=540, alpha=alpha, power=0.8, tolerance=1.1)
    assert harm.crash_ratio == round(smallest or 0, 2)
    for ratio, gain in ((1.5, 1.5), (2.0, 2.0), (3.0, 3.0)):
        p0 = 1.1 * (1 / 9) / (1.1 * (1 / 9) + 1)
        p1 = gain * 1.1 * (1 / 9) / (gain * 1.1 * (1 / 9) + 1)
        drift = ratio * math.log(p1 / p0) + math.log((1 - p1) / (1 - p0)) * 9
        events = (math.log(1 / alpha) + math.log(7)) / drift
        assert harm.hours_to_see[f"{ratio:g}"] == pytest.approx(events / 0.02 / 300, abs=0.006)
    alpha = 0.1 * weights["accuracy"] * 0.2 * 0.5 * 0.9
    rho = one_sided_rho(v_opt=2 * math.log(10) / 0.035**2, alpha=0.1)
    v = harm.hours_to_see_drop / (0.3**2 * (1 / 300 + 1 / 2700))
    assert mean_log_e(precision=v, total=0.015 * v, rho=rho) == pytest.approx(math.log(1 / alpha), rel=1e-3)


def test_harm_that_ten_years_would_not_show_has_no_time() -> None:
    rare = Usage(active_an_hour=1e-6, crash_rate=1e-6, accuracy_sd=0.3)
    harm = detectable_harm(PLAN, stage=0, treated=1, control=1, hours=24, usage=rare)
    assert (harm.hours_to_see, harm.hours_to_see_drop) == ({"1.5": None, "2": None, "3": None}, None)
    unknown = Usage(crash_rate=0.02, accuracy_sd=None)
    assert detectable_harm(PLAN, stage=0, treated=9, control=9, hours=24, usage=unknown).hours_to_see_drop is None


def test_ten_years_are_the_longest_time() -> None:
    alpha = 0.1 * guard_weights(PLAN)["crash"] * 0.8 * 0.5 * 0.9
    events = rate_events_needed(ratio=3, share=1, alpha=alpha, tolerance=1.1)

    def hours(years: float) -> float | None:
        usage = Usage(crash_rate=events / (years * 8760))
        return detectable_harm(PLAN, stage=0, treated=1, control=1, hours=24, usage=usage).hours_to_see["3"]

    assert (hours(10), hours(10.001)) == (87_600.0, None)


def test_harm_within_the_tolerance_is_never_seen() -> None:
    assert rate_events_needed(ratio=1.05, share=0.1, alpha=0.01, tolerance=1.1) == math.inf
    assert rate_events_needed(ratio=2, share=0.1, alpha=0.01, tolerance=1.1) < 100


def test_what_is_assumed_of_devices_says_where_it_comes_from() -> None:
    assert Usage() == Usage(
        active_an_hour=1.0,
        crash_rate=0.01,
        accuracy_sd=0.37,
        source="assumed, since no rollout of this model has told enough yet",
    )
