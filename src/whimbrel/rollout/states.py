"""How does a rollout move? The table of states and events; any other pair is refused and changes nothing."""

from enum import StrEnum

from whimbrel.errors import IllegalTransition


class State(StrEnum):
    """Where a rollout stands."""

    RUNNING = "running"  # its stage soaks, and the gate looks after every window
    HOLDING = "holding"  # soaked, and something is missing or in doubt: it looks on, and may still move
    PAUSED = "paused"  # a person said: do not advance (harm still takes it back)
    COMPLETED = "completed"  # its target is the baseline
    ROLLED_BACK = "rolled_back"  # its target is quarantined
    ABORTED = "aborted"  # a person ended it; its target is not quarantined


class Event(StrEnum):
    """What can happen to it."""

    ADVANCE = "advance"
    FINISH = "finish"
    HOLD = "hold"
    PAUSE = "pause"
    RESUME = "resume"
    SLICE_BACK = "slice_back"  # some hardware classes go back, the rest goes on
    ROLL_BACK = "roll_back"
    ABORT = "abort"


NEXT = {
    (State.RUNNING, Event.ADVANCE): State.RUNNING,
    (State.RUNNING, Event.FINISH): State.COMPLETED,
    (State.RUNNING, Event.HOLD): State.HOLDING,
    (State.RUNNING, Event.PAUSE): State.PAUSED,
    (State.RUNNING, Event.SLICE_BACK): State.RUNNING,
    (State.RUNNING, Event.ROLL_BACK): State.ROLLED_BACK,
    (State.RUNNING, Event.ABORT): State.ABORTED,
    (State.HOLDING, Event.ADVANCE): State.RUNNING,
    (State.HOLDING, Event.FINISH): State.COMPLETED,
    (State.HOLDING, Event.PAUSE): State.PAUSED,
    (State.HOLDING, Event.SLICE_BACK): State.HOLDING,
    (State.HOLDING, Event.ROLL_BACK): State.ROLLED_BACK,
    (State.HOLDING, Event.ABORT): State.ABORTED,
    (State.PAUSED, Event.RESUME): State.RUNNING,
    (State.PAUSED, Event.SLICE_BACK): State.PAUSED,
    (State.PAUSED, Event.ROLL_BACK): State.ROLLED_BACK,
    (State.PAUSED, Event.ABORT): State.ABORTED,
}

LIVE = frozenset({State.RUNNING, State.HOLDING, State.PAUSED})


def transition(state: State, event: Event) -> State:
    """The state after `event`. Raises `IllegalTransition` for a pair that is not in the table."""
    try:
        return NEXT[state, event]
    except KeyError:
        allowed = ", ".join(sorted(after for before, after in NEXT if before is state)) or "nothing"
        raise IllegalTransition(
            f"a rollout that is {state.value} cannot {event.value.replace('_', ' ')}; it can: {allowed}"
        ) from None
