"""The summary of many simulated rollouts: times, exposure, chances, bytes and cost, and the assumptions behind them.

1. Every number was simulated or counted. Chances have their 95% interval, because the number of runs is limited.
2. A run that was never caught counts with the devices that it reached in the end.

Called by forecast.py. The fields of `Forecast` are the published JSON.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from whimbrel.forecast.cohort_sizes import CohortSizes
from whimbrel.forecast.cost import DownloadSizes, Prices
from whimbrel.forecast.effects import Effect
from whimbrel.forecast.fleet_description import FleetDescription
from whimbrel.forecast.limits_of_a_fleet import limits_broken
from whimbrel.forecast.simulate_runs import RunResults
from whimbrel.plan.plan import Plan
from whimbrel.policy.bucket import BUCKETS

Array = NDArray[Any]


class ForecastRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The plan, the fleet and the effects of a forecast."""

    plan: Plan
    fleet: FleetDescription
    devices: int
    effects: tuple[Effect, ...] = ()
    runs: int = 100
    seed: int = 0
    sizes: DownloadSizes | None = None
    prices: Prices | None = None
    notes: tuple[str, ...] = ()  # further assumptions of the caller


class Chance(msgspec.Struct, frozen=True):
    """`times` of `runs`, and the 95% interval of the chance (Wilson's)."""

    times: int
    runs: int
    share: float
    low: float
    high: float

    @classmethod
    def of(cls, times: int, runs: int) -> "Chance":
        """From counts."""
        z, p = 1.959964, times / runs
        middle = (p + z * z / (2 * runs)) / (1 + z * z / runs)
        half = z / (1 + z * z / runs) * math.sqrt(p * (1 - p) / runs + z * z / (4 * runs * runs))
        low, high = max(0.0, middle - half), min(1.0, middle + half)
        return cls(times, runs, p, 0.0 if times == 0 else low, 1.0 if times == runs else high)


class Spread(msgspec.Struct, frozen=True):
    """The median over the runs, and the bound of nine of ten runs. None where too many runs have no value."""

    median: float | None
    p90: float | None

    @classmethod
    def of(cls, values: Array) -> "Spread":
        """`inf` stands for a run without a value."""
        if not len(values):
            return cls(None, None)
        quantiles = [float(np.quantile(values, q, method="higher")) for q in (0.5, 0.9)]
        return cls(*(value if math.isfinite(value) else None for value in quantiles))


class StageForecast(msgspec.Struct, frozen=True, kw_only=True):
    """A stage of a version that nothing is wrong with. `devices`: on the version, together with earlier stages."""

    name: str
    share_percent: float
    devices: int
    begins_h: Spread
    reached: Chance
    bytes: float | None  # that all its devices fetch


class EffectForecast(msgspec.Struct, frozen=True, kw_only=True):
    """One effect. `exposed`: devices that had run the version at the verdict, or in the end where no verdict came."""

    effect: str
    caught: Chance
    verdict_h: Spread
    exposed: Spread
    caught_in: dict[str, int]  # runs by the stage in which they were caught
    harm: dict[str, int]  # runs by the guardrail that caught them, the commonest first
    held: Chance  # neither caught nor finished: a person decides
    held_because: str
    bytes: float | None  # sent before the verdict, at the median
    move: str
    because: str  # the gate's sentence about the first run


class TransferForecast(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of the whole rollout by way, bytes of the metadata refreshes meanwhile, and the cost of both."""

    by_way: dict[str, float]
    total: float
    downloads: int
    looks: float
    looks_bytes: float
    currency: str | None = None
    cost: float | None = None  # of the downloads
    looks_cost: float | None = None


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is expected, and everything that was assumed."""

    model_version: str
    devices: int
    runs: int
    seed: int
    stages: list[StageForecast]
    finished: Chance
    finishes_h: Spread
    false_alarm: Chance
    false_alarm_harm: dict[str, int]  # runs by the guardrail that raised it
    warnings: list[str]  # limits of the plan that the assumed fleet breaks by itself
    held: Chance
    held_because: str
    because: str
    effects: list[EffectForecast]
    transfer: TransferForecast | None = msgspec.field(name="traffic")
    decisions: int
    gate_gap: float  # ln E: the greatest difference between the gate and the arrays, in the runs that went through both
    assumed: list[str]
    fleet: FleetDescription = msgspec.field(name="shape")
    path: list[tuple[float, int]]  # hours, and devices that have run the version, of the first run without an effect


def summarize(
    request: ForecastRequest, cohorts: CohortSizes, plain: list[RunResults], by_effect: list[list[RunResults]]
) -> Forecast:
    """Summarize the chunks of runs: `plain` without an effect, `by_effect` with each effect."""
    plan, first = request.plan, plain[0]
    window_h = plan.window_s() / 3600
    finished = np.concatenate([each.finished for each in plain])
    caught = np.concatenate([each.caught for each in plain])
    reason, held = _held(plain)
    all_chunks = [each for chunks in (plain, *by_effect) for each in chunks]
    return Forecast(
        model_version=plan.model_version,
        devices=request.devices,
        runs=request.runs,
        seed=request.seed,
        stages=_stages(request, cohorts, plain),
        finished=Chance.of(int((finished >= 0).sum()), request.runs),
        finishes_h=_hours(finished, window_h),
        false_alarm=Chance.of(int((caught >= 0).sum()), request.runs),
        false_alarm_harm=_harm(plain),
        warnings=limits_broken(plan, request.fleet),
        held=held,
        held_because=reason,
        because=first.because,
        effects=[
            _effect(request, cohorts, effect, chunks) for effect, chunks in zip(request.effects, by_effect, strict=True)
        ],
        transfer=_transfer(request, cohorts, (finished[finished >= 0] + 1) * window_h),
        decisions=cohorts.decisions,
        gate_gap=max(each.gap or 0.0 for each in all_chunks),
        assumed=list(_assumptions(request, first)),
        fleet=request.fleet,
        path=_path(first, window_h),
    )


def _hours(windows: Array, window_h: float) -> Spread:
    """At the end of these windows; -1 is never."""
    return Spread.of(np.where(windows >= 0, (windows + 1) * window_h, math.inf))


def _held(chunks: Iterable[RunResults]) -> tuple[str, Chance]:
    reasons: dict[str, int] = {}
    runs = 0
    for each in chunks:
        runs += len(each.caught)
        for reason, times in each.held.items():
            reasons[reason] = reasons.get(reason, 0) + times
    commonest = max(sorted(reasons), key=reasons.__getitem__) if reasons else ""
    return commonest, Chance.of(sum(reasons.values()), runs)


def _effect(request: ForecastRequest, cohorts: CohortSizes, effect: Effect, chunks: list[RunResults]) -> EffectForecast:
    plan, mean = request.plan, _mean_bytes(request, cohorts)
    caught = np.concatenate([each.caught for each in chunks])
    entered = np.concatenate([each.entered for each in chunks])
    exposed = Spread.of(np.concatenate([each.exposed for each in chunks]).astype(float))
    stages = [plan.stages[int((row >= 0).sum()) - 1].name for row in entered[caught >= 0]]
    reason, held = _held(chunks)
    return EffectForecast(
        effect=effect.text,
        caught=Chance.of(int((caught >= 0).sum()), len(caught)),
        verdict_h=_hours(caught, plan.window_s() / 3600),
        exposed=exposed,
        caught_in={name: stages.count(name) for name in dict.fromkeys(s.name for s in plan.stages) if name in stages},
        harm=_harm(chunks),
        held=held,
        held_because=reason,
        bytes=None if mean is None or exposed.median is None else mean * exposed.median,
        move=chunks[0].move,
        because=chunks[0].because,
    )


def _harm(chunks: list[RunResults]) -> dict[str, int]:
    """How many runs each guardrail caught, the commonest first."""
    names = [name for each in chunks for name in each.harm if name]
    return dict(sorted(Counter(names).items(), key=lambda pair: (-pair[1], pair[0])))


def _stages(request: ForecastRequest, cohorts: CohortSizes, plain: list[RunResults]) -> list[StageForecast]:
    window_h, sizes = request.plan.window_s() / 3600, request.sizes
    entered = np.concatenate([each.entered for each in plain])
    devices = np.cumsum(cohorts.treated.sum(axis=(2, 3)), axis=1)[0]
    stages = []
    for number, stage in enumerate(request.plan.stages):
        column = entered[:, number]
        stages.append(
            StageForecast(
                name=stage.name,
                share_percent=round(100 * float(cohorts.shares[0, number] - request.plan.range.start) / BUCKETS, 4),
                devices=int(devices[number]),
                begins_h=Spread.of(np.where(column >= 0, column * window_h, math.inf)),
                reached=Chance.of(int((column >= 0).sum()), len(column)),
                bytes=None
                if sizes is None
                else float(np.dot(cohorts.bases[0, number], _bytes_by_base(request.fleet, sizes))),
            )
        )
    return stages


def _bytes_by_base(fleet: FleetDescription, sizes: DownloadSizes) -> Array:
    return np.array([sizes.by_version[base.name][1] for base in fleet.versions])


def _mean_bytes(request: ForecastRequest, cohorts: CohortSizes) -> float | None:
    if (sizes := request.sizes) is None:
        return None
    bases = cohorts.bases[0].sum(axis=0)
    return float(np.dot(bases, _bytes_by_base(request.fleet, sizes)) / max(1, bases.sum()))


def _transfer(request: ForecastRequest, cohorts: CohortSizes, finishes_h: Array) -> TransferForecast | None:
    plan, fleet, devices, sizes, prices = request.plan, request.fleet, request.devices, request.sizes, request.prices
    if sizes is None:
        return None
    shares = np.array([base.share for base in fleet.versions])
    bases = devices * shares / shares.sum() if plan.reaches_everyone else cohorts.bases[0].sum(axis=0).astype(float)
    by_way: dict[str, float] = {}
    for number, base in enumerate(fleet.versions):
        way, size = sizes.by_version[base.name]
        by_way[way] = by_way.get(way, 0.0) + float(bases[number]) * size
    hours = float(np.median(finishes_h)) if len(finishes_h) else sum(stage.duration_hours for stage in plan.stages)
    online = sum(each.share * each.online for each in fleet.presence)
    looks = devices * online * hours * 3600 / fleet.refresh_s
    total, downloads = sum(by_way.values()), round(float(bases.sum()))
    return TransferForecast(
        by_way=by_way,
        total=total,
        downloads=downloads,
        looks=looks,
        looks_bytes=looks * fleet.refresh_bytes,
        currency=prices.currency if prices else None,
        cost=prices.cost(total, requests=downloads) if prices else None,
        looks_cost=prices.cost(looks * fleet.refresh_bytes, requests=looks) if prices else None,
    )


def _path(first: RunResults, window_h: float) -> list[tuple[float, int]]:
    step = max(1, len(first.exposed_by_window) // 500)  # a chart needs no more points
    return [
        ((number + 1) * window_h, int(first.exposed_by_window[number]))
        for number in range(0, len(first.exposed_by_window), step)
    ]


def _assumptions(request: ForecastRequest, first: RunResults) -> Iterator[str]:
    plan, fleet, sizes, prices = request.plan, request.fleet, request.sizes, request.prices
    yield (
        f"the fleet (from: {fleet.source}): {fleet.sessions_a_day:g} sessions a device and day, "
        f"{fleet.crash:.3%} crashes, {fleet.error:.3%} errors, accuracy {fleet.accuracy:g} known of "
        f"{fleet.labelled:.0%}, "
        f"latency {fleet.latency_ms:g} ms at the median (spread {fleet.latency_spread:g}), "
        f"{fleet.install_failed:.3%} of installs fail"
    )
    yield "hardware: " + ", ".join(f"{name or 'unnamed'} {share:.1%}" for name, share in fleet.hardware.items())
    yield "habits: " + "; ".join(
        f"{each.name} {each.share:.1%}, online {each.online:.0%} of the windows, "
        + (f"updates after {each.delay_h:g} h on average" if each.delay_h else "never updates")
        for each in fleet.presence
    )
    yield f"it starts at {fleet.start_hour:g} h UTC, and traffic follows the hours of the day (by_hour)"
    if sizes is None:
        yield "no sizes were given (--size, or a repository that has the version), so bytes and cost are not forecast"
    else:
        yield "downloads: " + "; ".join(
            f"{name}: {way}, {size / 1e6:.2f} MB" for name, (way, size) in sizes.by_version.items()
        )
        yield from sizes.assumptions
        yield f"a look that finds nothing new takes {fleet.refresh_bytes:g} bytes, every {fleet.refresh_s:g} s"
        if prices is None:
            yield "no price table was given (--prices), so cost is not forecast"
        else:
            yield f"prices as in the table given{f' ({prices.source})' if prices.source else ''}, counted from nothing"
    yield from request.notes
    if first.unwatched:
        yield (
            f"{', '.join(first.unwatched)} are watched and are not simulated: as if nothing was ever seen of them, "
            "so effects are caught later here than they would be"
        )
    if plan.promote == "when_proven":
        yield "every run waits for its proof as long as one did that the gate judged before the others were played"
    by_clock = {"schedule": plan.schedule is not None, "freeze": bool(plan.freeze)}
    by_clock["approvals"] = any(stage.approval is not None for stage in plan.stages)
    by_clock["conditions"] = any(stage.conditions is not None for stage in plan.stages)
    if waits := [name for name, is_set in by_clock.items() if is_set]:
        yield f"nothing waits for the plan's {', '.join(waits)}: times are the earliest, and delays are the habits' own"
    if not plan.rollback.auto_rollback:
        yield "auto_rollback is off: a verdict is when a person is told, and devices go on being exposed until they act"
