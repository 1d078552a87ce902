"""A file of windows is judged as the controller would have judged it, or refused with the line."""

import json

import pytest

from support.values import cell, healthy, plan, stage
from whimbrel.errors import UntrustedInput
from whimbrel.flows.files.windows_file import read_windows
from whimbrel.flows.replay_windows import replay_windows
from whimbrel.health.tally import Cell
from whimbrel.model.documents import encode
from whimbrel.plan.plan import Plan


def judged(cells: list[Cell], wanted: Plan | None = None) -> list[tuple[int, str]]:
    wanted = wanted or plan()
    read = read_windows([encode(each) for each in cells], plan=wanted, what="w")
    return [(said.window, said.verdict.move) for said in replay_windows(wanted, read)]


def test_a_healthy_file_waits_and_then_advances() -> None:
    moves = judged(healthy(windows=20), plan(stage(hours=1), stage("all", 100)))
    assert moves == [(w, "wait" if w < 11 else "advance") for w in range(20)]


def test_it_ends_where_the_version_goes_back() -> None:
    bad = [
        cell(role, w, n=n, crashed=n // 4 if role == "treated" else 1)
        for w in range(30)
        for role, n in (("treated", 100), ("control", 1900))
    ]
    moves = judged(bad)
    assert moves[-1][1] == "roll_back"
    assert len(moves) < 30


def test_after_a_slice_went_back_the_rest_is_judged_on() -> None:
    bad = [
        cell(role, w, n=n, crashed=n // 4 if (role, name) == ("treated", "c0") else n // 100, hardware_class=name)
        for w in range(20)
        for name in ("c0", "c1", "c2", "c3")
        for role, n in (("treated", 100), ("control", 1900))
    ]
    moves = [move for _, move in judged(bad)]
    assert moves.count("slice_back") == 1
    assert "roll_back" not in moves
    assert len(moves) == 20


def test_the_order_of_lines_does_not_matter() -> None:
    cells = healthy(windows=5)
    assert judged(cells) == judged(cells[::-1])


GOOD = {"stage": 0, "window": 1, "role": "treated", "at_risk": 5}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({"crash": 1}, "has no field 'crash'"),
        ({"crashed": 6}, "crashed is 6, over at_risk less unused, 5"),
        ({"unused": 6}, "unused is 6, over at_risk, 5"),
        ({"overdue": 1}, "overdue is 1, over due, 0"),
        ({"error_share": 1.5, "error_units": 1}, "error_share"),
        ({"stage": 3}, "the plan has 3"),
        ({"at_risk": -1}, "at_risk"),
        ({"at_risk": 2**60}, "too large"),
        ({"at_risk": True}, "at_risk"),
        ({"role": "both"}, "role"),
        ({"window": -1}, "window"),
        ({"latency": {"9999999": 1}}, "beyond 4000"),
        ({"latency": {"x": 1}}, "latency"),
        ({"metrics": {"accuracy": {"n": 1, "sum": 1e305, "sumsq": 1}}}, "too large"),
        ({"age_bucket": 9}, "age_bucket"),
        ({"metrics": {"accuracy": {"n": 4, "sum": 2.0, "sumsq": 0.9}}}, "with the sum 2 they are at least 1"),
        ({"metrics": {"accuracy": {"n": 0, "sum": 2.0, "sumsq": 4.0}}}, "of no device"),
        ({"predictions": {"0": {"n": 2, "sum": 1.0, "sumsq": 0.1}}, "prediction_units": 2}, "squares of 0"),
        ({"error_units": 4, "error_share": 2.0, "error_squares": 0.5}, "squares of error_share add up to 0.5"),
        ({"error_units": 4, "error_share": 2.0, "error_squares": 2.5}, "error_squares is 2.5, over error_share, 2"),
    ],
)
def test_a_bad_line_is_refused_with_its_number(line: dict[str, object], says: str) -> None:
    lines = [encode(cell("control", 1, n=5)), json.dumps(GOOD | line).encode()]
    with pytest.raises(UntrustedInput, match="line 2") as caught:
        read_windows(lines, plan=plan(), what="w")
    assert says in str(caught.value)


@pytest.mark.parametrize("line", [b"[", b"[]", b"nonsense", b"\xff\xfe", b"[" * 100_000, b"1e999", b"{" * 2**21])
def test_garbage_is_refused(line: bytes) -> None:
    with pytest.raises(UntrustedInput, match="line 1"):
        read_windows([line], plan=plan(), what="w")


def test_a_cell_that_comes_twice_is_refused_and_never_added() -> None:
    lines = [json.dumps(GOOD).encode(), json.dumps(GOOD).encode()]
    with pytest.raises(UntrustedInput, match="came before; each comes once"):
        read_windows(lines, plan=plan(), what="w")


@pytest.mark.parametrize(
    ("before", "after", "name"),
    [(b'"at_risk":', b'"at_risk": 3, "at_risk":', "at_risk"), (b'"window":', b'"window": 3, "window":', "window")],
)
def test_a_field_twice_in_one_line_is_refused(before: bytes, after: bytes, name: str) -> None:
    """The last of two was taken, though the reference said that it is refused."""
    line = json.dumps(GOOD).encode()
    assert before in line
    with pytest.raises(UntrustedInput, match=f"line 1: the field '{name}' comes twice"):
        read_windows([line.replace(before, after)], plan=plan(), what="w")


def test_sums_of_equal_values_and_of_rounded_digits_are_taken() -> None:
    equal = {"error_units": 5, "error_share": 2.5, "error_squares": 1.25}
    metrics = {"accuracy": {"n": 3, "sum": 2.1, "sumsq": 1.47}, "battery": {"n": 0, "sum": 0.0, "sumsq": 0.0}}
    assert read_windows([json.dumps(GOOD | equal | {"metrics": metrics}).encode()], plan=plan(), what="w")


def test_an_empty_file_is_refused() -> None:
    with pytest.raises(UntrustedInput, match="holds no window"):
        read_windows([b"", b"\n"], plan=plan(), what="w")


def test_a_file_without_a_control_never_passes_a_comparison() -> None:
    alone = [cell("treated", w, n=100) for w in range(30)]
    wanted = plan(stage(hours=0, crash_ratio_max=2.0))
    assert {move for _, move in judged(alone, wanted)} == {"hold"}


def test_in_a_file_that_tells_sessions_alone_a_cell_without_any_was_not_used() -> None:
    lines = [encode(cell("control", 1, n=5)), encode(cell("treated", 1, n=5, sessions=0, error_units=0))]
    assert [each.used for each in read_windows(lines, plan=plan(), what="w")] == [5, 0]
