"""An announcement of a device: one step that it takes, in one cohort or outside of any. (Step 14.)

1. "About to activate" starts the clock that silence is judged by: a device that dies of an update never says more.
2. A claim that contradicts the device's bucket changes no cohort.
3. A device that failed or went back is a setback: the gate looks at once. What it runs then is told by an
   announcement of its own, since this one names the version that was left.
"""

import msgspec

from whimbrel.flows.reports.batch import FleetBatch
from whimbrel.flows.reports.live import LiveComparisons
from whimbrel.flows.reports.place import SETBACKS, Outcome, participation_of, update_participation
from whimbrel.health.report import Announcement, Role, Step

_RUNS_NOW: frozenset[Step] = frozenset({"activated", "committed"})  # `serial` is what the device runs
_STARTS: dict[Role, frozenset[Step]] = {
    "treated": frozenset({"activating", "activated", "shadowing"}),
    "control": frozenset({"placebo"}),
}
_OUTCOMES: dict[Step, Outcome] = {"committed": "committed", "went_back": "went_back", "failed": "failed"}


class AnnouncementResult(msgspec.Struct, frozen=True):
    """Whether an announcement contradicts the device's bucket, and whether the device failed or went back."""

    contradicts: bool = False
    setback: bool = False


def take_announcement(
    live: LiveComparisons, batch: FleetBatch, announcement: Announcement, *, device_id: str, at: float
) -> AnnouncementResult:
    """Write down what is new. `at`: when it was heard."""
    step, stage, role = announcement.step, announcement.stage, announcement.role
    batch.note_heard(device_id, at=at)
    if step in _RUNS_NOW:
        batch.note_running(
            device_id,
            model=announcement.model,
            serial=announcement.serial,
            hardware_class=announcement.hardware_class,
            at=at,
        )
    comparison = live.get(announcement.rollout)
    if comparison is None:
        return AnnouncementResult()
    if not live.believes(comparison, device_id, stage=stage, role=role, places=batch.places(device_id)):
        return AnnouncementResult(contradicts=True)
    slices = live.slices(comparison, announcement.slices)
    outcome = _OUTCOMES.get(step, "")
    participation = participation_of(
        batch,
        comparison,
        stage=stage,
        role=role,
        device_id=device_id,
        hardware_class=announcement.hardware_class,
        slices=slices,
        at=at,
        proven=live.is_proven(comparison, device_id),
    )
    update_participation(
        batch,
        participation,
        hardware_class=announcement.hardware_class,
        slices=slices,
        begun_at=at if step == "begun" and role == "treated" else None,
        activated_at=at if step in _STARTS[role] else None,
        outcome=outcome,
    )
    return AnnouncementResult(setback=outcome in SETBACKS)
