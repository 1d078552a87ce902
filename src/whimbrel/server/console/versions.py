"""The versions of a model, as several pages tell them: their names and colours, how far the newest came, and a week."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from whimbrel.console.graphics import COLOURS, AreaChart, area_chart
from whimbrel.console.words import ago, counted, percent
from whimbrel.flows.monitors.records import HOUR_S
from whimbrel.flows.overview.versions_over_time import DevicesByHour, adoption_of, fullest, serials_of
from whimbrel.flows.records import VersionRecord
from whimbrel.stores.transaction import Stores

_STEPS = 56  # of a week: three hours each
_OTHER = "other versions"


def version_names(stores: Stores, model: str) -> dict[int, str]:
    """The semantic versions of a model, by serial."""
    return {each.serial: each.semantic_version for each in stores.registry.versions(model)}


def quarantined_everywhere(stores: Stores, model: str) -> set[int]:
    """The versions of a model that the whole fleet refuses."""
    return {each.serial for each in stores.registry.quarantines(model) if each.selector.everyone}


def version_colours(serials: Sequence[int], *, bad: set[int]) -> dict[int, str]:
    """A class of the style sheet for each version, the newest first. What is quarantined everywhere is red."""
    colours, place = {}, 0
    for serial in serials:
        if serial in bad:
            colours[serial] = "vbad"
        else:
            colours[serial] = f"v{min(place, COLOURS - 1)}"
            place += 1
    return colours


def headline_of(
    versions: Sequence[VersionRecord], by_serial: Mapping[int | None, int], *, bad: set[int], now: float
) -> str:
    """How far the newest version came, in words."""
    if not versions:
        return "Nothing was published yet."
    newest, total = versions[-1], sum(by_serial.values())
    published = f"published {ago(newest.created_at, now)}"
    if not total:
        return f"{newest.semantic_version}, {published}. No device follows this model yet."
    reached = adoption_of(newest.serial, by_serial)
    if newest.serial in bad:
        still = f"; {counted(reached.devices, 'device')} still run it" if reached.devices else ""
        return f"{newest.semantic_version}, {published}, was taken back{still}."
    return f"{percent(reached.percent)} of {counted(total, 'device')} run {newest.semantic_version}, {published}."


def history_of(
    hours: DevicesByHour, names: Mapping[int, str], colours: Mapping[int, str], *, now: float
) -> AreaChart | None:
    """The last week; less, where less is known. None where two points are not there."""
    if len(hours) < 2:
        return None
    last, first = int(now // HOUR_S), min(hours)
    step = max(1, -(-(last - first + 1) // _STEPS))
    rows = fullest(hours, first=first, last=last, step=step)
    serials = serials_of(rows)
    points = [[float(devices.get(serial, 0)) for serial in serials] for _, devices in rows]
    stamps = [datetime.fromtimestamp(start * HOUR_S, UTC).strftime("%b %d %H:%M") for start, _ in rows]
    span = (last - first) / 24
    marks = [rows[round(place * (len(rows) - 1) / 4)][0] for place in range(5)] if len(rows) > 4 else [first, last]
    form = "%b %d" if span > 2 else "%H:%M"
    words = [datetime.fromtimestamp(start * HOUR_S, UTC).strftime(form) for start in marks]
    newest = names.get(serials[-1], "")
    return area_chart(
        points,
        [(names.get(serial, _OTHER), colours.get(serial, f"v{COLOURS - 1}")) for serial in serials],
        says=f"Devices by version over {span:.0f} days; the newest is {newest}, at "
        f"{points[-1][-1]:,.0f} of {sum(points[-1]):,.0f} devices at the end",
        x_words=words,
        row_names=stamps,
    )
