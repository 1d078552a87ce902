"""How long do the treated devices of a rollout or experiment take? What the policy tells its controls is kept.

1. It is looked at with every window, and written only when it moved so far that it matters (`delays.differs`): each
   change is a new policy for the whole fleet.
2. A bounded sample: the devices of each stage that began first. They are not chosen by how long they take.
3. A device that failed is left out here; it stays among those assigned.
"""

import msgspec

from whimbrel import limits
from whimbrel.flows.ports import ExperimentsPort, FleetPort, RegistryPort
from whimbrel.flows.records import ExperimentRecord, RolloutRecord
from whimbrel.policy.delays import Wait, differs, estimate_delays, longest_wait_s


def learn_delays(registry: RegistryPort, fleet: FleetPort, rollout: RolloutRecord, *, now: float) -> RolloutRecord:
    """The rollout as it is stored now. Raises `Conflict` where somebody moved it meanwhile."""
    table = _table(fleet, rollout, now=now)
    if not differs(rollout.delays, table, hour_s=rollout.hour_s):
        return rollout
    after = msgspec.structs.replace(rollout, delays=table)
    registry.save_rollout(after, before=rollout)
    return after


def learn_arm_delays(
    experiments: ExperimentsPort, fleet: FleetPort, experiment: ExperimentRecord, *, now: float
) -> ExperimentRecord:
    """The experiment as it is stored now; all arms share one table, since they share their controls.

    Raises `Conflict` where somebody ended it meanwhile.
    """
    if not experiment.delays:
        return experiment
    table = _table(fleet, experiment, now=now)
    if not differs(experiment.delays, table, hour_s=experiment.hour_s):
        return experiment
    after = msgspec.structs.replace(experiment, delays=table)
    experiments.save(after, before=experiment)
    return after


def _table(fleet: FleetPort, trial: RolloutRecord | ExperimentRecord, *, now: float) -> tuple[float, ...]:
    waited = [
        Wait((now if activated_at is None else activated_at) - begun_at, activated_at is not None)
        for begun_at, activated_at in fleet.begun(trial.id, a_stage=limits.DELAY_SAMPLE)
    ]
    return estimate_delays(waited, longest_s=longest_wait_s(trial.hour_s))
