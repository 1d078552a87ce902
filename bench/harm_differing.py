"""Kinds of fleets whose devices differ and stay themselves: is chance taken for harm, and is harm still found?

1. Clusters: crash rates of devices' own, from a gamma distribution of shapes 1 to .1, in fleets of 1,000 and 100.
2. Latency: speeds of devices' own, and use that differs as well.
3. Use: habits that last.
4. Presence: devices that are often or never offline.
5. Small fleets, in which all of these differ at once, and everything is told.
6. Power: harm is still found among devices that differ.
"""

import functools

import msgspec

from harm_fleet import DAY, Fleet, Harm, windows_of_fleet
from harm_rows import FALSE_ALARMS, HOUR, WINDOW_MIN, Kind, Outcome, canary, judged, screened

_replace = msgspec.structs.replace


def play(seed: int, *, fleet: Fleet, harm: Harm, pooled: bool = False) -> Outcome:
    """One canary of a fleet through the gate."""
    plan = canary(fleet.windows * WINDOW_MIN / 60, percent=100 * fleet.treated)
    windows = functools.partial(windows_of_fleet, fleet, harm, seed=seed, pooled=pooled)
    return screened(plan, windows) if harm == Harm() and fleet.classes == 1 else judged(plan, windows())


def quiet(name: str, says: str, fleet: Fleet, *, runs: int = 900, quick: int = 5) -> Kind:
    """A version that changes nothing: how often does it go back?"""
    return Kind(
        name=name,
        says=f"{says}: taken back",
        by_device=True,
        play=functools.partial(play, fleet=fleet, harm=Harm()),
        measure="taken_back",
        limit=FALSE_ALARMS,
        runs=runs,
        quick=quick,
    )


SHAPES = (1.0, 0.5, 0.25, 0.1)
FLEETS = {
    "1000": (Fleet(), "1,000 devices, 10% treated, crashes 1%"),
    "100": (Fleet(devices=100, treated=0.5), "100 devices, half treated, crashes 1%"),
    "1000_rare": (Fleet(crash=0.001), "1,000 devices, 10% treated, crashes .1%"),
}
SPEEDS = Fleet(crash=0.001, sessions=0.5, timed=True, speed_sd=0.5)
HABITS = Fleet(crash=0.001, habits=True)
# Everything is told, and everything differs: what a small pilot looks like.
PILOT = Fleet(
    crash_shape=0.25,
    sessions=0.5,
    usage_sd=1.0,
    errors=0.005,
    timed=True,
    speed_sd=0.5,
    accuracy=0.84,
    accuracy_sd=0.1,
    battery_sd=0.3,
    online=0.95,
    online_shape=2.0,
)
_PILOTS = {20: 0.5, 100: 0.5, 1000: 0.1}


def _found(name: str, says: str, fleet: Fleet, harm: Harm, *, limit: float) -> Kind:
    return Kind(
        name=name,
        says=f"{says}: windows until it goes back",
        by_device=True,
        play=functools.partial(play, fleet=fleet, harm=harm),
        measure="windows_until_back",
        limit=limit,
        runs=200,
        quick=6,
        onset=harm.onset,
    )


KINDS = (
    *(
        quiet(f"clusters_{name}_{shape:g}", f"{says}, own rates of shape {shape:g}", _replace(fleet, crash_shape=shape))
        for name, (fleet, says) in FLEETS.items()
        for shape in SHAPES
    ),
    quiet("speeds", "1,000 devices, own speeds (sd .5)", SPEEDS),
    quiet("speeds_and_use", "1,000 devices, own speeds (sd .5) and use (sd 1)", _replace(SPEEDS, usage_sd=1.0)),
    quiet("habits_1000", "1,000 devices that use it always or hardly ever, 10% treated", HABITS),
    quiet("habits_5000", "5,000 such devices, 5% treated", _replace(HABITS, devices=5000, treated=0.05), quick=2),
    quiet(
        "presence",
        "1,000 devices, 5% of windows offline, by device (beta, a + b = 2)",
        Fleet(crash=0.001, online=0.95, online_shape=2.0),
    ),
    *(
        quiet(
            f"pilot_{devices}",
            f"{devices:,} devices that differ in everything, {treated:.0%} treated",
            _replace(PILOT, devices=devices, treated=treated),
        )
        for devices, treated in _PILOTS.items()
    ),
    _found("found_alike_2", "1,000 alike devices, crashes x2", Fleet(windows=DAY // 2), Harm(crash=2), limit=16),
    _found(
        "found_shape_3",
        "1,000 devices, own rates of shape .25, crashes x3",
        Fleet(windows=DAY // 2, crash_shape=0.25),
        Harm(crash=3),
        limit=10,
    ),
    _found(
        "found_uneven_3",
        "1,000 devices with rates alike, own use (sd 1), crashes x3",
        Fleet(windows=DAY // 2, sessions=0.5, usage_sd=1.0),
        Harm(crash=3),
        limit=20,
    ),
    _found(
        "found_use_tenth",
        "5,000 devices, 5% treated, use x.1",
        Fleet(devices=5000, treated=0.05, windows=4 * HOUR, crash=0.001, sessions=0.5, usage_sd=1.0),
        Harm(usage=0.1),
        limit=6,
    ),
    _found(
        "found_use_half",
        "5,000 devices, 5% treated, use x.5",
        Fleet(devices=5000, treated=0.05, windows=12 * HOUR, crash=0.001, sessions=0.5, usage_sd=1.0),
        Harm(usage=0.5),
        limit=24,
    ),
)
