"""The forecast of a plan over a fleet: draw the fleet, simulate the rollouts, and summarize their results.

1. Chunks of runs are simulated in processes of their own. The same seed gives the same forecast with any number of
   processes.
2. With `when_proven` one run without an effect goes through the gate first. All others wait as long for their proof.

Called by the command line and the benchmark.
"""

import math
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed

import msgspec

from whimbrel import limits
from whimbrel.errors import Refused
from whimbrel.forecast.cohort_sizes import CohortSizes, count_cohorts, fleets_for
from whimbrel.forecast.effects import NOTHING_WRONG, Effect
from whimbrel.forecast.simulate_runs import RunResults, Task, horizon, simulate_runs
from whimbrel.forecast.summary import Forecast, ForecastRequest, summarize
from whimbrel.plan.plan import Plan

Tick = Callable[[float], None]  # the share of the work that is done


def forecast(request: ForecastRequest, *, processes: int = 1, tick: Tick | None = None) -> Forecast:
    """The forecast of a plan over a fleet. Raises `Refused` where a limit is passed."""
    for what, number, most in (
        ("devices", request.devices, limits.FORECAST_DEVICES),
        ("runs", request.runs, limits.FORECAST_RUNS),
        ("effects", len(request.effects), limits.FORECAST_EFFECTS),
    ):
        if number > most:
            raise Refused(f"{number} {what}; at most {most} are simulated")
    if request.plan.shadows:
        raise Refused(
            f"stage {request.plan.stages[0].name!r} is a shadow stage, and those are not simulated: forecast without it"
        )
    horizon(request.plan)
    cohorts = count_cohorts(
        request.plan,
        request.fleet,
        devices=request.devices,
        fleets=fleets_for(request.devices, request.runs),
        seed=request.seed,
    )
    tasks = _tasks(request, cohorts, NOTHING_WRONG, number=0)
    chunks = len(tasks)
    progress = _Progress(tick, of=(request.plan.promote == "when_proven") + chunks * (1 + len(request.effects)))
    for number, effect in enumerate(request.effects, start=1):
        tasks += _tasks(request, cohorts, effect, number=number)
    if request.plan.promote == "when_proven":
        pilot = simulate_runs(msgspec.structs.replace(tasks[0], runs=1), progress.part)
        progress.next()
        tasks = [msgspec.structs.replace(task, unproven_s=_unproven_s(request.plan, pilot)) for task in tasks]
    results = _simulate(tasks, processes=processes, progress=progress)
    groups = [results[n : n + chunks] for n in range(0, len(results), chunks)]
    return summarize(request, cohorts, groups[0], groups[1:])


class _Progress:
    """The share of the work that is done: whole tasks, and a part of the task that runs in this process."""

    def __init__(self, tick: Tick | None, *, of: int) -> None:
        self._tick, self._of, self._done = tick, of, 0

    def part(self, done: int, of: int) -> None:
        if self._tick is not None:
            self._tick((self._done + done / of) / self._of)

    def next(self) -> None:
        self._done += 1
        self.part(0, 1)


def _tasks(request: ForecastRequest, cohorts: CohortSizes, effect: Effect, *, number: int) -> list[Task]:
    size = limits.FORECAST_CHUNK
    return [
        Task(
            plan=request.plan,
            fleet=request.fleet,
            cohorts=cohorts,
            effect=effect,
            first=first,
            runs=min(size, request.runs - first),
            seed=[request.seed, number, first],
            through_gate=first == 0,
        )
        for first in range(0, request.runs, size)
    ]


def _simulate(tasks: list[Task], *, processes: int, progress: _Progress) -> list[RunResults]:
    if processes == 1 or len(tasks) < 2:
        results = []
        for task in tasks:
            results.append(simulate_runs(task, progress.part))
            progress.next()
        return results
    context = multiprocessing.get_context("spawn")  # a child of threads and numpy starts clean
    with ProcessPoolExecutor(min(processes, len(tasks)), mp_context=context) as pool:
        waiting = {pool.submit(simulate_runs, task): place for place, task in enumerate(tasks)}
        done: dict[int, RunResults] = {}
        for future in as_completed(waiting):
            done[waiting[future]] = future.result()
            progress.next()
    return [done[place] for place in range(len(tasks))]


def _unproven_s(plan: Plan, pilot: RunResults) -> tuple[float, ...]:
    """How long each stage of the pilot run waited for its proof beyond its soak; inf where no proof came."""
    ends = [*pilot.entered[0, 1:].tolist(), int(pilot.finished[0]) + 1]
    waits = []
    for stage, (start, end) in enumerate(zip(pilot.entered[0].tolist(), ends, strict=True)):
        soaked = (end - start) * plan.window_s() - plan.stages[stage].duration_hours * 3600
        waits.append(max(0.0, soaked) if end > start >= 0 else math.inf)
    return tuple(waits)
