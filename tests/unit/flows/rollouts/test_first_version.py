"""The rollout of a model's first version: nobody is a control, and whoever it does not reach has no version."""

from support.values import BUCKETS, T0, Town, announce, devices_in, plan, reports, rollout, stage, town, window
from whimbrel.flows.records import RolloutRecord
from whimbrel.flows.reports.ingest import ingest
from whimbrel.flows.rollouts.advance import advance
from whimbrel.flows.rollouts.move import move_by_person
from whimbrel.flows.rollouts.progress import follow
from whimbrel.plan.rollout_states import State

LATER = T0 + 25 * 3600
TREATED = devices_in(0, 50_000, 3)


def first(**changes: object) -> RolloutRecord:
    return rollout(**{"baseline": None, "target": 1, "plan": plan(stage("a", 5), stage("all", 100))} | changes)


def here_of(here: Town) -> Town:
    here.registry.change_model("wake", baseline=None)
    return here


def hear(here: Town, *, step: str = "activated", active: int = 1) -> None:
    told = [announce(device, step, serial=1) for device in TREATED[:active]]
    told += [reports(device, window(serial=1)) for device in TREATED]
    ingest(here.registry, here.fleet, told, now=T0 + 400)


def test_its_verdict_is_computed_without_a_control() -> None:
    with town(versions=1, running=first()) as here:
        hear(here_of(here))
        verdict = advance(here.registry, here.fleet, here.registry.rollout("r1"), now=LATER)
        assert verdict.move == "advance", verdict.because
        assert here.registry.model("wake").baseline is None


def test_a_claim_to_be_a_control_of_it_contradicts() -> None:
    with town(versions=1, running=first()) as here:
        (other,) = devices_in(50_000, BUCKETS, 1)
        said = announce(other, "placebo", serial=None, role="control")
        assert ingest(here.registry, here.fleet, [said], now=T0 + 400).contradictions == 1


def test_it_becomes_baseline_and_champion_when_it_is_complete() -> None:
    with town(versions=1, running=first()) as here:
        hear(here_of(here))
        move_by_person(here.registry, here.fleet, "r1", "finish", because="", actor="ana", now=LATER)
        assert here.registry.model("wake").baseline == 1
        assert here.registry.version("wake", 1).good
        assert here.registry.aliases("wake") == {"champion": 1}


def test_the_kill_switch_takes_it_back_and_no_version_is_left() -> None:
    with town(versions=1, running=first()) as here:
        hear(here_of(here))
        told = [announce(device, "went_back", serial=1) for device in TREATED[:2]]
        ingest(here.registry, here.fleet, told, now=T0 + 500)
        verdict = advance(here.registry, here.fleet, here.registry.rollout("r1"), now=LATER)
        assert (verdict.move, here.registry.rollout("r1").state) == ("roll_back", State.ROLLING_BACK)
        assert (here.registry.model("wake").baseline, here.registry.aliases("wake")) == (None, {})
        left = [reports(device, window(2, serial=None)) for device in TREATED]
        ingest(here.registry, here.fleet, left, now=LATER)
        after = follow(here.registry, here.fleet, here.registry.rollout("r1"), published=True, now=LATER + 1)
        assert after.state is State.ROLLED_BACK
        assert here.fleet.inventory("wake") == {None: 3}
