"""The chart of a rollout's evidence: ln E over its windows, and the line at which harm is proven."""

from collections.abc import Sequence

from whimbrel.console.charts import Spec, chart
from whimbrel.flows.rollouts.trace import Point
from whimbrel.flows.wording import evidence_words

_LEAST = -4.0  # the chart is cut here: lower values only mean a healthy history
_NAMED = 5  # this many guardrails are drawn by name: those with the highest ln E


def evidence_chart(points: Sequence[Point], *, title: str) -> Spec:
    """The chart of a rollout's points: of all evidence together, and of the guardrails with the most evidence."""
    first = points[0].at if points else 0.0
    highest: dict[str, float] = {}
    for point in points:
        for name, log_e in point.guardrails.items():
            highest[name] = max(highest.get(name, log_e), log_e)
    named = sorted(highest, key=lambda name: (-highest[name], name))[:_NAMED]
    span_h = (points[-1].at - first) / 3600 if points else 0.0
    unit, size_s = ("hours", 3600.0) if span_h >= 2 else ("minutes", 60.0) if span_h >= 1 / 30 else ("seconds", 1.0)
    rows = []
    for point in points:
        for name, log_e in [("all together", point.log_e), *((n, point.guardrails.get(n, 0.0)) for n in named)]:
            rows.append(
                {
                    "time": round((point.at - first) / size_s, 4),
                    "guardrail": name.replace("_", " "),
                    "log_e": max(_LEAST, log_e),
                    "stage": point.stage,
                }
            )
    needed = points[-1].needed if points else 0.0
    order = ["all together", *(name.replace("_", " ") for name in named)]
    lines: Spec = {
        "mark": {"type": "line", "interpolate": "step-after", "point": len(points) < 3},
        "encoding": {
            "x": {"field": "time", "type": "quantitative", "title": f"{unit} since the first verdict"},
            "y": {"field": "log_e", "type": "quantitative", "title": "ln E (evidence of harm)"},
            "color": {"field": "guardrail", "type": "nominal", "sort": order, "title": None},
            "strokeWidth": {
                "condition": {"test": "datum.guardrail === 'all together'", "value": 3},
                "value": 1.4,
            },
        },
    }
    rule: Spec = {
        "data": {"values": [{}]},  # drawn once, not once for each row
        "mark": {"type": "rule", "strokeDash": [6, 4], "color": "#b00020"},
        "encoding": {"y": {"datum": round(needed, 4)}},
    }
    word: Spec = {
        "data": {"values": [{}]},
        "mark": {"type": "text", "align": "left", "dy": -7, "color": "#b00020"},
        "encoding": {
            "y": {"datum": round(needed, 4)},
            "x": {"value": 4},
            "text": {"value": f"harm is proven at ln E = {needed:.2f}"},
        },
    }
    subtitle = f"{evidence_words(needed)}; thick: all guardrails together"
    return chart(title, [lines, rule, word], rows) | {"title": {"text": title, "subtitle": subtitle}}
