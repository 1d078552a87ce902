"""What a plan means."""

import pytest

from support.values import plan, stage
from whimbrel.model.selector import Selector
from whimbrel.plan.criteria import SuccessCriteria
from whimbrel.plan.governance import BlastRadius
from whimbrel.plan.plan import Plan, Rollback, Stage, VersionName, version_order
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


def test_a_share_only_grows() -> None:
    with pytest.raises(ValueError, match="below the 25 of 'a': a share only grows"):
        plan(stage("a", 25), stage("b", 5))


def test_two_stages_do_not_share_a_name() -> None:
    with pytest.raises(ValueError, match="two stages share a name"):
        plan(stage("a", 5), stage("a", 25))


@pytest.mark.parametrize(
    ("percent", "holdback", "buckets"),
    [
        (5, 10, 50_000),
        (89.9, 10, 899_000),
        (90, 10, 900_000),
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


def test_a_stages_own_rollback_rule_is_its_own() -> None:
    manual = Rollback(auto_rollback=False)
    two = plan(stage("a", 5, rollback=manual), stage("b", 25))
    assert two.rollback_at(0) == manual
    assert two.rollback_at(1).auto_rollback


def test_soak_is_our_word_for_duration() -> None:
    assert Stage(name="a", target_percent=5, soak_hours=24).duration_hours == 24
    with pytest.raises(ValueError, match="soak_hours: 24 and duration_hours 12 mean the same and differ"):
        Stage(name="a", target_percent=5, soak_hours=24, duration_hours=12)


def test_the_longest_bake_is_no_shorter_than_the_least() -> None:
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
        ({"range_percent": (60, 50)}, "is no stretch"),
        ({"blast_radius": BlastRadius(devices=2), "min_devices": 3}, "at most 2 devices, and min_devices asks for 3"),
    ],
)
def test_what_contradicts_itself_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        plan(**changes)


def test_a_cap_on_a_plan_of_one_stage_caps_nothing() -> None:
    with pytest.raises(ValueError, match="there is one only; add one before it"):
        plan(stage("all", 100), blast_radius=BlastRadius(percent=10))


def test_a_part_of_the_fleet_is_not_everyone() -> None:
    assert plan().reaches_everyone
    assert not plan(range_percent=(0, 50)).reaches_everyone


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


def test_a_prefix_ends_at_a_dot() -> None:
    three_two = VersionName.parse("detector-v3.2")
    assert three_two.matches(calendar="2026.01.01.1", semantic="3.2.7")
    assert not three_two.matches(calendar="2026.01.01.1", semantic="3.20.0")


def test_two_ten_comes_after_two_nine_where_versions_are_listed() -> None:
    assert version_order("2026.01.01.1", "2.10.0") > version_order("2026.01.01.2", "2.9.0")


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


def test_a_blue_green_plan_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValueError, match=r"2 stages serve it \(canary, green\): keep one, or take strategy: staged"):
        blue_green(stage("canary", 5), stage("green", 100))
    with pytest.raises(ValueError, match="stage 'green' has target_percent 50: write 100, and choose fewer devices by"):
        blue_green(stage("green", 50))
    with pytest.raises(ValueError, match="strategy: blue_green serves in one only"):
        blue_green(stage("shadow", 50, shadow=ShadowStage()), stage("green", 100), blast_radius=BlastRadius(percent=5))
    with pytest.raises(ValueError, match="the last stage, 'shadow', is a shadow stage"):
        blue_green(stage("shadow", 100, shadow=ShadowStage()))
