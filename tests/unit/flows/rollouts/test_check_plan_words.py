"""Every sentence of an explained plan, whole: with its figures, and by what it is said or left out."""

from typing import Any

import msgspec
import pytest

from support.values import HOUR, T0, devices_in, plan, release, selector, stage, town, version
from whimbrel.flows.rollouts.check_plan import PlanCheck, StageCheck, check_plan
from whimbrel.gate.power import Usage, detectable_harm
from whimbrel.model.documents import encode
from whimbrel.model.release import Requirement
from whimbrel.plan.governance import Approval, BlastRadius, OnSuccess
from whimbrel.plan.plan import Plan, Rollback
from whimbrel.plan.schedule import Freeze, Schedule
from whimbrel.policy.bucket import BUCKETS
from whimbrel.policy.policy import Conditions
from whimbrel.policy.shadow import ShadowStage

COMPARED = (
    " is compared with devices that stay on the old version, at the same time. Crashes, errors, silence, latency and "
    "accuracy are watched where devices report them."
)
ANY_HARM = (
    "Proven harm goes back by itself, also harm that is smaller than the plan's limits: a limit decides the label, and "
    "what is promoted."
)
SOAKED = (
    "It is promoted when it soaked, nothing was proven and every estimate keeps its limit. That proves no more than "
    "what the stage could have seen."
)
UNSEEN = "Not judged, since the plan asks for no limit: battery, drift of predictions, user reports."


def check(said: Plan, *, devices: int | None = 1000, **settings: Any) -> PlanCheck:
    with town() as here:
        if settings:
            model = here.registry.model("wake")
            here.registry.change_model("wake", settings=msgspec.structs.replace(model.settings, **settings))
        return check_plan(here.registry, here.fleet, said, now=T0, devices=devices)


def figures(stages: tuple[StageCheck, ...]) -> list[tuple[str, float, int, int, int, bool, float]]:
    return [
        (each.name, each.share_percent, each.devices, each.new_devices, each.control, each.shadow, each.hours)
        for each in stages
    ]


# --- a careful plan for many devices ---


def test_all_that_is_said_of_a_careful_plan() -> None:
    seen = check(plan(), devices=4_000)
    assert (seen.model, seen.target, seen.baseline, seen.fleet, seen.imagined) == (
        "wake",
        "2026.01.01.2 (2.0.0)",
        "2026.01.01.1 (1.0.0)",
        4_000,
        True,
    )
    assert seen.sentences == (
        f"Every stage{COMPARED}",
        ANY_HARM,
        SOAKED,
        "A holdback of 10% (400 devices) stays on the old version until the last soak ends; then everybody gets the "
        "new one.",
        UNSEEN,
        "At the soonest it is complete at 2026-01-04 00:00 UTC.",
    )
    assert seen.warnings == ()
    assert figures(seen.stages) == [
        ("canary", 5.0, 200, 200, 3_800, False, 24),
        ("early", 25.0, 1_000, 800, 3_000, False, 48),
        ("general", 90.0, 3_600, 2_600, 400, False, 0),
    ]
    assert [each.earliest for each in seen.stages] == [T0, T0 + 24 * HOUR, T0 + 72 * HOUR]
    canary, _, general = seen.stages
    assert canary.sentences[:2] == (
        "5% of the buckets: 200 devices get the new version, 200 devices have it then, and 3,800 devices stay on "
        "the old one as control.",
        "It soaks for at least 24 h.",
    )
    assert len(canary.sentences) == 3
    assert general.sentences[2].startswith(
        "With no soak time there is no harm that it would prove for certain. It needs, as a rule: a crash rate of 1.5x "
        "in "
    )


def test_what_a_stage_could_see_is_said_with_its_own_figures() -> None:
    canary = check(plan(), devices=4_000).stages[0]
    sight = canary.sight
    assert sight.crash_ratio is not None
    assert sight == detectable_harm(plan(), stage=0, treated=200, control=3_800, hours=24, usage=Usage())
    assert sight.crash_ratio == pytest.approx(1.88, abs=0.05)
    assert canary.sentences[2].startswith(
        f"With 80% chance it proves a crash rate of {sight.crash_ratio:.1f}x the control's, or more. It needs, as a "
        f"rule: "
        "a crash rate of 1.5x in about 57 h; a crash rate of 2x in about "
    )
    assert canary.sentences[2].endswith("; accuracy 2 points lower in about 41 h.")
    less = check(plan(), devices=1_000).stages[0].sight.crash_ratio
    assert less is not None
    assert less > sight.crash_ratio


def test_a_stage_sees_by_its_own_devices_and_its_own_control() -> None:
    """Of a later stage, its new devices speak: those of the stages before speak for these."""
    early = check(plan(), devices=4_000).stages[1].sight
    alone = check(plan(stage("early", 20, hours=48), stage("all", 95, hours=0)), devices=4_000).stages[0].sight
    assert early.crash_ratio == pytest.approx(alone.crash_ratio, rel=0.06)


# --- words that depend on the plan ---


@pytest.mark.parametrize(
    ("said", "index", "sentence"),
    [
        (
            plan(stage("a", 5, approval=Approval()), stage("b", 100)),
            1,
            "It begins when one person approved, not counting who started the rollout.",
        ),
        (
            plan(stage("a", 5, approval=Approval(count=3, note="look")), stage("b", 100)),
            1,
            "It begins when 3 people approved (look), not counting who started the rollout.",
        ),
        (
            plan(stage("a", 5, conditions=Conditions(charging=True, battery_min=0.5)), stage("b", 100)),
            1,
            "Its devices fetch and activate only: while charging; with at least 50% of charge, or charging; others "
            "wait.",
        ),
        (
            plan(stage("a", 5, conditions=Conditions()), stage("b", 100)),
            1,
            "Its devices fetch and activate only: whenever they like; others wait.",
        ),
        (
            plan(stage("a", 5, max_hours=48.5), stage("b", 100)),
            1,
            "It soaks for at least 24 h. A doubt bakes on until 48.5 h, then it holds.",
        ),
        (
            plan(blast_radius=BlastRadius(devices=1200)),
            1,
            "The blast radius keeps it at 1,200 devices at most, as they are enrolled when it begins.",
        ),
        (plan(blast_radius=BlastRadius(percent=7.5)), 1, "The blast radius keeps it at 7.5% of all devices at most."),
    ],
)
def test_a_stage_says_what_it_waits_for_and_what_bounds_it(said: Plan, index: int, sentence: str) -> None:
    assert check(said).stages[0].sentences[index] == sentence


def test_a_blast_radius_bounds_neither_the_last_stage_nor_one_in_the_shadow() -> None:
    shadowed = plan(
        stage("shadow", 50, hours=12, shadow=ShadowStage()),
        stage("canary", 5),
        stage("all", 100),
        blast_radius=BlastRadius(devices=30, percent=50),
    )
    seen = check(shadowed)
    assert figures(seen.stages) == [
        ("shadow", 50.0, 500, 500, 500, True, 12),
        ("canary", 3.0, 30, 30, 970, False, 24),
        ("all", 90.0, 900, 870, 100, False, 24),
    ]
    assert seen.stages[0].sentences == (
        "50% of the buckets: 500 devices try the new version in the shadow of the old one, which goes on serving them. "
        "Nobody gets its answers.",
        "It soaks for at least 12 h.",
    )
    assert ["blast radius" in " ".join(each.sentences) for each in seen.stages] == [False, True, False]
    percent = msgspec.structs.replace(shadowed, blast_radius=BlastRadius(percent=2))
    assert ["blast radius" in " ".join(each.sentences) for each in check(percent).stages] == [False, True, False]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"on_small_harm": "hold"},
            "Proven harm beyond the plan's limits goes back by itself; smaller harm holds, and a person decides.",
        ),
        (
            {"promote": "when_proven"},
            "It is promoted when every guardrail is proven to be within its margin; until then it holds.",
        ),
        (
            {"holdback_percent": 0},
            "Without a holdback, from 100% on only absolute limits and silence are judged: nothing is left to compare.",
        ),
        (
            {"schedule": Schedule(start_at="2026-01-01T09:00", zone="Europe/Oslo")},
            "It begins by itself at 2026-01-01 08:00 UTC.",
        ),
        (
            {"freeze": (Freeze(start="fri 16:00", end="mon 08:00", note="weekends"),)},
            "Nothing begins or advances every week from fri 16:00 to mon 08:00 UTC (weekends); going back never waits.",
        ),
    ],
)
def test_what_the_plan_asks_for_is_said(changes: dict[str, Any], sentence: str) -> None:
    assert sentence in check(plan(**changes)).sentences
    assert sentence not in check(plan()).sentences


@pytest.mark.parametrize(
    ("asked", "left"),
    [
        ({"battery_increase_max": 0.1}, "drift of predictions, user reports"),
        ({"battery_max": 5.0}, "drift of predictions, user reports"),
        ({"user_reports_ratio_max": 2.0}, "battery, drift of predictions"),
        ({"battery_max": 5.0, "user_reports_ratio_max": 2.0}, "drift of predictions"),
    ],
)
def test_what_no_stage_asks_for_is_named(asked: dict[str, float], left: str) -> None:
    said = plan(stage("a", 5), stage("b", 100, **asked))
    assert f"Not judged, since the plan asks for no limit: {left}." in check(said).sentences


def test_when_it_is_complete_counts_schedules_freezes_and_the_last_soak() -> None:
    said = plan(
        stage("a", 5, hours=24),
        stage("b", 100, hours=12),
        schedule=Schedule(start_at="2026-01-01T09:00"),
        freeze=(Freeze(start="2026-01-02", end="2026-01-03"),),
    )
    seen = check(said)
    # Friday at 9 is in the freeze, which ends with the 3rd.
    assert [each.earliest for each in seen.stages] == [T0 + 9 * HOUR, T0 + 72 * HOUR]
    assert seen.sentences[-1] == "At the soonest it is complete at 2026-01-04 12:00 UTC."


def test_a_holdback_that_holds_nobody_is_empty() -> None:
    with town() as here:
        here.enrol(*devices_in(0, 800_000, 30))
        seen = check_plan(here.registry, here.fleet, plan(), now=T0)
    assert "The holdback of 10% is empty: no device is in it." in seen.sentences
    with town() as here:
        seen = check_plan(here.registry, here.fleet, plan(), now=T0)
    assert (
        "A holdback of 10% (no device) stays on the old version until the last soak ends; then everybody gets the new "
        "one."
    ) in seen.sentences
    assert not any("At the soonest" in each for each in seen.sentences)


# --- small fleets ---


def test_a_stage_without_a_control_names_what_protects_it() -> None:
    said = plan(
        stage("canary", 5),
        stage("all", 100, error_rate_max=0.01, accuracy_drop_max=0.02, battery_increase_max=0.1),
        holdback_percent=0,
    )
    seen = check(said)
    assert seen.sentences[0] == f"A stage with a control{COMPARED}"
    assert seen.sentences[1] == (
        "No device is left as a control in all: the fleet is too small. What protects it there: the probe, before the "
        "version is used; the trial, in which a device goes back by itself; the kill switch, which takes it back when "
        "the only device went back, or 2 of two, 4 of ten, or 10 of a hundred; absolute limits (error_rate_max)."
    )
    assert seen.sentences[2] == (
        "Without a control, accuracy_drop_max, battery_increase_max are compared with what the same devices told while "
        "they ran 1.0.0, else with the figure that was published with it. What no figure is known of compares nothing, "
        "and the verdict says so."
    )
    assert seen.sentences[3] == (
        "It holds where devices report nothing about error_rate_max, accuracy_drop_max, battery_increase_max."
    )
    assert seen.stages[1].sentences[-1] == ("It compares no two versions at one time: no device is left as a control.")


def test_one_limit_is_compared_and_none_is_said_to_be_none() -> None:
    one = plan(stage("canary", 5), stage("all", 100, accuracy_drop_max=0.02), holdback_percent=0)
    words = check(one).sentences
    assert words[1].endswith("; no absolute limit, since the plan sets none.")
    assert words[2].startswith("Without a control, accuracy_drop_max is compared with what")
    assert words[3] == "It holds where devices report nothing about accuracy_drop_max."
    none = check(plan(stage("canary", 5), stage("all", 100), holdback_percent=0)).sentences
    assert not any("It holds where" in each or "Without a control" in each for each in none)


def test_a_stage_that_adds_no_device_or_has_none_says_so() -> None:
    with town() as here:
        here.enrol(*devices_in(0, 50_000, 2), *devices_in(950_000, BUCKETS, 2))
        seen = check_plan(here.registry, here.fleet, plan(), now=T0)
        assert figures(seen.stages) == [
            ("canary", 5.0, 2, 2, 2, False, 24),
            ("early", 25.0, 2, 0, 2, False, 48),
            ("general", 90.0, 2, 0, 2, False, 0),
        ]
        assert [each.sentences[-1] for each in seen.stages[1:]] == [
            "It adds no device: those of the stages before go on being compared."
        ] * 2
        assert seen.warnings[-2:] == (
            "stage early: it adds no device to those of the stages before",
            "stage general: it adds no device to those of the stages before",
        )
    nobody = check(plan(stage("nz", 5, regions=("NZ",)), stage("all", 100))).stages[0]
    assert nobody.sentences == (
        "5% of the buckets, of devices whose region is NZ: no device gets the new version, no device has it then, and "
        "no device stays on the old one as control.",
        "It soaks for at least 24 h.",
        "It can compare nothing: no device is on the new version.",
    )


def test_a_share_that_is_raised_for_a_device_says_from_where_to_where() -> None:
    with town() as here:
        here.enrol(*devices_in(300_000, 300_100, 1), *devices_in(700_000, BUCKETS, 3))
        seen = check_plan(here.registry, here.fleet, plan(), now=T0)
    assert any(
        each.startswith("stage canary: raised from 5% to 30%, so that a device is in it") for each in seen.warnings
    ), seen.warnings
    assert not any("stage general: raised" in each for each in seen.warnings)


# --- warnings, each with its bound ---


@pytest.mark.parametrize(("percent", "warned"), [(49.9, False), (50, True)])
def test_half_of_the_devices_at_once_is_warned_of(percent: float, warned: bool) -> None:
    warnings = check(plan(stage("a", percent), stage("all", 100))).warnings
    assert ("the first stage is 50% already: most devices have it before anything is known" in warnings) is warned


def test_in_the_shadow_any_share_may_be_first() -> None:
    tried = plan(stage("shadow", 80, shadow=ShadowStage()), stage("a", 5), stage("all", 100))
    assert check(tried, devices=4_000).warnings == ()


@pytest.mark.parametrize(
    ("said", "warning"),
    [
        (
            plan(rollback=Rollback(auto_rollback=False)),
            "auto_rollback is off: proven harm waits for a person",
        ),
        (
            plan(on_success=OnSuccess(retire_previous=True)),
            "retire_previous: after it is complete there is no way back to the version before",
        ),
        (plan(holdback_percent=0), "no holdback: at 100% nothing is left to compare with"),
        (
            plan(stage("all", 100)),
            "one stage: there is no canary, and all of its devices are at stake at once",
        ),
        (
            plan(stage("a", 5), stage("half", 50)),
            "it ends before it reaches every device: it holds at its end, and a person decides",
        ),
        (plan(schedule=Schedule(start_at="2025-12-31T23:59")), "its schedule is in the past: it begins at once"),
        (
            plan(freeze=(Freeze(start="mon", end="sun"),)),
            "its freezes never end, so it can never begin or advance",
        ),
        (
            plan(stage("a", 5, hours=0), stage("all", 100)),
            "stage a: it does not soak, so it goes on with the first report",
        ),
    ],
)
def test_each_danger_is_warned_of_alone(said: Plan, warning: str) -> None:
    alone = check(said, devices=4_000).warnings
    assert [each for each in alone if "can compare" not in each and "No device" not in each] == [warning]


def test_a_schedule_that_begins_now_is_not_in_the_past() -> None:
    assert check(plan(schedule=Schedule(start_at="2026-01-01T00:00")), devices=4_000).warnings == ()


def test_a_soak_that_is_too_short_says_how_long_it_takes() -> None:
    short = plan(stage("a", 5, hours=1), stage("all", 100))
    assert check(short).warnings == ("stage a: 1 h are too short to see a doubled crash rate; that takes about 47 h",)
    few = check(short, devices=25).warnings
    assert any(each.startswith("stage a: 1 h are too short to see a doubled crash rate; ") for each in few)


def test_labels_that_devices_do_not_tell_are_warned_of_one_by_one() -> None:
    said = plan(stage("a", 5, only=selector(ring="x", site="lab")), stage("all", 100))
    warned = [each for each in check(said, report_labels=("ring",)).warnings if "stages select" in each]
    assert warned == [
        "stages select by the label 'site', which devices are not asked to tell: a device that never told it is "
        "counted as one without it, here and by the blast radius; whimbrel model set wake --report-label site"
    ]
    assert len([each for each in check(said).warnings if "stages select" in each]) == 2


def test_devices_that_said_nothing_of_their_models_are_counted_and_told() -> None:
    with town() as here:
        here.enrol("a", "b", models=("wake",))
        here.enrol("c", "d", "e")
        seen = check_plan(here.registry, here.fleet, plan(), now=T0)
    assert (
        "3 enrolled devices have not said which models they follow, and are counted as ones of this model's; a device "
        "says it with its next report"
    ) in seen.warnings
    assert seen.fleet == 5


def test_an_empty_fleet_warns_of_nothing_that_is_counted() -> None:
    assert check(plan(), devices=None).warnings == (
        "no device follows the model, so nothing can be counted; imagine a fleet with --devices N",
    )


# --- sets, and a fleet that is imagined ---


def test_a_set_is_told_and_shares_the_budget_of_false_alarms() -> None:
    with town(versions=1) as here:
        here.registry.add_model(msgspec.structs.replace(here.registry.model("wake"), name="decoder"))
        for serial in (1, 2):
            record = version(serial, model="decoder")
            document = release(serial, model="decoder")
            here.registry.add_version(record, release=encode(document), digests=document.digests)
        document = release(2, requires=(Requirement(model="decoder", serial=2),))
        here.registry.add_version(version(2), release=encode(document), digests=document.digests)
        together = check_plan(here.registry, here.fleet, plan(), now=T0, devices=5_000)
    alone = check(plan(), devices=5_000)
    assert together.sentences == (
        "It is one of a set, and carries what it requires: decoder 2026.01.01.2 (2.0.0). A device takes all of them or "
        "none, and harm in any of them takes all back.",
        *alone.sentences,
    )
    one, both = alone.stages[0].sight.crash_ratio, together.stages[0].sight.crash_ratio
    assert one is not None
    assert both is not None
    assert both > one  # each gate has half of the budget


@pytest.mark.parametrize("devices", [1, 7, 999])
def test_an_imagined_fleet_has_as_many_devices_as_one_says(devices: int) -> None:
    last = check(plan(stage("a", 5), stage("all", 100), holdback_percent=0), devices=devices).stages[-1]
    assert last.devices == pytest.approx(devices, rel=1e-4)
    half = check(plan(stage("a", 50), stage("all", 100)), devices=devices).stages[0]
    assert half.devices + half.control == pytest.approx(devices, rel=1e-4)
