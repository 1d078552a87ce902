"""What a person is told of objectives that would say nothing."""

import pytest

from whimbrel.flows.monitors.objective_warnings import objective_warnings
from whimbrel.plan.objectives import read_objective


@pytest.mark.parametrize(
    ("text", "told", "words"),
    [
        ("Accuracy >= 84%", {"accuracy"}, "no device told of 'Accuracy' in the last day"),
        ("Accuracy >= 84%", set(), "Did you mean accuracy"),
        ("latency_p99 < 10", set(), "Did you mean latency_p99_ms"),
        ("nonsense > 3", {"accuracy"}, "no device told of 'nonsense'"),
        ("recall >= 0.9", {"accuracy"}, "no device told of 'recall'"),
        ("battery_drain < 5", {"battery"}, "no device told of 'battery_drain'"),
    ],
)
def test_a_metric_that_nobody_told_is_named_with_those_like_it(text: str, told: set[str], words: str) -> None:
    """Both were accepted in silence, and said "nothing told" for ever."""
    (warning,) = objective_warnings([read_objective(text)], told=told, devices=1000)
    assert words in warning


@pytest.mark.parametrize("text", ["accuracy >= 84%", "crash_rate < 1%", "latency_p99_ms < 10", "drift_psi < 0.3"])
def test_what_is_told_or_counted_anyway_has_no_warning(text: str) -> None:
    for told in (set(), {"accuracy"}):
        assert objective_warnings([read_objective(text)], told=told, devices=1000) == []


def test_a_window_that_the_known_devices_cannot_fill_is_told() -> None:
    """With 12 devices an hourly objective said "too few yet" for ever."""
    (warning,) = objective_warnings([read_objective("error_rate < 5% hourly")], told=(), devices=12)
    assert "waits for 20 device-hours, and the known devices (12) make 12 in its window at most" in warning
    assert "`least 12` or less" in warning
    for enough in ("error_rate < 5% daily", "error_rate < 5% hourly, least 12"):
        assert objective_warnings([read_objective(enough)], told=(), devices=12) == []
    assert objective_warnings([read_objective("error_rate < 5% hourly")], told=(), devices=0) == []
