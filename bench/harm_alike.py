"""Kinds of large fleets whose devices are alike, so that counts stand for them: late harm, unlike waits, go-backs.

1. Late harm: 10,000 treated devices of 200,000, crashes twice as many from some hour on; how long until they go back?
2. The edge: crashes at 1.1 of the control's, which is what is tolerated, for two days. Nothing may be found more often
   than the budget says.
3. Waits: hardware that takes the version late crashes more, or less, than hardware that takes it soon. A placebo waits
   as its own class does, or, where no class is known, as all devices together; in neither is anything wrong.
4. The kill switch: some devices go back by themselves whatever the version; or half of them do.
"""

import functools
import itertools
import math
from collections.abc import Iterator

import msgspec
import numpy as np

from harm_rows import FALSE_ALARMS, HOUR, Kind, Outcome, canary, replay
from harm_streams import EDGES, SESSIONS
from whimbrel.gate.kill_switch import kill_switch
from whimbrel.gate.verdict import Counts
from whimbrel.health.tally import Cell, age_bucket

TREATED, CONTROLS = 10_000, 190_000
CRASH = 0.01
LATE_HOURS = 72
ONSETS_H = {0.0: 20.0, 4.5: 100.0, 13.5: 100.0, 25.5: 100.0, 49.5: 100.0}  # and the minutes until it must be found


# --- late harm ---


def _late(seed: int, *, ratio: float, onset: int, windows: int) -> Outcome:
    return replay(canary(LATE_HOURS), _late_cells(seed, ratio=ratio, onset=onset, windows=windows))


def _late_cells(seed: int, *, ratio: float, onset: int, windows: int) -> Iterator[Cell]:
    draw = np.random.default_rng(seed)
    for window in range(windows):
        for role, devices in (("treated", TREATED), ("control", CONTROLS)):
            rate = CRASH * (ratio if role == "treated" and window >= onset else 1.0)
            at_risk = int(draw.poisson(devices * SESSIONS))
            yield Cell(
                stage=0,
                window=window,
                role=role,  # type: ignore[arg-type]
                age_bucket=age_bucket((window + 0.5) * 300, hour_s=3600.0),
                at_risk=at_risk,
                sessions=at_risk,
                crashed=int(draw.binomial(at_risk, rate)),
            )


# --- waits that differ by class ---


class Waits(msgspec.Struct, frozen=True):
    """Classes of hardware: the share of the fleet, the hours until the version is in, and the crashes beside 1%."""

    classes: tuple[tuple[float, float, float], ...]


WAITS = {
    "far": Waits(((0.3, 0.5, 2.4), (0.7, 5.0, 0.4))),
    "middle": Waits(((0.5, 1.0, 1.4), (0.5, 4.0, 0.6))),
    "near": Waits(((0.5, 80 / 60, 1.25), (0.5, 3.0, 0.75))),
}
WAIT_HOURS = 12


def _waits(seed: int, *, waits: Waits, by_class: bool) -> Outcome:
    return replay(canary(WAIT_HOURS), _wait_cells(seed, waits=waits, by_class=by_class))


def _wait_cells(seed: int, *, waits: Waits, by_class: bool) -> Iterator[Cell]:
    draw = np.random.default_rng(seed)
    for window in range(WAIT_HOURS * HOUR):
        for role, devices in (("treated", TREATED), ("control", CONTROLS)):
            for index, (share, hours, crashes) in enumerate(waits.classes):
                own = [(1.0, hours)]
                everyone = [(each[0], each[1]) for each in waits.classes]
                mixture = own if role == "treated" or by_class else everyone
                for age, part in enumerate(_ages(window + 0.5, mixture)):
                    at_risk = int(draw.poisson(devices * share * part * SESSIONS))
                    if at_risk:
                        yield Cell(
                            stage=0,
                            window=window,
                            role=role,  # type: ignore[arg-type]
                            hardware_class=f"class-{index:02d}",
                            age_bucket=age,
                            at_risk=at_risk,
                            sessions=at_risk,
                            crashed=int(draw.binomial(at_risk, CRASH * crashes)),
                        )


def _ages(elapsed: float, mixture: list[tuple[float, float]]) -> list[float]:
    """The share of a class in each age group; waits are exponential, with the mixture's means in hours."""

    def installed(windows: float) -> float:
        if windows <= 0:
            return 0.0
        return sum(share * (1 - math.exp(-windows / (hours * HOUR))) for share, hours in mixture)

    edges = [0.0, *EDGES, math.inf]
    return [installed(elapsed - low) - installed(elapsed - high) for low, high in itertools.pairwise(edges)]


# --- the kill switch ---

ACTIVATED = 1000


def _switch(seed: int, *, natural: float) -> Outcome:
    """Devices activate one after another, and each goes back at once or never; the switch is asked after each."""
    gone = 0
    for tried, refuses in enumerate(np.random.default_rng(seed).random(ACTIVATED) < natural, start=1):
        if refuses:
            gone += 1
            if _stopped(gone, tried):
                return Outcome(move="roll_back", back=0, value=float(tried))
    return Outcome(move="wait")


@functools.cache
def _stopped(gone: int, tried: int) -> bool:
    return kill_switch(Counts(assigned_t=ACTIVATED, activated_t=tried, went_back_t=gone), natural=None) is not None


KINDS = (
    *(
        Kind(
            name=f"late_{hours:g}h",
            says=f"crashes x2 from hour {hours:g} on: minutes until it goes back",
            play=functools.partial(_late, ratio=2.0, onset=int(hours * HOUR), windows=int(hours * HOUR) + 15 * HOUR),
            measure="minutes_until_back",
            limit=limit,
            runs=60,
            quick=4,
            onset=int(hours * HOUR),
        )
        for hours, limit in ONSETS_H.items()
    ),
    Kind(
        name="edge_48h",
        says="crashes at 1.1 of the control's for 48 h: taken back",
        play=functools.partial(_late, ratio=1.1, onset=0, windows=48 * HOUR),
        measure="taken_back",
        limit=FALSE_ALARMS,
        quick=4,
    ),
    *(
        Kind(
            name=f"waits_{'by_class' if by_class else 'pooled'}_{name}",
            says=f"late hardware crashes otherwise ({name}), placebos wait {'by class' if by_class else 'as all do'}: "
            "taken back",
            play=functools.partial(_waits, waits=waits, by_class=by_class),
            measure="taken_back",
            limit=FALSE_ALARMS,
            quick=4,
        )
        for by_class in (True, False)
        for name, waits in WAITS.items()
    ),
    Kind(
        name="kill_switch_2",
        says="2% of devices go back whatever the version: the kill switch fires",
        play=functools.partial(_switch, natural=0.02),
        measure="taken_back",
        limit=FALSE_ALARMS,
        runs=20_000,
        quick=2000,
    ),
    Kind(
        name="kill_switch_half",
        says="half of the devices go back: devices until the kill switch",
        play=functools.partial(_switch, natural=0.5),
        measure="value",
        limit=8.0,
        runs=20_000,
        quick=2000,
    ),
)
