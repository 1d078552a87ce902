"""What do many simulated rollouts come to? Times, exposure, chances, bytes and cost, and what they rest on.

1. Nothing is said that was not simulated or counted; chances have their 95% interval, since so many runs tell so much.
2. A run that was never caught counts with the devices that it reached in the end.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from whimbrel.forecast.cost import Prices, Sizes
from whimbrel.forecast.effects import Effect
from whimbrel.forecast.headcount import Headcount
from whimbrel.forecast.play import Played
from whimbrel.forecast.shape import Shape
from whimbrel.plan.plan import Plan
from whimbrel.policy.bucket import BUCKETS

Array = NDArray[Any]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a forecast is about."""

    plan: Plan
    shape: Shape
    devices: int
    effects: tuple[Effect, ...] = ()
    runs: int = 100
    seed: int = 0
    sizes: Sizes | None = None
    prices: Prices | None = None
    notes: tuple[str, ...] = ()  # further assumptions, of whoever asks


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
    """Over the runs: the median, and what nine of ten stay below. None where too many runs have no value."""

    median: float | None
    p90: float | None

    @classmethod
    def of(cls, values: Array) -> "Spread":
        """`inf` stands for a run without a value."""
        if not len(values):
            return cls(None, None)
        parts = [float(np.quantile(values, q, method="higher")) for q in (0.5, 0.9)]
        return cls(*(part if math.isfinite(part) else None for part in parts))


class StageForecast(msgspec.Struct, frozen=True, kw_only=True):
    """A stage of a version that nothing is wrong with. `devices`: on the version, with those of earlier stages."""

    name: str
    share_percent: float
    devices: int
    begins_h: Spread
    reached: Chance
    bytes: float | None  # of all its devices, when they have come


class EffectForecast(msgspec.Struct, frozen=True, kw_only=True):
    """One effect. `exposed`: devices that have had the version at the verdict, or in the end where none came."""

    effect: str
    caught: Chance
    verdict_h: Spread
    exposed: Spread
    caught_in: dict[str, int]  # runs by the stage in which they were caught
    held: Chance  # neither caught nor finished: a person decides
    held_because: str
    bytes: float | None  # sent before the verdict, at the median
    move: str
    because: str  # the gate's sentence about the first run


class TrafficForecast(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of the whole rollout by way; of the looks at the metadata meanwhile; and what both cost."""

    by_way: dict[str, float]
    total: float
    downloads: int
    looks: float
    looks_bytes: float
    currency: str | None = None
    cost: float | None = None  # of the downloads
    looks_cost: float | None = None


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """All that is expected, and all that was assumed."""

    model_version: str
    devices: int
    runs: int
    seed: int
    stages: list[StageForecast]
    finished: Chance
    finishes_h: Spread
    false_alarm: Chance
    held: Chance
    held_because: str
    because: str
    effects: list[EffectForecast]
    traffic: TrafficForecast | None
    decisions: int
    gate_gap: float  # ln E: the greatest difference between the gate and the arrays, in the runs that went through both
    assumed: list[str]
    shape: Shape
    path: list[tuple[float, int]]  # hours, and devices that have had the version, of the first run without an effect


def expect(asked: Asked, head: Headcount, quiet: list[Played], loud: list[list[Played]]) -> Forecast:
    """Add up: `quiet` are the chunks without an effect, `loud` those of each effect."""
    plan, begun = asked.plan, quiet[0]
    window_h = plan.window_s() / 3600
    finished = np.concatenate([each.finished for each in quiet])
    caught = np.concatenate([each.caught for each in quiet])
    why, held = _held(quiet)
    every = [each for chunks in (quiet, *loud) for each in chunks]
    return Forecast(
        model_version=plan.model_version,
        devices=asked.devices,
        runs=asked.runs,
        seed=asked.seed,
        stages=_stages(asked, head, quiet),
        finished=Chance.of(int((finished >= 0).sum()), asked.runs),
        finishes_h=_hours(finished, window_h),
        false_alarm=Chance.of(int((caught >= 0).sum()), asked.runs),
        held=held,
        held_because=why,
        because=begun.because,
        effects=[_effect(asked, head, e, chunks) for e, chunks in zip(asked.effects, loud, strict=True)],
        traffic=_traffic(asked, head, finished * window_h),
        decisions=head.decisions,
        gate_gap=max(each.gap or 0.0 for each in every),
        assumed=list(_sentences(asked, begun)),
        shape=asked.shape,
        path=_path(begun, window_h),
    )


def _hours(windows: Array, window_h: float) -> Spread:
    """At the end of these windows; -1 is never."""
    return Spread.of(np.where(windows >= 0, (windows + 1) * window_h, math.inf))


def _held(chunks: Iterable[Played]) -> tuple[str, Chance]:
    reasons: dict[str, int] = {}
    runs = 0
    for each in chunks:
        runs += len(each.caught)
        for why, times in each.held.items():
            reasons[why] = reasons.get(why, 0) + times
    why = max(sorted(reasons), key=reasons.__getitem__) if reasons else ""
    return why, Chance.of(sum(reasons.values()), runs)


def _effect(asked: Asked, head: Headcount, effect: Effect, chunks: list[Played]) -> EffectForecast:
    plan, mean = asked.plan, _mean_bytes(asked, head)
    caught = np.concatenate([each.caught for each in chunks])
    entered = np.concatenate([each.entered for each in chunks])
    exposed = Spread.of(np.concatenate([each.exposed for each in chunks]).astype(float))
    stages = [plan.stages[int((row >= 0).sum()) - 1].name for row in entered[caught >= 0]]
    why, held = _held(chunks)
    return EffectForecast(
        effect=effect.text,
        caught=Chance.of(int((caught >= 0).sum()), len(caught)),
        verdict_h=_hours(caught, plan.window_s() / 3600),
        exposed=exposed,
        caught_in={name: stages.count(name) for name in dict.fromkeys(s.name for s in plan.stages) if name in stages},
        held=held,
        held_because=why,
        bytes=None if mean is None or exposed.median is None else mean * exposed.median,
        move=chunks[0].moved,
        because=chunks[0].because,
    )


def _stages(asked: Asked, head: Headcount, quiet: list[Played]) -> list[StageForecast]:
    window_h, sizes = asked.plan.window_s() / 3600, asked.sizes
    entered = np.concatenate([each.entered for each in quiet])
    devices = np.cumsum(head.treated.sum(axis=(2, 3)), axis=1)[0]
    made = []
    for number, stage in enumerate(asked.plan.stages):
        column = entered[:, number]
        made.append(
            StageForecast(
                name=stage.name,
                share_percent=round(100 * float(head.shares[0, number] - asked.plan.range.start) / BUCKETS, 4),
                devices=int(devices[number]),
                begins_h=Spread.of(np.where(column >= 0, column * window_h, math.inf)),
                reached=Chance.of(int((column >= 0).sum()), len(column)),
                bytes=None if sizes is None else float(np.dot(head.bases[0, number], _each(asked.shape, sizes))),
            )
        )
    return made


def _each(shape: Shape, sizes: Sizes) -> Array:
    return np.array([sizes.by_version[base.name][1] for base in shape.versions])


def _mean_bytes(asked: Asked, head: Headcount) -> float | None:
    if (sizes := asked.sizes) is None:
        return None
    bases = head.bases[0].sum(axis=0)
    return float(np.dot(bases, _each(asked.shape, sizes)) / max(1, bases.sum()))


def _traffic(asked: Asked, head: Headcount, finishes_h: Array) -> TrafficForecast | None:
    plan, shape, devices, sizes, prices = asked.plan, asked.shape, asked.devices, asked.sizes, asked.prices
    if sizes is None:
        return None
    shares = np.array([base.share for base in shape.versions])
    bases = devices * shares / shares.sum() if plan.reaches_everyone else head.bases[0].sum(axis=0).astype(float)
    by_way: dict[str, float] = {}
    for number, base in enumerate(shape.versions):
        way, size = sizes.by_version[base.name]
        by_way[way] = by_way.get(way, 0.0) + float(bases[number]) * size
    known = finishes_h[finishes_h >= 0]
    hours = float(np.median(known)) if len(known) else sum(stage.duration_hours for stage in plan.stages)
    online = sum(each.share * each.online for each in shape.presence)
    looks = devices * online * hours * 3600 / shape.refresh_s
    total, downloads = sum(by_way.values()), round(float(bases.sum()))
    return TrafficForecast(
        by_way=by_way,
        total=total,
        downloads=downloads,
        looks=looks,
        looks_bytes=looks * shape.refresh_bytes,
        currency=prices.currency if prices else None,
        cost=prices.cost(total, requests=downloads) if prices else None,
        looks_cost=prices.cost(looks * shape.refresh_bytes, requests=looks) if prices else None,
    )


def _path(begun: Played, window_h: float) -> list[tuple[float, int]]:
    step = max(1, len(begun.harmed) // 500)  # a chart needs no more points
    return [((number + 1) * window_h, int(begun.harmed[number])) for number in range(0, len(begun.harmed), step)]


def _sentences(asked: Asked, begun: Played) -> Iterator[str]:
    plan, shape, sizes, prices = asked.plan, asked.shape, asked.sizes, asked.prices
    yield (
        f"the fleet is as {shape.source} say: {shape.sessions_a_day:g} sessions a device and day, "
        f"{shape.crash:.3%} crashes, {shape.error:.3%} errors, accuracy {shape.accuracy:g} known of "
        f"{shape.labelled:.0%}, "
        f"latency {shape.latency_ms:g} ms at the median (spread {shape.latency_spread:g}), "
        f"{shape.install_failed:.3%} of installs fail"
    )
    yield "hardware: " + ", ".join(f"{name or 'unnamed'} {share:.1%}" for name, share in shape.hardware.items())
    yield "habits: " + "; ".join(
        f"{each.name} {each.share:.1%}, online {each.online:.0%} of the windows, "
        + (f"updates after {each.delay_h:g} h on average" if each.delay_h else "never updates")
        for each in shape.presence
    )
    yield f"it starts at {shape.start_hour:g} h UTC, and traffic follows the hours of the day (by_hour)"
    if sizes is None:
        yield "no sizes were given (--size, or a repository that has the version), so bytes and cost are not forecast"
    else:
        yield "downloads: " + "; ".join(
            f"{name}: {way}, {size / 1e6:.2f} MB" for name, (way, size) in sizes.by_version.items()
        )
        yield from sizes.said
        yield f"a look that finds nothing new takes {shape.refresh_bytes:g} bytes, every {shape.refresh_s:g} s"
        if prices is None:
            yield "no price table was given (--prices), so cost is not forecast"
        else:
            yield f"prices as in the table given{f' ({prices.source})' if prices.source else ''}, counted from nothing"
    yield from asked.notes
    if begun.unwatched:
        yield (
            f"{', '.join(begun.unwatched)} are in the plan and are not simulated: as if nothing was ever seen of them, "
            "so effects are caught later here than they would be"
        )
    if plan.promote == "when_proven":
        yield "every run waits for its proof as long as one did that the gate judged before the others were played"
    by_clock = {"schedule": plan.schedule is not None, "freeze": bool(plan.freeze)}
    by_clock["approvals"] = any(stage.approval is not None for stage in plan.stages)
    by_clock["conditions"] = any(stage.conditions is not None for stage in plan.stages)
    if waits := [name for name, said in by_clock.items() if said]:
        yield f"nothing waits for the plan's {', '.join(waits)}: times are the earliest, and delays are the habits' own"
    if not plan.rollback.auto_rollback:
        yield "auto_rollback is off: a verdict is when a person is told, and devices go on being exposed until they act"
