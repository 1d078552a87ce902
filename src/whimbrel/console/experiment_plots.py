"""The charts of an experiment: its interval over time, and its devices by how far they came.

Called by the report, with the admin API's view of an experiment (`history=true`).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from whimbrel.console.charts import COLORS, GREY, Spec, chart

View = Mapping[str, Any]  # the admin API's view of an experiment

_FEW = 3  # looks of an arm that are drawn as single points


def plots_of(view: View) -> dict[str, Spec]:
    """Charts by name: the interval over time, and devices by how far they came."""
    return {"interval": _interval_chart(view), "counts": _counts_chart(view)}


def _interval_chart(view: View) -> Spec:
    ratio = view["primary"]["name"] == "crash_rate"
    unit_of_time, a_day = _time_unit(max((point["days"] for point in view["history"]), default=0.0))
    rows = []
    for point in view["history"]:
        if point["deciding"] is None:
            continue
        estimate, low, high = point["deciding"]
        row = {"arm": point["arm"], "time": point["days"] * a_day, "estimate": estimate}
        row |= {"low": low, "high": high if high is not None and math.isfinite(high) else None}
        if point["plain"] is not None and not ratio:
            row |= {"plain_low": point["plain"][1], "plain_high": point["plain"][2]}
        rows.append(row)
    rows = _cropped(rows)
    unit = "crash rate over the control's" if ratio else f"{view['primary']['name']}, arm less control"
    x: Spec = {"field": "time", "type": "quantitative", "title": f"{unit_of_time} since the start"}
    x |= {"scale": {"domainMin": 0, "nice": False}, "axis": {"tickCount": 8}}
    color = _color(view, [arm["id"] for arm in view["arms"] if arm["role"] != "control"])

    def y(field: str) -> Spec:
        return {"field": field, "type": "quantitative", "title": unit, "scale": {"zero": False}}

    dashed = {"type": "line", "strokeDash": [3, 3], "strokeWidth": 1, "opacity": 0.7}
    band = {"x": x, "y": y("low"), "y2": {"field": "high"}, "color": color}
    few = len(rows) <= _FEW * len(view["arms"])
    line = {"type": "line", "strokeWidth": 2, "point": {"size": 40} if few else False}
    same = {"datum": 1 if ratio else 0}
    label = {"type": "text", "align": "right", "baseline": "bottom", "dy": -3, "x": "width", "dx": -4, "color": GREY}
    layers: list[Spec] = [
        {"mark": {"type": "rule", "color": GREY}, "encoding": {"y": same}},
        {"mark": label, "encoding": {"y": same, "text": {"value": "no difference"}}},
        {"mark": {"type": "area", "opacity": 0.22}, "encoding": band},
        {"mark": dashed, "encoding": {"x": x, "y": y("plain_low"), "color": color}},
        {"mark": dashed, "encoding": {"x": x, "y": y("plain_high"), "color": color}},
        {"mark": line, "encoding": {"x": x, "y": y("estimate"), "color": color}},
    ]
    if ratio:
        del layers[3:5]
    if few:  # a line and an area need two points
        layers.append({"mark": {"type": "rule", "strokeWidth": 2, "opacity": 0.6}, "encoding": band})
    return chart(f"{view['name']}: {view['primary']['name']}", layers, rows)


def _time_unit(days: float) -> tuple[str, float]:
    """The unit of time for an axis of so many days, and how many units a day has."""
    if days >= 2:
        return "days", 1.0
    return ("hours", 24.0) if days >= 2 / 24 else ("minutes", 1440.0)


def _cropped(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first intervals are wide: cut them at three times the median width around the last estimate."""
    widths = sorted(row["high"] - row["low"] for row in rows if row["high"] is not None)
    if not widths:
        return rows
    last = [row for row in rows if row["high"] is not None][-1]
    reach = 3 * widths[len(widths) // 2]
    low, high = last["estimate"] - reach, last["estimate"] + reach
    cropped = []
    for row in rows:
        ends = {
            name: min(high, max(low, row[name]))
            for name in row
            if name not in {"arm", "time"} and row[name] is not None
        }
        cropped.append(row | ends)
    return cropped


def _counts_chart(view: View) -> Spec:
    steps = ("assigned", "active", "reported")
    rows = [{"arm": arm["id"], "step": step, "devices": arm[step]} for arm in view["arms"] for step in steps]
    bar: Spec = {
        "mark": {"type": "bar"},
        "encoding": {
            "y": {"field": "step", "type": "nominal", "title": None, "sort": list(steps)},
            "yOffset": {"field": "arm", "sort": [arm["id"] for arm in view["arms"]]},
            "x": {"field": "devices", "type": "quantitative", "title": "devices", "axis": {"tickCount": 8}},
            "color": _color(view, [arm["id"] for arm in view["arms"]]),
        },
    }
    return chart("Devices of each arm", [bar], rows, height=150)


def _color(view: View, shown: Sequence[str]) -> Spec:
    """The colours of arms: an arm has the same colour in every chart, and the control is grey."""
    treated = [arm["id"] for arm in view["arms"] if arm["role"] != "control"]
    colors = {name: COLORS[place % len(COLORS)] for place, name in enumerate(treated)}
    scale = {"domain": list(shown), "range": [colors.get(name, GREY) for name in shown]}
    return {"field": "arm", "type": "nominal", "title": "arm", "scale": scale}
