"""A direction against what a metric's name means is taken, and a person is told so."""

import pytest

from support.experiments import written
from whimbrel.flows.experiments.check import direction_warnings
from whimbrel.plan.experiment import GuardrailMetric, PrimaryMetric


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"guardrail_metrics": (GuardrailMetric(name="recall", direction="decrease", margin=0.1),)},
            "more of a metric of this name is better as a rule: an arm whose recall rises is stopped as harmful. If "
            "that is not meant, write direction: increase",
        ),
        (
            {"guardrail_metrics": (GuardrailMetric(name="miss_rate", direction="increase", margin=0.1),)},
            "an arm whose miss_rate falls is stopped as harmful",
        ),
        ({"primary_metric": PrimaryMetric(name="accuracy", direction="decrease")}, "an arm whose accuracy rises loses"),
    ],
)
def test_a_direction_against_the_table_is_told(changes: dict[str, object], words: str) -> None:
    """It was taken without a word, and stopped the better arm."""
    (warning,) = direction_warnings(written(**changes))
    assert words in warning


def test_a_direction_as_the_table_has_it_or_of_an_unknown_metric_is_not() -> None:
    guards = (
        GuardrailMetric(name="recall", direction="increase", margin=0.1),
        GuardrailMetric(name="skips", direction="decrease", margin=0.1),
    )
    assert direction_warnings(written(guardrail_metrics=guards)) == []
