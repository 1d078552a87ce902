"""Was the version there to show harm: is it heard of lately, is it used, and are its answers labelled as the control's?

1. A report is not exposure, and an old report says nothing of the present. Neither proves anything.
2. Each question compares with the control: what both arms lack is the world's doing, such as a night. Where both arms
   lack all of it nothing is proven, and the stage holds.
3. A share of the treated devices is worse where it is past a tolerance by more than chance: `DEVIATIONS` standard
   errors, with devices as the units. That holds for however alike the windows of one device are.
4. A doubt holds a stage, and goes by itself when devices are heard, used or labelled again; it takes nothing back.

Called by promotion.
"""

import math

from whimbrel.gate.estimates import percent
from whimbrel.gate.ledger import Cohort, Ledger
from whimbrel.gate.verdict import Counts, GateInput
from whimbrel.plan.measures import SHARES, TOLERATED_RATIO
from whimbrel.plan.plan import Plan

DEVIATIONS = 3.0  # standard errors: by chance one look in 740 goes past them
TOLERATED_SILENT = 0.01  # of the devices: this many more than the control's may have fallen silent
LABELS_EXPECTED = 20  # labels that the control's share lets expect, before none of them is a doubt


def exposure_doubt(plan: Plan, now: GateInput, ledger: Ledger) -> str | None:
    """Why what was not seen proves nothing; None where the version was heard, used and labelled as its control."""
    counts = now.counts.get(now.judged, Counts())
    cohort = ledger.cohorts.get(now.judged, Cohort())
    return (
        _silent_doubt(counts)
        or _unused_doubt(plan, now, cohort)
        or _little_use_doubt(plan, counts)
        or _label_doubt(counts, cohort)
    )


def _silent_doubt(counts: Counts) -> str | None:
    """Whether the treated devices that reported are heard no more, more often than the control's."""
    if not counts.silent_t:
        return None
    silent, heard = counts.silent_t, counts.reported_t - counts.silent_t
    control = ""
    if counts.reported_c:
        control = f", and {percent((counts.reported_c - counts.silent_c) / counts.reported_c)} of the control's are"
    sentence = (
        f"only {heard:,} of the {counts.reported_t:,} devices that reported are still heard "
        f"({percent(heard / counts.reported_t)}{control})"
    )
    if heard * 2 < counts.reported_t:
        return f"{sentence}: what is not heard proves nothing, and half must be"
    if counts.reported_c and _is_more(
        silent, counts.reported_t, counts.silent_c, counts.reported_c, tolerated=TOLERATED_SILENT
    ):
        return f"{sentence}: a device that fell silent proves nothing, and may have died of the version"
    return None


def _unused_doubt(plan: Plan, now: GateInput, cohort: Cohort) -> str | None:
    """Whether nobody used the version at all."""
    treated, control = cohort.totals["treated"], cohort.totals["control"]
    windows, windows_c = int(treated["at_risk"]), int(control["at_risk"])
    if not windows or treated["used"]:
        return None
    sentence = (
        f"nobody has used the version: none of the {windows:,} device-windows of stage {plan.stages[now.judged].name} "
        "has a session"
    )
    if control["used"]:
        return f"{sentence}, and {int(control['used']):,} of the control's {windows_c:,} have one, so nothing is proven"
    if windows_c:
        return (
            f"{sentence}, and none of the control's {windows_c:,} either: nobody uses the model, so nothing is proven"
        )
    return f"{sentence}, so nothing is proven"


def _little_use_doubt(plan: Plan, counts: Counts) -> str | None:
    """Whether too few of the devices that reported have used the version: a report alone is no exposure."""
    used, least = counts.reported_t - counts.unused_t, max(plan.min_reports, plan.min_devices)
    if used >= least:
        return None
    return f"{used:,} of the {counts.reported_t:,} devices that reported have used the version, and {least:,} must"


def _label_doubt(counts: Counts, cohort: Cohort) -> str | None:
    """Whether answers are labelled less often than the control's: what is not labelled may be what is wrong."""
    treated, control = cohort.totals["treated"], cohort.totals["control"]
    if not treated["used"] or not control["used"]:
        return None
    for metric in sorted(SHARES):
        labelled, labelled_c = (sums.metrics.get(metric, (0, 0.0))[0] for sums in (treated, control))
        share, share_c = min(1.0, labelled / treated["used"]), min(1.0, labelled_c / control["used"])
        if share * TOLERATED_RATIO >= share_c:
            continue
        expected = share_c * treated["used"]
        stopped = not labelled and expected >= LABELS_EXPECTED
        devices = min(counts.reported_t - counts.unused_t, int(treated["used"]))
        devices_c = min(counts.reported_c or int(control["used"]), int(control["used"]))
        fewer = _is_more(
            (1 - share) * devices,
            devices,
            (1 - share_c / TOLERATED_RATIO) * devices_c,
            devices_c,
            tolerated=0.0,
            ratio=1.0,
        )
        if stopped or fewer:
            return (
                f"{metric} is known of {percent(share)} of the device-windows in use, and of {percent(share_c)} of the "
                "control's: what is not told may be what is wrong"
            )
    return None


def _is_more(
    x_t: float, n_t: float, x_c: float, n_c: float, *, tolerated: float, ratio: float = TOLERATED_RATIO
) -> bool:
    """Whether the share `x_t / n_t` is past the control's, and what is tolerated beyond it, by more than chance.

    Shares as if one device of each kind more had been there (Agresti and Coull): three of three devices say little.
    """
    p_t, p_c = (x_t + 1) / (n_t + 2), (x_c + 1) / (n_c + 2)
    excess = x_t / n_t - ratio * x_c / n_c - tolerated
    error = math.sqrt(p_t * (1 - p_t) / n_t + ratio**2 * p_c * (1 - p_c) / n_c)
    return excess > DEVIATIONS * error
