"""What a person writes about a forecast: effects, sizes, prices and the shape of a fleet."""

import msgspec
import pytest

from whimbrel import limits
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


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("accuracy=-1", -1.0),
        ("accuracy=1", 1.0),
        ("crash=1000x", 1000.0),
        ("crash=0.000001x", 1e-6),
        ("bricked=100%", 1.0),
        ("bricked=0.000001%", 1e-8),
    ],
)
def test_an_effect_may_be_as_large_as_its_kind_allows(text: str, value: float) -> None:
    effect = parse_effect(text)
    assert (effect.value, effect.text) == (pytest.approx(value), text)


@pytest.mark.parametrize(
    "text", ["accuracy=-1.000001", "accuracy=1.000001", "crash=1000.000001x", "bricked=100.000001%"]
)
def test_an_effect_beyond_its_kind_is_refused(text: str) -> None:
    with pytest.raises(UntrustedInput, match=r"at most|between"):
        parse_effect(text)


def test_rates_with_an_effect_stay_shares_and_latencies_do_not() -> None:
    assert parse_effect("crash=3x").on("crash", plain=0.5) == 1.0
    assert parse_effect("latency=3x").on("latency", plain=500.0) == 1500.0
    assert parse_effect("accuracy=0.5").on("accuracy", plain=0.9) == 1.0
    assert parse_effect("accuracy=-0.5").on("accuracy", plain=0.3) == 0.0


def test_what_is_assumed_of_a_fleet_where_nothing_is_given_is_written_down() -> None:
    """A forecast prints these numbers, and people compare forecasts."""
    fleet = FleetDescription()
    assert (fleet.source, fleet.start_hour, fleet.sessions_a_day) == ("defaults", 9.0, 12.0)
    assert (fleet.crash, fleet.error, fleet.install_failed) == (0.002, 0.0005, 0.0005)
    assert (fleet.accuracy, fleet.labelled, fleet.latency_ms, fleet.latency_spread) == (0.9, 0.1, 10.0, 0.6)
    assert fleet.hardware == {"a": 0.5, "b": 0.3, "c": 0.15, "d": 0.05}
    assert (fleet.regions, fleet.user_segments) == ({"": 1.0}, {"": 1.0})
    assert [(each.name, each.share, each.online, each.delay_h) for each in fleet.presence] == [
        ("steady", 0.7, 0.98, 2.0),
        ("evenings", 0.22, 0.4, 12.0),
        ("seldom", 0.06, 0.05, 72.0),
        ("gone", 0.02, 0.0, None),
    ]
    assert [(each.name, each.share, each.way) for each in fleet.versions] == [
        ("the version before", 0.8, "delta"),
        ("two versions before", 0.15, "chain"),
        ("older or none", 0.05, "compressed"),
    ]
    assert (fleet.refresh_s, fleet.refresh_bytes) == (300.0, 300.0)


def test_the_use_of_a_day_passes_its_mean_at_eight_and_is_greatest_at_two() -> None:
    by_hour = FleetDescription().by_hour
    assert len(by_hour) == 24
    assert (by_hour[8], by_hour[20], by_hour[14], by_hour[2]) == (1.0, 1.0, 1.6, 0.4)
    assert sum(by_hour) == pytest.approx(24)
    assert by_hour[11] == 1.424


@pytest.mark.parametrize(
    ("field", "least", "most", "over"),
    [
        ("start_hour", 0, 23.999, 24),
        ("sessions_a_day", 0.001, 100_000, 100_001),
        ("crash", 0, 1, 1.001),
        ("latency_ms", 0.001, 1e9, 1e9 + 1),
        ("latency_spread", 0.001, 3, 3.001),
        ("refresh_s", 1, 86400, 86401),
        ("refresh_bytes", 0, 1e6, 1e6 + 1),
    ],
)
def test_a_number_of_a_fleet_lies_within_its_bounds(field: str, least: float, most: float, over: float) -> None:
    for value in (least, most):
        assert getattr(msgspec.convert({field: value}, FleetDescription), field) == value
    for value in (least - 0.001, over):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({field: value}, FleetDescription)


@pytest.mark.parametrize("field", ["presence", "versions"])
@pytest.mark.parametrize(("chars", "fits"), [(0, False), (1, True), (64, True), (65, False)])
def test_a_group_has_a_name_of_up_to_64_characters(field: str, chars: int, fits: bool) -> None:
    group = {"name": "x" * chars, "share": 1.0} | ({"online": 1.0} if field == "presence" else {"way": "whole"})
    if fits:
        assert len(getattr(msgspec.convert({field: [group]}, FleetDescription), field)) == 1
    else:
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({field: [group]}, FleetDescription)


@pytest.mark.parametrize(("delay", "fits"), [(0, False), (0.001, True), (8760, True), (8760.1, False), (None, True)])
def test_a_delay_is_at_most_a_year(delay: float | None, fits: bool) -> None:
    group = {"name": "x", "share": 1.0, "online": 1.0, "delay_h": delay}
    if fits:
        msgspec.convert({"presence": [group]}, FleetDescription)
    else:
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({"presence": [group]}, FleetDescription)


@pytest.mark.parametrize(("most", "fits"), [(0.9991, True), (1.0009, True), (0.9989, False), (1.0011, False)])
def test_shares_add_up_to_one_within_a_thousandth(most: float, fits: bool) -> None:
    shape = {"hardware": {"a": round(most - 0.5, 6), "b": 0.5}}
    if fits:
        msgspec.convert(shape, FleetDescription)
    else:
        with pytest.raises(msgspec.ValidationError, match="the shares of hardware add up to"):
            msgspec.convert(shape, FleetDescription)


@pytest.mark.parametrize("size", [0.0, 1.0, 999_999_999.0, 1e9, 2.5e12])
def test_a_gigabyte_is_ten_to_the_ninth_bytes(size: float) -> None:
    plain = Prices(currency="EUR", tiers=(Tier(per_gb=1.0),))
    assert plain.cost(size, requests=0) == size / 1e9
    assert Prices(currency="EUR", tiers=(Tier(per_gb=0.0),), per_10000_requests=1.0).cost(size, requests=25_000) == 2.5


def test_a_version_is_as_large_as_an_artifact_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ARTIFACT_BYTES", 2000)
    assert parse_sizes(["whole=2kB"]) == {"whole": 2000.0}
    with pytest.raises(UntrustedInput, match=r"^'whole=2\.001kB': a version has at most 2000 bytes$"):
        parse_sizes(["whole=2.001kB"])


def test_each_size_that_stands_for_another_is_said() -> None:
    sizes = sizes_for([("v1", "delta"), ("v0", "chain"), ("none", "whole")], {"delta": 2.0, "compressed": 7.0})
    assert sizes is not None
    assert sizes.assumptions == (
        "no size of chain was given, so v0 is counted as compressed",
        "no size of whole was given, so none is counted as compressed",
    )
    only = sizes_for([("v1", "whole")], {"delta": 2.0, "chain": 5.0})
    assert only is not None
    assert only.by_version == {"v1": ("chain", 5.0)}
