"""A run of hours may stop anywhere and go on: what is kept of it, what is played again, and what `ok` needs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harm_exposure import methods_of
from harm_results import (
    Part,
    ResultsFile,
    Settings,
    counted,
    missing_runs,
    outcomes_of,
    read_results,
    with_part,
    write_results,
)
from harm_rows import Outcome
from harm_streams import exposed

HARM = Path(__file__).parents[3] / "bench" / "harm.py"
SETTINGS = Settings(seed=1, alpha=0.1)
WENT_BACK = Outcome(move="roll_back", back=7, because="harm is proven: crash (ln E 3)")


def part(first: int, runs: int, *, code: str = "now", outcome: Outcome | None = None) -> Part:
    outcomes = [outcome or Outcome(move="advance")] * runs
    return Part(first=first, runs=runs, cpu_s=1.0, code=code, results=counted(outcomes, first=first, named=True))


def run_harm(results: Path, *arguments: str) -> tuple[int, dict[str, object]]:
    command = [sys.executable, str(HARM), "--only", "kill_switch", "--results", str(results), "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


def rows(results: Path) -> list[dict[str, object]]:
    return [row | {"cpu_s": None} for row in json.loads(results.read_bytes())["rows"]]


def test_only_what_is_missing_is_played_again() -> None:
    parts = [part(0, 25), part(50, 25)]
    assert list(missing_runs(parts, runs=100, chunk=20)) == [(25, 20), (45, 5), (75, 20), (95, 5)]
    assert list(missing_runs(parts, runs=25, chunk=20)) == []
    assert list(missing_runs([], runs=30, chunk=20)) == [(0, 20), (20, 10)]


def test_neighbours_of_one_code_become_one_part() -> None:
    parts = with_part([part(0, 2), part(4, 2)], part(2, 2, outcome=WENT_BACK))
    assert [(each.first, each.runs, each.cpu_s) for each in parts] == [(0, 6, 3.0)]
    outcomes = outcomes_of(parts[0].results)
    assert len(outcomes) == 6
    assert outcomes.count(WENT_BACK) == 2
    assert [each["rollouts"] for each in parts[0].results["outcomes"] if "rollouts" in each] == [[2, 3]]
    assert len(with_part([part(0, 2)], part(2, 2, code="other"))) == 2


def test_parts_of_other_code_are_played_again_unless_they_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_results(path, ResultsFile(settings=SETTINGS, parts={"presence": [part(0, 5), part(5, 5, code="old")]}))
    assert [each.code for each in read_results(path, SETTINGS, code="now").parts["presence"]] == ["now"]
    assert len(read_results(path, SETTINGS, code=None).parts["presence"]) == 2
    assert read_results(path, SETTINGS, code="third").parts == {}


def test_results_of_other_settings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_results(path, ResultsFile(settings=SETTINGS))
    with pytest.raises(ValueError, match=r"was played with .*seed=1.* not with .*seed=2"):
        read_results(path, Settings(seed=2, alpha=0.1), code=None)
    path.write_text("{}")
    with pytest.raises(ValueError, match="holds no results of this benchmark"):
        read_results(path, SETTINGS, code=None)


def test_a_run_that_stopped_goes_on_to_the_same_table(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole.json", tmp_path / "parts.json"
    run_harm(whole, "--runs", "3000")
    run_harm(parts, "--runs", "1000")
    code, stopped = run_harm(parts, "--runs", "3000", "--resume", "--seconds", "0")
    assert code == 1
    assert "kill_switch_2 (1000 of 20000 rollouts)" in str(stopped["missing"])
    _, summary = run_harm(parts, "--runs", "3000", "--resume")
    assert rows(parts) == rows(whole)
    assert [row["runs"] for row in rows(parts)] == [3000, 3000]
    assert not summary["ok"]  # most kinds are missing, and these are not played in full


def test_a_median_stands_within_the_window_in_which_half_have_stopped() -> None:
    stops = {"whimbrel": {"3": 30, "4": 40, "never": 30}, "oracle": {"never": 100}}
    methods = methods_of({"runs": 100, "stops": stops})
    told, begun, ended = methods["whimbrel"], exposed(3), exposed(4)
    assert told["exposed"] == round(ended)  # after a whole window
    assert told["within"] == round(begun + (ended - begun) / 2)  # half of those that stop in it are past the median
    assert begun < told["low"] < told["within"] < told["high"] < ended
    assert told["missed"] == 30
    assert methods["oracle"]["within"] is None
