"""Where is the harm? One slice is named when it is proven by itself, also before e-BH could name it among many."""

import math

import pytest

from support.values import cell, gate_input, plan
from whimbrel.gate.gate import judge
from whimbrel.gate.verdict import Verdict
from whimbrel.health.tally import Cell

CLASSES = "abcdefgh"  # eight: e-BH asks ln E of one of them to reach ln(8/alpha)


def verdict(crashed: dict[str, int]) -> Verdict:
    """The verdict over a first window in which so many of 12 treated devices crashed, by class."""
    cells: list[Cell] = []
    for name in CLASSES:
        treated = cell("treated", 0, n=12, crashed=crashed.get(name, 0), hardware_class=name)
        cells += [treated, cell("control", 0, n=90, hardware_class=name)]
    return judge(plan(), gate_input(*cells))


def test_the_only_slice_that_shows_anything_goes_back_alone_as_soon_as_harm_is_proven() -> None:
    judged = verdict({"c": 5})
    logs = judged.evidence["classes"]
    assert math.log(1 / plan().alpha) < logs["c"] < math.log(len(CLASSES) / plan().alpha)  # e-BH names none yet
    assert (judged.move, judged.classes) == ("slice_back", ("c",))
    assert judged.evidence["rest_log_e"] <= 0.01


@pytest.mark.parametrize("others", [{"a": 1}, {"a": 1, "b": 1}])
def test_where_another_slice_shows_something_one_that_e_bh_does_not_name_stands_for_all(others: dict[str, int]) -> None:
    assert verdict({"c": 5} | others).move == "roll_back"


def test_harm_without_one_proven_slice_is_everybodys() -> None:
    assert verdict({"a": 2, "c": 3, "e": 2}).move == "roll_back"


def test_a_slice_that_is_proven_a_stage_later_is_described_by_the_stage_that_it_was_seen_in() -> None:
    cells: list[Cell] = []
    for name in CLASSES:
        treated = cell("treated", 0, n=12, crashed=5 if name == "c" else 0, hardware_class=name)
        cells += [treated, cell("control", 0, n=90, hardware_class=name)]
    judged = judge(plan(), gate_input(*cells, stage=1))
    assert judged.move == "slice_back"
    assert (
        "c (crash rate 41.67% against 0.00% in the control) and nowhere else (ln E of the others 0.00)"
        in judged.because
    )
