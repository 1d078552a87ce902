"""`whimbrel model health` and `whimbrel model monitors`: what devices tell of versions, also when nothing rolls out."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from whimbrel import limits
from whimbrel.cli.connect import Client, connected, quoted
from whimbrel.cli.output import Json, counted, print_json, print_table, say, when
from whimbrel.flows.monitors.read_monitors import MonitorReading
from whimbrel.flows.monitors.show_health import ModelHealth, VersionHealth
from whimbrel.gate.monitor import Figures

Name = Annotated[str, typer.Argument(help="The model's name.")]
Version = Annotated[
    str | None, typer.Option(help="One version: calendar or semantic version, serial, or alias.", show_default=False)
]
Hours = Annotated[
    int, typer.Option(min=1, max=limits.HEALTH_SHOWN, help="So many hours back; of more than 48, by day.")
]
_STATE_WORDS = {
    "well": "well",
    "fires": "FIRES",
    "beyond": "beyond, not proven",
    "too_few": "too few yet",
    "nothing_told": "nothing told",
}
_FIGURE_COLUMNS = ("device-hours", "devices", "used", "crashes", "errors", "p50 ms", "p95 ms", "p99 ms", "means")


@connected
def health(client: Client, name: Name, version: Version = None, hours: Hours = 24, json: Json = False) -> None:
    """What devices tell of a model's versions, by hardware class and hour, and the state of each monitor.

    A device counts once an hour: "crashes 2%" is 2% of the device-hours in which the version was used.
    """
    shown = _fetch(client, name, version=version, hours=hours)
    if json:
        print_json(shown)
        return
    if not shown.versions:
        say(f"no device told anything of {name} in the last {counted(hours, 'hour')}")
        return
    print_table(
        ["version", "class", *_FIGURE_COLUMNS],
        [row for each in shown.versions for row in _class_rows(each)],
        title=f"{name}, the last {counted(hours, 'hour')}",
    )
    unit = "day" if shown.period_s > 3600 else "hour"
    for each in shown.versions:
        say("")
        print_table(
            [f"{unit} (UTC)", *_FIGURE_COLUMNS],
            [[_start(period.start, unit), *figure_cells(period.figures)] for period in each.periods],
            title=f"{_title(each)} by {unit}",
        )
    say("")
    _tell_monitors(shown)


@connected
def monitors(client: Client, name: Name, version: Version = None, json: Json = False) -> None:
    """The monitors of a model's versions: objectives and anomalies, what each shows now, and when it fired.

    Set objectives with: whimbrel model set NAME --objective "accuracy >= 84% weekly, take back"
    """
    shown = _fetch(client, name, version=version, hours=30 * 24)
    if json:
        print_json({"model": name, "versions": _monitors_of(shown), "episodes": shown.episodes})
        return
    _tell_monitors(shown)


def figure_cells(figures: Figures | None) -> list[str]:
    """A version's figures as cells of a table."""
    if figures is None:
        return [""] * len(_FIGURE_COLUMNS)
    means = ", ".join(f"{metric} {value:.4g}" for metric, value in figures.means.items())
    peaks = ", ".join(f"{metric} at most {most:.4g}" for metric, (_, most) in figures.peaks.items())
    return [
        f"{figures.device_hours:,}",
        f"{figures.devices:,}",
        _percent(figures.usage),
        _percent(figures.crash_rate),
        _percent(figures.error_rate),
        *(
            "" if each is None else f"{each:.4g}"
            for each in (figures.latency_p50_ms, figures.latency_p95_ms, figures.latency_p99_ms)
        ),
        "; ".join(words for words in (means, peaks) if words),
    ]


def _fetch(client: Client, name: str, *, version: str | None, hours: int) -> ModelHealth:
    parameters = {"hours": hours} | ({} if version is None else {"version": version})
    return client.get(f"models/{quoted(name)}/health", as_=ModelHealth, **parameters)


def _monitors_of(shown: ModelHealth) -> list[dict[str, object]]:
    return [
        {"version": each.version, "semantic_version": each.semantic_version, "monitors": each.monitors}
        for each in shown.versions
        if each.watched
    ]


def _class_rows(version: VersionHealth) -> list[list[str]]:
    rows = [[_title(version), "all", *figure_cells(version.figures)]]
    if len(version.classes) > 1 or "" not in version.classes:
        rows += [["", name or "(none told)", *figure_cells(figures)] for name, figures in version.classes.items()]
    return rows


def _tell_monitors(shown: ModelHealth) -> None:
    watched = [each for each in shown.versions if each.watched]
    if not watched:
        say(
            f"no version of {shown.model} is watched now: within a day devices told nothing, or only of versions that "
            "were taken back or that a rollout judges"
        )
    for each in watched:
        print_table(
            ["monitor", "state", "does", "shows"],
            [_monitor_row(reading) for reading in each.monitors if _is_shown(reading)],
            title=f"monitors of {_title(each)}",
        )
        silent = sum(not _is_shown(reading) for reading in each.monitors)
        if silent:
            say(f"  and {counted(silent, 'anomaly monitor')} that nothing can be compared for yet")
    for episode in shown.episodes:
        end = "still" if episode.ended_at is None else f"until {when(episode.ended_at)}"
        outcome = episode.outcome.replace("_", " ")
        what = f"serial {episode.serial}, {episode.monitor} ({outcome})"
        say(f"{when(episode.since)} UTC, {end}: {what}: {episode.because}")


def _is_shown(reading: MonitorReading) -> bool:
    return reading.kind == "objective" or reading.state != "nothing_told"


def _monitor_row(reading: MonitorReading) -> list[str]:
    return [reading.monitor, _STATE_WORDS[reading.state], reading.action.replace("_", " "), reading.because]


def _title(version: VersionHealth) -> str:
    return f"{version.version} ({version.semantic_version}){' baseline' if version.baseline else ''}"


def _start(at: int, unit: str) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d" if unit == "day" else "%Y-%m-%d %H:00")


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.3g}%"
