"""What does each guardrail of a rollout show, and how did that come about? For people who look at a rollout.

1. The stored windows of the stage that is judged are read once. Rates have a confidence sequence of the ratio of both
   arms (gate/ratio_sequence), at the plan's own alpha; of other measures the estimates of both arms are told.
2. Windows are compared by hardware class and age group, as the gate compares them. Slices that went back are left out.
3. Of very many windows evenly chosen ones are told, and always the last.
4. Nothing is changed. The verdict is the newest stored one, asked again of its own input; so an ended rollout shows
   what it was ended on.

Called by the console.
"""

import itertools
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec

from whimbrel import limits
from whimbrel.flows.judging import judge_windows
from whimbrel.flows.ports import FleetPort, RegistryPort
from whimbrel.flows.records import RolloutRecord
from whimbrel.flows.rollouts.judge import RolloutGate
from whimbrel.gate.evidence import RateWindow
from whimbrel.gate.guardrails import margins, severities, watched
from whimbrel.gate.ratio_sequence import RatioSet, ratio_sequence
from whimbrel.gate.verdict import Verdict
from whimbrel.health.tally import Cell
from whimbrel.plan.measures import MEASURES, Direction, Form, Rate, Severity
from whimbrel.plan.plan import Plan


class EffectPoint(msgspec.Struct, frozen=True, kw_only=True):
    """The confidence set of a ratio after a window. `hours`: of the plan, since the rollout began."""

    hours: float
    ratio: float | None
    low: float
    high: float | None


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """One guardrail: both arms as it sees them, and its ratio over time (of rates).

    `limit`: the ratio that is tolerated; of a measure of which fewer are worse, the least. None: it compares no rates.
    `log_e`: the evidence of its harm. `words`: before figures in a sentence.
    """

    guardrail: str
    words: str
    form: Form
    direction: Direction
    severity: Severity
    treated: float | None
    control: float | None
    events: tuple[float, float] | None
    exposure: tuple[float, float] | None
    log_e: float
    limit: float | None
    points: tuple[EffectPoint, ...] = ()


class Effects(msgspec.Struct, frozen=True, kw_only=True):
    """All guardrails of a rollout, and the verdict that they led to. `needed`: the ln E that proves harm."""

    verdict: Verdict
    stage: int
    needed: float
    log_e: float
    effects: tuple[Effect, ...]


def effects_of(registry: RegistryPort, fleet: FleetPort, rollout: RolloutRecord) -> Effects | None:
    """The guardrails at the newest stored verdict; None where there is none yet."""
    stored = registry.verdicts(rollout.id)
    if not stored:
        return None
    newest, gate = stored[-1], RolloutGate(registry, rollout, fleet)
    looked_at = gate.parse_input(newest.situation)
    verdict = judge_windows(fleet, gate, looked_at, window=newest.window, ledgers={})
    if "log_e" not in verdict.evidence:
        return None
    cells = [
        cell
        for cell in fleet.cells(rollout.id, before_window=newest.window)
        if cell.stage == looked_at.judged and frozenset(looked_at.without).isdisjoint(cell.groups.values())
    ]
    return Effects(
        verdict=verdict,
        stage=looked_at.judged,
        needed=verdict.evidence["log_e_needed"],
        log_e=verdict.evidence["log_e"],
        effects=tuple(_effects(rollout, verdict, cells)),
    )


def _effects(rollout: RolloutRecord, verdict: Verdict, cells: Sequence[Cell]) -> list[Effect]:
    plan = rollout.plan
    kept, followed, known = margins(plan), severities(plan), verdict.evidence["guardrails"]
    estimates = verdict.evidence.get("estimates", {})
    treated, control = estimates.get("treated", {}), estimates.get("control", {})
    rows = [row for row in watched(plan) if row.name in known and row.estimate is not None]
    effects = []
    for row in rows:
        rate = row.test if isinstance(row.test, Rate) else None
        limit = kept.ratios.get(row.name) if rate is not None else None
        if limit is not None and rate is not None and rate.fewer:
            limit = 1 / limit
        sums = _sums(cells, rate) if rate is not None else None
        effects.append(
            Effect(
                guardrail=row.name,
                words=row.words if row.words and row.form == "as_reported" else row.name.replace("_", " "),
                form=row.form,
                direction=row.direction,
                severity=followed.get(row.name, row.severest),
                treated=_figure(treated, row.estimate),
                control=_figure(control, row.estimate),
                events=None if sums is None else (sums.events_t, sums.events_c),
                exposure=None if sums is None else (sums.exposure_t, sums.exposure_c),
                log_e=known[row.name],
                limit=limit,
                points=() if rate is None else _points(rollout, cells, rate, alpha=plan.alpha),
            )
        )
    return effects + _own(plan, known, followed, treated, control)


def _own(
    plan: Plan, known: dict[str, float], followed: dict[str, Severity], treated: Any, control: Any
) -> list[Effect]:
    """The metrics of the devices' own that the plan watches."""
    means = treated.get("means", {}), control.get("means", {})
    return [
        Effect(
            guardrail=name,
            words=name.replace("_", " "),
            form="as_reported",
            direction=direction,
            severity=followed.get(name, "rollback"),
            treated=means[0].get(name),
            control=means[1].get(name),
            events=None,
            exposure=None,
            log_e=known[name],
            limit=None,
        )
        for name, (direction, _) in margins(plan).own.items()
        if name in known and name not in MEASURES
    ]


def _figure(arm: dict[str, Any], name: str | None) -> float | None:
    value = arm.get(name or "")
    return None if value is None else float(value)


def _sums(cells: Sequence[Cell], rate: Rate) -> RateWindow:
    treated = [cell for cell in cells if cell.role == "treated"]
    control = [cell for cell in cells if cell.role == "control"]
    return RateWindow(
        *(
            sum(getattr(cell, name) for cell in arm)
            for arm, name in (
                (treated, rate.events),
                (treated, rate.exposure),
                (control, rate.events),
                (control, rate.exposure),
            )
        )
    )


def _points(rollout: RolloutRecord, cells: Sequence[Cell], rate: Rate, *, alpha: float) -> tuple[EffectPoint, ...]:
    """The confidence sequence of a rate's ratio, after the windows that were told of."""
    by_window = [
        (window, _strata(list(group), rate))
        for window, group in itertools.groupby(sorted(cells, key=_window_of), key=_window_of)
    ]
    sets: list[RatioSet] = ratio_sequence((strata for _, strata in by_window), alpha=alpha)
    step = max(1, -(-len(sets) // limits.CONSOLE_CHART_POINTS))
    hours_a_window = rollout.window_s / rollout.hour_s
    return tuple(
        EffectPoint(hours=(window + 1) * hours_a_window, ratio=each.ratio, low=each.low, high=each.high)
        for index, ((window, _), each) in enumerate(zip(by_window, sets, strict=True))
        if index % step == 0 or index == len(sets) - 1
    )


def _window_of(cell: Cell) -> int:
    return cell.window


def _strata(cells: Sequence[Cell], rate: Rate) -> list[RateWindow]:
    """A window's sums of both arms, by age group and hardware class."""
    sums: dict[tuple[int, str], list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0, 0.0])
    for cell in cells:
        place = 0 if cell.role == "treated" else 2
        stratum = sums[cell.age_bucket, cell.hardware_class]
        stratum[place] += getattr(cell, rate.events)
        stratum[place + 1] += getattr(cell, rate.exposure)
    return [RateWindow(*stratum) for stratum in sums.values()]
