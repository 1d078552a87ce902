"""A forecast as charts: devices over time with every verdict, and the chance of each verdict, in one specification.

Left of a verdict's dot the version spreads. The bar of a verdict ends where nine of ten verdicts have come.
"""

from typing import Any

from whimbrel.console.charts import Spec, chart
from whimbrel.forecast.summary import Forecast

_COLOURS = 6  # of the charts' own palette
_TOP = ("$schema", "config")  # stand once, for both charts


def plot(forecast: Forecast) -> Spec:
    """Both charts, one above the other. A forecast without effects has only the first."""
    spread = chart(
        f"Devices that have had {forecast.model_version}, of {forecast.devices:,}",
        _layers(forecast),
        _rows(forecast),
        height=320,
    )
    if not forecast.effects:
        return spread
    chances = chart("Chance to catch it, with its 95% interval", _bars(), _chances(forecast), height={"step": 26})
    both = [{key: value for key, value in each.items() if key not in _TOP} for each in (spread, chances)]
    return {name: spread[name] for name in _TOP} | {"vconcat": both, "spacing": 30}


def _rows(forecast: Forecast) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{"kind": "spread", "hours": h, "devices": n} for h, n in forecast.path if n]
    for stage in forecast.stages:
        if stage.begins_h.median is not None:
            rows.append({"kind": "stage", "hours": stage.begins_h.median, "name": stage.name})
    for each in forecast.effects:
        if each.caught.times and each.verdict_h.median is not None:
            rows.append(
                {
                    "kind": "verdict",
                    "hours": each.verdict_h.median,
                    "hours_p90": each.verdict_h.p90,
                    "devices": each.exposed.median,
                    "effect": each.effect,
                }
            )
    return rows


def _only(kind: str) -> list[dict[str, Any]]:
    return [{"filter": f"datum.kind == '{kind}'"}]


def _layers(forecast: Forecast) -> list[Spec]:
    hours = {"field": "hours", "type": "quantitative", "title": "hours since the start"}
    devices = {
        "field": "devices",
        "type": "quantitative",
        "title": "devices (logarithmic)",
        "scale": {"type": "log"},
        "axis": {"format": "~s", "tickCount": 6},
    }
    effect: Spec = {"field": "effect", "type": "nominal", "title": "verdict on"}
    if len(forecast.effects) > _COLOURS:
        effect["scale"] = {"scheme": "tableau20"}
    layers: list[Spec] = [
        {
            "transform": _only("stage"),
            "mark": {"type": "rule", "strokeDash": [4, 4], "color": "#999"},
            "encoding": {"x": hours},
        },
        {
            "transform": _only("stage"),
            "mark": {"type": "text", "align": "left", "dx": 4, "color": "#666", "baseline": "top"},
            "encoding": {"x": hours, "text": {"field": "name"}, "y": {"value": 2}},
        },
        {
            "transform": _only("spread"),
            "mark": {"type": "line", "color": "#5b5b5b", "interpolate": "step-after"},
            "encoding": {"x": hours, "y": devices},
        },
    ]
    if any(each.caught.times for each in forecast.effects):
        layers += [
            {
                "transform": [*_only("verdict"), {"filter": "isValid(datum.hours_p90)"}],
                "mark": {"type": "rule", "strokeWidth": 3},
                "encoding": {"x": hours, "x2": {"field": "hours_p90"}, "y": devices, "color": effect},
            },
            {
                "transform": _only("verdict"),
                "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1},
                "encoding": {"x": hours, "y": devices, "color": effect},
            },
        ]
    return layers


def _chances(forecast: Forecast) -> list[dict[str, Any]]:
    rows = [(each.effect, each.caught) for each in forecast.effects] + [("nothing wrong", forecast.false_alarm)]
    return [{"effect": name, "chance": c.share, "low": c.low, "high": c.high} for name, c in rows]


def _bars() -> list[Spec]:
    percent = {"type": "quantitative", "axis": {"format": "%"}, "scale": {"domain": [0, 1]}}
    name = {"field": "effect", "type": "nominal", "title": None, "sort": None, "axis": {"labelLimit": 220}}
    return [
        {
            "mark": {"type": "bar", "height": 14, "opacity": 0.5},
            "encoding": {"x": percent | {"field": "chance", "title": "share of the rollouts"}, "y": name},
        },
        {
            "mark": {"type": "rule", "strokeWidth": 2},
            "encoding": {
                "x": percent | {"field": "low", "title": "share of the rollouts"},
                "x2": {"field": "high"},
                "y": name,
            },
        },
    ]
