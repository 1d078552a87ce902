"""What the gate would have said of tally windows that are known from elsewhere, window by window.

1. The stage is the highest with treated devices so far, and it soaks from its first window on.
2. Devices of a slice that went back are left out from then on.
"""

import itertools
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from whimbrel.gate.gate import judge
from whimbrel.gate.ledger import Ledger, References
from whimbrel.gate.verdict import Counts, GateInput, Verdict
from whimbrel.health.tally import Cell
from whimbrel.plan.plan import Plan


class WindowVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict after one window."""

    window: int
    stage: int
    stage_name: str
    verdict: Verdict


def replay_windows(
    plan: Plan, cells: Iterable[Cell], *, hour_s: float = 3600.0, references: References | None = None
) -> Iterator[WindowVerdict]:
    """The verdict after every window, until the version goes back. Devices of a slice that went back are left out.

    A file tells nothing of single devices, so as many are taken to have reported as were heard in one window at most,
    and as many to have fallen silent as the last hour's windows have fewer than those of the busiest hour.
    """
    ordered = sorted(cells, key=lambda cell: cell.key)
    expected = references or References()
    ledger, without, stage, since = Ledger(plan, references=expected), (), -1, 0  # type: Ledger, tuple[str, ...], int, int
    devices = _Devices(lately=max(1, round(_LATELY_S / plan.window_s())))
    shadowed: dict[int, int] = {}
    cells_so_far: list[Cell] = []
    for window, group_of_window in itertools.groupby(ordered, key=lambda cell: cell.window):
        group = list(group_of_window)
        cells_so_far += group
        entered = max((cell.stage for cell in group if cell.role == "treated"), default=stage)
        if entered > stage:
            stage, since = entered, window
        devices.hear(_judged(group, without))
        for each in {cell.stage for cell in group}:
            in_shadow = sum(c.shadow.windows for c in group if c.stage == each and c.shadow)
            shadowed[each] = max(shadowed.get(each, 0), in_shadow)
        gate_input = GateInput(
            stage=max(stage, 0),
            soaked_s=(window - since + 1) * plan.window_s(),
            cells=group,
            counts={each: devices.counts(each, shadowed=n) for each, n in shadowed.items()},
            hour_s=hour_s,
            without=without,
            users_heard=any(cell.user_reports or cell.version_reports for cell in cells_so_far),
        )
        verdict = judge(plan, gate_input, ledger)
        yield WindowVerdict(
            window=window, stage=gate_input.stage, stage_name=plan.stages[gate_input.stage].name, verdict=verdict
        )
        if verdict.move == "roll_back":
            return
        if verdict.move == "slice_back":
            without = tuple(sorted({*without, *verdict.classes}))
            ledger = Ledger(plan, without=without, references=expected)
            ledger.fold(cells_so_far)
            devices = _Devices(lately=devices.lately)
            for _, heard in itertools.groupby(cells_so_far, key=lambda cell: cell.window):
                devices.hear(_judged(heard, without))


def _judged(cells: Iterable[Cell], without: Sequence[str]) -> list[Cell]:
    """Without those of slices that went back: their devices leave, and are not silent."""
    return [cell for cell in cells if not {*cell.groups.values()} & {*without}]


_LATELY_S = 3600.0  # of windows whose mean says how many devices are heard: one window alone has its chance


class _Devices:
    """How many devices of each stage and arm were heard. `lately`: windows that are heard together."""

    def __init__(self, *, lately: int) -> None:
        self.lately = lately
        self._windows: dict[tuple[int, str], deque[int]] = defaultdict(lambda: deque(maxlen=lately))
        self._most: dict[tuple[int, str], int] = defaultdict(int)  # in one window
        self._busiest: dict[tuple[int, str], float] = defaultdict(float)  # in a window of `lately` on average

    def hear(self, cells: Sequence[Cell]) -> None:
        """One window, of every arm that was ever heard: one that tells nothing is silent."""
        at_risk: Counter[tuple[int, str]] = Counter()
        for cell in cells:
            at_risk[cell.stage, cell.role] += cell.at_risk
        for arm in {*at_risk, *self._windows}:
            self._windows[arm].append(at_risk[arm])
            self._most[arm] = max(self._most[arm], at_risk[arm])
            self._busiest[arm] = max(self._busiest[arm], self._heard(arm))

    def counts(self, stage: int, *, shadowed: int) -> Counts:
        """Of one stage, as far as windows tell them."""
        treated, control = (stage, "treated"), (stage, "control")
        return Counts(
            assigned_t=self._most[treated],
            activated_t=self._most[treated],
            reported_t=self._most[treated],
            reported_c=self._most[control],
            silent_t=self._silent(treated),
            silent_c=self._silent(control),
            shadowed_t=shadowed,
        )

    def _heard(self, arm: tuple[int, str]) -> float:
        windows = self._windows[arm]
        return sum(windows) / self.lately if windows else 0.0

    def _silent(self, arm: tuple[int, str]) -> int:
        """As the busiest hour is an average, so is what is missing: of the devices of the fullest window, its share."""
        busiest = self._busiest[arm]
        return round(self._most[arm] * (1 - self._heard(arm) / busiest)) if busiest else 0
