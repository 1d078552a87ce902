"""How does one model move on a device? The table of states and events; any other pair is refused and changes nothing.

1. `idle`, `committed` and `quarantined` are at rest: nothing is under way, and the active slot is the committed one.
2. From `offered` to `ready` and `shadowing` the active slot is not touched, so a withdrawal costs nothing.
3. `on trial` and `going back` are about the active slot; only they lead to a swap.

Called by `step`; the diagram in docs/explain/agent.md is generated from the table.
"""

from enum import StrEnum

from whimbrel.device import events
from whimbrel.errors import IllegalTransition


class State(StrEnum):
    """Where a model stands on this device."""

    IDLE = "idle"  # nothing was tried yet, or a try was withdrawn
    OFFERED = "offered"  # a version was decided on; it waits for its conditions
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"  # all bytes are here; they are hashed and put into the inactive slot
    STAGED = "staged"
    PROBING = "probing"
    READY = "ready"  # it waits for a fresh policy and for the end of all sessions
    SHADOWING = "shadowing"  # apps try it beside the active version; it answers nobody
    ON_TRIAL = "on trial"  # active, not yet committed
    COMMITTED = "committed"
    GOING_BACK = "going back"  # the other slot is about to be active again
    QUARANTINED = "quarantined"  # the version that was tried is refused here; the active slot is the one before


NEXT: dict[tuple[State, type[events.Event]], State] = {
    (State.IDLE, events.Offered): State.OFFERED,
    (State.IDLE, events.Recalled): State.GOING_BACK,
    (State.IDLE, events.LeftByItself): State.GOING_BACK,
    (State.OFFERED, events.Begun): State.DOWNLOADING,
    (State.OFFERED, events.Withdrawn): State.IDLE,
    (State.DOWNLOADING, events.Fetched): State.VERIFYING,
    (State.DOWNLOADING, events.Corrupt): State.OFFERED,
    (State.DOWNLOADING, events.Withdrawn): State.IDLE,
    (State.VERIFYING, events.Staged): State.STAGED,
    (State.VERIFYING, events.Corrupt): State.OFFERED,
    (State.VERIFYING, events.InstallFailed): State.QUARANTINED,
    (State.VERIFYING, events.Withdrawn): State.IDLE,
    (State.STAGED, events.ProbeBegun): State.PROBING,
    (State.STAGED, events.InstallFailed): State.QUARANTINED,
    (State.STAGED, events.Corrupt): State.OFFERED,
    (State.STAGED, events.Withdrawn): State.IDLE,
    (State.PROBING, events.ProbePassed): State.READY,
    (State.PROBING, events.ProbeFailed): State.QUARANTINED,
    (State.PROBING, events.Restarted): State.STAGED,
    (State.PROBING, events.Withdrawn): State.IDLE,
    (State.READY, events.Activated): State.ON_TRIAL,
    (State.READY, events.Corrupt): State.OFFERED,
    (State.READY, events.Withdrawn): State.IDLE,
    (State.READY, events.ShadowBegun): State.SHADOWING,
    (State.SHADOWING, events.ShadowSeen): State.SHADOWING,
    (State.SHADOWING, events.ShadowFailed): State.QUARANTINED,
    (State.SHADOWING, events.ShadowEnded): State.READY,
    (State.SHADOWING, events.Corrupt): State.OFFERED,
    (State.SHADOWING, events.Withdrawn): State.IDLE,
    (State.ON_TRIAL, events.SessionsSeen): State.ON_TRIAL,
    (State.ON_TRIAL, events.TrialPassed): State.COMMITTED,
    (State.ON_TRIAL, events.TrialFailed): State.GOING_BACK,
    (State.ON_TRIAL, events.Recalled): State.GOING_BACK,
    (State.ON_TRIAL, events.LeftByItself): State.GOING_BACK,
    (State.ON_TRIAL, events.Offered): State.OFFERED,
    (State.COMMITTED, events.Offered): State.OFFERED,
    (State.COMMITTED, events.Recalled): State.GOING_BACK,
    (State.COMMITTED, events.LeftByItself): State.GOING_BACK,
    (State.GOING_BACK, events.WentBack): State.QUARANTINED,
    (State.GOING_BACK, events.Returned): State.COMMITTED,
    (State.GOING_BACK, events.Emptied): State.IDLE,
    (State.GOING_BACK, events.FallbackLost): State.IDLE,
    (State.QUARANTINED, events.Offered): State.OFFERED,
    (State.QUARANTINED, events.Recalled): State.GOING_BACK,
    (State.QUARANTINED, events.LeftByItself): State.GOING_BACK,
}

RESTING = frozenset({State.IDLE, State.COMMITTED, State.QUARANTINED})
PREPARING = frozenset(
    {
        State.OFFERED,
        State.DOWNLOADING,
        State.VERIFYING,
        State.STAGED,
        State.PROBING,
        State.READY,
        State.SHADOWING,
    }
)


def transition(state: State, event: events.Event) -> State:
    """The state after `event`. Raises `IllegalTransition` for a pair that is not in the table."""
    try:
        return NEXT[state, type(event)]
    except KeyError:
        allowed = ", ".join(sorted(kind.__name__ for before, kind in NEXT if before is state)) or "nothing"
        raise IllegalTransition(
            f"a model that is {state.value} cannot take {type(event).__name__}; it can take: {allowed}"
        ) from None
