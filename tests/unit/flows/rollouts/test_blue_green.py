"""A blue-green rollout: everybody at once, judged by what is known of the version before, and back in one verb."""

import pytest

from support.values import (
    HOUR,
    T0,
    Town,
    announce,
    cohort,
    devices_in,
    line,
    plan,
    release,
    reports,
    rollout,
    shadowed,
    stage,
    town,
    version,
)
from support.values import accuracy as told
from support.values import window as report_window
from whimbrel import limits
from whimbrel.flows.records import RolloutRecord
from whimbrel.flows.render_policy import render_policy
from whimbrel.flows.reports.ingest import ingest
from whimbrel.flows.rollouts.advance import advance
from whimbrel.flows.rollouts.judge import replay_rollout
from whimbrel.flows.rollouts.move import move_by_person
from whimbrel.flows.rollouts.roll_back_model import roll_back_completed
from whimbrel.health.report import Summary
from whimbrel.model.documents import encode
from whimbrel.model.selector import Selector
from whimbrel.plan.plan import Plan
from whimbrel.plan.rollout_states import State
from whimbrel.policy.bucket import BUCKETS
from whimbrel.policy.decide import Profile, decide
from whimbrel.policy.shadow import ShadowStage

GREEN = stage("green", 100, accuracy_drop_max=0.02)
SHADOWED = plan(stage("shadow", 100, shadow=ShadowStage()), GREEN, strategy="blue_green")
MANY = devices_in(0, BUCKETS, 3)


def live(here: Town, said: Plan, **changes: object) -> RolloutRecord:
    shares = (BUCKETS,) * (said.shadows + 1)
    values = {"plan": said, "stage": said.shadows, "shares": shares} | changes
    record = rollout(**values)
    here.registry.add_rollout(record, plan_text="")
    return record


def runs(here: Town, device: str, **labels: str) -> int | None:
    registry = here.registry
    policy = render_policy(
        registry.model("wake"),
        versions=registry.versions("wake"),
        rollouts=registry.rollouts(model="wake", unended=True),
        quarantine=registry.quarantines("wake"),
        sequence=1,
    )
    return decide(policy, line(), Profile(device, labels)).serial


def green_reports(here: Town, *, accuracy: float, place: int) -> None:
    for device in MANY:
        at = T0 + 9
        said = announce(device, "activating", at=at, stage=place)
        metrics = {"accuracy": Summary.of(accuracy)}
        windows = [report_window(n, metrics=metrics, cohorts=(cohort(stage=place),)) for n in range(1, 5)]
        ingest(here.registry, here.fleet, [said, reports(device, *windows, at=T0 + 500)], now=T0 + 500)


def test_everybody_is_on_it_at_once_and_back_at_once_while_it_lives() -> None:
    with town() as here:
        live(here, plan(GREEN, strategy="blue_green"))
        assert {runs(here, device) for device in MANY} == {2}
        move_by_person(here.registry, here.fleet, "r1", "rollback", because="", actor="ada", now=T0 + 5)
        assert {runs(here, device) for device in MANY} == {1}


def test_the_devices_of_a_selector_change_and_nobody_else() -> None:
    oslo = stage("green", 100, only=Selector(match_labels={"site": "oslo"}))
    with town() as here:
        live(here, plan(oslo, strategy="blue_green"))
        assert (runs(here, MANY[0], site="oslo"), runs(here, MANY[0], site="bergen")) == (2, 1)


@pytest.mark.parametrize(("accuracy", "move", "words"), [(0.94, "finish", "95%"), (0.90, "hold", "5 points below")])
def test_behind_a_shadow_stage_a_large_fleet_is_compared_with_what_was_told_in_it(
    accuracy: float, move: str, words: str
) -> None:
    """There is no control, and the past of single devices is kept for small fleets alone."""
    with town(versions=0) as here:
        for serial in (1, 2):
            document = release(serial)
            here.registry.add_version(version(serial), release=encode(document), digests=document.digests)
        here.enrol(*MANY, *(f"other-{n}" for n in range(limits.SMALL_FLEET)))
        live(here, SHADOWED)
        here.fleet.tally("r1", shadowed(4, metrics=told(0.95, 10)))
        green_reports(here, accuracy=accuracy, place=1)
        verdict = advance(here.registry, here.fleet, here.registry.rollout("r1"), now=T0 + 25 * HOUR)
        assert (verdict.move, words in verdict.because) == (move, True), verdict.because
        assert "while they ran 1.0.0" in verdict.because
        assert all(each.same for each in replay_rollout(here.registry, here.fleet, "r1"))


def test_after_it_is_complete_it_is_back_by_the_same_verb() -> None:
    with town() as here:
        here.enrol(*MANY)
        live(here, plan(stage("green", 100), strategy="blue_green"))
        green_reports(here, accuracy=0.9, place=0)
        verdict = advance(here.registry, here.fleet, here.registry.rollout("r1"), now=T0 + 25 * HOUR)
        assert (verdict.move, here.registry.rollout("r1").state) == ("finish", State.COMPLETED)
        assert "can be its control" in verdict.because
        roll_back_completed(here.registry, "r1", lines=lambda _: line(), because="", actor="ada", now=T0 + 30 * HOUR)
        assert {runs(here, device) for device in MANY} == {1}
