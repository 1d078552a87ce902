"""What a person writes about a forecast: effects, sizes, prices and the shape of a fleet."""

import msgspec
import pytest

from whimbrel.errors import UntrustedInput
from whimbrel.flows.files.yaml_file import parse_yaml
from whimbrel.forecast.cost import Prices, Tier, parse_sizes, sizes_for
from whimbrel.forecast.effects import METRICS, parse_class_effect, parse_effect
from whimbrel.forecast.fleet_description import FleetDescription, PresenceGroup


@pytest.mark.parametrize(
    ("text", "metric", "plain", "after"),
    [
        ("crash=2x", "crash", 0.01, 0.02),
        ("error=3", "error", 0.5, 1.0),
        ("latency=1.5x", "latency", 20.0, 30.0),
        ("accuracy=-0.04", "accuracy", 0.84, 0.80),
        ("bricked=2%", "bricked", 0.0, 0.02),
        ("went_back=100%", "went_back", 0.0, 1.0),
    ],
)
def test_an_effect_changes_its_own_metric_alone(text: str, metric: str, plain: float, after: float) -> None:
    effect = parse_effect(text)
    assert effect.on(metric, plain=plain) == pytest.approx(after)
    others = METRICS.keys() - {metric}
    assert {effect.on(other, plain=0.3) for other in others} == {0.3}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("crash", "is no effect"),
        ("speed=2x", "is no effect"),
        ("crash=2%", "is a ratio, as in crash=2x"),
        ("crash=", "is a ratio"),
        ("crash=nanx", "is a ratio"),
        ("crash=-2x", "is a ratio"),
        ("crash=0x", "over 0"),
        ("crash=1001x", "at most 1000"),
        ("bricked=0%", "over 0%"),
        ("bricked=101%", "at most 100%"),
        ("bricked=.02", "is a share"),
        ("accuracy=-4%", "is a difference"),
        ("accuracy=-", "is a difference"),
        ("accuracy=-1.5", "between -1 and 1"),
        ("crash=2x\n", "is a ratio"),
    ],
)
def test_an_effect_that_cannot_be_understood_is_refused_with_an_example(text: str, said: str) -> None:
    with pytest.raises(UntrustedInput, match=said):
        parse_effect(text)


def test_an_effect_of_one_class_names_a_class_that_the_fleet_has() -> None:
    assert parse_class_effect("pi4:crash=5x", classes=["pi4", "pi5"]).hardware == "pi4"
    assert parse_class_effect("a:b:crash=5x", classes=["a:b"]).hardware == "a:b"
    for text in ("pi3:crash=5x", "crash=5x"):
        with pytest.raises(UntrustedInput, match="'pi4', 'pi5'"):
            parse_class_effect(text, classes=["pi4", "pi5"])


def test_a_price_is_asked_tier_by_tier() -> None:
    prices = Prices(
        currency="EUR",
        tiers=(Tier(per_gb=0.1, up_to_gb=10), Tier(per_gb=0.05, up_to_gb=30), Tier(per_gb=0.01)),
        per_10000_requests=2.0,
    )
    assert prices.cost(5e9, requests=0) == pytest.approx(0.5)
    assert prices.cost(40e9, requests=20_000) == pytest.approx(1 + 1 + 0.1 + 4)


@pytest.mark.parametrize(
    "tiers",
    [
        [{"per_gb": 1, "up_to_gb": 5}],
        [{"per_gb": 1}, {"per_gb": 2}],
        [{"per_gb": 1, "up_to_gb": 5}, {"per_gb": 2, "up_to_gb": 5}, {"per_gb": 1}],
    ],
)
def test_a_price_table_without_an_order_of_tiers_is_refused(tiers: list[dict[str, float]]) -> None:
    with pytest.raises(msgspec.ValidationError, match="tier"):
        msgspec.convert({"currency": "EUR", "tiers": tiers}, Prices)


def test_sizes_are_read_with_their_units() -> None:
    assert parse_sizes(["delta=2.5MB", "whole=1 GB", "chain=300"]) == {"delta": 2.5e6, "whole": 1e9, "chain": 300.0}
    for text in ("delta", "patch=2MB", "delta=2MiB", "delta=-2MB", "whole=99999GB"):
        with pytest.raises(UntrustedInput, match=r"no size|at most"):
            parse_sizes([text])


def test_a_way_without_a_size_is_counted_as_the_next_dearer_one_and_said() -> None:
    sizes = sizes_for([("v1", "delta"), ("v0", "chain"), ("none", "whole")], {"delta": 2.0, "compressed": 7.0})
    assert sizes is not None
    assert sizes.by_version == {"v1": ("delta", 2.0), "v0": ("compressed", 7.0), "none": ("compressed", 7.0)}
    assert len(sizes.assumptions) == 2
    assert sizes_for([("v1", "delta")], {}) is None


def test_shares_that_do_not_add_up_are_refused_with_the_line() -> None:
    with pytest.raises(UntrustedInput, match=r"shares of hardware add up to 0\.9"):
        parse_yaml(FleetDescription, "hardware: {a: 0.5, b: 0.4}\n", what="fleet.yaml")
    with pytest.raises(ValueError, match="same name"):
        FleetDescription(
            presence=(PresenceGroup(name="x", share=0.5, online=1.0), PresenceGroup(name="x", share=0.5, online=1.0))
        )
    with pytest.raises(ValueError, match="no traffic"):
        FleetDescription(by_hour=(0.0,) * 24)


def test_traffic_follows_the_hours_and_keeps_its_mean() -> None:
    fleet = FleetDescription(by_hour=(0.0,) * 12 + (3.0,) * 12, sessions_a_day=2.4)
    assert fleet.sessions(3.9, window_s=300) == 0
    assert fleet.sessions(12.0, window_s=300) == pytest.approx(2 * 2.4 / 288, rel=0.02)
