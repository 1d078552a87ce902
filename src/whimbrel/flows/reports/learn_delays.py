"""Learn how long the treated devices of a rollout or experiment take, and keep it for the policy.

1. It is looked at with every window, and written only when it moved so far that it matters (`delays.differs`): each
   change is a new policy for the whole fleet.
2. A bounded sample: the devices of each stage that began first. They are not chosen by how long they take.
3. A device that failed is left out here; it stays among those assigned.
4. A hardware class that takes its own time has its own table. All arms of an experiment share them, since they share
   their controls. Where no device fetches anything (an A/A experiment) there is nothing to learn.
"""

from typing import Protocol, TypeVar

import msgspec

from whimbrel import limits
from whimbrel.flows.ports import FleetPort
from whimbrel.flows.records import Comparison, ExperimentRecord, RolloutRecord
from whimbrel.policy.delays import ActivationWait, DelayTables, differ, estimate_by_class, longest_wait_s

ComparisonT = TypeVar("ComparisonT", RolloutRecord, ExperimentRecord)
RecordT_contra = TypeVar("RecordT_contra", contravariant=True)


class Save(Protocol[RecordT_contra]):
    """Store a changed record: `RegistryPort.save_rollout` or `ExperimentsPort.save`."""

    def __call__(self, after: RecordT_contra, /, *, before: RecordT_contra) -> None: ...


def learn_delays(fleet: FleetPort, comparison: ComparisonT, *, save: Save[ComparisonT], now: float) -> ComparisonT:
    """The record as it is stored now. Raises `Conflict` where somebody changed it meanwhile."""
    if not comparison.learns_delays:
        return comparison
    tables = _tables(fleet, comparison, now=now)
    before = DelayTables(comparison.delays, comparison.delays_by_class)
    if not differ(before, tables, hour_s=comparison.hour_s):
        return comparison
    after = msgspec.structs.replace(comparison, delays=tables.pooled, delays_by_class=dict(tables.by_class))
    save(after, before=comparison)
    return after


def _tables(fleet: FleetPort, comparison: Comparison, *, now: float) -> DelayTables:
    waits = [
        ActivationWait((now if activated_at is None else activated_at) - begun_at, activated_at is not None, of_class)
        for begun_at, activated_at, of_class in fleet.begun(comparison.id, a_stage=limits.DELAY_SAMPLE)
    ]
    return estimate_by_class(waits, longest_s=longest_wait_s(comparison.hour_s), hour_s=comparison.hour_s)
