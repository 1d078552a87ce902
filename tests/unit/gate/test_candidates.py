"""The figures, budgets and sentences of a candidate in the shadow, each computed beside the code."""

import math

import msgspec
import pytest

from support.shadows import SHADOWED, shadow_verdict
from support.values import cell, plan, seen, shadow_plan, shadowed, stage
from whimbrel.gate.shadow_gate import agreement_proven, judge_candidate
from whimbrel.gate.shadow_ledger import ShadowLedger, candidate_alpha, serving_part, shadow_part
from whimbrel.gate.verdict import Counts
from whimbrel.health.shadow import ShadowSums, Units
from whimbrel.health.sketch import GAMMA, key_of
from whimbrel.health.tally import Cell
from whimbrel.policy.shadow import ShadowStage


def worse(agreed: float = 70) -> ShadowSums:
    return seen(100, agreed=agreed)


MIXED = seen(
    100, agreed=90, errors=5, crashed=2, dropped=20, skipped=5, ratio=1.3, active={100: 3, 120: 1}, candidate={110: 1}
)


def test_the_figures_of_a_candidate_are_those_of_its_device_windows() -> None:
    verdict = shadow_verdict(*shadowed(10, devices=10, one=MIXED), of=shadow_plan(latency_ratio_max=2.0), soaked_s=60)
    assert verdict.evidence["shadow"] == {
        "inputs": 10_000,
        "compared": 9300,
        "device_windows": 100,
        "agreement": round(90 / 93, 9),
        "agreement_min": 0.98,
        "failures": 0.07,
        "crashed_windows": 100,
        "errors": 500,
        "crashed": 200,
        "dropped": 0.16,
        "skipped": 500,
        "latency_ratio": round(GAMMA ** key_of(1.3), 3),
        "active_p50_ms": round(GAMMA**100, 3),
        "active_p99_ms": round(GAMMA**120, 3),
        "candidate_p50_ms": round(GAMMA**110, 3),
        "candidate_p99_ms": round(GAMMA**110, 3),
    }


def test_nothing_told_of_a_candidate_is_unknown() -> None:
    known = {
        k: v
        for k, v in shadow_verdict(cell("treated", 0, n=1), cell("control", 0, n=1)).evidence["shadow"].items()
        if v
    }
    assert known == {"agreement_min": 0.98}
    figures = shadow_verdict(*shadowed(1, one=seen(0, dropped=3)), of=shadow_plan(latency_ratio_max=2.0)).evidence[
        "shadow"
    ]
    assert [figures[name] for name in ("agreement", "failures", "latency_ratio", "candidate_p50_ms")] == [None] * 4
    assert figures["dropped"] == 1.0


def bet(values: list[tuple[float, int]], *, limit: float, alternatives: list[float], over: bool) -> float:
    """ln of the average product of 1 + lambda (x - limit), lambda so that a 0 or 1 pays the ratio of likelihoods."""
    worth = []
    for p1 in alternatives:
        lam = (p1 - limit) / (limit * (1 - limit))
        worth.append(math.exp(sum(n * math.log(1 + lam * (x - limit)) for x, n in values)))
    assert all((p1 > limit) == over for p1 in alternatives)
    return math.log(sum(worth) / len(worth))


GAINS = (1.2, 1.5, 2, 3, 4, 6, 10)


def test_each_test_of_a_candidate_bets_on_its_own_values_and_limit() -> None:
    """Values are rounded to the bucket's lower edge, where a bet wins less; a share of zero is in no bucket."""
    asked = {"agreement_min": 0.9, "error_rate_max": 0.05, "latency_ratio_max": 1.2}
    logs = shadow_verdict(*shadowed(1, devices=4, one=MIXED), of=shadow_plan(**asked), soaked_s=60).evidence[
        "guardrails"
    ]
    expected = {
        "agreement": [(GAMMA ** (key_of(3 / 93) - 1), 4, 0.1)],
        "failures": [(GAMMA ** (key_of(0.07) - 1), 4, 0.05)],
        "crash": [(1.0, 4, 0.02)],
        "latency": [(1.0, 4, 0.5)],
    }
    for name, ((value, count, limit),) in expected.items():
        by_hand = bet([(value, count)], limit=limit, alternatives=[min(g * limit, 0.99) for g in GAINS], over=True)
        assert logs[name] == pytest.approx(by_hand, abs=1e-6), name
    fine = shadow_verdict(*shadowed(1, devices=4, one=seen()), of=shadow_plan(**asked), soaked_s=60).evidence[
        "guardrails"
    ]
    for name, limit in (("agreement", 0.1), ("failures", 0.05), ("crash", 0.02), ("latency", 0.5)):
        by_hand = bet([(0.0, 4)], limit=limit, alternatives=[min(g * limit, 0.99) for g in GAINS], over=True)
        assert fine[name] == pytest.approx(by_hand, abs=1e-6), name


def test_the_tests_of_a_candidate_weigh_three_two_two_and_one() -> None:
    """ln E of the stage is that of their weighted average, with half on the slices that are judged."""

    def total(**asked: float) -> tuple[float, dict[str, float]]:
        evidence = shadow_verdict(*shadowed(1, devices=4, one=MIXED), of=shadow_plan(**asked), soaked_s=60).evidence
        return evidence["log_e"], evidence["guardrails"]

    log_e, logs = total()
    parts = {"agreement": 3, "failures": 2, "crash": 2}
    assert log_e == pytest.approx(math.log(sum(parts[n] / 7 * math.exp(logs[n]) for n in parts)), abs=1e-5)
    log_e, logs = total(latency_ratio_max=1.2)
    parts["latency"] = 1
    assert log_e == pytest.approx(math.log(sum(parts[n] / 8 * math.exp(logs[n]) for n in parts)), abs=1e-5)


def test_the_figures_of_a_verdict_have_six_digits() -> None:
    """They are replayed to the last one."""
    evidence = shadow_verdict(*shadowed(1, devices=4, one=MIXED), soaked_s=60).evidence
    logs = [evidence["log_e"], evidence["log_e_needed"], *evidence["guardrails"].values()]
    assert logs == [round(log, 6) for log in logs]


def test_half_of_a_candidates_budget_is_on_the_slices_of_each_label_evenly() -> None:
    told = {("a", "x"): MIXED, ("b", "x"): seen(), ("b", "y"): seen()}
    cells = [
        cell(role, 0, n=1, hardware_class=name, slices={"os": os}, shadow=Units.of(one) if role == "treated" else None)
        for (name, os), one in told.items()
        for role in ("treated", "control")
    ]
    parts = {"agreement": 3, "failures": 2, "crash": 2}

    def worth(*names: tuple[str, str]) -> float:
        own = [
            cell(role, 0, n=1, shadow=Units.of(told[each]) if role == "treated" else None)
            for each in names
            for role in ("treated", "control")
        ]
        logs = shadow_verdict(*own, soaked_s=60).evidence["guardrails"]
        return sum(parts[name] / 7 * math.exp(logs[name]) for name in parts)

    average = worth(*told) / 2
    average += (worth(("a", "x")) + worth(("b", "x"), ("b", "y"))) / 2 / 4
    average += (worth(("a", "x"), ("b", "x")) + worth(("b", "y"))) / 2 / 4
    assert shadow_verdict(*cells, soaked_s=60).evidence["log_e"] == pytest.approx(math.log(average), abs=1e-5)


def refuted_below(each: float, *, windows: int) -> float:
    """The agreement below which is refuted at 95%, where every window disagrees on such a share."""
    low, high = 0.0, 1.0
    for _ in range(60):
        limit = (low + high) / 2
        log = bet([(each, windows)], limit=limit, alternatives=[limit / g for g in GAINS], over=False)
        low, high = (low, limit) if log >= math.log(20) else (limit, high)
    return 1 - high


@pytest.mark.parametrize(("windows", "devices"), [(10, 10), (1, 9)])
def test_the_sentence_says_which_agreement_is_refuted_and_that_depends_on_the_evidence(
    windows: int, devices: int
) -> None:
    verdict = shadow_verdict(*shadowed(windows, devices=devices, one=seen(100, agreed=99, ratio=1.5)))
    refuted = refuted_below(GAMMA ** key_of(0.01), windows=windows * devices)
    assert verdict.move == "advance"
    assert verdict.because.startswith(
        f"in the shadow the candidate gave the active version's answer on 99.00% of {100 * windows * devices} inputs "
        f"of 10 devices; less than {100 * refuted:.2f}% is refuted; it takes {GAMMA ** key_of(1.5):.2f}x the time; "
        "of the app beside it: no harm in 10 devices of stage shadow; "
    )
    assert 0.6 < refuted < 0.99


def test_without_a_compared_window_no_agreement_is_refuted() -> None:
    assert agreement_proven(Units()) == 0.0


@pytest.mark.parametrize(
    ("one", "asked", "sentence"),
    [
        (
            worse(),
            {},
            "the candidate gives the active version's answer on 70.00% of the inputs, and the plan asks for 98.00%",
        ),
        (
            seen(100, errors=20),
            {},
            "the candidate fails on 20.00% of the inputs that the active version answers, over the limit of 1.00%",
        ),
        (
            seen(100, errors=18, crashed=2),
            {"error_rate_max": 0.03},
            "the candidate ended its process in 100 of 100 windows",
        ),
        (
            seen(100, ratio=3.0),
            {"latency_ratio_max": 1.5},
            f"the candidate takes {GAMMA ** key_of(3.0):.2f}x the active version's time, over the limit of 1.5x",
        ),
    ],
)
def test_a_candidate_that_is_stopped_is_told_with_its_figures(
    one: ShadowSums, asked: dict[str, float], sentence: str
) -> None:
    verdict = shadow_verdict(*shadowed(one=one), of=shadow_plan(**asked), soaked_s=60)
    log_e = verdict.evidence["log_e"]
    assert verdict.evidence["log_e_needed"] == pytest.approx(math.log(1 / (0.1 * 0.1)), abs=1e-6)
    assert (verdict.move, verdict.because) == (
        "roll_back",
        f"stage shadow: {sentence}, which is proven (ln E {log_e:.2f}, needed 4.61; 10000 inputs in 100 "
        "device-windows); it has answered nobody",
    )


@pytest.mark.parametrize(
    ("one", "asked", "doubt"),
    [
        (seen(9), {}, "90 inputs were compared in the shadow, and 100 must be"),
        (
            seen(100, agreed=97),
            {},
            "the candidate gives the active version's answer on 97.00% of the inputs, and the plan asks for 98.00%; "
            "that is not proven yet",
        ),
        (
            seen(100, errors=2),
            {},
            "the candidate fails on 2.00% of the inputs that the active version answers, over the limit of 1.00%; "
            "that is not proven yet",
        ),
        (
            seen(100, active_ms=0.0),
            {"latency_ratio_max": 1.5},
            "latency_ratio_max is asked for, and no time was told",
        ),
        (
            seen(100, ratio=1.6),
            {"latency_ratio_max": 1.5},
            f"the candidate takes {GAMMA ** key_of(1.6):.2f}x the active version's time, over the limit of 1.5x; "
            "that is not proven yet",
        ),
    ],
)
def test_what_keeps_a_candidate_in_the_shadow_is_told_whole(
    one: ShadowSums, asked: dict[str, float], doubt: str
) -> None:
    verdict = shadow_verdict(
        *shadowed(1, devices=10 if asked or one.inputs < 50 else 2, one=one), of=shadow_plan(**asked)
    )
    if one.candidate_ms > 1500:
        verdict = shadow_verdict(*shadowed(1, devices=3, one=one), of=shadow_plan(**asked))
    assert (verdict.move, verdict.because) == ("hold", f"stage shadow has soaked, but {doubt}")


@pytest.mark.parametrize(
    ("one", "devices", "counts", "move"),
    [
        (seen(10), 10, SHADOWED, "advance"),
        (seen(100, agreed=98), 1, SHADOWED, "advance"),
        (seen(200, errors=2), 1, SHADOWED, "advance"),
        (seen(100), 1, msgspec.structs.replace(SHADOWED, shadowed_t=1), "advance"),
        (seen(100), 1, msgspec.structs.replace(SHADOWED, shadowed_t=0), "hold"),
    ],
)
def test_a_candidate_on_its_very_limits_goes_on(one: ShadowSums, devices: int, counts: Counts, move: str) -> None:
    assert shadow_verdict(*shadowed(1, devices=devices, one=one), counts=counts).move == move


def test_with_when_proven_each_test_is_turned_round_and_the_missing_ones_are_named() -> None:
    strict = plan(*shadow_plan(latency_ratio_max=1.5, error_rate_max=0.1).stages, promote="when_proven")
    verdict = shadow_verdict(*shadowed(1, devices=30, one=seen(100, agreed=99)), of=strict)
    logs = {
        "agreement": bet([(GAMMA ** key_of(0.01), 30)], limit=0.02, alternatives=[0.02 / g for g in GAINS], over=False),
        "failures": bet([(0.0, 30)], limit=0.1, alternatives=[0.1 / g for g in GAINS], over=False),
        "latency": bet([(0.0, 30)], limit=0.5, alternatives=[0.5 / g for g in GAINS], over=False),
    }
    assert verdict.evidence["proofs"] == {name: pytest.approx(log, abs=1e-6) for name, log in logs.items()}
    assert [name for name, log in logs.items() if log < math.log(20)] == ["agreement", "failures"]
    assert verdict.because == (
        "stage shadow has soaked, but it is not proven yet that agreement, failures keep within the plan's limits"
    )


def by_class(told: dict[str, ShadowSums], *, windows: int = 20, label: str = "") -> list[Cell]:
    made = []
    for w in range(windows):
        for name, one in told.items():
            where = {"slices": {label: name}} if label else {"hardware_class": name}
            made.append(cell("treated", w, n=1, shadow=Units.of(one), **where))
            made.append(cell("control", w, n=1, **where))
    return made


@pytest.mark.parametrize(
    ("bad", "classes"), [("a", ("a",)), ("ab", ()), ("", ()), ("abcd", ())], ids=["one", "half", "none", "all"]
)
def test_fewer_than_half_of_the_slices_are_stopped_alone(bad: str, classes: tuple[str, ...]) -> None:
    verdict = shadow_verdict(*by_class({n: worse(50) if n in bad else seen() for n in "abcd"}), soaked_s=60)
    assert verdict.classes == classes
    assert verdict.move == ("wait" if not bad else "slice_back" if classes else "roll_back")
    if classes:
        log_e = verdict.evidence["log_e"]
        assert verdict.evidence["bad_classes"] == ["a"]
        assert verdict.evidence["rest_log_e"] < 0
        assert verdict.because == (
            "stage shadow: the candidate gives the active version's answer on 50.00% of the inputs, and the plan asks "
            f"for 98.00% on a, and nowhere else, which is proven (ln E {log_e:.2f}, needed 4.61; 2000 inputs in 20 "
            "device-windows); it has answered nobody"
        )


def test_slices_are_not_stopped_alone_where_the_rest_shows_half_of_the_proof() -> None:
    told = {"a": worse(50)} | {name: seen(100, agreed=91) for name in "bcd"}
    for windows, move in ((1, "wait"), (3, "roll_back"), (12, "roll_back")):
        assert shadow_verdict(*by_class(told, windows=windows), soaked_s=60).move == move


def test_where_two_labels_explain_the_harm_the_one_that_leaves_less_is_named() -> None:
    """All of one system are harmed, and of the classes one, with most of these devices."""
    made = []
    for w in range(10):
        for index, (name, os) in enumerate((c, o) for c in "abc" for o in ("x", "y", "z")):
            one = worse(50) if os == "y" else seen()
            more = {"hardware_class": name, "slices": {"os": os}}
            made += [cell("treated", w, n=1, shadow=Units.of(one), **more), cell("control", w, n=1, **more)]
            if index == 1:
                made.append(cell("treated", w, n=1, age_bucket=1, shadow=Units.of(one), **more))
    verdict = shadow_verdict(*made, soaked_s=60)
    assert (verdict.move, verdict.classes) == ("slice_back", ("os=y",))


def test_devices_in_the_control_tell_nothing_of_a_candidate() -> None:
    ledger = ShadowLedger()
    told = Units.of(seen())
    ledger.fold([cell("control", 0, n=1, shadow=told), cell("treated", 0, n=1)])
    assert (ledger.totals, ledger.slices) == ({}, {})
    ledger.fold([cell("treated", 0, n=1, shadow=told, hardware_class="a"), cell("treated", 1, n=1, shadow=told)])
    ledger.fold([cell("treated", 1, n=1, stage=1, shadow=told)])
    assert (ledger.totals[0].windows, ledger.totals[1].windows, ledger.slices[0]) == (2, 1, {"a": told})


def test_a_stage_that_serves_is_no_shadow_stage() -> None:
    with pytest.raises(ValueError, match=r"^stage 1 of the plan is no shadow stage$"):
        judge_candidate(shadow_plan(), 1, ShadowLedger(), devices=1, slices={})


def test_the_parts_of_a_plan_are_a_fifth_for_the_shadow_and_the_rest_for_serving() -> None:
    whole = plan(
        stage("a", 5, shadow=ShadowStage()),
        stage("b", 9, shadow=ShadowStage()),
        stage("c", 20, hours=7),
        stage("general", 100),
        alpha=0.05,
        promote="when_proven",
    )
    app, serving = shadow_part(whole), serving_part(whole)
    assert (app.alpha, candidate_alpha(whole), serving.alpha) == pytest.approx((0.005, 0.0025, 0.04))
    assert ([each.name for each in app.stages], [each.name for each in serving.stages]) == (
        ["a", "b"],
        ["c", "general"],
    )
    assert (app.promote, serving.promote) == ("when_no_harm", "when_proven")
    assert [each.shadow for each in app.stages] == [None, None]
    assert serving_part(plan()) == plan()


def test_an_app_that_crashes_in_one_class_beside_the_candidate_stops_it_there() -> None:
    made = []
    for w in range(12):
        for name in "abcd":
            more = {"hardware_class": name}
            made.append(cell("treated", w, n=50, crashed=20 if name == "d" else 1, shadow=Units.of(seen()), **more))
            made.append(cell("control", w, n=50, crashed=1, **more))
    verdict = shadow_verdict(*made, soaked_s=60)
    assert (verdict.move, verdict.classes) == ("slice_back", ("d",))
    assert verdict.because.startswith(
        "stage shadow: on devices that try it in the shadow harm is proven in d (crash rate 40.00% against 2.00% in "
        "the control) and nowhere else (ln E of the others "
    )
    guardrails = verdict.evidence["guardrails"]
    assert {"agreement", "failures", "crash", "app_crash", "app_silence"} <= guardrails.keys()
    assert verdict.evidence["app"]["log_e_needed"] == pytest.approx(math.log(100), abs=1e-6)


def test_whom_an_earlier_shadow_treated_the_later_one_treats_too() -> None:
    """Its split is that of its whole share: a half, not the half less the tenth before."""
    tried = [stage("one", 10, shadow=ShadowStage()), stage("two", 50, shadow=ShadowStage())]
    asked = plan(*tried, stage("general", 100, hours=0))
    cells = [
        each
        for w in range(10)
        for each in (cell("treated", w, n=10, stage=1, shadow=Units.of(seen())), cell("control", w, n=10, stage=1))
    ]

    def factor(treated: int, control: int) -> float:
        counts = Counts(
            assigned_t=treated,
            assigned_c=control,
            activated_t=treated,
            placebo_c=control,
            reported_t=treated,
            reported_c=control,
            shadowed_t=10,
        )
        told = {"stage": 1, "shares": (100_000, 500_000)}
        return shadow_verdict(*cells, of=asked, counts=counts, **told).evidence["sample_ratio"]["assigned"]

    assert factor(5000, 5000) < 0
    assert factor(4000, 5000) > 10
