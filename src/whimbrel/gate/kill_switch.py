"""Do so many devices refuse a version by themselves that it is stopped at once?

1. Some devices go back from every version: their disk is bad, their app was killed. How many is told by the devices
   that took the baseline; where nothing is known of them, one in fifty does. That guess counts as a hundred devices.
   Where more controls leave the baseline meanwhile, as many do: what ails every device is no fault of the version. Few
   that do make nobody suspicious, since a version is left when it is new, as a rule, and theirs is old.
2. A bet against "no more devices go back than that": of the devices that run it, the number that went back is binomial.
   The line is where a version without harm crosses it in less than .3% of rollouts, at one device in fifty
   (docs/explain/statistics.md). A version from which half of the devices go back is stopped after five devices, on
   average.
3. In a fleet of at most ten devices nobody waits for more of them: where the first that took the version goes back, it
   stops it.
4. A device that could not fetch a version announces nothing, so it is none that went back.
5. Where half of the devices went back and that is not enough to stop it, nothing is promoted either.

Called by the gate, and by forecasts.
"""

import math

from whimbrel.gate.evidence import log_mean_exp
from whimbrel.gate.verdict import Counts

NATURAL = 0.02  # of devices that activate a version go back by themselves, whatever it is: what `failure` tolerates
NATURAL_WORTH = 100  # devices: what this guess counts as, beside what a baseline's devices told
FEW = 10  # devices of a rollout: boards on a desk, of which a stage has one or two
LINE = math.log(160)  # about .2% of 20,000 rollouts cross it where one device in fifty goes back
_SHARES = (0.1, 0.25, 0.5, 0.9)  # that may go back from a bad version
_BETS = (0.15, 0.15, 0.5, 0.2)
_MOST = 0.3  # a baseline that more devices than these left is no measure


def natural_rate(went_back: int, activated: int) -> float:
    """The share of devices that go back from any version, by what a baseline's devices did."""
    return min(_MOST, (went_back + NATURAL * NATURAL_WORTH) / (activated + NATURAL_WORTH))


def stops(went_back: int, tried: int, *, natural: float = NATURAL, few: bool = False) -> bool:
    """Whether so many devices that went back, of those that tried it, stop a version. `few`: of at most ten devices."""
    if went_back <= 0 or tried <= 0:
        return False
    if few and tried == 1:
        return True
    gone, stayed = min(went_back, tried), max(0, tried - went_back)
    logs = []
    for share in _SHARES:
        worse = max(share, (1 + natural) / 2) if share <= natural else share
        logs.append(gone * math.log(worse / natural) + stayed * math.log((1 - worse) / (1 - natural)))
    return log_mean_exp(logs, _BETS) >= LINE


def least_that_stop(tried: int, *, natural: float = NATURAL) -> int | None:
    """How many of so many devices must go back to stop a version; None where not even all of them do."""
    return next((gone for gone in range(1, tried + 1) if stops(gone, tried, natural=natural)), None)


def kill_switch(total: Counts, *, natural: float | None) -> str | None:
    """Why a version is stopped at once; None where it is not."""
    went_back, activated = total.went_back_t, total.activated_t
    few = total.assigned_t + total.assigned_c <= FEW
    rate = NATURAL if natural is None else natural
    if total.went_back_c:
        rate = max(rate, natural_rate(total.went_back_c, total.placebo_c))
    if not stops(went_back, activated, natural=rate, few=few):
        return None
    if activated == 1:
        return "the kill switch: the only activated device went back by itself"
    return f"the kill switch: {went_back} of {activated} activated devices went back by themselves"


def shadow_kill_switch(counts: Counts) -> str | None:
    """The kill switch of the shadow: a device that refuses a candidate no longer reports about it."""
    gave_up, tried = counts.gave_up_t, counts.shadowed_t
    if stops(gave_up, tried, few=True):  # three deaths of a worker are no accident of one device
        return (
            f"the kill switch: {gave_up} of {tried} devices that tried it refused it themselves; it has answered nobody"
        )
    return None


def unsettled(total: Counts) -> str | None:
    """What keeps a version from going on though it is not stopped: half of its devices left it."""
    went_back, activated = total.went_back_t, total.activated_t
    if not went_back or 2 * went_back < activated:
        return None
    return (
        f"{went_back} of {activated} activated devices went back by themselves: too few to tell that from what devices "
        "do anyway, and too many to go on"
    )
