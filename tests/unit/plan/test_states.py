"""The table of a rollout's states is complete, and nothing outside of it happens."""

import itertools

import pytest

from support.values import T0, rollout, town
from whimbrel.errors import IllegalTransition
from whimbrel.flows.rollouts.move import move_by_person
from whimbrel.plan.rollout_states import ENDED, LIVE, NEXT, PENDING, Event, State, transition

PAIRS = list(itertools.product(State, Event))


@pytest.mark.parametrize(("state", "event"), [pair for pair in PAIRS if pair in NEXT])
def test_a_pair_in_the_table_moves(state: State, event: Event) -> None:
    assert transition(state, event) is NEXT[state, event]


@pytest.mark.parametrize(("state", "event"), [pair for pair in PAIRS if pair not in NEXT])
def test_a_pair_outside_of_the_table_is_refused(state: State, event: Event) -> None:
    with pytest.raises(IllegalTransition, match=f"a rollout that is {state.value.replace('_', ' ')} takes no"):
        transition(state, event)


def test_an_ended_rollout_goes_nowhere_but_back() -> None:
    assert {state for state, event in NEXT if event is not Event.TAKE_BACK} == set(State) - ENDED
    assert {pair: after for pair, after in NEXT.items() if pair[1] is Event.TAKE_BACK} == {
        (State.COMPLETED, Event.TAKE_BACK): State.ROLLING_BACK
    }


def test_harm_takes_every_live_rollout_back_and_no_other() -> None:
    assert {state for state, event in NEXT if event is Event.ROLL_BACK} == LIVE
    assert all(NEXT[state, Event.ROLL_BACK] is State.ROLLING_BACK for state in LIVE)
    assert {event for state, event in NEXT if state is State.ROLLING_BACK} == {Event.ALL_OFF}


def test_a_person_may_end_everything_that_has_not_gone_back() -> None:
    assert {state for state, event in NEXT if event is Event.ABORT} == LIVE | PENDING


def test_nothing_begins_but_what_waits() -> None:
    assert {state for state, event in NEXT if event is Event.BEGIN} == PENDING


@pytest.mark.parametrize("move", ["pause", "resume", "abort", "rollback"])
@pytest.mark.parametrize("state", [State.COMPLETED, State.ROLLED_BACK, State.ABORTED])
def test_a_refused_move_changes_nothing(state: State, move: str) -> None:
    with town(running=rollout(state=state, ended_at=T0)) as here:
        before = here.registry.rollout("r1")
        with pytest.raises(IllegalTransition):
            move_by_person(here.registry, here.fleet, "r1", move, because="", actor="me", now=T0 + 5)
        assert here.registry.rollout("r1") == before
        assert here.registry.quarantines("wake") == []
        assert here.registry.audit_log() == []


def test_a_move_that_is_refused_is_named_as_the_command_is_and_so_are_those_that_are_left() -> None:
    with pytest.raises(IllegalTransition, match=r"that is paused takes no pause; it takes resume, abort, rollback$"):
        transition(State.PAUSED, Event.PAUSE)
    with pytest.raises(IllegalTransition, match=r"that is rolled back takes no rollback; nothing can be asked of it"):
        transition(State.ROLLED_BACK, Event.ROLL_BACK)
