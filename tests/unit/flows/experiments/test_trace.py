"""The intervals of an experiment over time."""

import math

import pytest

from support.experiments import village, written
from whimbrel import limits
from whimbrel.flows.experiments.trace import IntervalPoint, interval_points
from whimbrel.gate.experiment_ledger import ArmNow, ExperimentLedger, Look

WINDOW_DAYS = 300 / 86400


def ledger_of(looks: int, look: Look | None = None) -> ExperimentLedger:
    ledger = ExperimentLedger(written())
    ledger.history = [(window, 0, ArmNow(deciding=look, plain=None)) for window in range(looks)]
    return ledger


def test_a_point_is_an_arms_interval_after_a_window() -> None:
    with village() as here:
        points = interval_points(here.record, ledger_of(2, Look(1.0, 0.5, 1.5)))
    assert points[-1] == IntervalPoint(
        arm="large", window=1, days=pytest.approx(2 * WINDOW_DAYS), deciding=(1.0, 0.5, 1.5), plain=None
    )
    assert [point.window for point in points] == [0, 1]


def test_an_end_without_a_bound_is_none() -> None:
    with village() as here:
        (point,) = interval_points(here.record, ledger_of(1, Look(math.inf, 0.5, math.inf)))
    assert point.deciding == (None, 0.5, None)


def test_very_many_looks_are_thinned_and_the_last_one_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EXPERIMENT_POINTS", 4)
    with village() as here:
        points = interval_points(here.record, ledger_of(9))
    assert [point.window for point in points] == [2, 5, 8]
