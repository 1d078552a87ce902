"""A plan is explained with the numbers that it would have."""

import msgspec
import pytest

from support.values import (
    BUCKETS,
    HOUR,
    SALT,
    T0,
    Town,
    announce,
    cell,
    cohort,
    devices_in,
    file,
    plan,
    quarantined,
    release,
    reports,
    rollout,
    stage,
    town,
)
from support.values import window as report_window
from whimbrel.errors import NotFound, Refused
from whimbrel.flows.reports.ingest import ingest
from whimbrel.flows.reports.usage import usage_of
from whimbrel.flows.rollouts.check_plan import PlanCheck, check_plan
from whimbrel.flows.rollouts.start import start_rollout
from whimbrel.flows.wording import duration_words
from whimbrel.model.documents import encode
from whimbrel.model.release import Variant
from whimbrel.model.selector import Selector
from whimbrel.plan.governance import Approval, BlastRadius
from whimbrel.plan.rollout_states import State
from whimbrel.plan.schedule import Freeze, Schedule
from whimbrel.policy.bucket import bucket, device_key
from whimbrel.policy.policy import Conditions
from whimbrel.policy.shadow import ShadowStage


def test_devices_are_counted_as_the_rollout_counts_them() -> None:
    said = plan(stage("nz", 10, regions=("NZ",)), stage("quarter", 25), stage("all", 100))
    with town() as here:
        kiwis, others = devices_in(0, 100_000, 3), devices_in(0, 100_000, 8)[3:]
        rest = devices_in(100_000, 250_000, 4) + devices_in(250_000, 900_000, 6) + devices_in(900_000, BUCKETS, 2)
        here.enrol(*kiwis, labels={"region": "NZ"})
        here.enrol(*others, *rest, labels={"region": "AU"})
        seen = check_plan(here.registry, here.fleet, said, now=T0)
        assert [(s.devices, s.new_devices, s.control) for s in seen.stages] == [(3, 3, 0), (12, 9, 8), (18, 6, 2)]
        begun = start_rollout(here.registry, here.fleet, said, plan_text="", tag="a", hour_s=HOUR, actor="me", now=T0)
        assert begun.shares == (100_000,)


def test_devices_of_another_model_are_not_counted_and_silent_ones_are_named() -> None:
    with town() as here:
        here.enrol("a", "b", models=("wake",))
        here.enrol(*(f"other-{n}" for n in range(100)), models=("sleep",))
        seen = check_plan(here.registry, here.fleet, plan(), now=T0)
        assert (seen.fleet, seen.stages[-1].devices + seen.stages[-1].control) == (2, 2)
        assert not any("which models they follow" in each for each in seen.warnings)
        here.enrol("old")
        seen = check_plan(here.registry, here.fleet, plan(), now=T0)
        assert seen.fleet == 3
        assert (
            "1 enrolled device has not said which models it follows, and is counted as one of this model's; a device "
            "says it with its next report"
        ) in seen.warnings


def test_a_selector_on_a_label_that_devices_do_not_tell_is_warned_of() -> None:
    """What is not in `report_labels` stays on the device, so that the inventory knows nothing to count by."""
    said = plan(stage("nz", 10, regions=("NZ",)), stage("all", 100))
    with town() as here:
        here.enrol("a", labels={"region": "NZ"})
        told = ["region" in each for each in check_plan(here.registry, here.fleet, said, now=T0).warnings]
        assert told.count(True) == 1
        settings = msgspec.structs.replace(here.registry.model("wake").settings, report_labels=("region",))
        here.registry.change_model("wake", settings=settings)
        assert not any("region" in each for each in check_plan(here.registry, here.fleet, said, now=T0).warnings)


def test_an_imagined_fleet_is_labelled_as_the_real_one() -> None:
    said = plan(stage("nz", 50, regions=("NZ",)), stage("all", 100))
    with town() as here:
        here.enrol("a", labels={"region": "NZ"})
        here.enrol("b", "c", "d", labels={"region": "AU"})
        first, _ = check_plan(here.registry, here.fleet, said, now=T0, devices=10**7).stages
        assert first.devices == pytest.approx(10**7 * 0.5 / 4, rel=0.01)
        assert first.control == pytest.approx(10**7 * 0.5 / 4, rel=0.01)


def test_the_blast_radius_of_an_imagined_fleet_is_in_its_devices() -> None:
    with town() as here:
        said = plan(blast_radius=BlastRadius(devices=500))
        seen = check_plan(here.registry, here.fleet, said, now=T0, devices=1_000_000)
        assert [each.devices for each in seen.stages] == [500, 500, 900_000]
        assert "stage early: it adds no device to those of the stages before" in seen.warnings


def test_nothing_is_begun() -> None:
    with town() as here:
        check_plan(here.registry, here.fleet, plan(), now=T0, devices=100)
        assert (here.registry.rollouts(), here.registry.audit_log()) == ([], [])


def test_words_say_who_when_and_under_which_conditions() -> None:
    said = plan(
        stage("a", 5, regions=("NZ",), conditions=Conditions(charging=True), max_hours=48),
        stage("b", 100, approval=Approval(count=2, note="the errors")),
        schedule=Schedule(start_at="2026-01-01T09:00"),
        freeze=(Freeze(start="sat", end="sun"),),
    )
    with town() as here:
        seen = check_plan(here.registry, here.fleet, said, now=T0, devices=1000)
        words = " ".join([*seen.sentences, *(s for each in seen.stages for s in each.sentences)])
        for each in (
            "whose region is NZ",
            "only: while charging; others wait",
            "bakes on until 48 h",
            "when 2 people approved",
            "(the errors)",
            "begins by itself at 2026-01-01 09:00 UTC",
            "every week from sat to sun UTC",
            "also harm that is smaller than the plan's limits",
            "A holdback of 10% (100 devices)",
            "Not judged",
        ):
            assert each in words, each
        # Begins Thursday at 9, soaks a day: the next stage may begin on Friday.
        assert [stage.earliest for stage in seen.stages] == [T0 + 9 * HOUR, T0 + 33 * HOUR]


def test_a_blue_green_plan_says_what_devices_do_and_what_protects_them() -> None:
    green = stage("green", 100, accuracy_drop_max=0.02, error_rate_max=0.02)
    with town() as here:
        seen = check_plan(here.registry, here.fleet, plan(green, strategy="blue_green"), now=T0, devices=1000)
        (only,) = seen.stages
        assert (only.devices, only.control) == (1000, 0)
        words = "\n".join(seen.sentences)
        for each in (
            "Blue-green: in green all of its devices change to the new version at once",
            "The version before stays in the other slot of each device, so going back is one verb",
            "until a later version needs the slot; from then on a device that goes back fetches it",
            "No device is left as a control in green: all of its devices change at once. What protects it there: the",
            "absolute limits (error_rate_max)",
            "accuracy_drop_max is compared with what the same devices told while they ran 1.0.0",
        ):
            assert each in words, each
        assert "holdback" not in words
        assert [warning for warning in seen.warnings if "blue_green without a shadow stage" in warning]
        assert not [warning for warning in seen.warnings if "one stage" in warning or "no holdback" in warning]


def test_behind_a_shadow_stage_or_with_a_holdback_blue_green_is_less_of_a_leap() -> None:
    tried = stage("shadow", 100, shadow=ShadowStage())
    with town() as here:
        behind = check_plan(
            here.registry, here.fleet, plan(tried, stage("green", 100), strategy="blue_green"), now=T0, devices=1000
        )
        assert "Devices of shadow hold the version before the switch" in "\n".join(behind.sentences)
        assert not [warning for warning in behind.warnings if "without a shadow" in warning]
        held = plan(stage("green", 100), strategy="blue_green", holdback_percent=10)
        (only,) = check_plan(here.registry, here.fleet, held, now=T0, devices=1000).stages
        assert (only.devices, only.control) == (900, 100)


@pytest.mark.parametrize(
    ("said", "warning"),
    [
        (plan(stage("green", 100, hours=0), strategy="blue_green"), "stage green: it does not soak"),
        (plan(stage("all", 100)), "one stage: there is no canary"),
        (plan(stage("a", 60), stage("all", 100)), "the first stage is 60%"),
        (plan(holdback_percent=0), "no holdback"),
        (plan(stage("a", 5, hours=0), stage("all", 100)), "stage a: it does not soak"),
        (plan(stage("a", 5, hours=1), stage("all", 100)), "stage a: 1 h are too short to see a doubled crash rate"),
        (plan(stage("a", 5), stage("half", 50)), "it ends before it reaches every device"),
        (plan(freeze=(Freeze(start="mon", end="sun"),)), "its freezes never end"),
        (plan(schedule=Schedule(start_at="2025-01-01")), "its schedule is in the past"),
        (plan(model_version="wake@1.0.0"), "it would be refused now: wake 2026.01.01.1 is the baseline already"),
    ],
)
def test_pointless_and_dangerous_plans_are_warned_of(said: object, warning: str) -> None:
    with town() as here:
        seen = check_plan(here.registry, here.fleet, said, now=T0, devices=1000)
        assert any(warning in each for each in seen.warnings), seen.warnings


def test_what_a_freeze_without_an_end_holds_has_no_earliest_time() -> None:
    with town() as here:
        frozen = plan(freeze=(Freeze(start="mon", end="sun"),))
        check = check_plan(here.registry, here.fleet, frozen, now=T0, devices=1000)
    assert {stage.earliest for stage in check.stages} == {None}
    assert not any("At the soonest" in sentence for sentence in check.sentences)


def test_a_careful_plan_for_a_large_fleet_warns_of_nothing() -> None:
    with town() as here:
        assert check_plan(here.registry, here.fleet, plan(), now=T0, devices=100_000).warnings == ()


def test_an_empty_fleet_is_said_to_be_empty() -> None:
    with town() as here:
        assert "no device follows the model" in check_plan(here.registry, here.fleet, plan(), now=T0).warnings[0]


def test_a_version_that_was_taken_back_is_said_to_be_refused() -> None:
    with town() as here:
        here.registry.quarantine(quarantined(2, because="it crashes"))
        seen = check_plan(here.registry, here.fleet, plan(), now=T0, devices=10)
        assert "would be refused now: wake 2026.01.01.2 was taken back before (it crashes)" in seen.warnings[0]


def test_a_plan_of_no_known_version_is_refused() -> None:
    with town() as here:
        with pytest.raises(NotFound):
            check_plan(here.registry, here.fleet, plan(model_version="wake@9.9.9"), now=T0)
        with pytest.raises(Refused, match="names no version"):
            check_plan(here.registry, here.fleet, plan(model_version="wake"), now=T0)


def test_traffic_is_that_of_an_earlier_rollout() -> None:
    with town(running=rollout(state=State.COMPLETED)) as here:
        assert usage_of(here.registry, here.fleet, "wake").source.startswith("assumed")
        treated, control = devices_in(0, 50_000, 10), devices_in(50_000, BUCKETS, 190)
        here.registry.save_rollout(rollout(), before=rollout(state=State.COMPLETED))
        for devices, role in ((treated, "treated"), (control, "control")):
            said = [announce(d, "activating" if role == "treated" else "placebo", role=role) for d in devices]
            said += [reports(d, report_window(cohorts=(cohort(role),), sessions=0)) for d in devices]
            ingest(here.registry, here.fleet, said, now=T0 + 400)
        here.fleet.tally(
            "r1",
            [
                cell(role, 12 * w, n=n, crashed=n // 10)
                for w in range(1, 25)
                for role, n in (("treated", 5), ("control", 95))
            ],
        )
        usage = usage_of(here.registry, here.fleet, "wake")
        # 100 of 200 devices in one window an hour, over a day.
        assert usage.active_an_hour == pytest.approx(0.5, rel=0.1)
        assert usage.crash_rate == pytest.approx(9 / 95, rel=0.1)  # and those that only reported
        assert "rollout r1" in usage.source


def test_a_check_is_json_and_durations_are_words() -> None:
    with town() as here:
        check = check_plan(here.registry, here.fleet, plan(), now=T0, devices=50)
    assert msgspec.json.decode(msgspec.json.encode(check), type=PlanCheck) == check
    assert check.fleet == 50
    assert [duration_words(hours) for hours in (0.001, 0.5, 30, 100)] == ["1 min", "30 min", "30 h", "4 days"]


def test_a_first_version_is_explained_without_a_control() -> None:
    said = plan(stage("a", 5), stage("all", 100), model_version="wake@1.0.0")
    with town(versions=1) as here:
        here.registry.change_model("wake", baseline=None)
        here.enrol(*devices_in(0, 50_000, 2), *devices_in(50_000, 900_000, 8), models=("wake",))
        seen = check_plan(here.registry, here.fleet, said, now=T0)
        assert (seen.baseline, [(s.devices, s.control) for s in seen.stages]) == (None, [(2, 0), (10, 0)])
        words = " ".join((*seen.sentences, *(each for s in seen.stages for each in s.sentences)))
        assert "It is the first version, so there is nothing to compare it with" in words
        assert "2 devices get the version, 2 devices have it then. All others have no version of the model." in words
        assert not any("old version" in each or "old one" in each for each in (words, *seen.warnings))
        assert not any("refused" in each for each in seen.warnings)


def need_android(here: Town, serial: int) -> None:
    """The release of a version becomes one that only Android can run; devices tell their platform."""
    record = here.registry.version("wake", serial)
    only = Variant(name="android", files=(file(),), selector=Selector(match_labels={"platform": "android"}))
    document = release(serial, version=record.version, semantic_version=record.semantic_version, variants=(only,))
    here.registry.change_version("wake", serial, release=encode(document))
    settings = msgspec.structs.replace(here.registry.model("wake").settings, report_labels=("platform",))
    here.registry.change_model("wake", settings=settings)


def test_no_device_is_promised_a_version_that_it_cannot_run() -> None:
    """104 devices were, where none could run it."""
    with town() as here:
        need_android(here, 2)
        linux = devices_in(0, BUCKETS, 104)
        here.enrol(*linux, labels={"platform": "linux"}, models=("wake",))
        seen = check_plan(here.registry, here.fleet, plan(), now=T0)
        assert (seen.fleet, seen.fit.none, [(s.devices, s.control) for s in seen.stages]) == (104, 104, [(0, 0)] * 3)
        assert (
            "no device that follows wake can run it: no variant fits, and nobody gets it; `whimbrel version devices "
            "2026.01.01.2 --model wake` says why"
        ) in seen.warnings
        phone = next(each for each in devices_in(600_000, 700_000, 60) if each not in linux)
        here.enrol(phone, labels={"platform": "android"}, models=("wake",))
        seen = check_plan(here.registry, here.fleet, plan(), now=T0)
        assert [s.devices for s in seen.stages] == [1, 1, 1]
        begun = start_rollout(here.registry, here.fleet, plan(), plan_text="", tag="a", hour_s=HOUR, actor="me", now=T0)
        place = bucket(device_key(phone), salt=SALT)
        assert begun.shares == (place + 1,)  # a canary among those that cannot run it would have been empty


# --- small fleets ---

LIMITED = plan(
    stage("canary", 5, accuracy_drop_max=0.02, error_rate_max=0.001, latency_p99_max_ms=50),
    stage("early", 25, hours=48),
    stage("general", 100, hours=0),
)


def test_a_plan_for_one_board_says_what_protects_it_and_when_it_completes() -> None:
    with town() as here:
        here.enrol(*devices_in(300_000, 800_000, 1))
        seen = check_plan(here.registry, here.fleet, LIMITED, now=T0)
        words = " ".join(seen.sentences)
        for each in (
            "No device is left as a control in canary, early, general",
            "the probe, before the version is used; the trial",
            "when the only device went back, or 2 of two, 4 of ten, or 10 of a hundred",
            "absolute limits (error_rate_max, latency_p99_max_ms)",
            "accuracy_drop_max is compared with what the same devices told while they ran 1.0.0",
            "It holds where devices report nothing about error_rate_max, latency_p99_max_ms, accuracy_drop_max.",
            "At the soonest it is complete at 2026-01-04 00:00 UTC",
        ):
            assert each in words, each
        first = " ".join(seen.stages[0].sentences)
        assert "1 device gets the new version, 1 device has it then, and no device stays on the old one" in first
        assert "no device is left as a control" in first
        assert not any("too short to see" in each for each in seen.warnings)


def test_a_plan_for_a_large_fleet_says_nothing_of_small_ones() -> None:
    with town() as here:
        seen = check_plan(here.registry, here.fleet, LIMITED, now=T0, devices=100_000)
        assert not any("No device is left as a control" in each for each in seen.sentences)


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"min_devices": 5}, "min_devices: 5 devices must report in a stage, and there are 1: it holds for ever"),
        ({"min_reports": 3}, "min_reports: 3 devices must report in a stage, and there are 1: it holds for ever"),
        ({"promote": "when_proven"}, "promote: when_proven needs a control, and canary, early, general has none"),
    ],
)
def test_what_one_board_can_never_fulfil_is_warned_of(changes: dict[str, object], warning: str) -> None:
    with town() as here:
        here.enrol(*devices_in(300_000, 800_000, 1))
        asked = msgspec.structs.replace(LIMITED, **changes)
        assert any(warning in each for each in check_plan(here.registry, here.fleet, asked, now=T0).warnings)


def test_a_stage_that_nobody_is_in_is_said_to_hold_or_to_be_passed() -> None:
    with town() as here:
        here.enrol(*devices_in(0, 50_000, 1), labels={"region": "NZ"})
        first = plan(stage("au", 5, regions=("AU",)), stage("all", 100))
        later = plan(stage("nz", 5, regions=("NZ",)), stage("au", 50, regions=("AU",)), stage("all", 100))
        assert any(
            "stage au: no device is in it; it holds until one is" in w
            for w in check_plan(here.registry, here.fleet, first, now=T0).warnings
        )
        passed = check_plan(here.registry, here.fleet, later, now=T0)
        assert any("stage au: it adds no device" in w for w in passed.warnings)
