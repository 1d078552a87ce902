"""The states of an experiment. The table of states and events; any other pair is refused and changes nothing."""

from enum import StrEnum

from whimbrel.errors import IllegalTransition


class Phase(StrEnum):
    """The state of an experiment."""

    RUNNING = "running"  # its arms report, and the gate judges it after every window
    SHIPPED = "shipped"  # an arm is better, and what follows was begun
    KEPT = "kept"  # the control stays: no arm is better
    INCONCLUSIVE = "inconclusive"  # its time is over, and nothing was decided
    STOPPED = "stopped"  # a person ended it


class Act(StrEnum):
    """What can happen to an experiment."""

    STOP_ARM = "stop_arm"  # proven harm: the arm's devices return, the others go on
    STOP_SLICE = "stop_slice"  # proven harm in some slices alone: their devices return, the arm's others go on
    SHIP = "ship"
    KEEP = "keep"
    END = "end"
    STOP = "stop"


NEXT = {
    (Phase.RUNNING, Act.STOP_ARM): Phase.RUNNING,
    (Phase.RUNNING, Act.STOP_SLICE): Phase.RUNNING,
    (Phase.RUNNING, Act.SHIP): Phase.SHIPPED,
    (Phase.RUNNING, Act.KEEP): Phase.KEPT,
    (Phase.RUNNING, Act.END): Phase.INCONCLUSIVE,
    (Phase.RUNNING, Act.STOP): Phase.STOPPED,
}


def after(phase: Phase, act: Act) -> Phase:
    """The phase after `act`. Raises `IllegalTransition` for a pair that is not in the table."""
    try:
        return NEXT[phase, act]
    except KeyError:
        raise IllegalTransition(
            f"an experiment that is {phase.value} is over: it cannot {act.value.replace('_', ' ')}; start a new one"
        ) from None
