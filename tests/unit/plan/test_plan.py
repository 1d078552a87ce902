"""What a plan means."""

import re

import pytest

from support.values import plan, stage
from whimbrel.model.selector import Selector
from whimbrel.plan.criteria import SuccessCriteria
from whimbrel.plan.governance import BlastRadius
from whimbrel.plan.plan import Plan, Rollback, Stage, VersionName, version_order
from whimbrel.plan.ranges import Range
from whimbrel.policy.bucket import BUCKETS
from whimbrel.policy.shadow import ShadowStage

SITE = {"site": "oslo"}


def test_criteria_hold_for_later_stages_until_they_are_said_again() -> None:
    three = plan(
        stage("a", 5, error_rate_max=0.01, accuracy_drop_max=0.02),
        stage("b", 25, error_rate_max=0.001),
        stage("c", 100),
    )
    assert three.criteria(0) == SuccessCriteria(error_rate_max=0.01, accuracy_drop_max=0.02)
    assert three.criteria(1) == three.criteria(2) == SuccessCriteria(error_rate_max=0.001, accuracy_drop_max=0.02)


def test_a_later_criterion_does_not_bind_earlier_stages() -> None:
    assert plan(stage("a", 5), stage("b", 25, error_rate_max=0.1)).criteria(0) == SuccessCriteria()


def test_a_zero_limit_is_said_again_and_kept() -> None:
    assert plan(stage("a", 5, error_rate_max=0.1), stage("b", 25, error_rate_max=0)).criteria(1).error_rate_max == 0


def refusal(said: str) -> str:
    """A pattern of the whole sentence."""
    return f"^{re.escape(said)}$"


def shadow(name: str, percent: float) -> Stage:
    return stage(name, percent, shadow=ShadowStage())


def test_a_share_only_grows() -> None:
    assert len(plan(stage("a", 25), stage("b", 25), stage("c", 25.1)).stages) == 3
    said = "stage 'c' has target_percent 24.9, below the 25 of 'b': a share only grows"
    with pytest.raises(ValueError, match=refusal(said)):
        plan(stage("a", 5), stage("b", 25), stage("c", 24.9))


def test_the_shares_of_shadow_stages_grow_among_themselves() -> None:
    assert plan(shadow("s", 20), shadow("t", 50), stage("a", 5)).shadows == 2
    said = "stage 't' has target_percent 20, below the 50 of 's': a share only grows"
    with pytest.raises(ValueError, match=refusal(said)):
        plan(shadow("s", 50), shadow("t", 20), stage("a", 5))


def test_a_share_only_grows_behind_shadow_stages_too() -> None:
    with pytest.raises(
        ValueError, match=refusal("stage 'b' has target_percent 5, below the 25 of 'a': a share only grows")
    ):
        plan(shadow("s", 50), stage("a", 25), stage("b", 5))


def test_shadow_stages_come_first_and_one_that_serves_last() -> None:
    said = "shadow stage 's' comes after 'a', which serves: shadow first"
    with pytest.raises(ValueError, match=refusal(said)):
        plan(stage("a", 5), shadow("s", 50), stage("b", 100))
    with pytest.raises(ValueError, match=refusal("the last stage, 't', is a shadow stage: add one that serves")):
        plan(shadow("s", 5), shadow("t", 50))


def test_two_stages_do_not_share_a_name() -> None:
    with pytest.raises(ValueError, match=refusal("two stages share a name: a, b, a")):
        plan(stage("a", 5), stage("b", 10), stage("a", 25))


@pytest.mark.parametrize(
    ("percent", "holdback", "buckets"),
    [
        (5, 10, 50_000),
        (89.9, 10, 899_000),
        (90, 10, 900_000),
        (90, 20, 800_000),
        (89.9, 20, 899_000),
        (100, 10, 900_000),
        (100, 0, 1_000_000),
        (95, 2, 950_000),
        (100, 2, 980_000),
        (50, 50, 500_000),
        (0.1, 10, 1_000),
    ],
)
def test_the_holdback_stays_from_ninety_percent_up(percent: float, holdback: float, buckets: int) -> None:
    assert plan(stage("a", percent), holdback_percent=holdback).share_buckets(0) == buckets


@pytest.mark.parametrize(
    ("percent", "holdback", "end"),
    [
        (100, 10, 380_000),
        (90, 10, 380_000),
        (89.9, 10, 379_800),
        (50, 10, 300_000),
        (100, 0, 400_000),
        (95, 2, 390_000),
    ],
)
def test_a_share_is_one_of_the_plans_range_and_so_is_its_holdback(percent: float, holdback: float, end: int) -> None:
    """Of the range from 20% to 40% of the buckets."""
    within = plan(stage("a", percent), holdback_percent=holdback, range_percent=(20, 40))
    assert (within.share_end(0), within.share_buckets(0)) == (end, end - 200_000)
    assert (within.range, within.ceiling) == (Range(200_000, 400_000), 400_000 - round(2_000 * holdback))


def test_a_first_version_holds_nothing_back() -> None:
    first = plan(stage("a", 100), holdback_percent=5).without_holdback
    assert (first.share_buckets(0), first.ceiling, first.holdback) == (BUCKETS, BUCKETS, 0)


# --- the blast radius ---


@pytest.mark.parametrize(
    ("percent", "buckets"),
    [(10, [50_000, 100_000, 900_000]), (5, [50_000, 50_000, 900_000]), (0.5, [5_000, 5_000, 900_000])],
)
def test_a_blast_radius_caps_every_stage_but_the_last(percent: float, buckets: list[int]) -> None:
    capped = plan(blast_radius=BlastRadius(percent=percent))
    assert [capped.share_buckets(number) for number in range(3)] == buckets


def test_a_blast_radius_is_a_share_of_all_buckets_not_of_the_range() -> None:
    capped = plan(stage("a", 50), stage("b", 100), blast_radius=BlastRadius(percent=2), range_percent=(20, 40))
    assert [capped.share_end(number) for number in range(2)] == [220_000, 380_000]


def test_a_blast_radius_caps_no_shadow_stage() -> None:
    capped = plan(shadow("s", 50), stage("a", 20), stage("b", 60), blast_radius=BlastRadius(percent=5))
    assert [capped.share_buckets(number) for number in range(3)] == [500_000, 50_000, 600_000]


def test_a_blast_radius_in_devices_alone_caps_no_buckets() -> None:
    assert plan(blast_radius=BlastRadius(devices=5)).share_buckets(1) == 250_000


def test_a_radius_that_caps_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=refusal("it caps nothing; say percent, devices, or both")):
        BlastRadius()
    assert BlastRadius(percent=5, devices=9).devices == 9


def test_a_radius_leaves_room_for_the_devices_that_each_stage_asks_for() -> None:
    assert plan(blast_radius=BlastRadius(devices=3), min_devices=3).min_devices == 3
    assert plan(blast_radius=BlastRadius(percent=1), min_devices=3).min_devices == 3


def test_a_stages_own_rollback_rule_is_its_own() -> None:
    manual = Rollback(auto_rollback=False)
    two = plan(stage("a", 5, rollback=manual), stage("b", 25))
    assert two.rollback_at(0) == manual
    assert two.rollback_at(1).auto_rollback


def test_soak_is_our_word_for_duration() -> None:
    assert Stage(name="a", target_percent=5, soak_hours=24).duration_hours == 24
    assert Stage(name="a", target_percent=5, soak_hours=24, duration_hours=24).duration_hours == 24
    said = "soak_hours: 24 and duration_hours 12 mean the same and differ; keep one of them"
    with pytest.raises(ValueError, match=refusal(said)):
        Stage(name="a", target_percent=5, soak_hours=24, duration_hours=12)


def test_the_longest_bake_is_no_shorter_than_the_least() -> None:
    assert stage("a", 5, hours=24, max_hours=24).max_hours == 24
    with pytest.raises(ValueError, match="max_hours: 12 is the longest bake, and the least is 24 h"):
        stage("a", 5, hours=24, max_hours=12)


def test_a_selector_and_regions_must_all_hold() -> None:
    only = stage("a", 5, regions=("NZ",), only=Selector(match_labels={"tier": "gold"})).selector
    assert only.matches({"region": "NZ", "tier": "gold"})
    assert not only.matches({"region": "NZ"})
    assert not only.matches({"tier": "gold"})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"range_percent": (50, 50)}, "range_percent: from 50 to 50 is no stretch of devices"),
        ({"range_percent": (60, 50)}, "range_percent: from 60 to 50 is no stretch of devices"),
        (
            {"blast_radius": BlastRadius(devices=2), "min_devices": 3},
            "blast_radius: at most 2 devices, and min_devices asks for 3 in each stage; lower one or raise the other",
        ),
    ],
)
def test_what_contradicts_itself_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=refusal(said)):
        plan(**changes)


def test_a_range_of_one_bucket_is_a_stretch_of_devices() -> None:
    assert plan(range_percent=(50, 50.0001)).range == Range(500_000, 500_001)


def test_a_cap_on_a_plan_of_one_stage_caps_nothing() -> None:
    said = "blast_radius: it caps every stage but the last, and there is one only; add one before it"
    with pytest.raises(ValueError, match=refusal(said)):
        plan(stage("all", 100), blast_radius=BlastRadius(percent=10))


def test_a_part_of_the_fleet_is_not_everyone() -> None:
    assert plan().reaches_everyone
    assert not plan(range_percent=(0, 50)).reaches_everyone
    assert not plan(stage("a", 5), stage("b", 99.9)).reaches_everyone
    assert plan(stage("a", 5, regions=("NZ",)), stage("b", 100)).reaches_everyone
    assert not plan(stage("a", 5), stage("b", 100, regions=("NZ",))).reaches_everyone


def test_a_window_lasts_as_long_as_the_plan_says_or_five_minutes() -> None:
    assert plan().window_s() == 300
    assert plan(rollback=Rollback(health_check_interval_sec=60)).window_s() == 60


def test_the_criteria_of_a_last_stage_are_those_of_all_before_it_in_their_order() -> None:
    many = plan(
        stage("a", 1, error_rate_max=0.1, accuracy_drop_max=0.02),
        stage("b", 2, error_rate_max=0.2),
        stage("c", 3, error_rate_max=0.3),
        stage("d", 100, battery_max=5),
    )
    assert [many.criteria(number).error_rate_max for number in range(4)] == [0.1, 0.2, 0.3, 0.3]
    assert many.criteria(3) == SuccessCriteria(error_rate_max=0.3, accuracy_drop_max=0.02, battery_max=5)


def test_regions_and_segments_select_by_label() -> None:
    only = stage("a", 5, regions=("NZ", "AU"), user_segments=("beta",)).selector
    assert only.matches({"region": "AU", "user_segment": "beta"})
    assert not only.matches({"region": "AU"})
    assert not only.matches({"region": "NO", "user_segment": "beta"})


@pytest.mark.parametrize(
    ("text", "model", "version", "prefix"),
    [
        ("wake@2026.01.01.1", "wake", "2026.01.01.1", False),
        ("wake@2.10.0", "wake", "2.10.0", False),
        ("detector-v3.2", "detector", "3.2", True),
        ("detector-v3.2.0-rc.1", "detector", "3.2.0-rc.1", True),
        ("yolo-v8-v1.2.0", "yolo-v8", "1.2.0", True),
        ("yolo-v8@1.2.0", "yolo-v8", "1.2.0", False),
    ],
)
def test_a_version_is_named_in_two_ways(text: str, model: str, version: str, prefix: bool) -> None:
    assert VersionName.parse(text) == VersionName(model, version, prefix)


@pytest.mark.parametrize("text", ["", "wake", "wake@", "Wake@1", "wake-3.2", "wake-v", "-v1", "wake@1\n", "a b-v1"])
def test_what_names_no_version_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="names no version"):
        VersionName.parse(text)


@pytest.mark.parametrize(
    ("name", "calendar", "semantic", "matches"),
    [
        ("detector-v3.2", "2026.01.01.1", "3.2.7", True),
        ("detector-v3.2", "2026.01.01.1", "3.20.0", False),
        ("detector-v3.2.0", "2026.01.01.1", "3.2.0", True),
        ("detector-v3.2.0", "2026.01.01.1", "3.2.0-rc.1", True),
        ("detector-v3.2.0", "2026.01.01.1", "3.2.0+build", False),
        ("detector-v2026.01.01", "2026.01.01.1", "1.0.0", False),
        ("detector@3.2.7", "2026.01.01.1", "3.2.7", True),
        ("detector@2026.01.01.1", "2026.01.01.1", "3.2.7", True),
        ("detector@3.2", "2026.01.01.1", "3.2.7", False),
        ("detector@2026.01.01", "2026.01.01.1", "3.2.7", False),
    ],
)
def test_a_prefix_ends_at_a_dot_and_a_whole_name_is_whole(
    name: str, calendar: str, semantic: str, matches: bool
) -> None:
    assert VersionName.parse(name).matches(calendar=calendar, semantic=semantic) is matches


def test_two_ten_comes_after_two_nine_where_versions_are_listed() -> None:
    assert version_order("2026.01.01.1", "2.10.0") > version_order("2026.01.01.2", "2.9.0")
    assert version_order("2026.01.01.10", "2.9.0") > version_order("2026.01.01.9", "2.9.0")


# --- blue-green ---


def blue_green(*stages: Stage, **more: object) -> Plan:
    return plan(*(stages or (stage("green", 100),)), strategy="blue_green", **more)


def test_a_blue_green_plan_puts_all_of_its_devices_on_the_version_at_once() -> None:
    one = blue_green()
    assert (one.share_buckets(0), one.holdback, one.reaches_everyone) == (BUCKETS, 0, True)
    behind = blue_green(
        stage("shadow", 100, shadow=ShadowStage()), stage("green", 100, only=Selector(match_labels=SITE))
    )
    assert (behind.shadows, behind.share_buckets(1), behind.reaches_everyone) == (1, BUCKETS, False)


def test_a_holdback_that_is_asked_for_is_kept_in_it_and_a_staged_plan_has_one_anyway() -> None:
    assert blue_green(holdback_percent=10).share_buckets(0) == 900_000
    assert (plan().holdback, plan(holdback_percent=0).holdback) == (10, 0)


@pytest.mark.parametrize(
    ("stages", "changes", "said"),
    [
        (
            (stage("canary", 5), stage("green", 100)),
            {},
            "strategy: blue_green puts all of its devices on the new version at once, and 2 stages serve it "
            "(canary, green): keep one, or take strategy: staged",
        ),
        (
            (shadow("shadow", 5), stage("canary", 5), stage("more", 50), stage("green", 100)),
            {},
            "strategy: blue_green puts all of its devices on the new version at once, and 3 stages serve it "
            "(canary, more, green): keep one, or take strategy: staged",
        ),
        (
            (shadow("shadow", 100), stage("green", 99.9)),
            {},
            "strategy: blue_green puts all of its devices on the new version at once, and stage 'green' has "
            "target_percent 99.9: write 100, and choose fewer devices by a selector; or take strategy: staged",
        ),
        (
            (shadow("shadow", 50), stage("green", 100)),
            {"blast_radius": BlastRadius(percent=5)},
            "blast_radius: it caps every stage but the last, and strategy: blue_green serves in one only",
        ),
        ((shadow("shadow", 100),), {}, "the last stage, 'shadow', is a shadow stage: add one that serves"),
    ],
)
def test_a_blue_green_plan_that_contradicts_itself_is_refused(
    stages: tuple[Stage, ...], changes: dict[str, object], said: str
) -> None:
    with pytest.raises(ValueError, match=refusal(said)):
        blue_green(*stages, **changes)
