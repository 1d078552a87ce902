"""What should be expected of a rollout? The fleet is drawn, the runs are played, and what became of them is added up.

1. Chunks of runs are played in processes of their own. The same seed gives the same forecast, however many there are.
2. With `when_proven` one run without an effect is played through the gate first, and the others wait as long for proof.

Called by the command line and the benchmark.
"""

import math
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed

import msgspec

from whimbrel import limits
from whimbrel.errors import Refused
from whimbrel.forecast.effects import NOTHING_WRONG, Effect
from whimbrel.forecast.expected import Asked, Forecast, expect
from whimbrel.forecast.headcount import Headcount, count, fleets_for
from whimbrel.forecast.play import Played, Task, horizon, play
from whimbrel.plan.plan import Plan

Tick = Callable[[float], None]  # the share of the work that is done


def forecast(asked: Asked, *, processes: int = 1, tick: Tick | None = None) -> Forecast:
    """The forecast of a plan over a fleet. Raises `Refused` where a limit is passed."""
    for what, found, most in (
        ("devices", asked.devices, limits.FORECAST_DEVICES),
        ("runs", asked.runs, limits.FORECAST_RUNS),
        ("effects", len(asked.effects), limits.FORECAST_EFFECTS),
    ):
        if found > most:
            raise Refused(f"{found} {what}; at most {most} are simulated")
    if asked.plan.shadows:
        raise Refused(
            f"stage {asked.plan.stages[0].name!r} is a shadow stage, and those are not simulated: forecast without it"
        )
    horizon(asked.plan)
    head = count(
        asked.plan, asked.shape, devices=asked.devices, fleets=fleets_for(asked.devices, asked.runs), seed=asked.seed
    )
    tasks = _tasks(asked, head, NOTHING_WRONG, number=0)
    chunks = len(tasks)
    share = _Share(tick, of=(asked.plan.promote == "when_proven") + chunks * (1 + len(asked.effects)))
    for number, effect in enumerate(asked.effects, start=1):
        tasks += _tasks(asked, head, effect, number=number)
    if asked.plan.promote == "when_proven":
        pilot = play(msgspec.structs.replace(tasks[0], runs=1), share.part)
        share.next()
        tasks = [msgspec.structs.replace(task, unproven_s=_unproven_s(asked.plan, pilot)) for task in tasks]
    played = _all(tasks, processes=processes, share=share)
    groups = [played[n : n + chunks] for n in range(0, len(played), chunks)]
    return expect(asked, head, groups[0], groups[1:])


class _Share:
    """How much of the work is done: parts of the task that is played here, and whole ones."""

    def __init__(self, tick: Tick | None, *, of: int) -> None:
        self._tick, self._of, self._done = tick, of, 0

    def part(self, done: int, of: int) -> None:
        if self._tick is not None:
            self._tick((self._done + done / of) / self._of)

    def next(self) -> None:
        self._done += 1
        self.part(0, 1)


def _tasks(asked: Asked, head: Headcount, effect: Effect, *, number: int) -> list[Task]:
    size = limits.FORECAST_CHUNK
    return [
        Task(
            plan=asked.plan,
            shape=asked.shape,
            head=head,
            effect=effect,
            first=begun,
            runs=min(size, asked.runs - begun),
            seed=[asked.seed, number, begun],
            real=begun == 0,
        )
        for begun in range(0, asked.runs, size)
    ]


def _all(tasks: list[Task], *, processes: int, share: _Share) -> list[Played]:
    if processes == 1 or len(tasks) < 2:
        made = []
        for task in tasks:
            made.append(play(task, share.part))
            share.next()
        return made
    context = multiprocessing.get_context("spawn")  # a child of threads and numpy starts clean
    with ProcessPoolExecutor(min(processes, len(tasks)), mp_context=context) as pool:
        waiting = {pool.submit(play, task): place for place, task in enumerate(tasks)}
        done: dict[int, Played] = {}
        for future in as_completed(waiting):
            done[waiting[future]] = future.result()
            share.next()
    return [done[place] for place in range(len(tasks))]


def _unproven_s(plan: Plan, begun: Played) -> tuple[float, ...]:
    """How long each stage of the first run waited for its proof beyond its soak; inf where none came."""
    ends = [*begun.entered[0, 1:].tolist(), int(begun.finished[0]) + 1]
    waits = []
    for stage, (start, end) in enumerate(zip(begun.entered[0].tolist(), ends, strict=True)):
        soaked = (end - start) * plan.window_s() - plan.stages[stage].duration_hours * 3600
        waits.append(max(0.0, soaked) if end > start >= 0 else math.inf)
    return tuple(waits)
