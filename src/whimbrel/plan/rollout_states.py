"""The states of a rollout. The table of states and events; any other pair is refused and changes nothing.

docs/reference/rollout-states.md has the diagram, generated from this table, and the meaning of each state.
"""

from enum import StrEnum

from whimbrel.errors import IllegalTransition


class State(StrEnum):
    """The state of a rollout."""

    DRAFT = "draft"  # written down and checked; a person's approval begins it
    SCHEDULED = "scheduled"  # it begins by itself at its time, and when no freeze holds any more
    QUEUED = "queued"  # it begins by itself when no other rollout is in its way
    ADVANCING = "advancing"  # a stage was decided, and the signed policy that says so is not out yet
    RUNNING = "running"  # the policy is out; no device of the stage has reported from the new version yet
    SOAKING = "soaking"  # devices of the stage report, and the gate looks after every window
    HOLDING = "holding"  # soaked, and something is missing, in doubt or frozen: the gate goes on, and it may still move
    WAITING_FOR_APPROVAL = "waiting_for_approval"  # the gate would go on; the next stage asks for people's approval
    PAUSED = "paused"  # a person said: do not advance (harm still takes it back)
    ROLLING_BACK = "rolling_back"  # its target is quarantined; devices that can hear of it are not all off it yet
    ROLLED_BACK = "rolled_back"  # every device that reports has left it
    COMPLETED = "completed"  # its target became the baseline; it may still be taken back
    ABORTED = "aborted"  # a person ended it, or it could not begin; its target is not quarantined


class Event(StrEnum):
    """What can happen to a rollout."""

    # by itself: from time, from the documents, from what devices say
    SCHEDULE = "schedule"
    QUEUE = "queue"
    BEGIN = "start"
    PUBLISHED = "published"  # the signed policy is out
    REPORTED = "reported"  # the first device of the stage has reported
    ALL_OFF = "all_off"  # no device that reports runs its target
    FAIL_TO_BEGIN = "fail_to_begin"
    # by the gate
    ADVANCE = "advance"
    AWAIT_APPROVAL = "await_approval"
    FINISH = "finish"
    HOLD = "hold"
    SLICE_BACK = "slice_back"  # some hardware classes go back, the rest goes on
    ROLL_BACK = "roll_back"
    # by people
    APPROVE = "approve"  # one of the approvals that a stage asks for
    REJECT = "reject"
    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"
    TAKE_BACK = "take_back"  # after it was complete: a person, or a monitor of the model


PENDING = frozenset({State.DRAFT, State.SCHEDULED, State.QUEUED})  # not begun, so not in the policy yet
LIVE = frozenset(
    {State.ADVANCING, State.RUNNING, State.SOAKING, State.HOLDING, State.WAITING_FOR_APPROVAL, State.PAUSED}
)  # in the policy
ENDED = frozenset({State.ROLLED_BACK, State.COMPLETED, State.ABORTED})

_JUDGED = (State.RUNNING, State.SOAKING, State.HOLDING, State.WAITING_FOR_APPROVAL)

NEXT: dict[tuple[State, Event], State] = {
    (State.DRAFT, Event.APPROVE): State.DRAFT,
    (State.DRAFT, Event.REJECT): State.ABORTED,
    **{(state, Event.SCHEDULE): State.SCHEDULED for state in (State.DRAFT, State.QUEUED)},
    **{(state, Event.QUEUE): State.QUEUED for state in (State.DRAFT, State.SCHEDULED)},
    **{(state, Event.BEGIN): State.ADVANCING for state in (State.DRAFT, State.SCHEDULED, State.QUEUED)},
    **{(state, Event.FAIL_TO_BEGIN): State.ABORTED for state in (State.DRAFT, State.SCHEDULED, State.QUEUED)},
    (State.ADVANCING, Event.PUBLISHED): State.RUNNING,
    (State.RUNNING, Event.REPORTED): State.SOAKING,
    **{(state, Event.ADVANCE): State.ADVANCING for state in _JUDGED},
    **{(state, Event.FINISH): State.COMPLETED for state in (State.ADVANCING, *_JUDGED)},
    **{(state, Event.HOLD): State.HOLDING for state in (State.RUNNING, State.SOAKING, State.WAITING_FOR_APPROVAL)},
    **{
        (state, Event.AWAIT_APPROVAL): State.WAITING_FOR_APPROVAL
        for state in (State.RUNNING, State.SOAKING, State.HOLDING)
    },
    (State.WAITING_FOR_APPROVAL, Event.APPROVE): State.WAITING_FOR_APPROVAL,
    (State.WAITING_FOR_APPROVAL, Event.REJECT): State.PAUSED,
    **{(state, Event.PAUSE): State.PAUSED for state in (State.ADVANCING, *_JUDGED)},
    (State.PAUSED, Event.RESUME): State.RUNNING,
    **{(state, Event.SLICE_BACK): state for state in (State.ADVANCING, *_JUDGED, State.PAUSED)},
    **{(state, Event.ROLL_BACK): State.ROLLING_BACK for state in (State.ADVANCING, *_JUDGED, State.PAUSED)},
    **{
        (state, Event.ABORT): State.ABORTED
        for state in (State.DRAFT, State.SCHEDULED, State.QUEUED, State.ADVANCING, *_JUDGED, State.PAUSED)
    },
    (State.COMPLETED, Event.TAKE_BACK): State.ROLLING_BACK,
    (State.ROLLING_BACK, Event.ALL_OFF): State.ROLLED_BACK,
}


# What people may ask a rollout to do, by the command that asks.
COMMANDS = {
    "approve": Event.APPROVE,
    "reject": Event.REJECT,
    "pause": Event.PAUSE,
    "resume": Event.RESUME,
    "finish": Event.FINISH,
    "abort": Event.ABORT,
    "rollback": Event.ROLL_BACK,
}


def transition(state: State, event: Event) -> State:
    """The state after `event`. Raises `IllegalTransition` for a pair that is not in the table."""
    try:
        return NEXT[state, event]
    except KeyError:
        asked = next((command for command, each in COMMANDS.items() if each is event), event.value.replace("_", " "))
        allowed = ", ".join(command for command, each in COMMANDS.items() if (state, each) in NEXT)
        what = f"it takes {allowed}" if allowed else "nothing can be asked of it any more"
        raise IllegalTransition(f"a rollout that is {state.value.replace('_', ' ')} takes no {asked}; {what}") from None
