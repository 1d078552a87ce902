"""One window of a device's reports becomes cells of the rollouts and experiments that it counts in. (Step 15.)

1. A claim that contradicts the device's bucket counts nowhere. A device is in a stage once, and treated in one alone.
2. Late or early, a report counts in the window that is open when it is tallied: windows that are over never change.
3. A share outside of 0 to 1 and predictions in the bins of another version are left out.
4. What was seen of a candidate in the shadow counts where that candidate is tried in the shadow, and nowhere else.
"""

from collections import defaultdict
from collections.abc import Sequence

import msgspec

from whimbrel.flows.records import Comparison
from whimbrel.flows.reports.batch import FleetBatch
from whimbrel.flows.reports.fold_values import FoldedValues, fold_values
from whimbrel.flows.reports.live import LiveComparisons
from whimbrel.flows.reports.place import note_left, participation_of, update_participation
from whimbrel.health.report import Cohort, Summary, Window
from whimbrel.health.shadow import ShadowSums
from whimbrel.health.tally import Cell, cells_of
from whimbrel.plan.measures import SHARES


class WindowTally(msgspec.Struct, frozen=True):
    """The cells of one window, by rollout or experiment, and how many of its claims contradict the device's bucket."""

    cells: dict[str, list[Cell]]
    contradictions: int


def tally_window(
    live: LiveComparisons, batch: FleetBatch, window: Window, *, device_id: str, at: float, now: float
) -> WindowTally:
    """Place the device in its cohorts and return the cells. `at`: when the report was heard; `now`: of the tally."""
    believed: dict[str, list[Cohort]] = defaultdict(list)
    contradictions = 0
    for cohort in window.cohorts:
        comparison = live.get(cohort.rollout)
        if comparison is None:
            continue  # it ended meanwhile
        twice = any(
            other.stage == cohort.stage or other.role == cohort.role == "treated" for other in believed[comparison.id]
        )
        if twice or not live.believes(comparison, device_id, stage=cohort.stage, role=cohort.role):
            contradictions += 1
        else:
            believed[comparison.id].append(cohort)
    cells = {}
    for identifier, cohorts in believed.items():
        comparison = live.get(identifier)
        if comparison is not None and cohorts:
            cells[identifier] = _cells(live, batch, comparison, window, cohorts, device_id=device_id, at=at, now=now)
    named = {(each.rollout, each.stage) for each in window.cohorts}
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
    at: float,
    now: float,
) -> list[Cell]:
    slices = live.slices(comparison, window.slices)
    tested, compared = _tested_means(live, comparison, window), _compared_means(live, comparison, window)
    folded: dict[int, FoldedValues] = {}
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
        )
        values = fold_values(
            participation.values,
            tested=tested,
            compared=compared,
            compared_metrics=comparison.compared_metrics,
            known_means=cohort.before,
        )
        shadow = _shadow_of(comparison, window, cohort)
        update_participation(
            batch,
            participation,
            hardware_class=window.hardware_class,
            slices=slices,
            activated_at=at - cohort.age_s,
            reported_at=at,
            used_at=at if window.used else None,
            shadowed_at=at if shadow is not None and shadow.inputs else None,
            values=values.values,
        )
        folded[cohort.stage] = values
    counted = msgspec.structs.replace(
        window,
        cohorts=tuple(cohorts),
        slices=slices,
        shadow=next((shadow for each in cohorts if (shadow := _shadow_of(comparison, window, each))), None),
        metrics=_credible_metrics(window),
        predictions=_comparable_predictions(live, comparison, window, cohorts),
    )
    return cells_of(
        counted,
        rollout=comparison.id,
        window=comparison.window_at(now),
        hour_s=comparison.hour_s,
        changes={stage: values.panels for stage, values in folded.items()},
        pairs={stage: values.pairs for stage, values in folded.items()},
    )


def _tested_means(live: LiveComparisons, comparison: Comparison, window: Window) -> dict[str, float]:
    """The window's means of the metrics that a gate tests."""
    means = {name: metric.sum / metric.n for name, metric in _credible_metrics(window).items() if metric.n}
    return {name: means[name] for name in sorted(live.tested_metrics(comparison) & means.keys())}


def _compared_means(live: LiveComparisons, comparison: Comparison, window: Window) -> dict[str, float]:
    """The window's means of the metrics that are compared, less the control's level; none before there is a level."""
    levels = live.levels(comparison)
    means = window.means() if levels else {}
    return {metric: means[metric] - level for metric, level in levels.items() if metric in means}


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
