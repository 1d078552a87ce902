"""A device's place in a stage's cohort: when it joined, and what it did since.

1. A device is in a stage's cohort once, from the first message that says so.
2. A report says that the device lives when it comes in. One that came in before the device was missed, and was read
   after, says nothing of the present.
3. What a device did is not undone by what it says later: a failure stays in the denominator.
4. Its hardware class and slices are those that it told first: what it says of itself later may be the version's doing,
   and a device that says something new each time would fill the tally.

Called for every announcement, and for every report that counts in a cohort.
"""

from collections.abc import Collection, Mapping, Set
from typing import Literal

import msgspec

from whimbrel.flows.device_records import Participation
from whimbrel.flows.records import Comparison
from whimbrel.flows.reports.batch import FleetBatch
from whimbrel.health.device_window import DeviceWindow
from whimbrel.health.panel import Value
from whimbrel.health.report import Role

Outcome = Literal["", "committed", "went_back", "failed"]
SETBACKS: frozenset[Outcome] = frozenset({"went_back", "failed"})


def participation_of(
    batch: FleetBatch,
    comparison: Comparison,
    *,
    stage: int,
    role: Role,
    device_id: str,
    hardware_class: str,
    slices: dict[str, str],
    at: float,
    proven: bool = True,
) -> Participation:
    """A device's place as it is written down, or a new place that it has from `at` on. `proven`: in a new place."""
    return batch.participation(comparison.id, stage, device_id) or Participation(
        rollout=comparison.id,
        stage=stage,
        device_id=device_id,
        role=role,
        hardware_class=hardware_class,
        slices=slices,
        assigned_at=at,
        proven=proven,
    )


def update_participation(
    batch: FleetBatch,
    participation: Participation,
    *,
    hardware_class: str,
    slices: dict[str, str],
    begun_at: float | None = None,
    activated_at: float | None = None,
    reported_at: float | None = None,
    used_at: float | None = None,
    shadowed_at: float | None = None,
    outcome: Outcome = "",
    values: Mapping[str, Value] | None = None,
    device_window: DeviceWindow | None = None,
) -> None:
    """Write down what is new. Of each time, the first that was told stays; of `heard_at` the newest."""
    before = participation
    after = msgspec.structs.replace(
        before,
        hardware_class=before.hardware_class or hardware_class,
        slices=before.slices or slices,
        begun_at=before.begun_at if before.begun_at is not None else begun_at,
        activated_at=before.activated_at if before.activated_at is not None else activated_at,
        reported_at=before.reported_at or reported_at,
        shadowed_at=before.shadowed_at or shadowed_at,
        used_at=before.used_at or used_at,
        outcome=before.outcome if before.outcome in SETBACKS else outcome or before.outcome,
        values=before.values if values is None else dict(values),
        device_window=device_window or before.device_window,
    )
    if reported_at is not None:
        after = heard(after, at=reported_at)
    if after != before or reported_at is None:  # a new place that an announcement made is not written down yet
        batch.save_participation(after)


def heard(place: Participation, *, at: float) -> Participation:
    """The place of a device of which a report that counts there came in at `at`."""
    before = place.heard_at if place.heard_at is not None else place.activated_at
    news = place.missed_at is None or at > place.missed_at
    return msgspec.structs.replace(
        place,
        heard_at=at if place.heard_at is None else max(place.heard_at, at),
        gap_s=max(place.gap_s, 0.0 if before is None else at - before),
        hearing="heard" if news else place.hearing,
    )


def note_left(batch: FleetBatch, comparisons: Collection[str], *, device_id: str, named: Set[tuple[str, int]]) -> None:
    """Miss a device no more in cohorts that its newest window does not name; `named`: those that it names.

    `comparisons`: those of the window's model.
    """
    for place in batch.places(device_id):
        if (
            place.hearing in {"heard", "missed"}
            and place.rollout in comparisons
            and (place.rollout, place.stage) not in named
        ):
            batch.save_participation(msgspec.structs.replace(place, hearing="left"))
