"""What a verdict says of both arms, whole: each kind of figure in its own form, with whose it is."""

import math
from typing import Any

import msgspec
import pytest

from support.values import HOUR, accuracy, cell, gate_input, healthy, plan, selector, stage
from whimbrel.gate.estimates import compare, describe, estimates_of
from whimbrel.gate.gate import judge
from whimbrel.gate.ledger import Ledger
from whimbrel.gate.slices import harmed_slices
from whimbrel.gate.totals import Totals
from whimbrel.gate.unproven import weigh_unproven
from whimbrel.gate.verdict import Counts, GateInput, Past, Unproven, Verdict
from whimbrel.health.sketch import GAMMA
from whimbrel.health.tally import Cell, Moments
from whimbrel.plan.criteria import Guardrail, SuccessCriteria
from whimbrel.plan.measures import MEASURES

# --- the estimates of both arms ---


def totals(**sums: Any) -> Totals:
    added = Totals()
    added.add(Cell(stage=0, window=0, role="treated", **sums))
    return added


TOLD = {
    "at_risk": 9,
    "sessions": 30,
    "unused": 1,
    "crashed": 3,
    "error_units": 4,
    "error_share": 0.5,
    "due": 6,
    "overdue": 2,
    "user_reports": 3,
    "latency": {100: 3, 200: 1},
    "metrics": {"accuracy": Moments(n=3, sum=2.0, sumsq=1.4), "watts": Moments(n=2, sum=9.0, sumsq=41.0)},
}


def test_the_estimates_of_an_arm_are_its_sums_by_what_each_is_out_of() -> None:
    criteria = SuccessCriteria(latency_p99_max_ms=GAMMA**150, metrics_max={"watts": 9.0}, accuracy_min=0.1)
    arms = {"treated": totals(**TOLD), "control": Totals()}
    estimates = estimates_of(arms, criteria, watched=["user_reports"], own=["fps"], heard=True)
    assert estimates["treated"] == {
        "device_windows": 9,
        "sessions_timed": 4,
        "sessions_a_window": round(30 / 9, 9),
        "crash_rate": 0.375,
        "crashed": 3,
        "accuracy": 0.666666667,
        "error_rate": 0.125,
        "silence": 0.333333333,
        "latency_p50_ms": round(GAMMA**100, 3),
        "latency_p95_ms": round(GAMMA**200, 3),
        "latency_p99_ms": round(GAMMA**200, 3),
        "battery": None,
        "user_report_rate": 0.333333333,
        "user_reports": 3,
        "usage": 0.888888889,
        "memory_mb": None,
        "temperature_c": None,
        "share_over_limit": 0.25,
        "means": {"accuracy": 0.666666667, "fps": None, "watts": 4.5},
    }
    empty = estimates["control"]
    assert empty["device_windows"] == empty["crashed"] == empty["user_reports"] == empty["sessions_timed"] == 0
    assert {v for k, v in empty.items() if k.endswith(("rate", "ms", "usage", "accuracy", "window"))} == {None}
    assert "share_over_limit" not in empty


def test_what_a_plan_does_not_ask_for_has_no_estimate_and_what_was_not_heard_of_is_unknown() -> None:
    bare = estimates_of({"treated": totals(**TOLD)}, SuccessCriteria())["treated"]
    assert not {"user_report_rate", "share_over_limit", "means"} & bare.keys()
    deaf = estimates_of({"treated": totals(**TOLD)}, SuccessCriteria(), watched=["user_reports"])["treated"]
    assert (deaf["user_report_rate"], deaf["user_reports"]) == (None, 3)


ARM = {
    "device_windows": 7,
    "crash_rate": 0.0125,
    "latency_p95_ms": 12.5,
    "battery": 1234.56,
    "drift_psi": 0.12345,
    "memory_mb": None,
    "error_rate": 0.5,
    "means": {"fps": 29.876},
}
OTHER = ARM | {"crash_rate": None, "latency_p95_ms": None, "battery": 0.5, "drift_psi": None, "means": {"fps": None}}


@pytest.mark.parametrize(
    ("guardrail", "sentence"),
    [
        ("crash", "crash rate 1.25% against nothing reported in the control"),
        ("latency_p95", "latency p95 12.5 ms against None ms in the control"),
        ("battery", "battery 1235 against 0.5 in the control"),
        ("memory_mb", "memory (MB) nothing reported against nothing reported in the control"),
        ("drift", "stability index of the predictions 0.123 against unknown in the control"),
        ("error_limit", "error rate 50.00% against 50.00% in the control"),
        ("fps", "fps 29.88 against nothing reported in the control"),
        ("metrics_min.fps", "fps 29.88 against nothing reported in the control"),
        ("failure", "7 device-windows on the new version"),
        ("latency_limit", "7 device-windows on the new version"),
        ("silence", "7 device-windows on the new version"),
    ],
)
def test_each_guardrail_describes_both_arms_in_its_own_form(guardrail: str, sentence: str) -> None:
    assert describe(guardrail, {"treated": ARM, "control": OTHER}) == sentence


@pytest.mark.parametrize(
    ("guardrail", "figures", "sentence"),
    [
        ("crash", (0.5, 0.0), "crash rate 50.00% against 0.00% in the control"),
        ("usage", (0.1, None), "device-windows with a session: 10.00% against nothing reported in the control"),
        ("latency_p95", (0.1, 0.05), "sessions slower than 95% of the control's were before: 10.00% against 5.00%"),
        ("latency_p50", (0.1, 0.05), "sessions slower than 50% of the control's were before: 10.00% against 5.00%"),
        ("latency_over", (0.02, 0.01), "sessions over the limit of latency: 2.00% against 1.00%"),
        ("battery", (1234.56, 0.5), "battery 1235 against 0.5"),
        ("temperature_c", (31.25, 30.0), "temperature (°C) 31.25 against 30"),
        ("accuracy", (0.84, 0.9), "accuracy 84.00% against 90.00%"),
        ("feedback", (0.4, 0.8), "feedback 0.4 against 0.8"),
        ("fps", (29.876, None), "fps 29.88 against nothing reported"),
    ],
)
def test_the_figures_of_a_copy_are_in_the_form_of_its_test(
    guardrail: str, figures: tuple[float | None, float | None], sentence: str
) -> None:
    assert compare(guardrail, *figures) == sentence.removesuffix(" in the control") + " in the control"


def test_every_measure_that_two_arms_have_is_compared_by_name() -> None:
    assert all(" against " in compare(name, 0.5, 0.25) for name in MEASURES)


# --- whole verdicts ---


def crashing(windows: int = 6, **more: Any) -> list[Cell]:
    made: list[Cell] = []
    for w in range(windows):
        made += [cell("treated", w, n=100, crashed=10, **more), cell("control", w, n=1900, crashed=19, **more)]
    return made


def test_a_rollback_is_told_whole() -> None:
    verdict = judge(plan(), gate_input(*crashing()))
    log_e, crash = verdict.evidence["log_e"], verdict.evidence["guardrails"]["crash"]
    assert crash > log_e > 4
    assert verdict.because == (
        f"harm is proven: crash (ln E {crash:.2f}, of all {log_e:.2f}, needed 2.30; crash rate 10.00% against 1.00% in "
        "the control)"
    )
    assert verdict.evidence["counts"] == {
        "assigned_t": 100,
        "assigned_c": 1900,
        "activated_t": 100,
        "placebo_c": 1900,
        "reported_t": 100,
        "reported_c": 0,
        "failed_t": 0,
        "went_back_t": 0,
    }
    assert (verdict.evidence["windows"], verdict.evidence["log_e_needed"]) == (6, 2.302585)


def test_a_rollback_past_two_limits_names_both() -> None:
    cells = crashing(errors=9.0)
    verdict = judge(plan(stage(crash_ratio_max=2, error_rate_max=0.05)), gate_input(*cells))
    assert verdict.because.endswith("in the control); past the limit of error_rate_max, crash_ratio_max")


def test_a_hold_says_which_commands_a_person_has() -> None:
    held = plan(guardrails=(Guardrail(metric="crash", severity="hold"),))
    verdict = judge(held, gate_input(*crashing()))
    assert verdict.evidence["severity"] == "hold"
    assert verdict.because.endswith(
        "crash rate 10.00% against 1.00% in the control); the plan says hold, so a person decides: rollout rollback, "
        "rollout finish or rollout abort"
    )


def test_harm_of_an_earlier_stage_is_told_with_that_stages_figures() -> None:
    cells = [*crashing(), cell("treated", 7, n=50, stage=1, crashed=1), cell("control", 7, n=100, stage=1, crashed=2)]
    verdict = judge(plan(), gate_input(*cells, stage=1))
    assert verdict.because.endswith("; crash rate 10.00% against 1.00% in the control, in stage canary)")
    assert verdict.evidence["estimates"]["treated"]["crash_rate"] == 0.02


def test_a_slice_that_goes_back_is_told_whole() -> None:
    cells = []
    for w in range(12):
        for name, crashed in (("a", 1), ("b", 1), ("c", 25)):
            cells += [
                cell("treated", w, n=50, crashed=crashed, hardware_class=name),
                cell("control", w, n=900, crashed=18, hardware_class=name),
            ]
    ledger = Ledger(plan())
    verdict = judge(plan(), gate_input(*cells), ledger)
    rest = verdict.evidence["rest_log_e"]
    (slices,) = harmed_slices(ledger).values()
    assert rest == round(slices.rest, 6) < 0
    assert verdict.evidence["classes"] == {name: round(log, 6) for name, log in slices.logs.items()}
    assert (verdict.move, verdict.classes, verdict.evidence["bad_classes"]) == ("slice_back", ("c",), ["c"])
    assert list(verdict.evidence["classes"]) == ["a", "b", "c"]
    assert verdict.because == (
        "harm is proven in c (crash rate 50.00% against 2.00% in the control) and nowhere else (ln E of the others "
        f"{rest:.2f}): this slice goes back, the rest goes on"
    )


def test_two_slices_that_go_back_are_both_named() -> None:
    cells = []
    for w in range(12):
        for name in "abcdefg":
            crashed = 25 if name in "bd" else 1
            cells += [
                cell("treated", w, n=50, crashed=crashed, hardware_class=name),
                cell("control", w, n=900, crashed=18, hardware_class=name),
            ]
    verdict = judge(plan(), gate_input(*cells))
    assert verdict.classes == ("b", "d")
    assert "harm is proven in b (crash rate 50.00% against 2.00% in the control), d (crash rate" in verdict.because
    assert verdict.because.endswith(": these slices go back, the rest goes on")


# --- why a stage waits, holds or goes on ---


@pytest.mark.parametrize(
    ("now", "sentence"),
    [
        ({"soaked_s": 1.26 * HOUR}, "stage canary has soaked 1.3 of 24 h"),
        ({"soaked_s": 2 * HOUR}, "stage canary has soaked 2 of 24 h"),
        ({"soaked_s": 31.0, "hour_s": 2.0}, "stage canary has soaked 31 of 48 s (an hour of the plan lasts 2 s)"),
        ({"soaked_s": 24 * HOUR - 1}, "stage canary has soaked 24 of 24 h"),
    ],
)
def test_how_long_a_stage_has_soaked_is_said_in_hours_and_in_a_rehearsal_in_seconds(
    now: dict[str, float], sentence: str
) -> None:
    verdict = judge(plan(), gate_input(*healthy(), **now))
    assert (verdict.move, verdict.because) == ("wait", sentence)


CLASSES = stage(only=selector(board="pi5"))


@pytest.mark.parametrize(
    ("counts", "more", "doubt"),
    [
        ({}, {}, "no device of stage canary has activated the version yet, and 1 must have reported"),
        (
            {"assigned_t": 1200},
            {},
            "none of the 1,200 devices of stage canary has activated the version yet, and 1 must have reported",
        ),
        (
            {},
            {"devices": 1},
            "none of the 1 device of stage canary has activated the version yet, and 1 must have reported",
        ),
        (
            {},
            {"devices": 0},
            "there is no device of stage canary, so nobody can take the version; it goes on when such a device enrols "
            "(or: rollout finish, rollout abort)",
        ),
        ({"activated_t": 3}, {}, "0 of 3 activated devices reported, and 1 must"),
        ({"activated_t": 9, "reported_t": 4}, {}, "only 4 of 9 activated devices reported, and half must"),
    ],
)
def test_which_devices_are_missing_is_told_whole(counts: dict[str, int], more: dict[str, int], doubt: str) -> None:
    verdict = judge(plan(), gate_input(*healthy(), counts={0: Counts(**counts)}, **more))
    assert (verdict.move, verdict.because) == ("hold", f"stage canary has soaked, but {doubt}")


def test_the_devices_of_a_selector_are_named_by_it() -> None:
    picky = plan(CLASSES)
    for devices in (0, 7):
        verdict = judge(picky, gate_input(counts={}, devices=devices))
        assert " of stage canary (its selector: board is pi5)" in verdict.because, verdict.because


@pytest.mark.parametrize(("reported", "activated", "move"), [(5, 10, "advance"), (4, 9, "hold"), (10, 10, "advance")])
def test_half_of_the_activated_devices_are_enough(reported: int, activated: int, move: str) -> None:
    counts = {0: Counts(assigned_t=10, activated_t=activated, reported_t=reported)}
    assert judge(plan(), gate_input(*healthy(), counts=counts)).move == move


def test_a_stage_that_may_bake_longer_waits_until_then_and_holds_after() -> None:
    longer = plan(stage(max_hours=30))
    at = {hours: judge(longer, gate_input(counts={}, soaked_s=hours * HOUR)) for hours in (24, 29.9, 30)}
    assert [verdict.move for verdict in at.values()] == ["wait", "wait", "hold"]
    assert at[24].because.endswith("and 1 must have reported; it bakes for at most 30 h")
    assert at[30].because.endswith("and 1 must have reported")


def test_a_promotion_is_told_whole() -> None:
    verdict = judge(plan(), gate_input(*healthy(), without=("pi3", "os=b")))
    ratios = verdict.evidence["detectable_crash_ratio"]
    assert verdict.because == (
        f"no harm in 100 devices of stage canary; a crash rate of {ratios['0.8']:.1f}x the control's would have been "
        f"seen with 80% chance, {ratios['0.95']:.1f}x with 95%; without pi3, os=b, which went back"
    )
    assert verdict.evidence["without"] == ["pi3", "os=b"]


def test_a_stage_judged_by_another_says_that_it_adds_no_device() -> None:
    small = plan(stage(), stage("early", 25, hours=1, only=selector(board="pi5")), stage("general", 100))
    counts = {0: Counts(assigned_t=1, activated_t=1, reported_t=1)}
    now = gate_input(*healthy(), stage=1, cohort=0, counts=counts, shares=(50_000, 250_000))
    verdict = judge(small, now)
    assert verdict.because.startswith("no harm in 1 device of stage canary; ")
    assert verdict.because.endswith("; stage early adds no device to these (its selector: board is pi5)")
    assert "sample_ratio" not in verdict.evidence


def test_proof_that_is_asked_for_and_there_is_told() -> None:
    cells = [
        c
        for w in range(60)
        for c in (
            cell("treated", w, n=400, crashed=2, due=200),
            cell("control", w, n=4000, crashed=20, errors=20.0, due=2000),
        )
    ]
    verdict = judge(plan(promote="when_proven"), gate_input(*cells))
    assert verdict.because.startswith(
        "no harm beyond the margins, which is proven in 100 devices of stage canary; a crash rate of "
    )


def test_missing_proofs_are_named_in_the_singular_and_the_plural() -> None:
    strict, start = plan(promote="when_proven"), "stage canary has soaked, but "
    assert judge(strict, gate_input()).because == f"{start}nothing was reported that could prove it harmless"
    verdict = judge(strict, gate_input(*healthy()))
    assert [name for name, log in verdict.evidence["proofs"].items() if log >= math.log(20)] == ["crash", "usage"]
    assert verdict.because == f"{start}it is not proven yet that error, silence are within the margin"
    warned = plan(promote="when_proven", guardrails=(Guardrail(metric="silence", severity="warn"),))
    verdict = judge(warned, gate_input(*healthy()))
    assert "silence" not in verdict.evidence["proofs"]
    assert verdict.because == f"{start}it is not proven yet that error is within the margin"


def test_what_nobody_told_of_is_to_be_proven_only_where_the_plan_asks_for_it() -> None:
    cells = [msgspec.structs.replace(each, error_units=0) for each in healthy()]
    told = {"crash", "silence", "usage"}
    assert judge(plan(promote="when_proven"), gate_input(*cells)).evidence["proofs"].keys() == told
    asked = plan(stage(error_rate_max=0.5), promote="when_proven")
    assert judge(asked, gate_input(*healthy())).evidence["proofs"].keys() == told | {"error"}


# --- how the arms are split ---


@pytest.mark.parametrize(
    ("step", "pair"),
    [("assigned", (4500, 95500)), ("activated", (4500, 95500)), ("reporting", (4500, 95500))],
)
def test_a_split_that_is_not_that_of_the_buckets_is_told_by_its_step(step: str, pair: tuple[int, int]) -> None:
    order = ["assigned", "activated", "reporting"]
    pairs = [pair if order.index(step) <= index else (5000, 95000) for index in range(3)]
    (a_t, a_c), (v_t, v_c), (r_t, r_c) = pairs
    counts = Counts(assigned_t=a_t, assigned_c=a_c, activated_t=v_t, placebo_c=v_c, reported_t=r_t, reported_c=r_c)
    verdict = judge(plan(), gate_input(*healthy(), counts={0: counts}, shares=(50_000,)))
    assert verdict.because == (
        f"stage canary has soaked, but 4500 and 95500 devices of the arms are {step}, and 5% were expected on the new "
        "version: one arm loses devices, so what is left cannot be compared"
    )
    factors = verdict.evidence["sample_ratio"]
    assert factors[step] == pytest.approx(23.490, abs=1e-3)
    assert list(factors) == order[: order.index(step) + 1]


def test_the_split_of_a_later_stage_is_that_of_the_buckets_it_adds() -> None:
    """A quarter less the first twentieth, of which 80% are still to come: 200 of 950."""
    counts = Counts(
        assigned_t=2000, assigned_c=7500, activated_t=2000, placebo_c=7500, reported_t=2000, reported_c=7500
    )
    now = {"stage": 1, "counts": {1: counts}, "soaked_s": 50 * HOUR}
    cells = [second_stage(each) for each in healthy()]
    even = judge(plan(), gate_input(*cells, shares=(50_000, 250_000), **now))
    assert even.move == "advance", even.because
    assert set(even.evidence["sample_ratio"].values()) != {0.0}
    assert judge(plan(), gate_input(*cells, shares=(100_000, 250_000), **now)).move == "hold"


def second_stage(each: Cell) -> Cell:
    return msgspec.structs.replace(each, stage=1)


def test_where_the_buckets_do_not_tell_the_split_it_is_not_tested() -> None:
    uneven = Counts(assigned_t=900, assigned_c=100, activated_t=900, placebo_c=100, reported_t=900, reported_c=100)
    now: dict[str, Any] = {"counts": {0: uneven}, "shares": (50_000,)}
    assert judge(plan(), gate_input(*healthy(), **now)).move == "hold"
    assert judge(plan(), gate_input(*healthy(), counts={0: uneven})).move == "advance"
    assert judge(plan(), gate_input(*healthy(), **now, past=Past())).move == "advance"
    picky = plan(stage(), stage("early", 25, only=selector(board="pi5")), stage("general", 100))
    late = {"stage": 1, "counts": {1: uneven}, "shares": (50_000, 250_000)}
    assert judge(picky, gate_input(*map(second_stage, healthy()), **late)).move == "advance"


# --- devices that prove nothing ---


def unproven(counts: dict[int, Counts], *cells: Cell, verdict: Verdict, **changes: Any) -> Verdict:
    now = GateInput(stage=0, soaked_s=25 * HOUR, counts={}, unproven=Unproven(counts=counts, window=9))
    return weigh_unproven(plan(), now, verdict, Ledger(plan()), cells)


FINE = Verdict("advance", "no harm", {"log_e": 0.0})


def test_devices_that_are_not_counted_are_counted_in_the_sentence() -> None:
    """At each stage those treated so far and its controls are all of them."""
    one = unproven({0: Counts(assigned_t=1)}, verdict=FINE)
    assert one.because == (
        "no harm; 1 device is not counted, since a shared token let it in after this began (whimbrel device admit "
        "makes them count)"
    )
    assert one.evidence == {"log_e": 0.0, "unproven": {"devices": 1}}
    stages = {0: Counts(assigned_t=20, assigned_c=2000), 1: Counts(assigned_t=400, assigned_c=1000)}
    assert unproven(stages, verdict=FINE).because.startswith("no harm; 2,020 devices are not counted, since a shared ")
    assert unproven({0: Counts()}, verdict=FINE) == FINE


def test_harm_among_devices_that_are_not_counted_holds_and_takes_nothing_back() -> None:
    counts = {0: Counts(assigned_t=100, assigned_c=1900, activated_t=100, reported_t=100)}
    verdict = unproven(counts, *crashing(), verdict=FINE)
    assert verdict.move == "hold"
    assert verdict.evidence["unproven"]["harm"].startswith("harm is proven: crash (ln E ")
    assert verdict.because == (
        "2,000 devices are not counted, since a shared token let them in after this began (whimbrel device admit "
        f"makes them count), and they show harm: {verdict.evidence['unproven']['harm']}. Such devices take nothing "
        "back, so a person decides (of the others: no harm)"
    )
    gone = Verdict("roll_back", "harm", {})
    assert unproven(counts, *crashing(), verdict=gone).move == "roll_back"
    assert unproven(counts, *healthy(), verdict=FINE).move == "advance"


def test_the_kill_switch_of_devices_that_are_not_counted_holds_too() -> None:
    counts = {0: Counts(assigned_t=50, activated_t=10, went_back_t=10)}
    assert unproven(counts, verdict=FINE).evidence["unproven"]["harm"] == (
        "the kill switch: 10 of 10 activated devices went back by themselves"
    )


def test_accuracy_of_one_point_in_two_stages_is_told_by_the_judged_one() -> None:
    cells = [
        each
        for w in range(4)
        for stage_number, mean in ((0, 0.9), (1, 0.8))
        for each in (
            cell("treated", w, n=100, stage=stage_number, metrics=accuracy(mean, 100)),
            cell("control", w, n=100, stage=stage_number, metrics=accuracy(mean, 100)),
        )
    ]
    estimates = [judge(plan(), gate_input(*cells, stage=each)).evidence["estimates"] for each in (0, 1)]
    assert [each["treated"]["accuracy"] for each in estimates] == pytest.approx([0.9, 0.8])
