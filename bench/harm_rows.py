"""What a kind of rollout is measured by: its figure with an interval, its limit, and whether it keeps it.

1. A kind is played many times, each time from a seed of its own; an outcome is what the gate did in one rollout.
2. A figure is a share of rollouts, or the median of what a rollout took. Its interval is at 95%: of a share the exact
   one (Clopper and Pearson), of a median the order statistics around it.
3. The full form passes by the figure itself. The quick form has too few rollouts for that: a row passes there unless
   its whole interval is past the limit.

Used by every file of kinds, and by harm.py, which plays them.
"""

import bisect
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import msgspec

from harm_screen import NEAR, Screen
from whimbrel.flows.replay_windows import replay_windows
from whimbrel.gate.gate import judge
from whimbrel.gate.ledger import Ledger
from whimbrel.gate.verdict import Counts, GateInput
from whimbrel.health.tally import Cell
from whimbrel.plan.plan import Plan, Stage

WINDOW_MIN = 5
HOUR = 60 // WINDOW_MIN  # windows
FALSE_ALARMS = 0.01  # of rollouts without a change
PASSED = ("advance", "finish")
_MOST_LOG_E = 99.0  # more than this is written as this: JSON has no infinity


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One rollout. `back`: the window in which the version, or a slice, went back; None: in none.

    `move`: the last verdict's. `value`: what a kind counts apart from windows. `highest`: the greatest ln E of all its
    windows, also after it went back, where they were screened: what another budget would have done.
    """

    move: str
    back: int | None = None
    because: str = ""
    value: float | None = None
    highest: float | None = None


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table. `at_least`: the figure must not be below the limit, where else it must not be above.

    `count`: of a share, the rollouts that it counts.
    """

    kind: str
    says: str
    unit: str
    figure: float | None
    low: float | None
    high: float | None
    limit: float | None
    passed: bool
    runs: int
    count: int | None = None
    at_least: bool = False
    note: str = ""


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of rollout. `play`: one rollout from a seed. `onset`: the window in which its harm begins.

    `by_device`: its devices are drawn one by one, and can be tallied `pooled`, too.
    """

    name: str
    says: str
    play: Callable[..., Outcome]
    measure: Literal["taken_back", "moved_on", "completed", "windows_until_back", "minutes_until_back", "value"]
    limit: float | None
    runs: int = 900
    quick: int = 5
    onset: int = 0
    by_device: bool = False

    def row(self, outcomes: Sequence[Outcome], *, quick: bool) -> Row:
        """The figure over all outcomes."""
        at_least = self.measure == "completed"
        if self.measure in SHARES:
            count = sum(SHARES[self.measure](each) for each in outcomes)
            figure = count / len(outcomes)
            low, high = share_interval(count, len(outcomes))
            unit = "share"
        else:
            values = [self._value(each) for each in outcomes]
            figure, low, high, count = *median_interval(values), None
            unit = {"windows_until_back": "windows", "minutes_until_back": "minutes", "value": "devices"}[self.measure]
        edge = (high if at_least else low) if quick else figure
        passed = self.limit is None or (edge >= self.limit if at_least else edge <= self.limit)
        return Row(
            kind=self.name,
            says=self.says,
            unit=unit,
            figure=_told(figure),
            low=_told(low),
            high=_told(high),
            limit=self.limit,
            passed=passed,
            runs=len(outcomes),
            count=count,
            at_least=at_least,
            note=_moves(outcomes) + _of_half_the_budget(outcomes),
        )

    def _value(self, outcome: Outcome) -> float:
        if self.measure == "value":
            return math.inf if outcome.value is None else outcome.value
        if outcome.back is None or outcome.back < self.onset:
            return math.inf
        windows = outcome.back - self.onset + 1
        return windows * (WINDOW_MIN if self.measure == "minutes_until_back" else 1)


SHARES: dict[str, Callable[[Outcome], bool]] = {
    "taken_back": lambda outcome: outcome.back is not None,
    "moved_on": lambda outcome: outcome.move in PASSED,
    "completed": lambda outcome: outcome.back is None and outcome.move in PASSED,
}


def _told(value: float | None) -> float | None:
    return round(value, 5) if value is not None and math.isfinite(value) else None


def _moves(outcomes: Iterable[Outcome]) -> str:
    """How the rollouts ended: of those that went back by what, as far as the sentence says so."""
    counts: dict[str, int] = {}
    for each in outcomes:
        name = each.move
        if each.back is not None and "harm is proven: " in each.because:
            name = f"{name} by {each.because.split('harm is proven: ')[1].split(' ')[0]}"
        counts[name] = counts.get(name, 0) + 1
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: -item[1])[:4])


def _of_half_the_budget(outcomes: Sequence[Outcome]) -> str:
    """How many would go back at half of the default budget, where all windows of all rollouts are known."""
    needed = math.log(2 / canary(1).alpha)
    if any(each.highest is None for each in outcomes):
        return ""
    return f"; at half of alpha {sum((each.highest or 0.0) >= needed for each in outcomes)}"


# --- one rollout through the gate ---


def canary(hours: float, *, percent: float = 5) -> Plan:
    """A plan of a canary and the rest; every kind is judged in its canary."""
    return Plan(
        model_version="m@1.0.0",
        stages=(
            Stage(name="canary", target_percent=percent, duration_hours=hours),
            Stage(name="general", target_percent=100, duration_hours=1),
        ),
    )


def replay(plan: Plan, cells: Iterable[Cell]) -> Outcome:
    """What the gate does of a rollout's cells: the function behind `whimbrel gate replay`, window by window."""
    move, because = "wait", ""
    for judged in replay_windows(plan, cells):
        move, because = judged.verdict.move, judged.verdict.because
        if move in {"roll_back", "slice_back"}:
            return Outcome(move=move, back=judged.window, because=because)
    return Outcome(move=move, because=because)


def judged(plan: Plan, windows: Iterable[tuple[list[Cell], Counts]]) -> Outcome:
    """What the gate does of a canary whose devices are known: as the controller asks it, after every window."""
    ledger, move, because = Ledger(plan), "wait", ""
    for window, (cells, counts) in enumerate(windows):
        soaked_s = (window + 1) * plan.window_s()
        now = GateInput(stage=0, soaked_s=soaked_s, cells=cells, counts={0: counts}, shares=(plan.share_buckets(0),))
        verdict = judge(plan, now, ledger)
        move, because = verdict.move, verdict.because
        if move in {"roll_back", "slice_back"}:
            return Outcome(move=move, back=window, because=because)
    return Outcome(move=move, because=because)


def screened(plan: Plan, windows: Callable[[], Iterable[tuple[list[Cell], Counts]]]) -> Outcome:
    """What `judged` says, sooner where nothing is wrong: the gate is asked once, if it could not have spoken before.

    `windows`: draws the rollout, the same each time. One cohort without slices.
    """
    ledger, now = Ledger(plan), None
    screen = Screen(plan, ledger)
    for window, (cells, counts) in enumerate(windows()):
        if cells:
            screen.before(window)
            ledger.fold(cells)
            screen.add()
        soaked_s = (window + 1) * plan.window_s()
        now = GateInput(stage=0, soaked_s=soaked_s, counts={0: counts}, shares=(plan.share_buckets(0),))
    if now is None:
        return judged(plan, windows())
    greatest = screen.highest(now)
    highest = round(min(greatest, _MOST_LOG_E), 1)
    if greatest >= math.log(1 / plan.alpha) - NEAR:
        return msgspec.structs.replace(judged(plan, windows()), highest=highest)
    verdict = judge(plan, now, ledger)
    return Outcome(move=verdict.move, because=verdict.because, highest=highest)


# --- intervals ---


def share_interval(count: int, runs: int, *, level: float = 0.95) -> tuple[float, float]:
    """Clopper and Pearson's interval of a binomial share."""
    tail = (1 - level) / 2
    low = 0.0 if count == 0 else _solve(lambda p: 1 - _at_most(count - 1, runs, p), tail)
    high = 1.0 if count == runs else _solve(lambda p: 1 - _at_most(count, runs, p), 1 - tail)
    return low, high


def _solve(rising: Callable[[float], float], target: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < target else (low, middle)
    return (low + high) / 2


def _at_most(count: int, runs: int, p: float) -> float:
    if p <= 0:
        return 1.0
    if p >= 1:
        return 1.0 if count >= runs else 0.0
    choose = (
        math.lgamma(runs + 1) - math.lgamma(k + 1) - math.lgamma(runs - k + 1) + k * math.log(p)
        + (runs - k) * math.log1p(-p)
        for k in range(count + 1)
    )  # fmt: skip
    return min(1.0, sum(math.exp(each) for each in choose))


def median_interval(values: Sequence[float], *, level: float = 0.95) -> tuple[float, float, float]:
    """(median, low, high): the ends are order statistics. Infinite: what never happened."""
    ordered, n = sorted(values), len(values)
    middle = ordered[(n - 1) // 2] if n % 2 else (ordered[n // 2 - 1] + ordered[n // 2]) / 2
    beyond = bisect.bisect_right(range(n // 2), (1 - level) / 2, key=lambda place: _at_most(place, n, 0.5))
    place = max(0, beyond - 1)
    return middle, ordered[place], ordered[n - 1 - place]
