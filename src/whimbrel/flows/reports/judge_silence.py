"""Devices that were heard, or should have been, and are not: each is asked after as long as it is watched.

1. The first report of a device is due `SILENCE_PERIODS` reports after it activated, heard of or not.
2. From then on every device that is heard is due at each look, one a window. It is overdue at the first look at which
   it is silent for longer than those periods (a minute at least), and for longer than twice its own longest silence so
   far. So a device that is off by night, or reports once a day, is missed once and then expected as it is.
3. A device that was missed is not due again before a report of it *came in after* it was missed: one dead device is one
   event, and a report that lay in a queue meanwhile is no news about the present.
4. Unproven devices are missed among themselves (`proven`).
5. A device whose newest window of the model does not name the cohort has left it, and is not missed there.

Called by the controller for each window, before it judges. Unit: a device at a look.
"""

from collections.abc import Iterable, Iterator

import msgspec

from whimbrel.flows.device_records import SilenceLook
from whimbrel.flows.ports import FleetPort
from whimbrel.flows.records import Comparison
from whimbrel.flows.reports.proven import unproven_name
from whimbrel.health.tally import AGE_EDGES_H, Cell, age_bucket

LEAST_PATIENCE_S = 60.0  # a report's way through a busy server's queue; a rehearsal's periods are shorter than that
SILENCE_PERIODS = 3  # reports or refreshes that a device may miss before it counts as silent, or as out of reach


def judge_silence(fleet: FleetPort, comparison: Comparison, *, report_s: float, now: float) -> int:
    """Tally every device that is due by now, heard or not; returns how many were due."""
    patience_s = SILENCE_PERIODS * report_s
    later = fleet.later_silence(
        comparison.id,
        now=now,
        patience_s=max(LEAST_PATIENCE_S, patience_s),
        age_edges_s=[edge * comparison.hour_s for edge in AGE_EDGES_H],
    )
    first = fleet.first_silence(comparison.id, activated_before=now - patience_s)
    window = comparison.window_at(now)
    age = age_bucket(patience_s, hour_s=comparison.hour_s)
    for name, proven in ((comparison.id, True), (unproven_name(comparison.id), False)):
        first_cells = _first_cells((each for each in first if each.proven is proven), window=window, age=age)
        later_cells = _later_cells((each for each in later if each.proven is proven), window=window)
        fleet.tally(name, [*first_cells, *later_cells])
    return sum(look.due for look in (*first, *later))


def _first_cells(looks: Iterable[SilenceLook], *, window: int, age: int) -> Iterator[Cell]:
    """The cells of devices whose first report was due: each at the age at which it was."""
    return (msgspec.structs.replace(_cell(look, window=window), age_bucket=age) for look in looks)


def _later_cells(looks: Iterable[SilenceLook], *, window: int) -> Iterator[Cell]:
    """The cells of devices that had reported before."""
    for look in looks:
        yield msgspec.structs.replace(_cell(look, window=window), due_again=look.due, overdue_again=look.overdue)


def _cell(look: SilenceLook, *, window: int) -> Cell:
    return Cell(
        stage=look.stage,
        window=window,
        role=look.role,
        hardware_class=look.hardware_class,
        slices=look.slices,
        age_bucket=look.age_bucket,
        due=look.due,
        overdue=look.overdue,
    )
