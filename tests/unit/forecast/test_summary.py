"""What many simulated rollouts come to: figures of results that are written down here, without a simulation."""

import math
from typing import Any

import msgspec
import numpy as np
import pytest

from support.values import plan, stage
from whimbrel.forecast.cohort_sizes import CohortSizes
from whimbrel.forecast.cost import DownloadSizes, Prices, Tier
from whimbrel.forecast.effects import parse_effect
from whimbrel.forecast.fleet_description import BaseGroup, FleetDescription, PresenceGroup
from whimbrel.forecast.plots import plot
from whimbrel.forecast.simulate_runs import RunResults
from whimbrel.forecast.summary import Chance, Forecast, ForecastRequest, Spread, TransferForecast, summarize

PLAN = plan(stage("canary", 5, hours=1), stage("all", 100, hours=2))
FLEET = FleetDescription(
    hardware={"a": 1.0},
    presence=(
        PresenceGroup(name="on", share=0.8, online=0.5, delay_h=1.0),
        PresenceGroup(name="off", share=0.2, online=0.0),
    ),
    versions=(BaseGroup(name="v1", share=0.75, way="delta"), BaseGroup(name="none", share=0.25, way="whole")),
    refresh_s=600.0,
    refresh_bytes=200.0,
)
COHORTS = CohortSizes(  # one class, two presence groups, two versions
    treated=np.array([[[[30, 10]], [[60, 20]]], [[[1, 1]], [[1, 1]]]]),
    control=np.zeros((2, 2, 2, 1, 2)),
    bases=np.array([[[30, 10], [50, 30]], [[1, 1], [1, 1]]]),
    shares=np.array([[50_000, 900_000], [60_000, 900_000]]),
    decisions=480,
)
SIZES = DownloadSizes({"v1": ("delta", 1e6), "none": ("whole", 1e7)}, ("a guess",))


def results(runs: int = 2, **values: Any) -> RunResults:
    never = np.full(runs, -1)
    plain: dict[str, Any] = {
        "caught": never,
        "harm": [""] * runs,
        "finished": never,
        "entered": np.column_stack([np.zeros(runs, int), never]),
        "exposed": np.zeros(runs, int),
        "exposed_by_window": np.arange(36),
        "log_e": np.zeros((36, 3)),
        "move": "wait",
        "because": "too early",
        "held": {},
        "gap": 0.0,
        "unwatched": (),
        "windows": 36,
    }
    return RunResults(
        **plain | {name: np.array(v) if isinstance(v, list) and name != "harm" else v for name, v in values.items()}
    )


def summary(plain: list[RunResults], *effects: list[RunResults], **more: Any) -> Forecast:
    texts = ("crash=2x", "error=3x")[: len(effects)]
    runs = sum(len(each.caught) for each in plain)
    asked = ForecastRequest(
        **{
            "plan": PLAN,
            "fleet": FLEET,
            "devices": 1000,
            "runs": runs,
            "seed": 7,
            "effects": tuple(map(parse_effect, texts)),
        }
        | more
    )
    return summarize(asked, COHORTS, plain, list(effects))


PLAIN = [
    results(
        finished=[35, -1],
        caught=[-1, 0],
        harm=["", "crash"],
        entered=[[0, 12], [0, -1]],
        because="all is well",
        gap=1e-9,
    ),
    results(3, finished=[47, 0, -1], entered=[[0, 12], [0, 24], [0, -1]], held={"it is slow": 1}, gap=None),
]


def test_runs_of_all_chunks_are_counted_together() -> None:
    made = summary(PLAIN)
    assert (made.model_version, made.devices, made.runs, made.seed) == (PLAN.model_version, 1000, 5, 7)
    assert (made.finished.times, made.finished.runs, made.finished.share) == (3, 5, 0.6)
    assert (made.false_alarm.times, made.false_alarm_harm) == (1, {"crash": 1})
    assert (made.held.times, made.held.runs, made.held_because) == (1, 5, "it is slow")
    assert (made.because, made.decisions, made.gate_gap) == ("all is well", 480, 1e-9)
    assert made.finishes_h == Spread(4.0, None)  # of 1/12, 3, 4, never, never: the third


def test_a_run_ends_at_the_end_of_its_window() -> None:
    made = summary([results(1, finished=[0])])
    assert made.finishes_h.median == pytest.approx(1 / 12)


def test_stages_tell_devices_times_and_bytes() -> None:
    first, last = summary(PLAIN, sizes=SIZES).stages
    assert (first.name, first.share_percent, first.devices, first.bytes) == ("canary", 5.0, 40, 30e6 + 100e6)
    assert (last.name, last.share_percent, last.devices, last.bytes) == ("all", 90.0, 120, 50e6 + 300e6)
    assert (first.begins_h, first.reached.times) == (Spread(0.0, 0.0), 5)
    assert (last.begins_h, last.reached.times, last.reached.share) == (
        Spread(2.0, None),
        3,
        0.6,
    )  # 1, 1, 2, never, never


def test_a_plans_share_begins_at_its_own_part_of_the_layer() -> None:
    part = msgspec.structs.replace(PLAN, range_percent=(4, 100))
    assert summary(PLAIN, plan=part).stages[0].share_percent == 1.0


def test_an_effect_is_told_by_its_own_runs() -> None:
    bad = [
        results(
            caught=[5, 14], harm=["crash", "error"], entered=[[0, -1], [0, 12]], exposed=[10, 70], move="roll_back"
        ),
        results(
            3, caught=[8, -1, -1], harm=["error", "", ""], entered=[[0, -1]] * 3, exposed=[20, 90, 80], held={"a": 2}
        ),
    ]
    (made,) = summary(PLAIN, bad, sizes=SIZES).effects
    assert (made.effect, made.caught.times, made.caught.runs) == ("crash=2x", 3, 5)
    assert made.verdict_h == Spread(15 / 12, None)
    assert made.exposed == Spread(70.0, 90.0)
    assert made.caught_in == {"canary": 2, "all": 1}
    assert list(made.harm.items()) == [("error", 2), ("crash", 1)]
    assert (made.held.times, made.held_because) == (2, "a")
    assert made.bytes == pytest.approx(70 * (80 * 1e6 + 40 * 1e7) / 120)
    assert (made.move, made.because) == ("roll_back", "too early")


def test_guardrails_that_caught_as_often_are_told_by_their_names() -> None:
    bad = results(4, caught=[1] * 4, harm=["silence", "crash", "silence", "crash"], entered=[[0, -1]] * 4)
    assert list(summary(PLAIN, [bad]).effects[0].harm) == ["crash", "silence"]


def test_the_commonest_reason_is_told_and_of_two_the_first() -> None:
    plain = [results(held={"b": 1, "c": 1}), results(held={"a": 1, "c": 1})]
    assert summary(plain).held_because == "c"
    assert summary([results(held={"b": 1, "a": 1})]).held_because == "a"


def test_the_greatest_gap_of_any_run_is_told() -> None:
    assert summary(PLAIN, [results(gap=0.5)], [results(gap=None)]).gate_gap == 0.5


def test_what_is_sent_is_summed_by_way_and_priced() -> None:
    prices = Prices(currency="EUR", tiers=(Tier(per_gb=2.0),), per_10000_requests=10.0)
    half = plan(stage("canary", 5, hours=1), stage("half", 50, hours=2))
    made = summary([results(1, finished=[23])], plan=half, sizes=SIZES, prices=prices).transfer
    looks = 1000 * 0.8 * 0.5 * 2 * 3600 / 600
    assert made == TransferForecast(
        by_way={"delta": 80e6, "whole": 400e6},
        total=480e6,
        downloads=120,
        looks=looks,
        looks_bytes=looks * 200,
        currency="EUR",
        cost=pytest.approx(0.96 + 0.12),
        looks_cost=pytest.approx(looks * 200 / 1e9 * 2 + looks / 10_000 * 10),
    )


def test_without_prices_nothing_is_priced_and_without_sizes_nothing_is_sent() -> None:
    made = summary(PLAIN, sizes=SIZES).transfer
    assert made is not None
    assert (made.currency, made.cost, made.looks_cost) == (None, None, None)
    assert summary(PLAIN).transfer is None
    assert [each.bytes for each in summary(PLAIN, [results()]).stages] == [None, None]
    assert summary(PLAIN, [results()]).effects[0].bytes is None


def test_where_no_run_finished_looks_are_counted_over_the_plans_hours() -> None:
    made = summary([results()], sizes=SIZES).transfer
    assert made is not None
    assert made.looks == pytest.approx(1000 * 0.4 * 3 * 3600 / 600)


def test_a_plan_that_reaches_everyone_is_sent_to_all_devices() -> None:
    made = summary(PLAIN, sizes=SIZES).transfer
    assert PLAN.reaches_everyone
    assert made is not None
    assert (made.by_way, made.downloads) == ({"delta": 750e6, "whole": 2500e6}, 1000)


def test_the_path_is_that_of_the_first_run_with_at_most_a_thousand_points() -> None:
    assert summary(PLAIN).path == [(pytest.approx((n + 1) / 12), n) for n in range(36)]
    long = summary([results(exposed_by_window=list(range(1_500)))]).path
    assert long == [(pytest.approx((n + 1) / 12), n) for n in range(0, 1_500, 3)]


def test_chances_have_wilsons_interval() -> None:
    """Newcombe (1998), table I: 81 of 263 and 1 of 29."""
    for times, runs, low, high in ((81, 263, 0.2553, 0.3662), (1, 29, 0.0061, 0.1718)):
        chance = Chance.of(times, runs)
        assert (chance.share, chance.low, chance.high) == (
            times / runs,
            pytest.approx(low, abs=5e-5),
            pytest.approx(high, abs=5e-5),
        )
    assert (Chance.of(0, 29).low, Chance.of(29, 29).high) == (0.0, 1.0)


def test_a_spread_is_of_runs_that_came_so_far() -> None:
    assert Spread.of(np.array([])) == Spread(None, None)
    assert Spread.of(np.arange(1.0, 11.0)) == Spread(6.0, 10.0)
    assert Spread.of(np.array([1.0, math.inf])) == Spread(None, None)


def test_assumptions_are_said_with_their_figures() -> None:
    asked = msgspec.structs.replace(
        FLEET, source="a file", crash=0.0123, error=0.0045, accuracy=0.87, labelled=0.25, install_failed=0.0067
    )
    prices = Prices(currency="EUR", tiers=(Tier(per_gb=2.0),), source="a list of May")
    made = summary(PLAIN, fleet=asked, sizes=SIZES, prices=prices, notes=("the caller's",)).assumed
    assert made == [
        "the fleet (from: a file): 12 sessions a device and day, 1.230% crashes, 0.450% errors, accuracy 0.87 known of "
        "25%, latency 10 ms at the median (spread 0.6), 0.670% of installs fail",
        "hardware: a 100.0%",
        "habits: on 80.0%, online 50% of the windows, updates after 1 h on average; off 20.0%, online 0% of the "
        "windows, never updates",
        "it starts at 9 h UTC, and traffic follows the hours of the day (by_hour)",
        "downloads: v1: delta, 1.00 MB; none: whole, 10.00 MB",
        "a guess",
        "a look that finds nothing new takes 200 bytes, every 600 s",
        "prices as in the table given (a list of May), counted from nothing",
        "the caller's",
    ]


def test_what_was_not_given_or_is_not_simulated_is_said() -> None:
    assert "no price table was given (--prices), so cost is not forecast" in summary(PLAIN, sizes=SIZES).assumed
    assert any(each.startswith("no sizes were given (--size") for each in summary(PLAIN).assumed)
    unwatched = summary([results(unwatched=("battery", "memory_mb"))]).assumed[-1]
    assert unwatched.startswith("battery, memory_mb are watched and are not simulated")
    manual = msgspec.structs.replace(PLAN, rollback=msgspec.structs.replace(PLAN.rollback, auto_rollback=False))
    assert summary(PLAIN, plan=manual).assumed[-1].startswith("auto_rollback is off: ")


# --- charts ---


def caught(number: int) -> list[list[RunResults]]:
    bad = results(caught=[5, 14], harm=["crash"] * 2, entered=[[0, -1], [0, 12]], exposed=[10, 70])
    return [[bad]] * number


def test_charts_show_the_path_the_stages_and_each_verdict() -> None:
    spec = plot(summary(PLAIN, *caught(2)))
    above, below = spec["vconcat"]
    rows = above["data"]["values"]
    assert rows[:2] == [
        {"kind": "spread", "hours": pytest.approx(2 / 12), "devices": 1},
        {"kind": "spread", "hours": pytest.approx(3 / 12), "devices": 2},
    ]
    assert rows[35:37] == [
        {"kind": "stage", "hours": 0.0, "name": "canary"},
        {"kind": "stage", "hours": 2.0, "name": "all"},
    ]
    verdict = {"kind": "verdict", "hours": 15 / 12, "hours_p90": 15 / 12, "devices": 70.0}
    assert rows[37:] == [verdict | {"effect": "crash=2x"}, verdict | {"effect": "error=3x"}]
    chances = [(row["effect"], row["chance"]) for row in below["data"]["values"]]
    assert chances == [("crash=2x", 1.0), ("error=3x", 1.0), ("nothing wrong", 0.2)]
    assert [set(row) for row in below["data"]["values"]] == [{"effect", "chance", "low", "high"}] * 3


def test_a_chart_without_effects_is_one_and_without_a_verdict_has_no_marks_of_one() -> None:
    assert "vconcat" not in plot(summary(PLAIN))
    assert len(plot(summary(PLAIN))["layer"]) == 3
    assert len(plot(summary(PLAIN, [results()]))["vconcat"][0]["layer"]) == 3
    assert len(plot(summary(PLAIN, *caught(1)))["vconcat"][0]["layer"]) == 5


@pytest.mark.parametrize(("effects", "colours"), [(6, None), (7, {"scheme": "tableau20"})])
def test_more_effects_than_the_palette_has_get_a_larger_one(effects: int, colours: dict[str, str] | None) -> None:
    made = summary(PLAIN, *caught(1))
    many = msgspec.structs.replace(made, effects=made.effects * effects)
    layers = plot(many)["vconcat"][0]["layer"]
    assert layers[-1]["encoding"]["color"].get("scale") == colours
