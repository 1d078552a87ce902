"""Charts for pages, files and e-mails: Vega-Lite specifications, drawn without a network.

1. A chart is a specification: a JSON object that any Vega-Lite tool reads. It is drawn last.
2. All charts look alike: one width, one palette, numbers with their units in the axis titles.
3. Data go inside the specification; nothing is fetched when it is drawn.

Called by reports, forecasts and alerts. Drawing needs `vl-convert-python` (whimbrel[server]).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from whimbrel import limits
from whimbrel.errors import Refused, Unavailable, UntrustedInput
from whimbrel.plain_text import plain_texts

Spec = dict[str, Any]  # a Vega-Lite specification
Form = Literal["png", "svg"]

MEDIA_TYPES: dict[Form, str] = {"png": "image/png", "svg": "image/svg+xml"}
GREY = "#5b5b5b"  # the control, and no difference from it
COLORS = ("#1f6f8b", "#d1495b", "#edae49", "#66a182", "#8d6a9f")  # the palette of all charts; then again
_VEGA_LITE = "5.21"  # the language version of the specifications
_SCALE = 2.0  # pixels of a PNG for each point: sharp on a screen and in print
_LOOK = {
    "font": "sans-serif",
    "background": "white",
    "axis": {"labelFontSize": 11, "titleFontSize": 12, "titleFontWeight": "normal", "gridColor": "#e8e8e8"},
    "title": {"fontSize": 14, "anchor": "start"},
    "range": {"category": [*COLORS, GREY]},
}


def chart(title: str, layers: Sequence[Spec], rows: Sequence[Mapping[str, Any]], **more: Any) -> Spec:
    """A specification of `layers` (each a mark with its encoding), one over the other, all of the same `rows`.

    Raises `Refused` for more rows than a chart can show.
    """
    if len(rows) > limits.CHART_ROWS:
        raise Refused(f"a chart of {len(rows)} rows; at most {limits.CHART_ROWS} can be drawn: add them up first")
    return {
        "$schema": f"https://vega.github.io/schema/vega-lite/v{_VEGA_LITE.partition('.')[0]}.json",
        "title": title,
        "width": 640,
        "height": 280,
        "config": _LOOK,
        "data": {"values": [dict(row) for row in rows]},
        "layer": list(layers),
        **more,
    }


def form_of(ending: str) -> Form:
    """The form that a file's ending names. Raises `UntrustedInput` for any other ending."""
    for form in MEDIA_TYPES:
        if ending.lower().lstrip(".") == form:
            return form
    raise UntrustedInput(f"a chart cannot be drawn as {ending!r}; it can: {', '.join(MEDIA_TYPES)}")


def draw(spec: Spec, form: Form) -> bytes:
    """The chart as PNG or SVG. Raises `Unavailable` where the drawing library is not installed."""
    try:
        import vl_convert
    except ImportError as error:
        raise Unavailable("charts cannot be drawn here: pip install 'whimbrel[server]'") from error
    spec = plain_texts(spec)  # what hides in a name would make an SVG that no reader takes
    if form == "png":
        drawn: bytes = vl_convert.vegalite_to_png(spec, vl_version=_VEGA_LITE, scale=_SCALE, allowed_base_urls=[])
        return drawn
    return str(vl_convert.vegalite_to_svg(spec, vl_version=_VEGA_LITE, allowed_base_urls=[])).encode()
