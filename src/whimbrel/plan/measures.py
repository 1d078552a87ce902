"""What can be watched during a rollout? Each measure has one row, which holds all that is known of it.

1. How it is told: the sums of a tally's cell that are its events and its exposure, or the metric that devices report.
2. How it is tested: the kind of its test, the harm that is tolerated by default and the bounds of that, its part of the
   false-alarm budget, whether every plan has it or only one that asks, whether it is tested by slices too, and which
   guardrail's severity it follows.
3. How it is judged: the name of its estimate, the limits of a stage that it answers to (`LIMITS`), and what
   `promote: when_proven` needs of it.
4. How it is worded in a verdict's sentence.
5. A metric of the devices' own has no row: the plan itself says what a row would.

Adding a rate takes a row, its test and its documentation (docs/howto/extend.md). Read by a plan's guardrails
(`criteria`), by the whole gate and its twin in arrays, and by whoever checks a file of tally windows.
"""

from typing import Literal

import msgspec

Direction = Literal["higher_is_worse", "lower_is_worse"]
Severity = Literal["rollback", "hold", "warn"]
Compared = Literal["value", "drop", "ratio", "increase"]
Unit = Literal["percent_an_hour", "MB", "°C"]
Form = Literal["percent", "milliseconds", "index", "as_reported"]

TOLERATED_RATIO = 1.1  # crash, error, silence and battery within this of the control's are no harm
TOLERATED_DROP = 0.005  # half a point of accuracy
TOLERATED_FEEDBACK = 0.02  # two points of the share of thumbs up
TOLERATED_WARMER = 3.0  # degrees: the sun on a housing makes as much
FAILURE_LIMIT = 0.02  # installs that fail or go back: the control's rate is 0, so one sample against this
DRIFT_PSI_MAX = 0.25  # the usual reading of the index: below .1 none, above .25 a real shift


# --- the kinds of tests ---


class Rate(msgspec.Struct, frozen=True):
    """Events over exposure, compared with the control's: two sums of a tally's cell, by the names of its fields.

    `within`: each event is one of the exposure's units, so there are never more. Where `fewer` of them are worse, the
    arms swap places: the control's rate is tested against the treated devices'.
    """

    events: str
    exposure: str
    within: bool = True
    fewer: bool = False


class Mean(msgspec.Struct, frozen=True):
    """The mean of the metric with the measure's name, compared with the control's.

    `drop`: of a share, it lies lower by more than a difference. `growth`: it is more than a ratio of the control's.
    `rise`: it lies higher by more than a difference.
    """

    harm: Literal["drop", "growth", "rise"]


class Quantile(msgspec.Struct, frozen=True):
    """The `p`-quantile of the sessions' latency, compared with the control's."""

    p: float


class OverLimit(msgspec.Struct, frozen=True):
    """The share of sessions that are slower than the limit `criterion`, compared with the control's."""

    criterion: str


class OneSample(msgspec.Struct, frozen=True):
    """The new version alone against the limit `criterion`, as long as the control keeps it.

    `rate`: the measure whose rate is limited; None: the share of sessions slower than the limit.
    """

    criterion: str
    rate: str | None = None


class Other(msgspec.Struct, frozen=True):
    """A test that no other measure has; the gate names it where it is made."""


Test = Rate | Mean | Quantile | OverLimit | OneSample | Other


# --- what a row says ---


class Margin(msgspec.Struct, frozen=True):
    """The harm that is tolerated where a plan says nothing, and what a plan may say instead."""

    default: float
    least: float
    most: float
    unit: str


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """One measure. Of estimates and words, None means that there are none of its own."""

    name: str
    test: Test
    part: float  # of the false-alarm budget; every part is divided by the sum of those that a plan has
    direction: Direction = "higher_is_worse"
    margin: Margin | None = None  # None: no guardrail can name it
    always: bool = False  # whether every plan has it; else one whose guardrail or limit asks for it
    asked_by: tuple[str, ...] = ()  # limits of a stage that ask for it: it is watched then, and to be proven
    beside: str | None = None  # it is watched where this measure is
    by_class: bool = False  # whether half of its share is on slices
    follows: str | None = None  # its proof does what the proof of this measure does
    severest: Severity = "rollback"  # what its proof does at most, where nobody asked for less
    estimate: str | None = None  # the name of its estimate, of both arms
    counted: bool = False  # whether the number of its events is told too
    if_heard: bool = False  # whether it is estimated only where its source was heard of since the rollout began
    prove: Literal["always", "where_told"] = "where_told"  # with `when_proven`: also where nothing was told of it
    rare: bool = False  # whether an upper bound proves it too, where too few events happen for a comparison
    words: str | None = None  # before both arms' figures in a sentence; the estimate's name where None
    form: Form = "percent"  # of these figures
    unit: Unit | None = None  # of a metric that is no share: what devices record it in


def _ratio(default: float = TOLERATED_RATIO) -> Margin:
    return Margin(default, 1.0, 1000.0, "a ratio to the control's, at least 1")


def _drop(default: float) -> Margin:
    return Margin(default, 0.0, 1.0, "a drop, 0 to 1")


def _latency(name: str, p: float, *, part: float) -> Measure:
    return Measure(
        name=name,
        test=Quantile(p),
        part=part,
        margin=_ratio(),
        always=True,
        asked_by=("latency_p99_max_ms", "latency_increase_max"),
        estimate=f"{name}_ms",
        words=name.replace("_", " "),
        form="milliseconds",
    )


# Crashes have most of the budget: they are what a rollout is stopped for, and the rarest evidence. The rows stand in
# the order in which parts are added up and tests averaged; another order gives stored verdicts other last digits.
_ROWS = (
    Measure(
        name="crash",
        test=Rate("crashed", "used"),
        part=16.0,
        margin=_ratio(),
        always=True,
        by_class=True,
        estimate="crash_rate",
        counted=True,
        prove="always",
        rare=True,
    ),
    Measure(
        name="accuracy",
        test=Mean("drop"),
        part=9.0,
        direction="lower_is_worse",
        margin=_drop(TOLERATED_DROP),
        always=True,
        asked_by=("accuracy_drop_max",),
        by_class=True,
        estimate="accuracy",
    ),
    Measure(
        name="error",
        test=Rate("error_share", "error_units"),
        part=2.0,
        margin=_ratio(),
        always=True,
        asked_by=("error_rate_max",),
        by_class=True,
        estimate="error_rate",
        rare=True,
    ),
    Measure(
        name="silence",
        test=Rate("overdue", "due"),
        part=6.0,
        margin=_ratio(),
        always=True,
        by_class=True,
        estimate="silence",
        prove="always",
        rare=True,
    ),
    Measure(
        name="failure",  # installs that failed or went back, of those tried
        test=Other(),
        part=1.0,
        margin=Margin(FAILURE_LIMIT, 1e-6, 0.5, "a share of all installs"),
        always=True,
    ),
    _latency("latency_p50", 0.5, part=1.5),
    _latency("latency_p95", 0.95, part=3.0),
    _latency("latency_p99", 0.99, part=0.5),
    Measure(
        name="error_limit",
        test=OneSample("error_rate_max", rate="error"),
        part=1.0,
        asked_by=("error_rate_max",),
        follows="error",
        estimate="error_rate",
    ),
    Measure(
        name="latency_limit",
        test=OneSample("latency_p99_max_ms"),
        part=1.0,
        asked_by=("latency_p99_max_ms",),
        follows="latency_p99",
    ),
    Measure(
        name="latency_over",
        test=OverLimit("latency_p99_max_ms"),
        part=1.0,
        asked_by=("latency_p99_max_ms",),
        follows="latency_p99",
    ),
    Measure(
        name="battery",
        test=Mean("growth"),
        part=1.0,
        margin=_ratio(),
        always=True,
        asked_by=("battery_increase_max",),
        estimate="battery",
        words="battery",
        form="as_reported",
        unit="percent_an_hour",
    ),
    Measure(
        name="feedback",
        test=Mean("drop"),
        part=1.0,
        direction="lower_is_worse",
        margin=_drop(TOLERATED_FEEDBACK),
        asked_by=("feedback_min",),
    ),
    Measure(
        name="user_reports",
        test=Rate("user_reports", "at_risk", within=False),
        part=2.0,
        margin=_ratio(),
        asked_by=("user_reports_ratio_max",),
        estimate="user_report_rate",
        counted=True,
        if_heard=True,
        prove="always",
        words="devices that users wrote of, a window:",
    ),
    Measure(
        name="drift",
        test=Other(),
        part=1.0,
        margin=Margin(DRIFT_PSI_MAX, 1e-6, 100.0, "a stability index (PSI)"),
        asked_by=("drift_psi_max",),
        estimate="drift_psi",
        words="stability index of the predictions",
        form="index",
    ),
    Measure(
        name="version_reports",  # tickets that name a version alone: the weaker evidence
        test=Other(),
        part=0.5,
        beside="user_reports",
        follows="user_reports",
        severest="hold",  # nobody knows which devices could have written: a person decides
        estimate="user_report_rate",
        words="devices that users wrote of, a window:",
    ),
    Measure(
        name="usage",  # a report is not exposure: what nobody uses shows no harm
        test=Rate("used", "at_risk", fewer=True),
        part=2.0,
        direction="lower_is_worse",
        margin=_ratio(),
        always=True,
        estimate="usage",
        prove="always",
        words="device-windows with a session:",
    ),
    Measure(
        name="memory_mb",
        test=Mean("growth"),
        part=0.5,
        margin=_ratio(),
        always=True,
        estimate="memory_mb",
        words="memory (MB)",
        form="as_reported",
        unit="MB",
    ),
    Measure(
        name="temperature_c",
        test=Mean("rise"),  # degrees have no zero that a ratio could start from
        part=0.25,
        margin=Margin(TOLERATED_WARMER, 0.0, 1000.0, "a number of degrees, at least 0"),
        always=True,
        estimate="temperature_c",
        words="temperature (°C)",
        form="as_reported",
        unit="°C",
    ),
)

MEASURES = {row.name: row for row in _ROWS}
# The sums of a tally's cell that any rate is made of, in the order of the rows.
SUMS = tuple(
    dict.fromkeys(sum_ for row in _ROWS if isinstance(row.test, Rate) for sum_ in (row.test.events, row.test.exposure))
)
UNITS = {row.name: row.unit for row in _ROWS if row.unit is not None}
# Metrics that are shares: a mean outside of 0 to 1 is no report.
SHARES = frozenset(row.name for row in _ROWS if isinstance(row.test, Mean) and row.test.harm == "drop")


# --- the limits of a stage ---


class Limit(msgspec.Struct, frozen=True):
    """A limit of a stage, and the estimate that must keep it: by itself, or as it compares with the control's.

    `words`: the estimate, as a sentence begins with it. `metric`: the figure of a release that says the same.
    """

    criterion: str
    estimate: str
    compared: Compared
    words: str
    form: Form = "percent"
    metric: str | None = None


# In the order in which a verdict names them. `share_over_limit` is that of slow sessions; a plan gives their time.
LIMITS = (
    Limit("error_rate_max", "error_rate", "value", "the error rate"),
    Limit("accuracy_drop_max", "accuracy", "drop", "accuracy", metric="accuracy"),
    Limit("latency_p99_max_ms", "share_over_limit", "value", "the share of slow sessions"),
    Limit("crash_ratio_max", "crash_rate", "ratio", "the crash rate", metric="crash_rate"),
    Limit("latency_increase_max", "latency_p99_ms", "increase", "the p99 latency", "milliseconds", "latency_p99_ms"),
    Limit("battery_increase_max", "battery", "increase", "battery use", "as_reported", "battery"),
    Limit("user_reports_ratio_max", "user_report_rate", "ratio", "the share of devices that users wrote of"),
    Limit("drift_psi_max", "drift_psi", "value", "the stability index of the predictions", "index"),
)
