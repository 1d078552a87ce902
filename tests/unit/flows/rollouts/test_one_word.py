"""What one person's word reaches counts every rollout, every raised share and every model of a set."""

import msgspec
import pytest

from support.values import HOUR, T0, Town, devices_in, model, plan, release, stage, town, version
from whimbrel.errors import Refused
from whimbrel.flows.records import RolloutRecord
from whimbrel.flows.rollouts.check_plan import check_plan
from whimbrel.flows.rollouts.move import move_by_person
from whimbrel.flows.rollouts.shares import next_share, present_share
from whimbrel.flows.rollouts.start import start_rollout
from whimbrel.model.documents import encode
from whimbrel.model.release import Requirement
from whimbrel.plan.governance import Approval
from whimbrel.plan.plan import Plan
from whimbrel.plan.rollout_states import State
from whimbrel.policy.bucket import BUCKETS


def start(here: Town, asked: Plan, *, tag: str = "a") -> RolloutRecord:
    return start_rollout(here.registry, here.fleet, asked, plan_text="", tag=tag, hour_s=HOUR, actor="ada", now=T0)


def rule(here: Town, percent: float | None = 10, *, name: str = "wake") -> None:
    settings = here.registry.model(name).settings
    here.registry.change_model(name, settings=msgspec.structs.replace(settings, second_person_above_percent=percent))


def part(low: float, high: float, *stages: object, **changes: object) -> Plan:
    """All devices of a range."""
    return plan(*(stages or (stage("all", 100),)), range_percent=(low, high), holdback_percent=0, **changes)


def approvals(rollout: RolloutRecord) -> list[int]:
    return [0 if each.approval is None else each.approval.count for each in rollout.plan.stages]


def test_ten_tenths_of_a_fleet_are_not_one_persons_word() -> None:
    """Ten rollouts of 10% beside each other put a version on every device by one person's word."""
    with town() as here:
        rule(here)
        assert start(here, part(0, 10)).live
        second = start(here, part(10, 20), tag="b")
        assert (second.state, approvals(second)) == (State.DRAFT, [1])
        asks = second.plan.stages[0].approval
        assert asks is not None
        assert asks.note == ("this model needs a second person above 10%, and other rollouts and experiments have 10%")


def test_parts_that_fill_the_share_exactly_begin_by_one_persons_word() -> None:
    with town() as here:
        rule(here)
        begun = [start(here, part(n * 2.5, n * 2.5 + 2.5), tag=str(n)) for n in range(4)]
        assert all(each.live for each in begun)
        assert start(here, part(10, 11), tag="more").state is State.DRAFT


def test_what_another_person_agreed_to_is_not_counted() -> None:
    with town() as here:
        rule(here)
        first = start(here, part(0, 50, stage("canary", 8), stage("all", 100)))  # 4%, then 50% with an approval
        assert (first.live, approvals(first)) == (True, [0, 1])
        assert start(here, part(50, 56), tag="b").live
        assert start(here, part(60, 61), tag="c").state is State.DRAFT


def test_a_share_that_min_devices_raises_asks_for_the_other_person() -> None:
    """`min_devices: 1000` of a model with fewer devices put them all on a version, under a rule of 10%."""
    with town() as here:
        rule(here)
        here.enrol(*devices_in(0, BUCKETS, 20))
        raised = start(here, plan(stage("canary", 5), stage("all", 100), min_devices=1000))
        assert (raised.state, approvals(raised)) == (State.DRAFT, [1, 0])
        checked = check_plan(here.registry, here.fleet, raised.plan, now=T0)
        assert any("approved" in words for words in checked.stages[0].sentences)


def test_devices_that_come_later_raise_no_share_past_the_rule() -> None:
    with town() as here:
        rule(here)
        begun = start(here, plan(stage("canary", 5), stage("more", 8), stage("all", 100), min_devices=4))
        assert (begun.live, approvals(begun)) == (True, [0, 0, 1])
        here.enrol(*devices_in(BUCKETS // 2, BUCKETS, 8))
        assert present_share(here.registry, here.fleet, begun) == BUCKETS // 10
        assert next_share(here.registry, here.fleet, begun) == BUCKETS // 10
        rule(here, None)
        assert present_share(here.registry, here.fleet, begun) > BUCKETS // 2


def test_a_set_needs_what_any_of_its_models_needs() -> None:
    """A rollout of the lead's model, which has no rule, carried a version of a model that needs a second person."""
    with town(versions=1) as here:
        here.registry.add_model(model(name="decoder"))
        for serial in (1, 2):
            record = version(serial, model="decoder", version=f"2026.01.01.{serial}", semantic_version=f"{serial}.0.0")
            document = release(serial, model="decoder")
            here.registry.add_version(record, release=encode(document), digests=document.digests)
        record = version(2, semantic_version="2.0.0")
        document = release(2, requires=(Requirement(model="decoder", serial=2),))
        here.registry.add_version(record, release=encode(document), digests=document.digests)
        rule(here, 10, name="decoder")
        begun = start(here, plan(stage("canary", 5), stage("all", 100)))
        assert (begun.live, approvals(begun)) == (True, [0, 1])
        with pytest.raises(Refused, match="needs the approval of another person"):
            move_by_person(here.registry, here.fleet, begun.id, "finish", because="", actor="ada", now=T0)


def test_what_a_plan_asks_for_itself_is_left_as_it_is() -> None:
    with town() as here:
        rule(here)
        asked = plan(stage("canary", 5), stage("all", 100, approval=Approval(count=3)))
        assert approvals(start(here, asked)) == [0, 3]
