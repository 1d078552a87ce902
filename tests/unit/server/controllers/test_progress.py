"""Rollouts move by themselves: with the time, with what was published, and with what devices reported."""

from datetime import UTC, datetime

import pytest

from support.rollouts_in_memory import audited, enrolled, policy, rollout, running, send, start
from support.server_in_memory import ServerInMemory
from support.values import announce, cohort, devices_in, reports, window
from whimbrel.errors import Conflict, Unavailable
from whimbrel.flows.rollouts.move import move_by_person
from whimbrel.plan.rollout_states import State
from whimbrel.plan.schedule import Schedule
from whimbrel.server.controllers import progress

TREATED, CONTROL = devices_in(0, 50_000, 2), devices_in(100_000, 1_000_000, 2)


@pytest.fixture(autouse=True)
def fleet(server: ServerInMemory) -> None:
    enrolled(server, *TREATED, *CONTROL)


def by_person(server: ServerInMemory, identifier: str, move: str) -> None:
    with server.stores() as stores:
        move_by_person(
            stores.registry,
            stores.fleet,
            identifier,
            move,
            because="as ana likes",
            actor="ana",
            now=server.clock.now,
        )


def follow(server: ServerInMemory) -> bool:
    """Whether a policy has to be published for a move."""
    assert server.controllers.leader.take()
    return server.controllers.progress.follow_rollouts("default")


def at(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M")


def test_a_rollout_begins_when_its_time_has_come(server: ServerInMemory) -> None:
    identifier = start(server, schedule=Schedule(start_at=at(server.clock.now + 3600), zone="UTC"))
    assert rollout(server, identifier).state is State.SCHEDULED
    server.clock.now += 3599
    assert not follow(server)
    assert rollout(server, identifier).state is State.SCHEDULED
    server.clock.now += 1
    assert follow(server)  # its policy has to be published
    assert rollout(server, identifier).state is State.ADVANCING
    server.round()
    assert rollout(server, identifier).state is State.RUNNING


def test_a_rollout_whose_time_has_come_runs_after_one_round(server: ServerInMemory) -> None:
    identifier = start(server, schedule=Schedule(start_at=at(server.clock.now + 3600), zone="UTC"))
    server.round()
    server.clock.now += 3600
    server.round()
    assert rollout(server, identifier).state is State.RUNNING
    assert [entry.rollout for layer in policy(server).layers for entry in layer.entries] == [identifier]


def test_a_rollout_that_may_not_begin_when_its_turn_comes_ends_with_the_reason(server: ServerInMemory) -> None:
    identifier = start(server, schedule=Schedule(start_at=at(server.clock.now + 3600), zone="UTC"))
    with server.stores() as stores:
        stores.registry.change_version("wake", 2, retired=True)
    server.clock.now += 3600
    assert not follow(server)
    record = rollout(server, identifier)
    assert (record.live, record.ended_at) == (False, server.clock.now)
    assert record.because.startswith("it could not begin: ")


def test_one_move_is_made_a_call_and_the_round_goes_on_after_publishing(server: ServerInMemory) -> None:
    identifier = start(server)
    assert not follow(server)  # its policy is not out
    assert rollout(server, identifier).state is State.ADVANCING
    server.run(server.controllers.publishing.publish("default"))
    assert not follow(server)
    assert rollout(server, identifier).state is State.RUNNING


def test_a_stage_soaks_when_the_first_of_its_devices_has_reported(server: ServerInMemory) -> None:
    identifier = running(server)
    server.round()
    assert rollout(server, identifier).state is State.RUNNING
    counted = (cohort(rollout=identifier),)
    send(server, [reports(TREATED[0], window(1, cohorts=counted), at=server.clock.now)])
    server.round()
    assert rollout(server, identifier).state is State.SOAKING


def test_a_rollout_has_gone_back_when_no_device_that_is_heard_runs_its_version(server: ServerInMemory) -> None:
    identifier = running(server)
    send(server, [announce(TREATED[0], "activated", rollout=identifier, at=server.clock.now)])
    server.round()
    began = server.clock.now
    by_person(server, identifier, "rollback")
    server.clock.now += 7
    server.round()
    assert rollout(server, identifier).state is State.ROLLING_BACK  # one device runs it
    home = announce(TREATED[0], "activated", serial=1, rollout=None, at=server.clock.now)
    send(server, [home])
    server.round()
    record = rollout(server, identifier)
    assert (record.state, record.because) == (
        State.ROLLED_BACK,
        "as ana likes; every device that was heard from is off it",
    )
    (entry,) = audited(server, "rolled_back")
    assert (entry.actor, entry.evidence) == ("controller", {"took_s": server.clock.now - began})


def test_a_rollout_that_goes_back_waits_for_its_policy(server: ServerInMemory) -> None:
    identifier = running(server)
    by_person(server, identifier, "rollback")
    server.blobs.fails = Unavailable("the store does not answer")
    with pytest.raises(Unavailable):
        server.round()
    assert not follow(server)
    assert rollout(server, identifier).state is State.ROLLING_BACK
    server.blobs.fails = None
    server.round()
    assert rollout(server, identifier).state is State.ROLLED_BACK


def test_what_a_person_holds_or_ended_moves_by_itself_no_more(server: ServerInMemory) -> None:
    identifier = running(server)
    by_person(server, identifier, "pause")
    counted = (cohort(rollout=identifier),)
    send(server, [reports(TREATED[0], window(1, cohorts=counted), at=server.clock.now)])
    server.round()
    assert rollout(server, identifier).state is State.PAUSED


def test_a_rollout_that_a_person_moved_meanwhile_is_left_to_him_and_the_others_go_on(
    server: ServerInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add_model("eat")
    server.publish(model="eat")
    server.publish(model="eat")
    first, second = start(server, model="eat"), start(server)
    server.run(server.controllers.publishing.publish("default"))
    judged = progress.follow

    def follow_all_but_one(registry: object, fleet: object, record: object, **more: object) -> object:
        if getattr(record, "id", "") == first:
            raise Conflict("somebody moved it")
        return judged(registry, fleet, record, **more)

    with monkeypatch.context() as patched:
        patched.setattr(progress, "follow", follow_all_but_one)
        follow(server)
    assert (rollout(server, first).state, rollout(server, second).state) == (State.ADVANCING, State.RUNNING)
    follow(server)
    assert rollout(server, first).state is State.RUNNING
