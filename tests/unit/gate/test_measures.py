"""The table of measures is whole: what a row names is there, and whoever reads the table finds what it needs."""

from pathlib import Path

import msgspec
import pytest

from support.values import cell, gate_input, plan, stage
from whimbrel.gate.estimates import describe, estimates_of
from whimbrel.gate.guardrails import guard_weights, margins, severities
from whimbrel.gate.ledger import Ledger
from whimbrel.gate.totals import Totals
from whimbrel.health.tally import Cell, Moments, add
from whimbrel.plan.criteria import KNOWN, Guardrail, SuccessCriteria
from whimbrel.plan.measures import LIMITS, MEASURES, SUMS, Measure, OneSample, Rate
from whimbrel.plan.plan import Plan

ROWS = pytest.mark.parametrize("row", MEASURES.values(), ids=MEASURES)
REFERENCE = Path(__file__).parents[3] / "docs/reference/plan.md"


def watching(row: Measure) -> Plan:
    """A plan that has a test of the row, since its guardrail, its limit or that of the row beside it says so."""
    if row.always or row.margin is not None:
        return plan(stage(), guardrails=(Guardrail(metric=row.name),) if row.margin is not None else ())
    if row.beside is not None:
        return watching(MEASURES[row.beside])
    return plan(stage(**dict.fromkeys(row.asked_by, 0.5)))


@ROWS
def test_what_a_row_names_is_there(row: Measure) -> None:
    criteria = set(SuccessCriteria.__struct_fields__)
    assert set(row.asked_by) <= criteria
    assert {row.follows, row.beside} <= {None, *MEASURES}
    if isinstance(row.test, Rate):
        assert {row.test.events, row.test.exposure} <= {"used", *Cell.__struct_fields__}
    if isinstance(row.test, OneSample) and row.test.rate is not None:
        assert isinstance(MEASURES[row.test.rate].test, Rate)
    assert row.margin is None or row.margin.least <= row.margin.default <= row.margin.most
    assert row.name not in row.asked_by


@ROWS
def test_every_row_has_a_share_of_the_budget_a_severity_and_a_sentence_where_a_plan_asks_for_it(row: Measure) -> None:
    asking = watching(row)
    assert guard_weights(asking)[row.name] > 0
    assert row.name in severities(asking)
    ledger = Ledger(asking)
    ledger.fold(gate_input(cell("treated", 0, n=9), cell("control", 0, n=9)).cells)
    arms = ledger.cohorts[0].totals
    estimates = estimates_of(arms, asking.criteria(0), watched=guard_weights(asking), heard=True)
    for arm in estimates.values():
        arm.setdefault("drift_psi", 0.1)  # the gate's own, which the sums of an arm do not say
    assert describe(row.name, estimates)


@ROWS
def test_a_row_that_a_plan_must_ask_for_has_no_test_elsewhere(row: Measure) -> None:
    assert (row.name in guard_weights(plan())) == row.always


def test_every_sum_of_a_rate_is_added_when_cells_are() -> None:
    one = Cell(
        stage=0, window=0, role="treated", **dict.fromkeys(set(SUMS) - {"used"}, 3)
    )  # which is what was not unused
    both = add(one, one)
    assert {name: getattr(both, name) for name in SUMS} == dict.fromkeys(SUMS, 6)
    totals = Totals()
    totals.add(both)
    assert [totals[name] for name in SUMS] == [6] * len(SUMS)


def test_a_guardrail_may_name_every_row_with_a_margin_and_no_other() -> None:
    tolerated = margins(plan())
    assert {row.name for row in MEASURES.values() if row.margin is not None} == KNOWN.keys()
    assert KNOWN.keys() - {"failure", "drift"} == {
        *tolerated.ratios,
        *tolerated.drops,
        *tolerated.rises,
        *tolerated.slower,
    }
    for name in MEASURES.keys() - KNOWN.keys():
        with pytest.raises(ValueError, match="name of a limit's own test"):
            Guardrail(metric=name)


def test_every_limit_of_a_stage_is_in_the_table_but_for_the_bounds_of_means_and_the_size() -> None:
    bounds = {"accuracy_min", "feedback_min", "battery_max", "memory_mb_max", "metrics_min", "metrics_max"}
    assert {limit.criterion for limit in LIMITS} == set(SuccessCriteria.__struct_fields__) - bounds - {"size_bytes_max"}


def test_every_limit_finds_its_estimate() -> None:
    criteria = SuccessCriteria(latency_p99_max_ms=50.0)
    told = cell("treated", 0, n=9, latency={100: 3}, metrics={"battery": Moments(n=1, sum=1.0, sumsq=1.0)})
    totals = Totals()
    totals.add(told)
    arm = estimates_of({"treated": totals}, criteria, watched=MEASURES, heard=True)["treated"]
    assert {limit.estimate for limit in LIMITS} - arm.keys() == {"drift_psi"}  # the gate's own


def test_every_guardrail_that_a_plan_may_name_is_in_the_reference() -> None:
    page = REFERENCE.read_text()
    assert [name for name in KNOWN if f"`{name}`" not in page] == []


def test_a_later_row_changes_no_share_of_a_plan_that_does_not_ask_for_it() -> None:
    """Stored verdicts are given again to the last bit, so the parts of older rows are added up in their old order."""
    always = [name for name, row in MEASURES.items() if row.always]
    assert list(guard_weights(plan())) == always
    assert always == [
        "crash",
        "accuracy",
        "error",
        "silence",
        "failure",
        "latency_p50",
        "latency_p95",
        "latency_p99",
        "battery",
        "usage",
        "memory_mb",
        "temperature_c",
    ]
    assert msgspec.structs.asdict(margins(plan()))["failure"] == 0.02
