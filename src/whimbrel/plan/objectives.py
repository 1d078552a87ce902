"""What a model must keep always, whatever rolls out: objectives, as a person writes them, understood or refused.

    accuracy >= 84% weekly
    latency_p99_ms < 10 take back
    battery < 5 daily
    memory_mb < 50 peak
    crash_rate < 0.1% daily, least 1000, take back

1. `measure`: `crash_rate` (of the device-hours those with a crash), `error_rate` (errors an inference), `usage` (of the
   device-hours those with a session), `latency_p50_ms`, `latency_p95_ms`, `latency_p99_ms`, `drift_psi`, or a metric
   that devices report.
2. One bound, `at_most` or `at_least`, of the mean over the window; of a metric with `peak`, of the devices' highest
   values: 1% of device-hours may lie beyond it, as one broken sensor among many does.
3. `window`: the hour, day or week before now. `least`: device-hours that must be heard of before anything is said.
4. `action`: send an alert, or take the model back to its previous good version as well.

A share may be written in percent. `<` and `<=` mean the same: a mean of reports never meets a bound exactly.
"""

import re
from collections.abc import Iterable
from typing import Annotated, Literal

from msgspec import Meta

from whimbrel import limits
from whimbrel.model.documents import Document
from whimbrel.model.ids import Label
from whimbrel.plan.measures import DRIFT_PSI_MAX, SHARES

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
_OPERATORS = {"<": False, "<=": False, ">": True, ">=": True}
_TEXT = re.compile(r"^\s*([^\s<>=]+)\s*(<=|>=|<|>)\s*([0-9.eE+-]+)\s*(%?)\s*(.*)$", re.ASCII)
_EXAMPLE = "accuracy >= 84% weekly, take back"
_Bound = Annotated[float, Meta(ge=-1e15, le=1e15)]


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


Objectives = Annotated[tuple[Objective, ...], Meta(max_length=limits.OBJECTIVES)]
DRIFT_OBJECTIVE = Objective(measure=DRIFT, at_most=DRIFT_PSI_MAX, window="day", least=100)  # where nobody says another


def read_objective(text: str) -> Objective:
    """An objective as a person writes it. Raises `ValueError` with what was expected."""
    match = _TEXT.match(text)
    if match is None:
        raise ValueError(f"the objective {text!r} is not understood; expected as in: {_EXAMPLE}")
    measure, operator, number, percent, rest = match.groups()
    try:
        bound = float(number) / (100 if percent else 1)
    except ValueError:
        raise ValueError(f"{number!r} in the objective {text!r} is no number; expected as in: {_EXAMPLE}") from None
    window: ObjectiveWindow = "day"
    action: Action = "alert"
    peak, least = False, LEAST_DEVICE_HOURS
    words = rest.replace(",", " ").replace("take back", "take_back").replace("take-back", "take_back").split()
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
    return Objective(
        measure=measure,
        at_least=bound if floor else None,
        at_most=None if floor else bound,
        peak=peak,
        window=window,
        least=least,
        action=action,
    )


def check_objectives(objectives: Iterable[Objective]) -> None:
    """Raises `ValueError` where two say the same."""
    names = [each.name for each in objectives]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"the objective {twice[0]!r} is there twice; keep one of them")


def peaks_of(objectives: Iterable[Objective]) -> frozenset[str]:
    """The metrics whose highest values must be kept."""
    return frozenset(each.measure for each in objectives if each.peak)
