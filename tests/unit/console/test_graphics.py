"""Charts of pages: shapes that say what the figures say."""

import math

import pytest

from whimbrel.console.graphics import area_chart, bars, ratio_chart
from whimbrel.console.words import ago, counted, events, figure, lasting, percent, plan_hours, sentence


def test_the_parts_of_a_bar_fill_it_and_nothing_is_no_part() -> None:
    made = bars([("2.0.0", "v0", 30), ("1.0.0", "v1", 0), ("none", "none", 90)])
    assert [(each.label, each.start, each.width, each.value) for each in made] == [
        ("2.0.0", 0.0, 25.0, 30),
        ("none", 25.0, 75.0, 90),
    ]
    assert bars([]) == ()


def test_areas_lie_one_over_the_other_up_to_a_round_number() -> None:
    chart = area_chart(
        [[100.0, 0.0], [50.0, 50.0]],
        [("1.0.0", "v1"), ("2.0.0", "v0")],
        says="",
        x_words=("a", "b"),
        row_names=("a", "b"),
    )
    assert chart.y_words == ("100", "50", "0")
    first, second = chart.areas
    assert first.path == "M0.00,0.00L100.00,50.00L100.00,100.00L0.00,100.00Z"
    assert second.path == "M0.00,0.00L100.00,0.00L100.00,50.00L0.00,0.00Z"
    assert chart.rows == (("a", "100", "0"), ("b", "50", "50"))


def test_a_ratio_is_drawn_on_a_scale_on_which_ten_times_and_a_tenth_are_alike() -> None:
    chart = ratio_chart([(1.0, None, 0.0, None), (2.0, 1.0, 0.5, 2.0)], limit=1.1, says="", x_words=("", ""))
    assert chart.even_y == 50.0
    assert chart.limit_y == pytest.approx(50 - 50 * math.log10(1.1), abs=0.01)
    assert chart.band.startswith("M0.00,0.00L100.00,34.95")  # open above, then 2
    assert chart.line == "M100.00,50.00"
    assert chart.rows[0] == ("1", "not yet", "0×", "open")


def test_a_ratio_beyond_ten_has_a_scale_up_to_a_hundred() -> None:
    chart = ratio_chart([(1.0, 50.0, 20.0, None)], limit=1.1, says="", x_words=("", ""))
    assert chart.y_words == ("100×", "10×", "1×", "0.1×")
    assert chart.even_y == pytest.approx(66.67)
    assert chart.line == "M0.00,10.03L100.00,10.03"


@pytest.mark.parametrize(
    ("low", "high", "worse_below", "harm"),
    [(1.2, None, False, True), (1.05, 3.0, False, False), (0.5, 0.8, True, True), (0.5, 0.95, True, False)],
)
def test_harm_is_a_band_that_lies_wholly_past_the_line(
    low: float, high: float | None, worse_below: bool, harm: bool
) -> None:
    limit = 1 / 1.1 if worse_below else 1.1
    chart = ratio_chart([(1.0, 1.0, low, high)], limit=limit, says="", x_words=("", ""), worse_below=worse_below)
    assert chart.harm is harm


def test_words() -> None:
    assert [ago(100.0, now) for now in (100, 159, 160, 100 + 7200, 100 + 3 * 86400)] == [
        "just now",
        "just now",
        "1 minute ago",
        "2 hours ago",
        "3 days ago",
    ]
    assert ago(7300.0, 100.0) == "in 2 hours"
    assert [lasting(s) for s in (5, 61, 7199, 7200, 2 * 86400)] == [
        "less than a minute",
        "1 minute",
        "120 minutes",
        "2 hours",
        "2 days",
    ]
    assert [percent(p) for p in (0, 0.02, 5, 12.5, 99.98, 100)] == ["0%", "0.02%", "5%", "12.5%", "99.98%", "100%"]
    assert [counted(n, "device") for n in (1, 0, 1204)] == ["1 device", "0 devices", "1,204 devices"]
    assert counted(2, "more person", "more people") == "2 more people"
    assert [sentence(s) for s in ("harm", "Harm.", "", "so?")] == ["Harm.", "Harm.", "", "So?"]
    assert [plan_hours(h) for h in (1 / 12, 24, 72, 168)] == ["5 min", "24 h", "3 days", "7 days"]
    assert [events(n) for n in (15.0, 14.96, 20064.0)] == ["15", "15.0", "20,064"]
    assert [figure(v, "percent") for v in (None, 0.158, 0.0, 0.0013)] == ["nothing told", "15.8%", "0.0%", "0.13%"]
    assert (figure(12.34, "milliseconds"), figure(0.12, "index"), figure(3.14159, "as_reported")) == (
        "12.3 ms",
        "0.120",
        "3.142",
    )
