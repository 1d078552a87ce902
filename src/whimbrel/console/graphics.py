"""Charts of pages, as shapes: a template draws them as SVG, and the style sheet gives them their colours.

1. A chart is a picture of 100 by 100 that is stretched to its place; its words stand beside it as text of the page, so
   they keep their size on a phone, and follow the theme.
2. Every chart has a sentence that says what it shows, and a table with its figures.
3. Nothing here makes markup: paths are numbers and letters, and names go through the template.

Pure. ADR 92 says why these are no Vega-Lite charts.
"""

import math
from collections.abc import Sequence

import msgspec

COLOURS = 6  # of versions, from the newest on; older ones share the last
_EDGE = 10.0  # ratios at the edges of a chart: ten times and a tenth; above ten, the upper edge is a hundred times


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """A shape with its name. `colour`: a class of the style sheet."""

    label: str
    colour: str
    path: str


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """What every chart has: what it says in a sentence, the words at its axes, and its figures as a table."""

    says: str
    x_words: tuple[str, ...]
    y_words: tuple[str, ...]  # from the top
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class AreaChart(Chart, frozen=True, kw_only=True):
    """Areas one over the other."""

    areas: tuple[Series, ...]


class RatioChart(Chart, frozen=True, kw_only=True):
    """A ratio over time on a logarithmic scale, with its confidence band. `limit_y`: the line not to be crossed.

    `even_y`: where both arms are alike. `harm`: whether the whole band lies past the limit.
    """

    band: str
    line: str
    limit_y: float
    even_y: float
    harm: bool
    worse_below: bool


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a bar, in percent of it. `colour`: a class of the style sheet."""

    label: str
    colour: str
    start: float
    width: float
    value: int


def bars(counts: Sequence[tuple[str, str, int]]) -> tuple[Bar, ...]:
    """A bar of parts: label, colour, and how many; parts of none are left out."""
    total, at, made = sum(count for _, _, count in counts), 0.0, []
    for label, colour, count in counts:
        if count:
            width = 100 * count / total
            made.append(
                Bar(
                    label=label,
                    colour=colour,
                    start=round(at, 3),
                    width=round(width, 3),
                    value=count,
                )
            )
            at += width
    return tuple(made)


def area_chart(
    rows: Sequence[Sequence[float]],
    names: Sequence[tuple[str, str]],
    *,
    says: str,
    x_words: Sequence[str],
    row_names: Sequence[str],
) -> AreaChart:
    """Areas over time. `rows`: at each time one value a name, the lowest area first; `names`: label and colour."""
    top = _nice(max((sum(row) for row in rows), default=0.0))
    below = [0.0] * len(rows)
    areas = []
    for place, (label, colour) in enumerate(names):
        above = [low + row[place] for low, row in zip(below, rows, strict=True)]
        areas.append(Series(label=label, colour=colour, path=_band(below, above, top=top)))
        below = above
    return AreaChart(
        says=says,
        x_words=tuple(x_words),
        y_words=(f"{top:,.0f}", f"{top / 2:,.10g}", "0"),
        columns=("time (UTC)", *(label for label, _ in names)),
        rows=tuple((name, *(f"{value:,.0f}" for value in row)) for name, row in zip(row_names, rows, strict=True)),
        areas=tuple(areas),
    )


def ratio_chart(
    points: Sequence[tuple[float, float | None, float, float | None]],
    *,
    limit: float,
    says: str,
    x_words: Sequence[str],
    worse_below: bool = False,
) -> RatioChart:
    """A ratio over time. `points`: hours, the ratio, and both ends of its confidence set (0 and None: open)."""
    first, last = (points[0][0], points[-1][0]) if points else (0.0, 1.0)
    top = _EDGE**2 if points and max(points[-1][1] or 0.0, points[-1][2]) > _EDGE else _EDGE
    span = max(last - first, 1e-9)
    xs = [100 * (hours - first) / span for hours, _, _, _ in points]
    if len(points) == 1:
        points, xs = [points[0], points[0]], [0.0, 100.0]
    highs = [_ratio_y(math.inf if high is None else high, top=top) for _, _, _, high in points]
    lows = [_ratio_y(low, top=top) for _, _, low, _ in points]
    edge = [f"{x:.2f},{y:.2f}" for x, y in zip(xs, highs, strict=True)]
    edge += [f"{x:.2f},{y:.2f}" for x, y in reversed(list(zip(xs, lows, strict=True)))]
    line, pen = [], "M"
    for x, (_, ratio, _, _) in zip(xs, points, strict=True):
        if ratio is None:
            pen = "M"
        else:
            line.append(f"{pen}{x:.2f},{_ratio_y(ratio, top=top):.2f}")
            pen = "L"
    _, _, low, high = points[-1] if points else (0.0, None, 0.0, None)
    return RatioChart(
        says=says,
        x_words=tuple(x_words),
        y_words=("100×", "10×", "1×", "0.1×") if top > _EDGE else ("10×", "1×", "0.1×"),
        columns=("hours", "ratio", "from", "to"),
        rows=tuple(
            (
                f"{hours:.3g}",
                "not yet" if ratio is None else f"{ratio:.3g}×",
                f"{low_:.3g}×",
                "open" if high_ is None else f"{high_:.3g}×",
            )
            for hours, ratio, low_, high_ in points
        ),
        band=f"M{'L'.join(edge)}Z" if edge else "",
        line="".join(line),
        limit_y=round(_ratio_y(limit, top=top), 2),
        even_y=round(_ratio_y(1.0, top=top), 2),
        harm=(high is not None and high < limit) if worse_below else low > limit,
        worse_below=worse_below,
    )


def _ratio_y(ratio: float, *, top: float) -> float:
    """Where a ratio lies, from the top."""
    inside = min(top, max(1 / _EDGE, ratio))
    return 100 * (math.log(top) - math.log(inside)) / (math.log(top) + math.log(_EDGE))


def _band(below: Sequence[float], above: Sequence[float], *, top: float) -> str:
    """The outline of an area between two lines, which lie over the whole width."""
    if not above or not any(high - low for low, high in zip(below, above, strict=True)):
        return ""
    step = 100 / max(1, len(above) - 1)
    xs = [index * step for index in range(len(above))] if len(above) > 1 else [0.0]
    if len(above) == 1:
        xs, below, above = [0.0, 100.0], [*below, *below], [*above, *above]
    upper = [f"{x:.2f},{100 - 100 * value / top:.2f}" for x, value in zip(xs, above, strict=True)]
    lower = [f"{x:.2f},{100 - 100 * value / top:.2f}" for x, value in zip(xs, below, strict=True)]
    return f"M{'L'.join([*upper, *reversed(lower)])}Z"


def _nice(value: float) -> float:
    """The next larger number that people count in, such as 1,200 or 5,000."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(
        power * step
        for step in (1.0, 1.2, 1.6, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
        if value <= power * step * (1 + 1e-9)
    )
