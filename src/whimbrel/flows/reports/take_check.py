"""A client that cannot decide asked what to run: it follows the models that it named, and runs what it said.

1. Only models that there are count: a client cannot fill the inventory with names.
2. A check adds to what a device follows and drops nothing: such a client may ask after one model at a time.
3. What is known already is written again only when it is old, so that most checks write nothing.

Called for every check of the device API.
"""

from collections.abc import Mapping

from whimbrel.flows.device_records import HeardDevice, RunningVersion
from whimbrel.flows.ports import FleetPort
from whimbrel.policy.policy import PERIOD_S, Policy
from whimbrel.trust.enrolment import Check


def take_check(
    fleet: FleetPort, check: Check, policies: Mapping[str, Policy | None], *, device_id: str, now: float
) -> None:
    """Write down what is new in a check. `policies`: by the models that it names; None where there is no such model."""
    known = fleet.running_of(device_id)
    fresh = []
    for model, policy in policies.items():
        if policy is None:
            continue
        hardware_class, _ = policy.reported_labels(check.labels)
        row = RunningVersion(
            device_id=device_id, model=model, serial=check.models[model], hardware_class=hardware_class, at=now
        )
        if not _is_known(row, known.get(model)):
            fresh.append(row)
    if fresh:
        fleet.note_running(*fresh)
        fleet.note_heard(HeardDevice(device_id=device_id, at=now))


def _is_known(row: RunningVersion, before: RunningVersion | None) -> bool:
    if before is None or row.at >= before.at + PERIOD_S:
        return False
    return (row.serial, row.hardware_class) == (before.serial, before.hardware_class)
