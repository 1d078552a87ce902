"""Charts are drawn here, without a network, and a chart too large to read is refused."""

import pytest

from whimbrel import limits
from whimbrel.console.charts import Spec, chart, draw
from whimbrel.errors import Refused

LINE: Spec = {
    "mark": "line",
    "encoding": {
        "x": {"field": "hour", "type": "quantitative", "title": "hours since the start"},
        "y": {"field": "log_e", "type": "quantitative", "title": "ln E"},
    },
}


def test_a_chart_is_drawn_as_png_and_svg_with_its_words() -> None:
    spec = chart("Evidence", [LINE], [{"hour": n, "log_e": n / 2} for n in range(9)])
    assert draw(spec, "png").startswith(b"\x89PNG")
    drawn = draw(spec, "svg").decode()
    assert "Evidence" in drawn
    assert "hours since the start" in drawn


def test_a_chart_of_too_many_rows_is_refused() -> None:
    with pytest.raises(Refused, match="add them up first"):
        chart("Evidence", [LINE], [{"hour": 0}] * (limits.CHART_ROWS + 1))
