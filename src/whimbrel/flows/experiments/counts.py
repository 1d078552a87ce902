"""How many devices has each arm of an experiment, by how far they came?

1. A control device has taken its placebo where a treated one has activated its version.
2. Controls are counted in the stage of any live arm: all of them are in it. They install nothing, so none fails.

Called by the admin API.
"""

from collections.abc import Mapping

import msgspec

from whimbrel.flows.records import ExperimentRecord
from whimbrel.gate.verdict import Counts


class ArmCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Distinct devices of one arm. `failed`: could not install, or went back by themselves."""

    assigned: int
    active: int
    reported: int
    failed: int


def counts_by_arm(record: ExperimentRecord, counts: Mapping[int, Counts]) -> dict[str, ArmCounts]:
    """The devices of every variant, the control among them. `counts`: by the treated arm's place."""
    of_control = counts.get(record.control_stage, Counts())
    arms = {
        record.plan.control_id: ArmCounts(
            assigned=of_control.assigned_c, active=of_control.placebo_c, reported=of_control.reported_c, failed=0
        )
    }
    for place, variant in enumerate(record.plan.treated):
        of_arm = counts.get(place, Counts())
        arms[variant.id] = ArmCounts(
            assigned=of_arm.assigned_t,
            active=of_arm.activated_t,
            reported=of_arm.reported_t,
            failed=of_arm.failed_t + of_arm.went_back_t,
        )
    return arms
