"""The health of a model for people and scripts: figures by version, class and hour or day, monitors, and episodes.

Nothing is changed. Called by the admin API.
"""

from collections.abc import Collection, Sequence

import msgspec

from whimbrel import limits
from whimbrel.flows.monitors.fold_days import days_of
from whimbrel.flows.monitors.history import HourHistory
from whimbrel.flows.monitors.ports import EpisodesPort, HealthPort
from whimbrel.flows.monitors.read_monitors import MonitorReading, read_monitors
from whimbrel.flows.monitors.records import DAY_S, HOUR_S, Episode, HealthRow
from whimbrel.flows.monitors.watch import watched_versions
from whimbrel.flows.ports import RegistryPort
from whimbrel.flows.records import VersionRecord
from whimbrel.gate.monitor import Figures, figures_of
from whimbrel.health.device_hour import HOURS_A_DAY, HourSums

_BY_HOUR_AT_MOST = 48  # hours; of more, figures are shown by day
_CLASS_HOURS = 7 * HOURS_A_DAY  # of the figures that a class has beside those of a candidate


class Period(msgspec.Struct, frozen=True, kw_only=True):
    """One hour or day of a version. `start`: POSIX seconds."""

    start: int
    figures: Figures


class VersionHealth(msgspec.Struct, frozen=True, kw_only=True):
    """What devices told of a version: in all, by hardware class, and by hour or day. Monitors: of a watched one."""

    serial: int
    version: str
    semantic_version: str
    baseline: bool
    watched: bool
    figures: Figures
    classes: dict[str, Figures]
    periods: list[Period]
    monitors: list[MonitorReading]


class ModelHealth(msgspec.Struct, frozen=True, kw_only=True):
    """The health of a model over the last `hours`. `period_s`: 3600 or 86400."""

    model: str
    hours: int
    period_s: int
    versions: list[VersionHealth]
    episodes: list[Episode]


class ClassFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one hardware class: the baseline's of a week, and a candidate's since its rollout began."""

    hardware_class: str
    baseline: Figures | None
    candidate: Figures | None


def model_health(
    registry: RegistryPort,
    health: HealthPort,
    episodes: EpisodesPort,
    name: str,
    *,
    hours: int,
    now: float,
    serial: int | None = None,
) -> ModelHealth:
    """The health of a model over the last `hours`, of one version or of all. Raises `NotFound`."""
    model = registry.model(name)
    hour = int(now // HOUR_S)
    by_day = hours > _BY_HOUR_AT_MOST
    period_s = DAY_S if by_day else HOUR_S
    rows = _rows(health, name, hours=hours, hour=hour, by_day=by_day)
    history = HourHistory(name)
    history.read(health, hour=hour)
    watched = watched_versions(registry, model, history, hour=hour)
    known = episodes.episodes(name, since=now - max(hours * HOUR_S, limits.TAKES_BACK_S))
    read = read_monitors(registry, model, history, watched, episodes=known, anomalies={}, hour=hour)
    monitors = {version.serial: readings for version, readings in zip(watched, read, strict=True)}
    told = {row.serial for row in rows} | monitors.keys()
    return ModelHealth(
        model=name,
        hours=hours,
        period_s=period_s,
        versions=[
            _version(version, rows, monitors.get(version.serial), baseline=model.baseline, period_s=period_s)
            for version in sorted(registry.versions(name), key=lambda each: -each.serial)
            if version.serial in told and serial in {None, version.serial}
        ],
        episodes=[each for each in known if serial in {None, each.serial}],
    )


def told_metrics(health: HealthPort, model: str, *, now: float) -> frozenset[str]:
    """The metrics that devices of a model told in the last day, whatever version they run. `now`: POSIX seconds."""
    hour = int(now // HOUR_S)
    rows = health.hours(model, since=hour - HOURS_A_DAY, before=hour + 1)
    return frozenset(name for row in rows for name in row.sums.metrics)


def class_figures(
    health: HealthPort, model: str, *, baseline: int | None, candidate: int, since: float, now: float
) -> list[ClassFigures]:
    """The figures by class of a rollout's two versions: the candidate's from `since` on (POSIX seconds)."""
    hour = int(now // HOUR_S)
    first = int(since // HOUR_S)
    rows = health.hours(model, since=max(hour - limits.HEALTH_HOURS, min(first, hour - _CLASS_HOURS)), before=hour + 1)
    before = by_class([row for row in rows if row.serial == baseline and row.start > hour - _CLASS_HOURS])
    after = by_class([row for row in rows if row.serial == candidate and row.start >= first])
    return [
        ClassFigures(hardware_class=name, baseline=before.get(name), candidate=after.get(name))
        for name in sorted(before.keys() | after.keys())
    ]


def by_class(rows: Sequence[HealthRow]) -> dict[str, Figures]:
    """The figures of rows of one version, by hardware class."""
    sums: dict[str, HourSums] = {}
    for row in rows:
        name = row.hardware_class
        sums[name] = sums[name].then(row.sums) if name in sums else row.sums
    return {name: figures_of(each) for name, each in sorted(sums.items())}


def _rows(health: HealthPort, name: str, *, hours: int, hour: int, by_day: bool) -> list[HealthRow]:
    """By hour; or by day, with the days that are not over yet made of their hours."""
    since = hour - hours + 1
    if not by_day:
        return health.hours(name, since=since, before=hour + 1)
    days = health.days(name, since=since // HOURS_A_DAY, before=hour // HOURS_A_DAY)
    newest = health.newest_day(name)
    rest = max(since // HOURS_A_DAY, newest + 1 if newest is not None else 0)
    return days + days_of(health.hours(name, since=rest * HOURS_A_DAY, before=hour + 1))


def _version(
    version: VersionRecord,
    rows: Collection[HealthRow],
    monitors: list[MonitorReading] | None,
    *,
    baseline: int | None,
    period_s: int,
) -> VersionHealth:
    own = [row for row in rows if row.serial == version.serial]
    periods: dict[int, HourSums] = {}
    for row in own:
        periods[row.start] = periods[row.start].plus(row.sums) if row.start in periods else row.sums
    whole = HourSums()
    for sums in periods.values():
        whole = whole.then(sums) if whole.devices else sums
    return VersionHealth(
        serial=version.serial,
        version=version.version,
        semantic_version=version.semantic_version,
        baseline=version.serial == baseline,
        watched=monitors is not None,
        figures=figures_of(whole),
        classes=by_class(own),
        periods=[Period(start=start * period_s, figures=figures_of(sums)) for start, sums in sorted(periods.items())],
        monitors=monitors or [],
    )
