"""A fleet of one to a few: nobody is left as a control, and its rollouts complete, and say what was compared."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from support.values import (
    HOUR,
    T0,
    Town,
    announce,
    cohort,
    devices_in,
    plan,
    release,
    reports,
    rollout,
    stage,
    town,
    version,
    window,
)
from whimbrel.flows.records import ModelSettings, RolloutRecord
from whimbrel.flows.reports.ingest import ingest
from whimbrel.flows.reports.past import past_cells, past_name
from whimbrel.flows.rollouts.advance import advance
from whimbrel.flows.rollouts.judge import gate_input, replay_rollout
from whimbrel.flows.rollouts.progress import follow
from whimbrel.gate.verdict import Verdict
from whimbrel.health.report import Summary
from whimbrel.model.documents import encode
from whimbrel.plan.rollout_states import State
from whimbrel.policy.bucket import BUCKETS

(ONLY,) = devices_in(0, 50_000, 1)
PUBLISHED = plan(
    stage("canary", 5, hours=24, accuracy_drop_max=0.02, crash_ratio_max=2.0),
    stage("early", 25, hours=48),
    stage("general", 100, hours=0),
)


@contextmanager
def desk(
    *devices: str, metrics: dict[int, dict[str, float]] | None = None, asked: Any = PUBLISHED, **changes: Any
) -> Iterator[Town]:
    """Enrolled devices and a live rollout. `metrics`: that versions were published with, by serial."""
    with town(versions=0) as here:
        for serial in (1, 2):
            document = release(serial, metrics=(metrics or {}).get(serial, {}))
            here.registry.add_version(version(serial), release=encode(document), digests=document.digests)
        here.enrol(*devices)
        here.registry.add_rollout(
            rollout(plan=asked, created_at=T0 + HOUR, stage_since=T0 + HOUR, **changes), plan_text=""
        )
        yield here


def tell(here: Town, device: str, *, first: int, serial: int, accuracy: float | None, at: float, **more: Any) -> None:
    metrics = {} if accuracy is None else {"accuracy": Summary.of(accuracy)}
    told = window(first, serial=serial, metrics=metrics, cohorts=more.pop("cohorts", ()), **more)
    ingest(here.registry, here.fleet, [reports(device, told, at=at)], now=at)


def ran_the_version_before(here: Town, device: str = ONLY, *, accuracy: float = 0.95) -> None:
    for number in range(1, 9):
        tell(here, device, first=number, serial=1, accuracy=accuracy, at=T0 + 60.0 * number)


def runs_the_new_one(here: Town, device: str = ONLY, *, accuracy: float | None = 0.95, place: int = 0) -> None:
    ingest(
        here.registry, here.fleet, [announce(device, "activating", at=T0 + HOUR + 9, stage=place)], now=T0 + HOUR + 9
    )
    for number in range(20, 26):
        at = T0 + HOUR + 60 * number
        tell(here, device, first=number, serial=2, accuracy=accuracy, at=at, cohorts=(cohort(stage=place),))


def now_is(here: Town) -> RolloutRecord:
    return here.registry.rollout("r1")


def look(here: Town, *, days: float) -> Verdict:
    now = T0 + HOUR + days * 24 * HOUR
    verdict = advance(here.registry, here.fleet, now_is(here), now=now)
    follow(here.registry, here.fleet, now_is(here), published=True, now=now)
    return verdict


def test_one_board_completes_the_published_plan_and_says_what_it_was_compared_with() -> None:
    """It held for ever: "accuracy_drop_max is asked for, and nothing about it was reported"."""
    with desk(ONLY) as here:
        ran_the_version_before(here)
        runs_the_new_one(here, accuracy=0.94)
        verdicts = [look(here, days=days) for days in (0.5, 1.1, 3.2, 3.3)]
        assert [each.move for each in verdicts] == ["wait", "advance", "advance", "finish"]
        assert now_is(here).state is State.COMPLETED
        assert here.registry.model("wake").baseline == 2
        words = verdicts[1].because
        assert "no harm in 1 device of stage canary; no device can be its control" in words
        assert "accuracy is 94%, and the same devices told 95% while they ran 1.0.0;" in words
        assert "the crash rate is 0%, and the same devices told 0% while they ran 1.0.0; that proves nothing" in words
        assert "stage early adds no device to these" in verdicts[2].because
        assert verdicts[1].evidence["past"]["device_windows"] == 8
        assert all(each.same for each in replay_rollout(here.registry, here.fleet, "r1"))


def test_a_drop_against_its_own_past_holds_and_says_by_how_much() -> None:
    with desk(ONLY) as here:
        ran_the_version_before(here)
        runs_the_new_one(here, accuracy=0.9)
        verdict = look(here, days=1.1)
        assert verdict.move == "hold"
        assert (
            "accuracy is 90%, 5 points below the 95% that the same devices told while they ran 1.0.0; at most 2 points "
            "may be (accuracy_drop_max)"
        ) in verdict.because


@pytest.mark.parametrize(
    ("metrics", "move", "words"),
    [
        (
            {1: {"accuracy": 0.96}},
            "advance",
            "accuracy is 95%, and 1.0.0 was published with 96%; the crash rate is 0%, and no earlier figure is known",
        ),
        ({1: {"accuracy": 0.99}}, "hold", "4 points below the 99% that 1.0.0 was published with; at most 2 points"),
        ({2: {"accuracy": 0.96}}, "advance", "accuracy is 95%, and its own release says 96%"),
        ({}, "advance", "accuracy is 95%, and no earlier figure is known"),
    ],
)
def test_without_a_past_the_figures_of_the_releases_stand_in(
    metrics: dict[int, dict[str, float]], move: str, words: str
) -> None:
    with desk(ONLY, metrics=metrics) as here:
        runs_the_new_one(here)
        verdict = look(here, days=1.1)
        assert verdict.move == move
        assert words in verdict.because


def test_what_the_new_version_does_not_tell_still_holds() -> None:
    with desk(ONLY, metrics={1: {"accuracy": 0.9}}) as here:
        ran_the_version_before(here)
        runs_the_new_one(here, accuracy=None)
        verdict = look(here, days=1.1)
        assert verdict.move == "hold"
        assert (
            "accuracy_drop_max asks for accuracy, and nothing about it was reported in stage canary" in verdict.because
        )


def test_the_past_of_other_devices_is_not_theirs() -> None:
    other = devices_in(0, 50_000, 2)[1]
    with desk(ONLY, other) as here:
        ran_the_version_before(here, other, accuracy=0.5)
        ran_the_version_before(here, accuracy=0.95)
        runs_the_new_one(here, accuracy=0.95)
        past = gate_input(here.registry, here.fleet, now_is(here), now=T0 + 30 * HOUR).past
        assert past is not None
        assert (past.device_windows, past.estimates["accuracy"]) == (8, 0.95)


def test_where_a_device_is_left_as_a_control_it_is_the_control_that_counts() -> None:
    beside = devices_in(500_000, BUCKETS, 1)
    with desk(ONLY, *beside) as here:
        ran_the_version_before(here)
        runs_the_new_one(here)
        verdict = look(here, days=1.1)
        assert verdict.move == "hold"
        assert "compares accuracy with the control's, and the control reported nothing about it" in verdict.because


def test_the_last_stage_of_three_boards_completes_without_a_control() -> None:
    three = [ONLY, *devices_in(300_000, 600_000, 2)]
    asked = {"stage": 2, "shares": (50_000, 250_000, 900_000)}
    with desk(*three, **asked) as here:
        for device, place in zip(three, (0, 2, 2), strict=True):
            ran_the_version_before(here, device)
            runs_the_new_one(here, device, place=place)
        verdict = look(here, days=1)
        assert verdict.move == "finish"
        assert "no harm in 2 devices of stage general; no device can be its control" in verdict.because


def test_the_past_of_a_large_fleet_is_not_kept() -> None:
    with desk() as here:
        many = [f"d{n}" for n in range(150)]
        here.enrol(*many)
        for device in many:
            tell(here, device, first=1, serial=1, accuracy=0.9, at=T0 + 60)
        told = len(past_cells(here.fleet, "wake", 1, now=T0 + 60))
        assert 100 <= told <= 101
        tell(here, ONLY, first=2, serial=1, accuracy=0.9, at=T0 + 90)
        assert len(past_cells(here.fleet, "wake", 1, now=T0 + 90)) == told


def test_the_name_of_a_past_fits_into_the_database() -> None:
    assert past_name("wake", 3) == "past/3/wake"
    long = [past_name("m" * 60 + end, 3) for end in ("aaaa", "bbbb")]
    assert max(map(len, long)) <= 64
    assert len(set(long)) == 2


# --- stages that nobody is in ---


def test_a_stage_that_nobody_can_take_says_so_with_its_selector() -> None:
    """It said "0 of 0 activated devices have reported"."""
    asked = plan(stage("nz", 5, regions=("NZ",)), stage("all", 100))
    with desk(ONLY, asked=asked) as here:
        here.registry.change_model("wake", settings=ModelSettings(report_labels=("region",)))
        verdict = look(here, days=2)
        assert verdict.move == "hold"
        assert (
            "there is no device of stage nz (its selector: region is NZ), so nobody can take the version"
            in verdict.because
        )
        assert "rollout abort" in verdict.because


def test_of_a_label_that_stays_on_the_devices_nobody_says_that_there_is_no_device() -> None:
    """Devices decide by all of their labels; the server knows those that it asked for."""
    asked = plan(stage("nz", 5, regions=("NZ",), accuracy_drop_max=0.02), stage("all", 100))
    with desk(ONLY, *devices_in(500_000, BUCKETS, 1), asked=asked) as here:
        expected = "no device of stage nz (its selector: region is NZ) has activated the version yet"
        assert expected in look(here, days=1.1).because
        runs_the_new_one(here)
        ran_the_version_before(here)
        assert "compares accuracy with the control's, and the control reported nothing" in look(here, days=1.2).because


def test_a_device_that_has_not_taken_it_yet_is_counted() -> None:
    with desk(ONLY) as here:
        assert "none of the 1 device of stage canary has activated the version yet" in look(here, days=2).because


def test_a_share_is_widened_when_the_only_board_enrols_after_the_start() -> None:
    """A rollout that began before its board enrolled held for ever: the board fell beyond the canary."""
    (late,) = devices_in(400_000, 500_000, 1)
    with desk() as here:
        assert look(here, days=2).move == "hold"
        here.enrol(late)
        assert look(here, days=2.1).move == "wait"
        assert 400_000 < now_is(here).shares[0] <= 500_000
        assert "nobody was in it, and now a device is" in now_is(here).because
        assert next(entry.action for entry in here.registry.audit_log()) == "widen"


def test_a_share_that_a_device_is_in_is_never_widened() -> None:
    with desk(ONLY, *devices_in(400_000, 500_000, 1)) as here:
        runs_the_new_one(here)
        look(here, days=0.1)
        assert now_is(here).shares == (50_000,)


def test_a_first_version_has_no_past_and_is_held_to_its_own_release() -> None:
    beside = devices_in(500_000, BUCKETS, 1)
    with desk(ONLY, *beside, metrics={2: {"accuracy": 0.96}}, baseline=None) as here:
        here.registry.change_model("wake", baseline=None)
        runs_the_new_one(here, accuracy=0.95)
        verdict = look(here, days=1.1)
        assert verdict.move == "advance"
        assert "accuracy is 95%, and its own release says 96%" in verdict.because
        runs_late = gate_input(here.registry, here.fleet, now_is(here), now=T0 + 80 * HOUR).past
        assert runs_late is not None
        assert runs_late.version is None
