"""Kinds of bad versions that were once promoted: none of them may leave its canary.

A canary of 24 hours, 2,000 devices (where not said otherwise), 10% treated. What no plan names must be seen too: the
plan is the default one. Beside them stands the same fleet with nothing wrong, which must complete.
"""

import functools

import msgspec

from harm_differing import play
from harm_fleet import Fleet, Harm
from harm_rows import HOUR, Kind

_replace = msgspec.structs.replace
LATE = 6 * HOUR
FLEET = Fleet(
    devices=2000,
    crash_shape=1.0,
    sessions=0.5,
    usage_sd=0.5,
    errors=0.005,
    timed=True,
    speed_sd=0.3,
    accuracy=0.84,
    accuracy_sd=0.05,
    battery_sd=0.3,
    online=0.95,
    online_shape=20.0,
)
# Ten thousand treated devices, of which one in 200 dies: nothing else is told, so that as many can be drawn.
MANY = Fleet(devices=20_000, treated=0.5, crash=0.01, online=0.98)


def _bad(
    name: str,
    says: str,
    harm: Harm,
    *,
    fleet: Fleet = FLEET,
    runs: int = 60,
    quick: int = 2,
    limit: float | None = 0.0,
) -> Kind:
    """A bad version: `limit` None where nothing can show it, which docs/explain/statistics.md says."""
    return Kind(
        name=name,
        says=f"{says}: moves on",
        by_device=True,
        play=functools.partial(play, fleet=fleet, harm=harm),
        measure="moved_on",
        limit=limit,
        runs=runs,
        quick=quick,
        onset=harm.onset,
    )


KINDS = (
    Kind(
        name="healthy",
        says="nothing is wrong: completes its canary",
        by_device=True,
        play=functools.partial(play, fleet=FLEET, harm=Harm()),
        measure="completed",
        limit=0.98,
        runs=100,
        quick=2,
    ),
    _bad("silent_30", "30% of the treated fall silent after 6 h", Harm(dies=0.3, onset=LATE)),
    _bad("silent_90", "90% of the treated fall silent after 6 h", Harm(dies=0.9, onset=LATE)),
    _bad(
        "bricked_200", "1 in 200 of 10,000 dies after 6 h", Harm(dies=0.005, onset=LATE), fleet=MANY, runs=20, quick=1
    ),
    _bad("unused", "nobody uses it", Harm(usage=0.0)),
    _bad("unused_late", "nobody uses it from hour 1 on", Harm(usage=0.0, onset=HOUR)),
    _bad("use_tenth", "a tenth of the use", Harm(usage=0.1)),
    _bad("use_tenth_crash_5", "a tenth of the use, crashes a session x5", Harm(usage=0.1, crash=5)),
    _bad("use_half_crash_2", "half of the use, crashes a session x2", Harm(usage=0.5, crash=2)),
    _bad("labels_stop", "labels stop, and accuracy falls to 60%", Harm(accuracy=0.24, labels=(0.0, 0.0))),
    _bad("labels_of_the_well", "only right answers are labelled, accuracy 60%", Harm(accuracy=0.24, labels=(1.0, 0.0))),
    _bad(
        "labels_half",
        "wrong answers are labelled half as often, accuracy 74%",
        Harm(accuracy=0.1, labels=(1.0, 0.5)),
        limit=None,
    ),
    _bad("battery", "battery +50%, named by no plan", Harm(battery=1.5)),
    _bad("memory", "memory x4, named by no plan", Harm(memory=4.0)),
)
