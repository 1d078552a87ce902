"""Which objectives are likely to say nothing? The sentences that a person reads when objectives are set.

1. A metric that no device has told: it may be misspelt (`Accuracy`), or an app is yet to record it. It is taken all
   the same.
2. More device-hours than the known devices can make in the window: the monitor would say "too few yet" for ever.

Nothing is refused here. Called by the admin API.
"""

import difflib
from collections.abc import Collection, Iterable

from whimbrel.plan.known_metrics import KNOWN_METRICS
from whimbrel.plan.measures import MEASURES, Mean
from whimbrel.plan.objectives import DRIFT, QUANTILES, RATES, Objective

_ALIKE = 0.6  # of difflib's ratio: Accuracy and accuracy, latency_p99 and latency_p99_ms
_OWN = {*RATES, *QUANTILES, DRIFT}
_RECORDED = {
    name
    for name, known in KNOWN_METRICS.items()
    if not known.measures or (known.measures == (name,) and isinstance(MEASURES[name].test, Mean))
}


def objective_warnings(objectives: Iterable[Objective], *, told: Collection[str], devices: int) -> list[str]:
    """What a person should know of these objectives.

    `told`: the metrics that devices told lately. `devices`: how many are known. Where nothing was told at all, a name
    that is known is believed; where no device is known, none can be too few.
    """
    return [
        sentence
        for each in objectives
        for sentence in (_untold(each, told), _too_few(each, devices))
        if sentence is not None
    ]


def _untold(objective: Objective, told: Collection[str]) -> str | None:
    name = objective.measure
    if name in _OWN or name in told or (not told and name in _RECORDED):
        return None
    names = {each.lower(): each for each in sorted({*_OWN, *_RECORDED, *told} - {name})}
    close = difflib.get_close_matches(name.lower(), names, n=3, cutoff=_ALIKE)
    hint = f" Did you mean {' or '.join(names[each] for each in close)}?" if close else ""
    return f"no device told of {name!r} in the last day: nothing is known of it until an app records that name.{hint}"


def _too_few(objective: Objective, devices: int) -> str | None:
    most = devices * objective.hours
    if not devices or most >= objective.least:
        return None
    return (
        f"{objective.name} waits for {objective.least} device-hours, and the known devices ({devices}) make {most} in "
        f"its window at most, so it never says anything; write a longer window, or `least {most}` or less. So few "
        "devices are protected by the crash loop, by local limits (--local-limit) and by rollouts"
    )
