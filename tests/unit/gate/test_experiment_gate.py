"""The verdict on an experiment's windows: over many experiments without an effect, and over single ones."""

import math

import numpy as np
import pytest

from support.experiments import written
from whimbrel.gate.evidence import RateWindow, ratio_bounds
from whimbrel.gate.experiment_gate import ExperimentInput, ExperimentVerdict, judge_experiment
from whimbrel.gate.experiment_ledger import ExperimentLedger, ratio_set
from whimbrel.gate.verdict import Counts
from whimbrel.health.panel import Panel
from whimbrel.health.tally import Cell
from whimbrel.plan.experiment import Experiment

HALF_A_DAY = 12 * 3600.0


class Drawn:
    """An experiment of persistent devices in arrays: the cells that their reports would have made."""

    def __init__(self, plan: Experiment, seed: int, *, devices: int = 120, effects: tuple[float, ...] = (0.0,)) -> None:
        self.plan, self.rng, self.book = plan, np.random.default_rng(seed), ExperimentLedger(plan)
        self.devices, self.effects = devices, effects  # devices an arm
        groups = len(effects) + 1
        self.itself = self.rng.normal(0, 1, (groups, devices))
        self.before = self.itself + self.rng.normal(0, 0.4, (groups, devices))
        self.total, self.windows = np.zeros((groups, devices)), 0
        self.last = [Panel()] * groups

    def window(self) -> ExperimentVerdict:
        shift = np.array([0.0, *self.effects])[:, None]
        self.total += self.itself + shift + self.rng.normal(0, 1, self.itself.shape)
        self.windows += 1
        now = [self._panel(group) for group in range(len(self.effects) + 1)]
        changes = [_less(after, before) for after, before in zip(now, self.last, strict=True)]
        self.last = now
        cells = []
        for stage in range(len(self.effects)):
            for role, change in (("control", changes[0]), ("treated", changes[stage + 1])):
                cells.append(
                    Cell(
                        stage=stage,
                        window=self.windows,
                        role=role,
                        at_risk=self.devices,
                        panels={self.plan.primary.name: change},
                    )
                )
        return self.judge(cells)

    def judge(self, cells: list[Cell], *, elapsed_s: float | None = None) -> ExperimentVerdict:
        n = self.devices
        counts = Counts(assigned_t=n, assigned_c=n, activated_t=n, placebo_c=n, reported_t=n, reported_c=n)
        seen = ExperimentInput(
            elapsed_s=300.0 * self.windows if elapsed_s is None else elapsed_s,
            counts=dict.fromkeys(range(len(self.effects)), counts),
        )
        return judge_experiment(self.plan, seen, self.book, cells)

    def run(self, windows: int) -> ExperimentVerdict:
        for _ in range(windows):
            said = self.window()
            if said.move not in {"wait", "hold"}:
                return said
        return self.judge([], elapsed_s=HALF_A_DAY)

    def _panel(self, group: int) -> Panel:
        y, x = self.total[group] / self.windows, self.before[group]
        return Panel(
            n=len(y),
            y=y.sum(),
            yy=(y**2).sum(),
            both=len(y),
            both_y=y.sum(),
            both_yy=(y**2).sum(),
            x=x.sum(),
            xx=(x**2).sum(),
            xy=(x * y).sum(),
        )


def _less(after: Panel, before: Panel) -> Panel:
    return Panel(**{name: getattr(after, name) - getattr(before, name) for name in Panel.__struct_fields__})


THREE = {
    "variants": [{"id": name, "model_version": "wake@1.0.0"} for name in ("control", "a", "b", "c")],
    "allocation": dict.fromkeys(("control", "a", "b", "c"), 0.25),
}


@pytest.mark.parametrize(("arms", "changes"), [(1, {}), (3, THREE)])
@pytest.mark.long
def test_experiments_without_an_effect_ship_at_most_at_their_budget(arms: int, changes: dict) -> None:
    """alpha 5% is of both directions: 2.5% of 120 are 3; ten or more have a chance below 0.2%."""
    plan = written(**changes)
    ends = [Drawn(plan, seed, effects=(0.0,) * arms).run(30).move for seed in range(120)]
    assert ends.count("ship") < 10
    assert ends.count("end") + ends.count("keep") + ends.count("ship") == 120
    assert ends.count("keep") < 12  # proven worse, every arm: the other direction


def test_with_a_minimum_effect_experiments_without_one_end_by_keeping_the_control() -> None:
    plan = written(primary_metric={"name": "watch_time", "minimum_effect": 0.5})
    ends = [Drawn(plan, seed).run(40) for seed in range(60)]
    assert [end.move for end in ends].count("keep") > 50
    assert [end.move for end in ends].count("ship") < 6


def test_of_two_arms_that_are_better_the_surer_one_is_shipped() -> None:
    said = Drawn(written(**THREE), 1, effects=(0.0, 1.0, 2.5)).run(40)
    assert (said.move, said.arm) == ("ship", "c")


def test_where_less_is_better_a_fall_is_shipped() -> None:
    plan = written(primary_metric={"name": "watch_time", "direction": "decrease"})
    assert Drawn(plan, 1, effects=(-1.0,)).run(40).arm == "large"
    assert Drawn(plan, 1, effects=(1.0,)).run(40).move == "keep"


def test_a_proven_gain_below_the_minimum_effect_is_not_shipped() -> None:
    plan = written(primary_metric={"name": "watch_time", "minimum_effect": 2.0})
    said = Drawn(plan, 1, devices=400, effects=(0.6,)).run(40)
    assert said.move == "keep"
    assert "by 2 or more" in said.because


def test_an_interval_is_not_looked_at_in_the_window_that_fixes_its_parameter() -> None:
    drawn = Drawn(written(), 1)
    assert "too few devices" in drawn.window().because
    assert drawn.book.arms[0].deciding is None
    drawn.window()
    assert drawn.book.arms[0].deciding is not None


def test_the_minimum_time_is_waited_for() -> None:
    said = Drawn(written(minimum_days=0.25), 1, effects=(3.0,))
    for _ in range(10):
        last = said.window()
    assert (last.move, "of at least 0.25 days" in last.because) == ("wait", True)


def crashes(window: int, *, treated: int, control: int, n: int = 2000) -> list[Cell]:
    return [
        Cell(stage=0, window=window, role="treated", at_risk=n, crashed=treated),
        Cell(stage=0, window=window, role="control", at_risk=n, crashed=control),
    ]


def test_fewer_crashes_are_shipped_by_the_ratio_of_the_rates() -> None:
    drawn = Drawn(written(primary_metric="crash_rate"), 1)
    for window in range(1, 13):
        drawn.windows = window
        said = drawn.judge(crashes(window, treated=8, control=30))
        if said.move == "ship":
            break
    assert (said.move, said.arm) == ("ship", "large")
    look = said.evidence["arms"]["large"]["deciding"]
    assert look["low"] < 8 / 30 < look["high"] < 1
    assert "times the control's" in said.because


def test_no_crash_anywhere_decides_nothing() -> None:
    drawn = Drawn(written(primary_metric="crash_rate"), 1)
    drawn.windows = 1
    assert drawn.judge(crashes(1, treated=0, control=0)).move == "wait"


def test_the_confidence_set_over_arrays_is_that_of_the_formula() -> None:
    windows = [RateWindow(2, 100, 41, 4000), RateWindow(5, 250, 37, 3900), RateWindow(9, 400, 44, 3800)]
    rows = np.array([[w.events_t, w.exposure_t, w.events_c, w.exposure_c] for w in windows])
    assert ratio_set(rows, alpha=0.05) == pytest.approx(ratio_bounds(windows, alpha=0.05, digits=9), rel=1e-6)
    assert ratio_set(np.array([[0.0, 10, 0, 10]]), alpha=0.05) == (0.0, math.inf)
