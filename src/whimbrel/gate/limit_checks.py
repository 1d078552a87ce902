"""Does a stage keep its limits? Each limit in force, the figures that it is about, and the sentence that says so.

1. What no device told is None, and None keeps no limit: missing data is never good news.
2. A relative limit compares with the control. Where no device can be one, it compares with what the same devices told
   while they ran the version before, else with the figure that this version was published with, else with the figure
   of the new version's own release. Where none of these is known, nothing can be compared, and that is said.
3. An absolute limit is judged for itself. Where the control breaks it too that is said: the world changed, not the
   version.
4. A sentence has the unit of what it speaks of, and as many digits as tell the figure from its limit.

Used by promotion, and by the gate for the limits that a proven harm is past.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from whimbrel.gate.guardrails import LATENCY_TAIL
from whimbrel.gate.verdict import Past
from whimbrel.plan.criteria import SuccessCriteria
from whimbrel.plan.measures import LIMITS, SHARES, Compared, Form, Limit

Source = Literal["control", "past", "released", "target_released"]

_MOST_DIGITS = 9
_DIGITS = 9  # of estimates, after the point


class LimitCheck(msgspec.Struct, frozen=True, kw_only=True):
    """A limit in force. `treated`: the new version's figure. `beside`: the other one, and `source`: whose it is.

    `limit`: in the unit of what is compared: of a drop the difference, of an increase the ratio less 1. `floor`: the
    figure may not be below it. `slow_ms`: the time that `treated` is the share of slower sessions of.
    """

    name: str
    words: str
    form: Form
    compared: Compared
    limit: float
    treated: float | None
    beside: float | None = None
    source: Source = "control"
    floor: bool = False
    slow_ms: float | None = None

    @property
    def relative(self) -> bool:
        """Whether it compares two figures."""
        return self.compared != "value"

    @property
    def value(self) -> float | None:
        """What is compared with the limit; None where a figure is missing."""
        return _difference(self.treated, self.beside, self.compared)

    @property
    def broken(self) -> bool:
        """Whether the new version is past the limit."""
        return self._past(self.value)

    @property
    def control_breaks(self) -> bool:
        """Whether the control does not keep an absolute limit either."""
        return not self.relative and self._past(self.beside)

    def _past(self, value: float | None) -> bool:
        if value is None:
            return False
        return value < self.limit if self.floor else value > self.limit

    def sentence(self, past: Past | None = None) -> str:
        """How a broken limit is said. `past`: what `beside` is of, where there is no control."""
        also = "; the control breaks it too" if self.control_breaks else ""
        return f"{self._figures(past)} ({self.name}{also})"

    def _figures(self, past: Past | None) -> str:
        treated, value = self.treated or 0.0, self.value or 0.0
        if self.slow_ms is not None:
            shares = _told_apart(value, self.limit, _percent)
            return f"{shares[0]} of sessions are slower than {self.slow_ms:g} ms; at most {shares[1]} may be"
        show = _SHOWN[self.form]
        if not self.relative:
            figure, limit = _told_apart(value, self.limit, show)
            return f"{self.words} is {figure}; at {'least' if self.floor else 'most'} {limit} {_MUST[self.floor]}"
        now, before = _told_apart(treated, self.beside or 0.0, show)
        other = _whose(before, self.source, past)
        if not math.isfinite(value):
            return f"{self.words} is {now}, and {other}; at most {self.limit:g} times as much may be"
        shown, limit = _told_apart(value, self.limit, _POINTS if self.compared == "drop" else _BY[self.compared])
        if self.compared == "drop":
            how, most = f"{_counted_points(shown)} below", _counted_points(limit)
        elif self.compared == "ratio":
            how, most = f"{shown} times", f"{limit} times"
        else:
            how, most = f"{shown} over", limit
        return f"{self.words} is {now}, {how} {other}; at most {most} may be"

    def comparison(self, past: Past) -> str:
        """What a relative limit was compared with, where there is no control: for a stage that goes on."""
        show, version = _SHOWN[self.form], past.version or "the version before"
        if self.treated is None or self.beside is None:
            known = "unknown" if self.treated is None else show(self.treated, 3)
            return f"{self.words} is {known}, and no earlier figure is known"
        now, before = _told_apart(self.treated, self.beside, show)
        earlier = {
            "control": f"the control's is {before}",
            "past": f"the same devices told {before} while they ran {version}",
            "released": f"{version} was published with {before}",
            "target_released": f"its own release says {before}",
        }
        return f"{self.words} is {now}, and {earlier[self.source]}"


def limit_checks(criteria: SuccessCriteria, estimates: dict[str, Any], *, past: Past | None = None) -> list[LimitCheck]:
    """Every limit in force. `past`: there where no device can be a control."""
    arms = estimates["treated"], estimates["control"]
    every: list[LimitCheck] = []
    for each in LIMITS:
        limit = getattr(criteria, each.criterion)
        if limit is None:
            continue
        treated, control = (arm.get(each.estimate) for arm in arms)
        slow_ms = limit if each.estimate == "share_over_limit" else None
        beside, source = _beside(each, control, past)
        every.append(
            LimitCheck(
                name=each.criterion,
                words=each.words,
                form=each.form,
                compared=each.compared,
                limit=limit if slow_ms is None else LATENCY_TAIL,
                treated=treated,
                beside=beside,
                source=source,
                slow_ms=slow_ms,
            )
        )
    for bounds, floor in ((criteria.floors, True), (criteria.ceilings, False)):
        for metric, bound in sorted(bounds.items()):
            means = [arm["means"][metric] for arm in arms]
            every.append(
                LimitCheck(
                    name=criteria.name_of(metric, floor=floor),
                    words=f"the mean of {metric}",
                    form="percent" if metric in SHARES else "as_reported",
                    compared="value",
                    limit=bound,
                    treated=means[0],
                    beside=means[1],
                    floor=floor,
                )
            )
    return every


def broken_limits(criteria: SuccessCriteria, estimates: dict[str, Any]) -> list[str]:
    """The limits that the estimates are past."""
    return [each.name for each in limit_checks(criteria, estimates) if each.broken]


def _beside(limit: Limit, control: float | None, past: Past | None) -> tuple[float | None, Source]:
    """What a limit compares the new version with, and whose figure that is."""
    if control is not None or past is None or limit.compared == "value":
        return control, "control"
    if (told := past.estimates.get(limit.estimate)) is not None:
        return told, "past"
    metric = limit.metric or ""
    if metric in past.released:
        return past.released[metric], "released"
    return past.target_released.get(metric), "target_released"


def _difference(treated: float | None, beside: float | None, how: Compared) -> float | None:
    """An estimate as it stands beside another one; of an absolute limit, itself.

    To as many digits as estimates have: half less 48% is two points, and floats would make it a little more.
    """
    if treated is None or how == "value":
        return treated
    if beside is None:
        return None
    if how == "drop":
        return round(beside - treated, _DIGITS)
    if beside <= 0:
        return 0.0 if treated <= 0 else math.inf
    return round(treated / beside - (1 if how == "increase" else 0), _DIGITS)


# --- figures in sentences ---

_MUST = {True: "must be", False: "may be"}


def _whose(figure: str, source: Source, past: Past | None) -> str:
    version = (past.version if past is not None else None) or "the version before"
    match source:
        case "past":
            return f"the {figure} that the same devices told while they ran {version}"
        case "released":
            return f"the {figure} that {version} was published with"
        case "target_released":
            return f"the {figure} that its own release says"
    return f"the control's {figure}"


def _percent(value: float, digits: int) -> str:
    return f"{_plain(100 * value, digits)}%"


def _plain(value: float, digits: int) -> str:
    """Digits count from the first that is not 0; whole numbers keep all of theirs."""
    whole = len(str(int(abs(value))))
    return f"{value:.{max(digits, whole)}g}"


def _counted_points(shown: str) -> str:
    return f"{shown} point{'' if shown == '1' else 's'}"


def _points(value: float, digits: int) -> str:
    return _plain(100 * value, digits)


def _milliseconds(value: float, digits: int) -> str:
    return f"{_plain(value, digits)} ms"


Shown = Callable[[float, int], str]
_SHOWN: dict[Form, Shown] = {
    "percent": _percent,
    "milliseconds": _milliseconds,
    "index": _plain,
    "as_reported": _plain,
}
_POINTS: Shown = _points
_BY: dict[Compared, Shown] = {"ratio": _plain, "increase": _percent}


def _told_apart(one: float, other: float, show: Shown) -> tuple[str, str]:
    """Both figures, with so many digits that they differ where the numbers do."""
    for digits in range(2, _MOST_DIGITS):
        texts = show(one, digits), show(other, digits)
        if one == other or texts[0] != texts[1]:
            break
    return texts
