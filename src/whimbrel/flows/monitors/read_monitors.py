"""The monitors of some versions of a model, read now: every objective, and every anomaly that is looked for.

1. An objective is read over its window of hours, the open one among them.
2. Anomalies are the best of the tests that began lately, every three hours of the last day and every day of the last
   week: against the same hours of the week before (of the day before, where there is no week), and beside the other
   versions. An hour that this version has no past for is compared with the past of the whole model.
3. All tests that may begin in a month share one budget (gate/monitor). Drift is an objective that every version with
   reference predictions has, unless the settings set another one.

Nothing is changed here. Called by `watch`, and for people who look at a model's health.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from whimbrel.flows.monitors.history import HourHistory
from whimbrel.flows.monitors.records import HOUR_S, Episode
from whimbrel.flows.ports import ModelsPort
from whimbrel.flows.records import ModelRecord, VersionRecord
from whimbrel.flows.versions import reference_of
from whimbrel.gate.monitor import ANOMALY_BEGINS_H, HOURS_A_MONTH, OBJECTIVES_PART, needed
from whimbrel.gate.monitor_anomalies import TESTED, Against, Compared, Departure, departures
from whimbrel.gate.monitor_objectives import Reading, ReadingState, judge_objective
from whimbrel.health.device_hour import HOURS_A_DAY
from whimbrel.plan.objectives import DRIFT, DRIFT_OBJECTIVE, QUANTILES, Action, Objective

Kind = Literal["objective", "anomaly"]
State = Literal["well", "fires", "beyond", "too_few", "nothing_told"]

_WEEK = 7 * HOURS_A_DAY
_QUIET_HOURS = 3  # closed hours within what is tolerated, before an anomaly is over
_AGAINST: tuple[Against, ...] = ("past", "beside")
_PAST_WORDS = {_WEEK: "in the same hours of the week before", HOURS_A_DAY: "in the same hours of the day before"}


class MonitorReading(msgspec.Struct, frozen=True, kw_only=True):
    """What a monitor shows now. `fires`: the breach is proven; `over`: an episode that lasts ends now."""

    kind: Kind
    monitor: str
    state: State
    action: Action
    value: float | None
    units: int  # device-hours that told of it
    log_e: float
    needed: float
    because: str
    over: bool

    @property
    def fires(self) -> bool:
        """Whether harm is proven now."""
        return self.state == "fires"


def read_monitors(
    registry: ModelsPort,
    model: ModelRecord,
    history: HourHistory,
    versions: Sequence[VersionRecord],
    *,
    episodes: Sequence[Episode],
    anomalies: dict[int, list[MonitorReading]],
    hour: int,
) -> list[list[MonitorReading]]:
    """The readings of each of the versions, in their order. `hour`: the open one.

    `anomalies`: readings by serial that are young enough; those that are missing are read, and added.
    """
    objectives = objectives_of(model)
    tests = HOURS_A_MONTH * len(objectives) * max(1, len(versions))
    threshold = needed(tests=tests, part=OBJECTIVES_PART)
    readings = []
    for version in versions:
        read = [
            _objective(registry, model, each, version.serial, history, hour=hour, threshold=threshold)
            for each in objectives
        ]
        read = [each for each in read if each.monitor != DRIFT_OBJECTIVE.name or each.units]
        if model.settings.anomalies != "off":
            if version.serial not in anomalies:
                anomalies[version.serial] = _anomalies(
                    model, version, history, episodes, hour=hour, versions=len(versions)
                )
            read += anomalies[version.serial]
        readings.append(read)
    return readings


def objectives_of(model: ModelRecord) -> list[Objective]:
    """What every version of a model must keep: its settings say it, and drift where they say nothing of it."""
    own = list(model.settings.objectives)
    return own if any(each.measure == DRIFT for each in own) else [*own, DRIFT_OBJECTIVE]


def _objective(
    registry: ModelsPort,
    model: ModelRecord,
    objective: Objective,
    serial: int,
    history: HourHistory,
    *,
    hour: int,
    threshold: float,
) -> MonitorReading:
    hours = history.of_version(serial, range(hour - objective.hours + 1, hour + 1))
    drifts = objective.measure == DRIFT and any(each.prediction_units for each in hours)
    reference = reference_of(registry, model.name, serial) if drifts else None
    shares = reference.bin_shares if reference is not None else None
    reading = judge_objective(objective, hours, needed=threshold, reference=shares)
    return MonitorReading(
        kind="objective",
        monitor=objective.name,
        state=_state(reading.state),
        action=objective.action,
        value=reading.value,
        units=reading.units,
        log_e=reading.log_e,
        needed=reading.needed,
        because=_objective_words(objective, reading),
        over=reading.state == "kept",
    )


def _state(state: ReadingState) -> State:
    match state:
        case "kept":
            return "well"
        case "broken":
            return "fires"
        case _:
            return state


def _objective_words(objective: Objective, reading: Reading) -> str:
    bound = f"it should be {'at least' if objective.floor else 'at most'} {_figure(objective.measure, objective.bound)}"
    of = f"over the last {objective.window} ({reading.units:,} device-hours)"
    kind = "the peak of " if objective.peak else ""
    if reading.value is None:
        return f"nothing was told of {objective.measure} over the last {objective.window}"
    words = f"{kind}{objective.measure} is {_figure(objective.measure, reading.value)} {of}; {bound}"
    match reading.state:
        case "broken":
            return f"{words} (ln E {reading.log_e:.1f} of {reading.needed:.1f})"
        case "beyond":
            return f"{words}; it is not proven yet (ln E {reading.log_e:.1f} of {reading.needed:.1f})"
        case "too_few":
            return f"{words}; fewer than {objective.least:,} say too little"
    return words


def _anomalies(
    model: ModelRecord,
    version: VersionRecord,
    history: HourHistory,
    episodes: Sequence[Episode],
    *,
    hour: int,
    versions: int,
) -> list[MonitorReading]:
    tests = HOURS_A_MONTH // ANOMALY_BEGINS_H * len(_AGAINST) * len(TESTED) * versions
    threshold = needed(tests=tests, part=1 - OBJECTIVES_PART)
    action: Action = "take_back" if model.settings.anomalies == "take_back" else "alert"
    readings = []
    for against in _AGAINST:
        ended = {
            each.monitor: int((each.ended_at or 0.0) // HOUR_S) + 1
            for each in episodes
            if each.serial == version.serial and each.ended_at is not None
        }
        tests_of = _Tests(history, version.serial, against, hour=hour)
        for measure in TESTED:
            name = anomaly_name(measure, against)
            best, words = tests_of.best(measure, since=ended.get(name, 0))
            readings.append(
                MonitorReading(
                    kind="anomaly",
                    monitor=name,
                    state="nothing_told" if best is None else "fires" if best.log_e >= threshold else "well",
                    action=action,
                    value=None if best is None else best.now,
                    units=0 if best is None else tests_of.units,
                    log_e=0.0 if best is None else best.log_e,
                    needed=threshold,
                    because=_anomaly_words(measure, best, words, threshold),
                    over=tests_of.is_quiet(measure),
                )
            )
    return readings


def anomaly_name(measure: str, against: Against) -> str:
    """The name of an anomaly's monitor."""
    return f"{measure} against {'its past' if against == 'past' else 'versions beside'}"


class _Tests:
    """The tests of one version that began on the last days, against its past or beside other versions."""

    def __init__(self, history: HourHistory, serial: int, against: Against, *, hour: int) -> None:
        self._history, self._serial, self._against, self._hour = history, serial, against, hour
        self._lag = _WEEK if self._has_weeks() else HOURS_A_DAY
        self._words = "of the versions beside it in the same hours" if against == "beside" else _PAST_WORDS[self._lag]
        self._done: dict[tuple[tuple[int, ...], ...], dict[str, Departure]] = {}  # by the hours that were told
        self.units = sum(each.devices for each in history.of_version(serial, range(hour - 23, hour + 1)))

    def best(self, measure: str, *, since: int) -> tuple[Departure | None, str]:
        """The test with the most evidence; None where nothing was told on both sides. `since`: none began before."""
        newest = self._hour - self._hour % ANOMALY_BEGINS_H
        starts = {max(since, start) for start in range(newest, self._hour - HOURS_A_DAY, -ANOMALY_BEGINS_H)}
        if self._lag == _WEEK or self._against == "beside":
            today = self._hour - self._hour % HOURS_A_DAY
            starts |= {max(since, today - day * HOURS_A_DAY) for day in range(7)}
        tests = [self._test(start)[measure] for start in sorted(starts) if start <= self._hour]
        told = [each for each in tests if each.now is not None and each.other is not None]
        return max(told, key=lambda each: each.log_e, default=None), self._words

    def is_quiet(self, measure: str) -> bool:
        """Whether the newest closed hours lie within what is tolerated."""
        newest = self._departures(range(self._hour - _QUIET_HOURS, self._hour))
        return newest[measure].within and newest[measure].now is not None

    def _test(self, start: int) -> dict[str, Departure]:
        return self._departures(range(start, min(self._hour + 1, start + _WEEK)), before=start)

    def _departures(self, hours: range, *, before: int | None = None) -> dict[str, Departure]:
        week = range(before - _WEEK, before) if before is not None and self._against == "beside" else range(0)
        now, then = tuple(self._history.told(hours)), tuple(self._history.told(week))
        if (now, then) not in self._done:
            each_of = departures(self._pairs(now), before=self._pairs(then))
            self._done[now, then] = {each.measure: each for each in each_of}
        return self._done[now, then]

    def _pairs(self, hours: Iterable[int]) -> list[Compared]:
        pairs = []
        for hour in hours:
            if self._against == "beside":
                pairs += [Compared(own, others) for own, others in self._history.beside(self._serial, hour)]
                continue
            now = self._history.at(self._serial, hour)
            then = self._history.at(self._serial, hour - self._lag) or self._history.of_model(hour - self._lag)
            if now is not None and then is not None:
                pairs.append(Compared(now, then))
        return pairs

    def _has_weeks(self) -> bool:
        """Whether most of the hours of the last day have one a week before."""
        day = range(self._hour - HOURS_A_DAY, self._hour)
        return len(self._history.told(range(day.start - _WEEK, day.stop - _WEEK))) * 2 >= HOURS_A_DAY


def _anomaly_words(measure: str, departure: Departure | None, against: str, threshold: float) -> str:
    if departure is None or departure.now is None or departure.other is None:
        return f"nothing can be compared of {measure} {against}"
    name = {"crash": "crash_rate", "error": "error_rate"}.get(measure, measure)
    return (
        f"{name} is {_figure(name, departure.now)}, and was {_figure(name, departure.other)} {against} "
        f"(ln E {departure.log_e:.1f} of {threshold:.1f})"
    )


def _figure(measure: str, value: float) -> str:
    """A figure in the unit of its measure."""
    if measure in {"crash_rate", "error_rate", "usage", "accuracy", "feedback"}:
        return f"{100 * value:.3g}%"
    if measure in QUANTILES or measure == "latency_p95":
        return f"{value:.4g} ms"
    return f"{value:.4g}"
