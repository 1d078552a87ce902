"""What happens to a rollout by itself? From time, from the signed documents, and from what devices say.

1. One that is scheduled or queued begins when its turn comes; one that may not begin then ends, with the reason.
2. A stage that was decided runs when the signed policy that says so is out, and soaks when the first of its devices has
   reported.
3. One that goes back has gone back when the policy is out and no device that is heard from runs its target. A device
   that was silent for three of its periods is not waited for: it goes back when it hears of it.
4. One that people approved enters its stage, as soon as no freeze holds.

Level-triggered: called for every rollout that has not ended, as often as one likes. Each call is one move at most.
"""

import msgspec

from whimbrel import limits
from whimbrel.errors import Refused
from whimbrel.flows.audit import audit
from whimbrel.flows.ports import FleetPort, RegistryPort
from whimbrel.flows.records import RolloutRecord
from whimbrel.flows.reports.judge_silence import SILENCE_PERIODS
from whimbrel.flows.rollouts.approve import go_on
from whimbrel.flows.rollouts.rollout_set import save_set, set_of
from whimbrel.flows.rollouts.start import begin_or_wait
from whimbrel.plan.rehearsal import rehearsed_s
from whimbrel.plan.rollout_states import Event, State, transition

_BY_ITSELF = "controller"
MOVES_BY_ITSELF = frozenset(
    {
        State.SCHEDULED,
        State.QUEUED,
        State.ADVANCING,
        State.RUNNING,
        State.WAITING_FOR_APPROVAL,
        State.ROLLING_BACK,
    }
)


def follow(
    registry: RegistryPort, fleet: FleetPort, rollout: RolloutRecord, *, published: bool, now: float
) -> RolloutRecord:
    """The rollout after what follows by itself. `published`: the signed policies of its set say what the rows say."""
    if rollout.lead:
        return rollout  # it moves with its lead
    match rollout.state:
        case State.SCHEDULED | State.QUEUED:
            return _try_to_begin(registry, fleet, rollout, now=now)
        case State.ADVANCING if published:
            return _note_transition(registry, rollout, Event.PUBLISHED, now=now)
        case State.RUNNING if fleet.has_reported(rollout.id, stage=rollout.stage):
            return _note_transition(registry, rollout, Event.REPORTED, now=now)
        case State.WAITING_FOR_APPROVAL:
            return go_on(registry, fleet, rollout, actor=_BY_ITSELF, now=now) or rollout
        case State.ROLLING_BACK if published and not devices_left(registry, fleet, rollout, now=now):
            because = f"{rollout.because}; every device that was heard from is off it"
            after = _note_transition(registry, rollout, Event.ALL_OFF, now=now, because=because)
            evidence: dict[str, object] = {"took_s": round(now - rollout.state_since, 3)}
            audit(registry, after, actor=_BY_ITSELF, action="rolled_back", because=because, now=now, evidence=evidence)
            return after
    return rollout


def devices_left(registry: RegistryPort, fleet: FleetPort, rollout: RolloutRecord, *, now: float) -> int:
    """Devices in reach that still run the target of a rollout that goes back; of a set, the most of any member.

    A member whose target is the baseline did not go back: nothing ran before it.
    """
    left = [each for each in set_of(registry, rollout) if registry.model(each.model).baseline != each.target]
    return max((_devices_left(registry, fleet, each, now=now) for each in left), default=0)


def _devices_left(registry: RegistryPort, fleet: FleetPort, rollout: RolloutRecord, *, now: float) -> int:
    settings = registry.model(rollout.model).settings
    rehearsed = rehearsed_s(settings.refresh_s, hour_s=rollout.hour_s)
    refresh_s = max(rehearsed, min(settings.refresh_s, limits.REHEARSED_REACH_S))  # a busy desk is not out of reach
    reach_s = SILENCE_PERIODS * max(refresh_s, min(settings.report_s, rollout.window_s))
    return fleet.still_on(rollout.model, rollout.target, heard_since=now - reach_s)


def _try_to_begin(registry: RegistryPort, fleet: FleetPort, rollout: RolloutRecord, *, now: float) -> RolloutRecord:
    schedule = rollout.plan.schedule
    if rollout.state is State.SCHEDULED and schedule is not None and schedule.at() > now:
        return rollout
    try:
        return begin_or_wait(registry, fleet, rollout, actor=_BY_ITSELF, now=now)
    except Refused as error:
        because = f"it could not begin: {error}"
        after = msgspec.structs.replace(
            rollout,
            state=transition(rollout.state, Event.FAIL_TO_BEGIN),
            state_since=now,
            because=because,
            ended_at=now,
        )
        registry.save_rollout(after, before=rollout)
        audit(registry, after, actor=_BY_ITSELF, action=Event.FAIL_TO_BEGIN.value, because=because, now=now)
        return after


def _note_transition(
    registry: RegistryPort, rollout: RolloutRecord, event: Event, *, now: float, because: str = ""
) -> RolloutRecord:
    """A transition that nobody decided: it is written down in the row alone."""
    state = transition(rollout.state, event)
    after = msgspec.structs.replace(rollout, state=state, state_since=now, because=because or rollout.because)
    save_set(registry, after, before=rollout)
    return after
