"""Devices differ from one another and stay themselves: that is no proof of anything, however often they report."""

import numpy as np
import pytest

from support.values import cell, plan, stage
from whimbrel.gate.gate import judge
from whimbrel.gate.ledger import Ledger
from whimbrel.gate.verdict import GateInput
from whimbrel.health.pairs import Pairs
from whimbrel.health.tally import AGE_EDGES_H, Cell, Moments

WINDOWS, DEVICES, TREATED = 144, 1000, 0.1  # half a day
PLAN = plan(stage(percent=100 * TREATED))


class Fleet:
    """Devices that are right more often or less often than others, all of the time; they start within hours."""

    def __init__(self, seed: int, *, deviation: float, drop: float = 0.0) -> None:
        self.chance = np.random.default_rng(seed)
        self.treated = np.arange(DEVICES) < TREATED * DEVICES
        self.right = np.clip(self.chance.normal(0.84, deviation, DEVICES) - drop * self.treated, 0, 1)
        self.often = self.chance.beta(8, 1, DEVICES)
        self.start = self.chance.exponential(24, DEVICES).astype(int)
        self.before, self.total = np.zeros(DEVICES, dtype=int), np.zeros(DEVICES)

    def window(self, number: int) -> list[Cell]:
        """What they report: each the share of five answers that were right."""
        here = (self.start <= number) & (self.chance.random(DEVICES) < self.often)
        value = self.chance.binomial(5, self.right) / 5
        age = np.searchsorted(12 * np.array(AGE_EDGES_H), number - self.start, side="right")
        made = []
        for role, arm in (("treated", here & self.treated), ("control", here & ~self.treated)):
            for group in np.unique(age[arm]):
                one = arm & (age == group)
                y, k, t = value[one], self.before[one], self.total[one]
                pairs = Pairs(
                    pairs=int(k.sum()),
                    squares=int((k**2).sum()),
                    now=float((k * y).sum()),
                    then=float(t.sum()),
                    both=float((t * y).sum()),
                )
                seen = Moments(n=len(y), sum=float(y.sum()), sumsq=float((y**2).sum()))
                made.append(
                    cell(
                        role,
                        number,
                        n=len(y),
                        age_bucket=int(group),
                        metrics={"accuracy": seen},
                        pairs={"accuracy": pairs},
                    )
                )
        self.before[here] += 1
        self.total[here] += value[here]
        return made


def taken_back(fleet: Fleet) -> int | None:
    """The window at which the gate takes the version back."""
    ledger = Ledger(PLAN)
    for number in range(WINDOWS):
        now = GateInput(stage=0, soaked_s=0, counts={}, cells=fleet.window(number))
        if judge(PLAN, now, ledger).move == "roll_back":
            return number
    return None


@pytest.mark.parametrize("deviation", [0.1, 0.2])
@pytest.mark.long
def test_a_version_that_changes_nothing_is_not_taken_back_for_who_its_devices_are(deviation: float) -> None:
    """A third and more of the runs, where windows were summed as if each brought other devices."""
    assert sum(taken_back(Fleet(seed, deviation=deviation)) is not None for seed in range(30)) <= 1


def test_harm_is_seen_through_the_differences() -> None:
    stops = [taken_back(Fleet(seed, deviation=0.1, drop=0.1)) for seed in range(8)]
    assert all(stop is not None for stop in stops)
