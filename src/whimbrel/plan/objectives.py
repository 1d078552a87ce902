"""What a model must keep always, whatever rolls out: objectives, as a person writes them, understood or refused.

    accuracy >= 84% weekly
    latency_p99_ms < 10 take back
    battery < 5% a day
    memory_mb < 50 peak
    crash_rate < 0.1% daily, least 1000, take back

1. `measure`: `crash_rate` (of the device-hours those with a crash), `error_rate` (errors an inference), `usage` (of the
   device-hours those with a session), `latency_p50_ms`, `latency_p95_ms`, `latency_p99_ms`, `drift_psi`, or a metric
   that devices report.
2. One bound, `at_most` or `at_least`, of the mean over the window; of a metric with `peak`, of the devices' highest
   values: 1% of device-hours may lie beyond it, as one broken sensor among many does.
3. `window`: the hour, day or week before now. `least`: device-hours that must be heard of before anything is said.
4. `action`: send an alert, or take the model back to its previous good version as well.

A share may be written in percent. Of `battery`, which devices record in percent of a full charge an hour, the percent
sign is its unit, and needs the time that it is for: `5% a day` is a mean of 5/24 percent an hour over a day. `<` and
`<=` mean the same: a mean of reports never meets a bound exactly. A bound on the wrong side (`error_rate > 5%`) is
refused.
"""

import math
import re
from collections.abc import Iterable
from typing import Annotated, Literal

from msgspec import Meta

from whimbrel import limits
from whimbrel.model.documents import Document
from whimbrel.model.ids import Label
from whimbrel.plan.known_metrics import KNOWN_METRICS
from whimbrel.plan.measures import DRIFT_PSI_MAX, SHARES, UNITS

ObjectiveWindow = Literal["hour", "day", "week"]
Action = Literal["alert", "take_back"]
Anomalies = Literal["off", "alert", "take_back"]

WINDOW_HOURS: dict[ObjectiveWindow, int] = {"hour": 1, "day": 24, "week": 168}
LEAST_DEVICE_HOURS = 20  # what fewer device-hours tell is an anecdote
PEAK_SHARE = 0.01  # of device-hours whose peak may lie beyond an objective
QUANTILES = {"latency_p50_ms": 0.5, "latency_p95_ms": 0.95, "latency_p99_ms": 0.99}
RATES = frozenset({"crash_rate", "error_rate", "usage"})
DRIFT = "drift_psi"

_WINDOW_WORDS: dict[str, ObjectiveWindow] = {
    "hour": "hour",
    "hourly": "hour",
    "day": "day",
    "daily": "day",
    "week": "week",
    "weekly": "week",
}
_PER = frozenset({"a", "an", "per", "each", "every"})
_OPERATORS = {"<": False, "<=": False, ">": True, ">=": True}
_TEXT = re.compile(r"^\s*([^\s<>=]+)\s*(<=|>=|<|>)\s*([0-9.eE+-]+)\s*(%?)\s*(.*)$", re.ASCII)
_EXAMPLE = "accuracy >= 84% weekly, take back"
_BOUND_MOST = 1e15
_Bound = Annotated[float, Meta(ge=-_BOUND_MOST, le=_BOUND_MOST)]
_ARTICLE: dict[ObjectiveWindow, str] = {"hour": "an hour", "day": "a day", "week": "a week"}


class Objective(Document, frozen=True):
    """One bound on one measure of a model, that every version of it must keep while it runs."""

    measure: Label
    at_least: _Bound | None = None
    at_most: _Bound | None = None
    peak: bool = False
    window: ObjectiveWindow = "day"
    least: Annotated[int, Meta(ge=1, le=10**9)] = LEAST_DEVICE_HOURS  # device-hours
    action: Action = "alert"

    def __post_init__(self) -> None:
        name = self.measure
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError(f"the objective of {name} needs one bound: at_least or at_most")
        known = name in RATES or name in QUANTILES or name == DRIFT
        if self.peak and (known or self.at_most is None):
            raise ValueError(f"a peak is the highest value of a metric that devices report, at most; {name} came")
        if (name in QUANTILES or name == DRIFT) and self.at_most is None:
            raise ValueError(f"{name} is bounded by at_most")
        if (name in RATES or name in SHARES) and not 0 <= self.bound <= 1:
            raise ValueError(f"{name} is a share of 0 to 1, or in percent (84%); {self.bound:g} came")
        if name in RATES and self.bound in {0, 1}:
            raise ValueError(f"a share that must be {self.bound:g} is broken by one device; leave some room")
        if (name in QUANTILES or name == DRIFT) and self.bound <= 0:
            raise ValueError(f"{name} is above 0; {self.bound:g} came")

    @property
    def bound(self) -> float:
        """The number."""
        return self.at_least if self.at_least is not None else self.at_most or 0.0

    @property
    def floor(self) -> bool:
        """Whether lower is worse."""
        return self.at_least is not None

    @property
    def hours(self) -> int:
        """Of its window."""
        return WINDOW_HOURS[self.window]

    @property
    def name(self) -> str:
        """What tells it from the others of its model: it stays the same while the objective does."""
        return (
            f"{self.measure} {'>=' if self.floor else '<='} {self.bound:g} {'peak ' if self.peak else ''}{self.window}"
        )

    @property
    def words(self) -> str:
        """Its name for people: with the metric's unit, where it has one of its own."""
        unit = UNITS.get(self.measure)
        shown = f"{self.bound:g}"
        if unit is not None:
            shown = f"{self.bound:.3g}% an hour" if unit == "percent_an_hour" else f"{shown} {unit}"
        span = f"peak {self.window}" if self.peak else f"as a mean over {_ARTICLE[self.window]}"
        return f"{self.measure} {'>=' if self.floor else '<='} {shown}, {span}"


Objectives = Annotated[tuple[Objective, ...], Meta(max_length=limits.OBJECTIVES)]
DRIFT_OBJECTIVE = Objective(measure=DRIFT, at_most=DRIFT_PSI_MAX, window="day", least=100)  # where nobody says another


def read_objective(text: str) -> Objective:
    """An objective as a person writes it. Raises `ValueError` with what was expected."""
    match = _TEXT.match(text)
    if match is None:
        raise ValueError(f"the objective {text!r} is not understood; expected as in: {_EXAMPLE}")
    measure, operator, number, percent, rest = match.groups()
    words = rest.replace(",", " ").replace("take back", "take_back").replace("take-back", "take_back").split()
    bound, window = _bound_of(measure, operator, number, percent=bool(percent), words=words, text=text)
    action: Action = "alert"
    peak, least = False, LEAST_DEVICE_HOURS
    while words:
        word = words.pop(0)
        if word in _WINDOW_WORDS:
            window = _WINDOW_WORDS[word]
        elif word in {"a", "mean", "as"}:
            continue
        elif word == "peak":
            peak = True
        elif word == "alert":
            action = "alert"
        elif word == "take_back":
            action = "take_back"
        elif word == "least" and words and words[0].isdigit():
            least = int(words.pop(0))
        else:
            raise ValueError(
                f"{word!r} in the objective {text!r} is not understood; expected hourly, daily or weekly, peak, "
                f"least N, alert or take back, as in: {_EXAMPLE}"
            )
    floor = _OPERATORS[operator]
    objective = Objective(
        measure=measure,
        at_least=bound if floor else None,
        at_most=None if floor else bound,
        peak=peak,
        window=window,
        least=least,
        action=action,
    )
    refuse_wrong_side([objective])
    return objective


def _bound_of(
    measure: str, operator: str, number: str, *, percent: bool, words: list[str], text: str
) -> tuple[float, ObjectiveWindow]:
    """The bound in the measure's own unit, and the window that goes with it. Takes what it reads from `words`."""
    try:
        bound = float(number)
    except ValueError:
        raise ValueError(f"{number!r} in the objective {text!r} is no number; expected as in: {_EXAMPLE}") from None
    if not math.isfinite(bound) or abs(bound) > _BOUND_MOST:
        raise ValueError(f"{number} in the objective {text!r} is too large; a bound is at most {_BOUND_MOST:g}")
    unit = "ms" if measure in QUANTILES else UNITS.get(measure)
    if unit != "percent_an_hour":
        if percent and (unit is not None or measure == DRIFT):
            raise ValueError(
                f"{measure} is in {unit or 'units of its index'}, and {number}% came; write the number alone"
            )
        return bound / (100 if percent else 1), "day"
    if words and words[0].startswith("/"):  # 5%/day
        words[0:1] = ["per", words[0].removeprefix("/")]
    if len(words) > 1 and words[0] in _PER and words[1] in WINDOW_HOURS:
        window = _WINDOW_WORDS[words[1]]
        del words[:2]
        return bound / WINDOW_HOURS[window], "week" if window == "week" else "day"
    if percent:
        raise ValueError(
            f"{measure} is in percent of a full charge an hour, and {text!r} does not say what time {number}% is for; "
            f"write {measure} {operator} {number}% a day, or {measure} {operator} {bound / 24:.3g}% an hour. Then it "
            "may say how long a mean is taken: hourly, daily or weekly"
        )
    return bound, "day"


def refuse_wrong_side(objectives: Iterable[Objective]) -> None:
    """Raises `ValueError` for a bound that a measure would keep by getting worse. Documents of before may hold some."""
    for each in objectives:
        known = KNOWN_METRICS.get(each.measure)
        if known is not None and each.floor != (known.better == "increase"):
            sign, side = ("<", "at_most") if each.floor else (">", "at_least")
            way = "less" if each.floor else "more"
            raise ValueError(
                f"{way} of {each.measure} is better, so its objective is written {each.measure} {sign} ... ({side}); "
                f"{'>' if each.floor else '<'} {each.bound:g} came, which a version keeps by getting worse"
            )


def check_objectives(objectives: Iterable[Objective]) -> None:
    """Raises `ValueError` where two say the same."""
    names = [each.name for each in objectives]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"the objective {twice[0]!r} is there twice; keep one of them")


def peaks_of(objectives: Iterable[Objective]) -> frozenset[str]:
    """The metrics whose highest values must be kept."""
    return frozenset(each.measure for each in objectives if each.peak)
