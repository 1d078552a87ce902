"""What each test of a plan bets against, its share of the budget, and what its copies are worth, by hand."""

import math

import pytest

from support.values import accuracy, cell, gate_input, healthy, plan, stage
from whimbrel.gate.combined_evidence import CombinedEvidence, combine
from whimbrel.gate.evidence import BoundFold, MeanWindow, one_sample_log_e, one_sided_rho
from whimbrel.gate.gate import judge
from whimbrel.gate.guardrails import bounds, cohort_share, drift_at, guard_weights, margins, severities
from whimbrel.gate.hypotheses import Hypotheses, over_limit
from whimbrel.gate.ledger import Lane, Ledger
from whimbrel.gate.restarted_tests import RateTest
from whimbrel.gate.slices import HarmedSlices, harmed_slices
from whimbrel.gate.verdict import Counts
from whimbrel.health.sketch import key_of
from whimbrel.health.tally import Cell, Moments
from whimbrel.plan.criteria import Guardrail

OWN = (
    Guardrail(metric="fps", direction="lower_is_worse", margin=1.5),
    Guardrail(metric="lag", direction="higher_is_worse", margin=2.5),
)


def made(*stages: object, **changes: object) -> Hypotheses:
    return Hypotheses(plan(*stages, **changes))


# --- the harm that each bets against ---


def test_rates_bet_against_a_tenth_more_latency_by_its_edge_and_limits_against_a_tenth() -> None:
    against = made(stage(latency_p99_max_ms=50.0), stage("b", 50, latency_p99_max_ms=20.0))
    ratios = {name: test.fold.ratio for name, test in against.tests().rates.items()}
    assert against.limits_ms == [20.0, 50.0]
    assert ratios == dict.fromkeys(("crash", "error", "silence", "usage"), 1.1) | dict.fromkeys(
        ("latency_p50", "latency_p95", "latency_p99"), 1.0
    ) | {over_limit(20.0): 1.1, over_limit(50.0): 1.1}


def bet(against: Hypotheses, name: str, *, turned: bool = False) -> tuple[float, float, float, bool]:
    tests = against.tests()
    chosen = against.reversed(tests) if turned else tests
    assert chosen is not None
    fold = chosen.means[name].fold
    return fold.factor_t, fold.factor_c, fold.tolerance, fold.share


@pytest.mark.parametrize(
    ("name", "forward", "turned"),
    [
        ("accuracy", (1.0, 1.0, 0.005, True), (-1.0, -1.0, -0.02, False)),
        ("battery", (-1.0, -1.1, 0.0, False), (1.0, 2.0, 0.0, False)),
        ("memory_mb", (-1.0, -1.1, 0.0, False), (1.0, 2.0, 0.0, False)),
        ("temperature_c", (-1.0, -1.0, 3.0, False), (1.0, 1.0, -10.0, False)),
        ("fps", (1.0, 1.0, 1.5, False), (-1.0, -1.0, -1.5, False)),
        ("lag", (-1.0, -1.0, 2.5, False), (1.0, 1.0, -2.5, False)),
    ],
)
def test_each_mean_bets_against_its_own_harm_and_is_turned_round_with_its_own_margin(
    name: str, forward: tuple[float, ...], turned: tuple[float, ...]
) -> None:
    against = made(guardrails=OWN, promote="when_proven")
    assert bet(against, name) == forward
    assert bet(against, name, turned=True) == turned


def test_what_is_to_be_proven_is_the_limit_of_the_last_stage_and_never_less_than_what_is_tolerated() -> None:
    last = stage("b", 100, crash_ratio_max=3.0, accuracy_drop_max=0.07, battery_increase_max=0.6)
    against = made(stage(crash_ratio_max=9.0), last, promote="when_proven")
    turned = against.reversed(against.tests())
    assert turned is not None
    assert turned.rates["crash"].fold.ratio == pytest.approx(1 / 3)
    assert turned.rates["error"].fold.ratio == pytest.approx(1 / 2)
    assert turned.rates["latency_p95"].fold.ratio == 1.0
    assert bet(against, "accuracy", turned=True)[2] == -0.07
    assert bet(against, "battery", turned=True)[1] == pytest.approx(1.6)
    wide = made(
        promote="when_proven",
        guardrails=tuple(
            Guardrail(metric=name, margin=margin)
            for name, margin in (("crash", 4.0), ("accuracy", 0.09), ("battery", 5.0), ("temperature_c", 20.0))
        ),
    )
    turned = wide.reversed(wide.tests())
    assert turned is not None
    assert turned.rates["crash"].fold.ratio == pytest.approx(1 / 4)
    assert [bet(wide, n, turned=True)[1:3] for n in ("accuracy", "battery", "temperature_c")] == [
        (-1.0, -0.09),
        (5.0, 0.0),
        (1.0, -20.0),
    ]
    assert made().reversed(made().tests()) is None


def test_latency_is_to_be_proven_within_twice_the_controls_or_what_the_plan_allows() -> None:
    assert made(promote="when_proven").steps_proven() == key_of(2.0) - 1 == 34
    assert made(stage(latency_increase_max=0.5), promote="when_proven").steps_proven() == key_of(1.5) - 1 == 20


# --- what makes a mean's test sharpest ---


def sharpest(difference: float) -> float:
    return one_sided_rho(v_opt=2 * math.log(10) / difference**2, alpha=0.1)


def rho_after(name: str, window: MeanWindow) -> float | None:
    against = made(guardrails=OWN)
    fold = against.tests().means[name].fold
    fold.add([window])
    return against.rho(name, fold)


def told(n_t: int, n_c: int, *, mean: float, variance: float = 4.0) -> MeanWindow:
    """Both arms, of values around `mean`."""
    arms = [(n, n * mean, n * mean * mean + max(0, n - 1) * v) for n, v in ((n_t, 9.0), (n_c, variance))]
    return MeanWindow(*arms[0], *arms[1])


def test_the_sharpest_difference_is_a_tenth_of_the_level_a_tenth_of_a_deviation_or_three_and_a_half_points() -> None:
    assert rho_after("battery", told(40, 40, mean=-5.0)) == pytest.approx(sharpest(0.5))
    assert rho_after("battery", told(40, 0, mean=5.0)) is None
    assert rho_after("battery", told(40, 40, mean=0.0)) is None
    assert rho_after("fps", told(40, 40, mean=5.0)) == pytest.approx(sharpest(0.2))
    assert rho_after("fps", told(40, 1, mean=5.0)) == pytest.approx(sharpest(0.3)), "of the treated, if none else"
    assert rho_after("fps", told(2, 0, mean=5.0)) == pytest.approx(sharpest(0.3))
    assert rho_after("fps", told(1, 1, mean=5.0)) is None
    assert rho_after("fps", told(1, 2, mean=5.0)) == pytest.approx(sharpest(0.2))
    assert rho_after("temperature_c", told(40, 40, mean=5.0)) == pytest.approx(sharpest(0.2))


def test_of_a_share_it_is_at_most_half_of_its_variance() -> None:
    """Rare wrong answers come in lumps."""
    assert rho_after("accuracy", MeanWindow(40, 32, 32, 40, 32, 32)) == pytest.approx(sharpest(0.035))
    rare = 0.5 * max((1998 - 1998 * 1998 / 2000) / 1999, 0.5 / 2001)
    assert rare < 0.035
    assert rho_after("accuracy", MeanWindow(40, 40, 40, 2000, 1998, 1998)) == pytest.approx(sharpest(rare))
    assert rho_after("accuracy", MeanWindow(40, 40, 40, 40, 40, 40)) is None, "a level that right answers alone tell"


def test_a_bound_of_a_share_is_sharpest_at_the_same_points_and_one_of_another_mean_by_its_deviation() -> None:
    against = made()
    fold = BoundFold(0.5, floor=True)
    assert against.rho("watts", fold) is None
    fold.add(told(40, 40, mean=5.0))
    assert against.rho("accuracy", fold) == pytest.approx(sharpest(0.035))
    assert against.rho("watts", fold) == pytest.approx(sharpest(0.2))
    assert against.rho("battery", fold) == pytest.approx(sharpest(0.2)), "a ratio is of two arms alone"


# --- the budget ---


def test_every_test_has_its_share_and_all_add_up_to_one() -> None:
    """Three stages, two labels with two and three slices: half of rates and accuracy is on slices, evenly by label."""
    asked = plan(
        stage(error_rate_max=0.5, latency_p99_max_ms=50.0, accuracy_min=0.5, drift_psi_max=0.3),
        stage("b", 25),
        stage("c", 100, user_reports_ratio_max=2.0),
        guardrails=OWN,
    )
    ledger = Ledger(asked)
    slices = [("x", "1"), ("y", "2"), ("y", "3")]
    ledger.fold(
        [cell(r, 0, n=5, hardware_class=c, slices={"os": o}) for c, o in slices for r in ("treated", "control")]
    )
    lanes = combine(asked, gate_input(), ledger, Counts()).lanes
    assert sum(lane.weight for lane in lanes) == pytest.approx(1)
    weights = guard_weights(asked)

    def of(name: str, at: int | None, part: str | None) -> list[float]:
        return [
            each.weight / weights[name]
            for each in lanes
            if (each.guardrail, each.stage, each.slice) == (name, at, part)
        ]

    for name in ("crash", "error", "silence", "accuracy"):
        for at, share in enumerate((0.8, 0.1, 0.1)):
            assert of(name, at, None) == [pytest.approx(share / 2)]
            assert of(name, at, "x") == of(name, at, "y") == [pytest.approx(share / 8)]
            assert of(name, at, "os=1") == of(name, at, "os=3") == [pytest.approx(share / 12)]
    for name in ("usage", "latency_p95", "battery", "fps", "latency_over"):
        assert [of(name, at, None) for at in range(3)] == [[pytest.approx(share)] for share in (0.8, 0.1, 0.1)]
        assert of(name, 0, "x") == []
    for name in ("error_limit", "latency_limit", "accuracy_min", "drift"):
        assert of(name, None, None) == [pytest.approx(share) for share in (0.8, 0.1, 0.1)]
    for name in ("failure", "version_reports"):
        assert of(name, None, None) == [1.0]
    begun = [lane.log_e for lane in combine(asked, gate_input(), Ledger(asked), Counts()).lanes]
    assert begun == pytest.approx([0.0] * len(begun))


def test_the_first_stage_has_eight_tenths_of_the_budget_and_the_others_the_rest() -> None:
    assert cohort_share(1, 0) == 1.0
    assert [cohort_share(5, each) for each in range(5)] == pytest.approx([0.8, 0.05, 0.05, 0.05, 0.05])


def test_severities_follow_what_a_limit_limits() -> None:
    asked = plan(
        stage(error_rate_max=0.5, latency_p99_max_ms=5.0, accuracy_min=0.5, user_reports_ratio_max=2.0),
        guardrails=(
            Guardrail(metric="error", severity="hold"),
            Guardrail(metric="accuracy", severity="warn"),
            Guardrail(metric="latency_p99", severity="warn"),
        ),
    )
    chosen = severities(asked)
    assert [chosen[name] for name in ("error", "error_limit", "accuracy", "accuracy_min", "latency_limit")] == [
        "hold",
        "hold",
        "warn",
        "warn",
        "warn",
    ]
    assert (chosen["latency_over"], chosen["crash"], chosen["user_reports"]) == ("warn", "rollback", "rollback")
    assert chosen["version_reports"] == "hold", "nobody knows which devices could have written"
    warned = plan(stage(user_reports_ratio_max=2.0), guardrails=(Guardrail(metric="user_reports", severity="warn"),))
    assert severities(warned)["version_reports"] == "warn"


def test_a_plan_says_its_own_margins_and_its_bounds_by_stage() -> None:
    asked = plan(
        stage(accuracy_min=0.5, battery_max=9.0),
        stage("b", 50, accuracy_min=0.7, metrics_max={"watts": 3.0}),
        guardrails=(Guardrail(metric="failure", margin=0.07), Guardrail(metric="drift"), *OWN),
    )
    told_margins = margins(asked)
    assert (told_margins.failure, told_margins.slower["latency_p95"]) == (0.07, 4)
    assert told_margins.own == {"fps": ("lower_is_worse", 1.5), "lag": ("higher_is_worse", 2.5)}
    assert [(b.metric, b.floor, b.limit) for b in bounds(asked)] == [
        ("accuracy", True, 0.5),
        ("accuracy", True, 0.7),
        ("battery", False, 9.0),
        ("watts", False, 3.0),
    ]
    assert (drift_at(asked, 0), drift_at(plan(), 0)) == (0.25, None)
    own = plan(stage(drift_psi_max=0.4), guardrails=(Guardrail(metric="drift", margin=0.6),))
    assert drift_at(own, 0) == 0.4
    assert drift_at(plan(guardrails=(Guardrail(metric="drift", margin=0.6),)), 0) == 0.6


# --- all evidence together ---


def combined(*lanes: tuple[str, float, float]) -> CombinedEvidence:
    kinds = {"a": "rollback", "b": "hold", "c": "warn"}
    return CombinedEvidence([Lane(name, weight, log) for name, weight, log in lanes], kinds)


def test_groups_of_severities_are_nested_and_the_lead_carries_most_with_its_weight() -> None:
    all_of = combined(("a", 0.5, 3.0), ("b", 0.3, 5.0), ("c", 0.2, 7.0))
    assert all_of.log_e("rollback") == pytest.approx(math.log(0.5) + 3)
    both = 0.5 * math.exp(3) + 0.3 * math.exp(5)
    assert all_of.log_e("rollback", "hold") == pytest.approx(math.log(both))
    assert all_of.log_e() == pytest.approx(math.log(both + 0.2 * math.exp(7)))
    assert combined(("b", 1.0, 2.0)).log_e("rollback") == -math.inf
    assert [all_of.proven(needed) for needed in (2.3, 3.8, 5.4, 5.7)] == ["rollback", "hold", "warn", None]
    exact = combined(("a", 1.0, 2.0))
    assert (exact.proven(2.0), combined(("b", 1.0, 2.0)).proven(2.0), combined(("c", 1.0, 2.0)).proven(2.0)) == (
        "rollback",
        "hold",
        "warn",
    )
    assert combined(("a", 0.5, 3.0), ("b", 0.1, 4.0)).lead().guardrail == "a"
    assert combined(("b", 0.1, 4.0), ("a", 0.5, 3.0)).lead("hold").guardrail == "b"
    assert combined(("a", 0.5, 3.0), ("a", 0.5, 4.0), ("b", 1.0, -1.0)).best == {"a": 4.0, "b": -1.0}


def limit_log_e(*cells: Cell, name: str = "error_limit", **limits: float) -> float:
    verdict = judge(plan(stage(**limits)), gate_input(*cells))
    return verdict.evidence["guardrails"][name]


def test_a_limit_is_one_sample_of_the_new_version_unless_the_control_breaks_it() -> None:
    def of(errors: float, errors_c: float, limit: float = 0.02) -> float:
        return limit_log_e(
            cell("treated", 0, n=100, errors=errors), cell("control", 0, n=100, errors=errors_c), error_rate_max=limit
        )

    expected = one_sample_log_e(events=9.0, trials=100, limit=0.02)
    assert of(9.0, 2.0) == pytest.approx(expected, abs=1e-6), "a control on the very limit keeps it"
    assert of(9.0, 2.1) == 0.0
    assert limit_log_e(cell("treated", 0, n=100, errors=9.0), error_rate_max=0.02) == pytest.approx(expected, abs=1e-6)
    assert of(100.0, 2.0, limit=1.0) == 0.0


def test_a_limit_of_latency_is_one_sample_of_sessions_against_one_in_a_hundred() -> None:
    slow, fast = {key_of(80.0): 9, key_of(20.0): 91}, {key_of(80.0): 1, key_of(20.0): 99}
    cells = [cell("treated", 0, n=100, latency=slow), cell("control", 0, n=100, latency=fast)]
    found = limit_log_e(*cells, name="latency_limit", latency_p99_max_ms=50.0)
    assert found == pytest.approx(one_sample_log_e(events=9, trials=100, limit=0.01), abs=1e-6)


def test_installs_that_failed_and_devices_that_went_back_are_one_sample_of_what_was_tried() -> None:
    counts = {0: Counts(activated_t=60, failed_t=2, went_back_t=1), 1: Counts(activated_t=38)}
    verdict = judge(plan(), gate_input(counts=counts, stage=1))
    expected = one_sample_log_e(events=3, trials=100, limit=0.02)
    assert verdict.evidence["guardrails"]["failure"] == pytest.approx(expected, abs=1e-6)


def test_where_devices_count_as_one_every_test_is_worth_the_root() -> None:
    asked = plan(stage())
    one, two = Ledger(asked), Ledger(asked, cluster=2.0)
    for ledger in (one, two):
        ledger.fold([cell("treated", 0, n=100, crashed=10), cell("control", 0, n=1900, crashed=19)])
    alone, shared = (combine(asked, gate_input(), each, Counts()).best for each in (one, two))
    assert shared == {name: pytest.approx(log / 2, abs=1e-6) for name, log in alone.items()}


# --- tickets that name a version ---


def test_tickets_that_name_a_version_are_out_of_all_treated_and_of_the_largest_control() -> None:
    """A control device stands in several stages, and is one device."""
    asked = plan(stage(user_reports_ratio_max=2.0), stage("b", 50))
    ledger = Ledger(asked)
    ledger.fold(
        [
            cell("treated", 0, n=10, version_reports=4),
            cell("treated", 0, n=30, stage=1, version_reports=2),
            cell("control", 0, n=90, version_reports=3),
            cell("control", 0, n=60, stage=1, version_reports=1),
        ]
    )
    test = RateTest(1.1)
    test.add(6, 40, 4, 90)
    lane = next(
        each for each in combine(asked, gate_input(), ledger, Counts()).lanes if each.guardrail == "version_reports"
    )
    assert lane.log_e == pytest.approx(test.log_e())


# --- slices ---


def named(bad: list[str], *, devices: float, of: float = 100, rest: float = 0.0, slices: int = 5) -> HarmedSlices:
    return HarmedSlices(
        bad=bad, logs=dict.fromkeys("abcdefgh"[:slices], 0.0), rest=rest, devices=devices, of=of, leads={}
    )


def test_slices_are_few_below_half_and_the_rest_is_clean_below_half_of_the_proof() -> None:
    assert named(["a"], devices=49).clean(needed=4.0)
    assert not named(["a"], devices=50).clean(needed=4.0)
    assert named(["a", "b"], devices=10).clean(needed=4.0)
    assert not named(["a", "b"], devices=10, slices=4).clean(needed=4.0)
    assert named(["a"], devices=10, rest=1.99).clean(needed=4.0)
    assert not named(["a"], devices=10, rest=2.0).clean(needed=4.0)
    assert not named([], devices=0).clean(needed=4.0)


def test_each_slice_is_the_average_of_its_tests_and_is_led_by_the_greatest() -> None:
    asked = plan(stage(), stage("b", 50))
    ledger = Ledger(asked)
    cells = []
    for w in range(3):
        for name, crashed, errors in (("a", 6, 1.0), ("b", 1, 1.0), ("c", 1, 7.0)):
            cells += [
                cell("treated", w, n=50, crashed=crashed, errors=errors, hardware_class=name, stage=int(name == "c")),
                cell("control", w, n=500, crashed=5, errors=5.0, hardware_class=name, stage=int(name == "c")),
            ]
    ledger.fold(cells)
    (found,) = harmed_slices(ledger).values()
    weights, total = guard_weights(asked), 0.0
    worth = {"a": 0.0, "c": 0.0}
    for name in ("crash", "accuracy", "error", "silence"):
        for at, share in enumerate((0.8, 0.2)):
            part = weights[name] * share
            total += part
            for each in worth:
                worth[each] += part * math.exp(ledger.cohorts[at].classes[each].log_e(name))
    assert {each: found.logs[each] for each in worth} == {
        each: pytest.approx(math.log(value / total)) for each, value in worth.items()
    }
    assert (found.leads["a"], found.leads["c"]) == (("crash", 0), ("error", 1))
    assert (found.devices, found.of) == (150.0 * len(found.bad), 450.0)
    held = plan(
        guardrails=tuple(Guardrail(metric=n, severity="hold") for n in ("crash", "accuracy", "error", "silence"))
    )
    assert harmed_slices(Ledger(held)) == {}


def test_the_slices_that_are_judged_are_those_that_spoke_by_the_time_both_arms_did() -> None:
    ledger = Ledger(plan())
    ledger.fold([cell("treated", 0, n=5, hardware_class="a"), cell("treated", 1, n=5, hardware_class="b")])
    assert ledger.slices is None
    ledger.fold([cell("control", 2, n=5, hardware_class="a", slices={"os": "1"}), cell("treated", 2, n=1)])
    assert ledger.slices == {"": ("a", "b")}, "a label with one value has no other to be compared with"
    ledger.fold([cell("control", 3, n=5, hardware_class="c"), cell("treated", 3, n=5, hardware_class="c")])
    assert ledger.slices == {"": ("a", "b")}


def test_windows_are_folded_in_order_and_once() -> None:
    ledger = Ledger(plan())
    ledger.fold([cell("treated", 4, n=5)])
    for window in (4, 3):
        with pytest.raises(ValueError, match=rf"^window {window} comes after window 4 was folded$"):
            ledger.fold([cell("treated", window, n=5)])
    assert (ledger.windows, ledger.last) == (1, 4)


# --- bounds of means ---


def bound_lanes(*, treated: float, control: float | None, at: int = 0) -> list[float]:
    asked = plan(stage(metrics_max={"watts": 3.0}), stage("b", 50, metrics_max={"watts": 5.0}))
    ledger = Ledger(asked)
    for w in range(3):
        told_c = {} if control is None else {"watts": Moments(n=50, sum=50 * control, sumsq=50 * (control**2 + 1))}
        told_t = {"watts": Moments(n=50, sum=50 * treated, sumsq=50 * (treated**2 + 1))}
        ledger.fold([cell("treated", w, n=50, metrics=told_t), cell("control", w, n=50, metrics=told_c)])
    return [lane.log_e for lane in ledger.bound_lanes(asked.criteria(at))]


def test_the_bound_of_the_stage_is_in_force_and_a_control_on_it_keeps_it() -> None:
    first = bound_lanes(treated=4.0, control=3.0)
    assert first[0] > 5
    assert first[1] == 0.0
    assert bound_lanes(treated=4.0, control=3.01) == [0.0, 0.0]
    assert bound_lanes(treated=4.0, control=3.0, at=1) == [0.0, 0.0]
    assert bound_lanes(treated=6.0, control=5.0, at=1)[0] > 5
    assert bound_lanes(treated=4.0, control=None)[0] > 5


def test_accuracy_is_proven_by_slices_too() -> None:
    cells = [
        each
        for w in range(6)
        for name, drop in (("a", 0.2), ("b", 0.0), ("c", 0.0))
        for each in (
            cell("treated", w, n=50, hardware_class=name, metrics=accuracy(0.9 - drop, 50)),
            cell("control", w, n=500, hardware_class=name, metrics=accuracy(0.9, 500)),
        )
    ]
    verdict = judge(plan(), gate_input(*cells))
    assert (verdict.move, verdict.classes) == ("slice_back", ("a",))
    assert "a (accuracy 70.00% against 90.00% in the control)" in verdict.because


def test_the_crash_ratio_of_a_promotion_is_that_of_its_windows() -> None:
    ratio = judge(plan(), gate_input(*healthy())).evidence["crash_ratio"]
    assert ratio["low"] < 1 < ratio["high"]
    assert judge(plan(), gate_input(cell("treated", 0, n=100))).evidence["crash_ratio"] == {"low": 0.0, "high": None}
