"""Which metrics are known by their plain names? What each is, which way is better, and how much worse is tolerated.

1. A published experiment names its guardrails only (`false_positive_rate`, `inference_latency`, `error_rate`). A name
   alone does not tell whether more or less of it is better, so each name that is taken has its row here.
2. A name of a measure (`measure`) is watched in every arm as in a rollout, with the margin that the measure has.
3. Every other known name is a metric that the app records under this name: a share, from 0 to 1. An arm may be worse
   by `margin` of it.
4. What is not known here has no direction: a file must say it (flows/files/experiment_file.py refuses it otherwise).

Adding a metric takes a row. Read by experiments (plan/experiment.py), their file, and `experiment check`.
"""

from typing import Literal

import msgspec

from whimbrel.plan.measures import MEASURES, TOLERATED_DROP, TOLERATED_FEEDBACK

Better = Literal["increase", "decrease"]


class KnownMetric(msgspec.Struct, frozen=True, kw_only=True):
    """A metric that a plain name means.

    `measures`: rows of `MEASURES` that are watched in every arm; empty for a metric of the app's own. `better`: the
    direction that is an improvement. `margin`: the harm that is tolerated, in units of the metric; None where the
    measures have their own. `reserved`: no app can record a metric of this name beside the measure.
    """

    name: str
    better: Better
    measures: tuple[str, ...] = ()
    margin: float | None = None
    reserved: bool = False


_LATENCY = ("latency_p50", "latency_p95", "latency_p99")


def _watched(*names: str, measures: tuple[str, ...], reserved: bool = False) -> list[KnownMetric]:
    better: Better = "increase" if MEASURES[measures[0]].direction == "lower_is_worse" else "decrease"
    return [KnownMetric(name=name, better=better, measures=measures, reserved=reserved) for name in names]


def _shares(*names: str, better: Better, margin: float = TOLERATED_DROP) -> list[KnownMetric]:
    return [KnownMetric(name=name, better=better, margin=margin) for name in names]


_ROWS = (
    # Names of measures, and the names that the field gives them.
    *_watched("crash", "crash_rate", measures=("crash",), reserved=True),
    *_watched("error", "error_rate", measures=("error",), reserved=True),
    *_watched("silence", measures=("silence",), reserved=True),
    *_watched("accuracy", measures=("accuracy",), reserved=True),
    *_watched("latency", measures=_LATENCY, reserved=True),
    *_watched("latency_p50", measures=("latency_p50",), reserved=True),
    *_watched("latency_p95", measures=("latency_p95",), reserved=True),
    *_watched("latency_p99", measures=("latency_p99",), reserved=True),
    *_watched("install_failures", measures=("failure",), reserved=True),
    *_watched("battery", measures=("battery",), reserved=True),
    *_watched("inference_latency", "inference_latency_ms", "inference_time", "latency_ms", measures=_LATENCY),
    *_watched("p50_latency", "latency_p50_ms", measures=("latency_p50",)),
    *_watched("p95_latency", "latency_p95_ms", measures=("latency_p95",)),
    *_watched("p99_latency", "latency_p99_ms", measures=("latency_p99",)),
    *_watched("battery_drain", "battery_impact", "battery_usage", measures=("battery",)),
    *_watched("memory", "memory_mb", "memory_usage", measures=("memory_mb",)),
    *_watched("temperature", "temperature_c", measures=("temperature_c",)),
    *_watched("usage", measures=("usage",)),
    # Shares that the app records.
    *_shares(
        "false_positive_rate",
        "false_negative_rate",
        "false_accept_rate",
        "false_reject_rate",
        "false_alarm_rate",
        "false_discovery_rate",
        "miss_rate",
        "word_error_rate",
        "character_error_rate",
        "hallucination_rate",
        "timeout_rate",
        better="decrease",
    ),
    *_shares(
        "precision",
        "recall",
        "f1",
        "f1_score",
        "auc",
        "sensitivity",
        "specificity",
        "true_positive_rate",
        "true_negative_rate",
        "success_rate",
        "task_success_rate",
        better="increase",
    ),
    *_shares("feedback", better="increase", margin=TOLERATED_FEEDBACK),
)

KNOWN_METRICS = {row.name: row for row in _ROWS}
