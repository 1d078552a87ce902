"""One device's values: what a window adds to each, and what that changes in the sums of its arm.

1. Of every metric whose mean is tested, a window is told with what the device's windows before said: a device that says
   the same again is one device (health/pairs.py).
2. Of a metric that an experiment compares, a device has one value: the mean over its windows, each less the control's
   level. What changed in it is what is tallied (health/panel.py).
"""

from collections.abc import Collection, Mapping

import msgspec

from whimbrel.health.pairs import Pairs
from whimbrel.health.panel import Panel, Value


class FoldedValues(msgspec.Struct, frozen=True):
    """A device's values with one window more, by metric, and what that adds to the sums of pairs and of panels."""

    values: dict[str, Value]
    pairs: dict[str, Pairs]
    panels: dict[str, Panel]


def fold_values(
    before: Mapping[str, Value],
    *,
    tested: Mapping[str, float],
    compared: Mapping[str, float],
    compared_metrics: Collection[str],
    known_means: Mapping[str, float],
) -> FoldedValues:
    """Fold one window. `tested`: its means; `compared`: its means less the control's level, of `compared_metrics`.

    `known_means`: what the device knows of itself from before the experiment.
    """
    values = dict(before)
    pairs: dict[str, Pairs] = {}
    panels: dict[str, Panel] = {}
    for metric, mean in tested.items():
        past = values.get(metric, Value())
        if past.n:
            pairs[metric] = Pairs.of(mean, before=past.n, total=past.total)
        if metric not in compared_metrics:
            values[metric] = past.plus(mean)
    for metric, difference in compared.items():
        past = values.get(metric, Value())
        values[metric], panels[metric] = past.later(difference, before=known_means.get(metric))
    return FoldedValues(values, pairs, panels)
