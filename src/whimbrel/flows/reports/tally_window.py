"""One window of a device's reports becomes cells of the rollouts and experiments that it counts in. (Step 15.)

1. A claim that contradicts the device's bucket, or the arm that it told first, counts nowhere. A device is in a stage
   once, and treated in one alone.
2. Late or early, a report counts in the window that is open when it is tallied: windows that are over never change. A
   device is one device in it, also when it tells much at once after it was out of reach (`fold_values`).
3. A share outside of 0 to 1 and predictions in the bins of another version are left out.
4. What an unproven device tells is kept apart (`proven`). One that is proven meanwhile counts from its next window on.
5. What was seen of a candidate in the shadow counts where that candidate is tried in the shadow, and nowhere else.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import msgspec

from whimbrel.flows.device_records import Participation
from whimbrel.flows.records import Comparison
from whimbrel.flows.reports.batch import FleetBatch
from whimbrel.flows.reports.fold_values import fold_values
from whimbrel.flows.reports.live import LiveComparisons
from whimbrel.flows.reports.place import note_left, participation_of, update_participation
from whimbrel.flows.reports.proven import unproven_name
from whimbrel.health.device_window import DeviceWindow
from whimbrel.health.report import Cohort, Summary, Window
from whimbrel.health.shadow import ShadowSums
from whimbrel.health.tally import Cell, age_bucket
from whimbrel.plan.measures import SHARES


class WindowTally(msgspec.Struct, frozen=True):
    """The cells of one window, by the name of their tally, and how many claims contradict the device's bucket."""

    cells: dict[str, list[Cell]]
    contradictions: int


def tally_window(
    live: LiveComparisons, batch: FleetBatch, window: Window, *, device_id: str, chance: int, at: float, now: float
) -> WindowTally:
    """Place the device in its cohorts and return the cells. `at`: when the report was heard; `now`: of the tally.

    `chance`: 64 bits that draw the session that stands for the latencies.
    """
    believed: dict[str, list[Cohort]] = defaultdict(list)
    contradictions = 0
    for cohort in window.cohorts:
        comparison = live.get(cohort.rollout)
        if comparison is None:
            continue  # it ended meanwhile
        by_label = comparison.bucket_label is not None
        twice = any(
            other.stage == cohort.stage
            or other.role == cohort.role == "treated"
            or (by_label and other.role != cohort.role)
            for other in believed[comparison.id]
        )
        if twice or not live.believes(
            comparison, device_id, stage=cohort.stage, role=cohort.role, places=batch.places(device_id)
        ):
            contradictions += 1
        else:
            believed[comparison.id].append(cohort)
    cells: dict[str, list[Cell]] = defaultdict(list)
    for identifier, cohorts in believed.items():
        comparison = live.get(identifier)
        if comparison is None:
            continue
        for proven, cell in _cells(
            live, batch, comparison, window, cohorts, device_id=device_id, chance=chance, at=at, now=now
        ):
            cells[identifier if proven else unproven_name(identifier)].append(cell)
    # A device whose person changed tells another arm than before: it has left the first one, and is not missed there.
    named = {
        (each.rollout, each.stage)
        for each in window.cohorts
        if (comparison := live.get(each.rollout)) is None
        or comparison.bucket_label is None
        or each in believed[comparison.id]
    }
    note_left(batch, live.of_model(window.model), device_id=device_id, named=named)
    return WindowTally(cells, contradictions)


def _cells(
    live: LiveComparisons,
    batch: FleetBatch,
    comparison: Comparison,
    window: Window,
    cohorts: Sequence[Cohort],
    *,
    device_id: str,
    chance: int,
    at: float,
    now: float,
) -> Iterator[tuple[bool, Cell]]:
    """The cells of a comparison, each with whether the device is proven in it."""
    slices = live.slices(comparison, window.slices)
    counted = msgspec.structs.replace(
        window,
        metrics=_credible_metrics(window),
        predictions=_comparable_predictions(live, comparison, window, cohorts),
    )
    for cohort in cohorts:
        participation = participation_of(
            batch,
            comparison,
            stage=cohort.stage,
            role=cohort.role,
            device_id=device_id,
            hardware_class=window.hardware_class,
            slices=slices,
            at=at,
            proven=live.is_proven(comparison, device_id),
        )
        participation = _weighed(live, comparison, participation, now=now)
        shadow = _shadow_of(comparison, window, cohort)
        folded = fold_values(
            participation.values,
            participation.device_window,
            DeviceWindow(
                window=comparison.window_at(now),
                role=cohort.role,
                age_bucket=age_bucket(cohort.age_s, hour_s=comparison.hour_s),
                hardware_class=participation.hardware_class or window.hardware_class,
                slices=participation.slices or slices,
            ),
            msgspec.structs.replace(counted, shadow=shadow),
            stage=cohort.stage,
            chance=chance,
            tested=live.tested_metrics(comparison),
            levels=live.levels(comparison),
            known_means=cohort.before,
        )
        update_participation(
            batch,
            participation,
            hardware_class=window.hardware_class,
            slices=slices,
            activated_at=at - cohort.age_s,
            reported_at=at,
            used_at=at if window.used else None,
            shadowed_at=at if shadow is not None and shadow.inputs else None,
            values=folded.values if folded is not None else None,
            device_window=folded.device_window if folded is not None else None,
        )
        if folded is not None:
            yield participation.proven, folded.cell


def _weighed(
    live: LiveComparisons, comparison: Comparison, participation: Participation, *, now: float
) -> Participation:
    """The place, proven where its device is by now. A window that was begun apart ends apart."""
    begun = participation.device_window
    if participation.proven or (begun is not None and begun.window == comparison.window_at(now)):
        return participation
    return msgspec.structs.replace(participation, proven=live.is_proven(comparison, participation.device_id))


def _credible_metrics(window: Window) -> dict[str, Summary]:
    """Without means of shares that no share can have."""
    return {
        name: metric
        for name, metric in window.metrics.items()
        if name not in SHARES or not metric.n or 0 <= metric.sum / metric.n <= 1
    }


def _comparable_predictions(
    live: LiveComparisons, comparison: Comparison, window: Window, cohorts: Sequence[Cohort]
) -> dict[int, int]:
    """Predictions in the bins of the reference that the device's arm is judged by.

    A device that went back to the baseline is counted in its arm, and sorts its predictions as the baseline does.
    """
    serial, serials = window.serial, {comparison.serial_of(cohort.role, cohort.stage) for cohort in cohorts}
    if not window.predictions or serial is None or serials != {serial}:
        return {}
    bins = live.prediction_bins(comparison.model, serial)
    return {key: count for key, count in window.predictions.items() if key < bins}


def _shadow_of(comparison: Comparison, window: Window, cohort: Cohort) -> ShadowSums | None:
    """What a window says of the candidate that this cohort tries in the shadow; None where it is about another."""
    shadow = window.shadow
    if shadow is None or cohort.role != "treated" or shadow.serial != comparison.shadow_serial(cohort.stage):
        return None
    return shadow
