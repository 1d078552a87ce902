"""Devices that activated and were not heard of since: each is asked after once, when its first report is due.

Called by the controller, before it judges. Unit: an activated device.
"""

import msgspec

from whimbrel.flows.ports import FleetPort
from whimbrel.flows.records import Comparison
from whimbrel.health.tally import Cell, age_bucket

SILENCE_PERIODS = 3  # reports or refreshes that a device may miss before it counts as silent, or as out of reach


def judge_silence(fleet: FleetPort, comparison: Comparison, *, report_s: float, now: float) -> int:
    """Tally every device whose first report is due by now, heard or not; returns how many there were."""
    deadline_s = SILENCE_PERIODS * report_s
    due = fleet.due(comparison.id, activated_before=now - deadline_s)
    window = comparison.window_at(now)
    fleet.tally(
        comparison.id,
        [
            Cell(
                stage=entry.stage,
                window=window,
                role=entry.role,
                hardware_class=entry.hardware_class,
                slices=entry.slices,
                age_bucket=age_bucket(deadline_s, hour_s=comparison.hour_s),
                due=1,
                overdue=0 if entry.reported_at is not None else 1,
            )
            for entry in due
        ],
    )
    fleet.save_participation(*(msgspec.structs.replace(entry, silence_judged=True) for entry in due))
    return len(due)
