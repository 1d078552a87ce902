"""`whimbrel simulate`: worlds from seeds, with real agents and a real server on modelled disks, networks and clocks."""

import os
import sys
import time
from collections import Counter
from typing import Annotated, Any

import msgspec
import typer

from whimbrel.cli.output import Json, counted, counting, print_json, say
from whimbrel.errors import InvariantBroken
from whimbrel.sim.simulate import WorldResult, simulate_many

_DEVICES = typer.Option("--devices", "-D", min=1, max=10_000, help="How many devices each world has.")
_SEEDS = typer.Option("--seeds", "-K", min=1, max=1_000_000, help="Worlds: this many seeds, from --seed on.")
_JOBS = typer.Option(
    "--jobs", "-j", min=1, max=64, help="Worlds that are played at the same time. Default: one for each processor core."
)


def simulate(
    seed: Annotated[int, typer.Option("--seed", "-N", min=0, help="The first world.")] = 0,
    devices: Annotated[int, _DEVICES] = 50,
    seeds: Annotated[int, _SEEDS] = 1,
    jobs: Annotated[int | None, _JOBS] = None,
    json: Json = False,
) -> None:
    """Play worlds with faults, then without, and check every promise. The exit status is 0 when all were kept.

    The same seed and devices are the same world, however many are played side by side: the command that is printed
    with a world plays it again. With --json: one line for each world, in the order of the seeds, and a last line that
    sums up.
    """
    begun = time.perf_counter()
    injected: Counter[str] = Counter()
    broken: list[WorldResult] = []
    worlds = simulate_many(range(seed, seed + seeds), devices=devices, jobs=jobs or _cores())
    with counting("worlds", total=seeds) as count:
        for result in worlds:
            injected.update(result.injected)
            if result.violations:
                broken.append(result)
            if json:
                print_json(msgspec.to_builtins(result) | {"replay": result.replay})
                sys.stdout.flush()  # who reads it through a pipe follows too
            else:
                _tell(result)
            count(f"{len(broken)} broke a promise")
    done: dict[str, Any] = {
        "ok": not broken,
        "seeds": seeds,
        "devices": devices,
        "violations": sum(len(result.violations) for result in broken),
        "seconds": round(time.perf_counter() - begun, 1),
        "injected": dict(sorted(injected.items())),
    }
    if json:
        print_json(done)
    else:
        worlds_words, fleet = counted(seeds, "world"), counted(devices, "device")
        say(f"{worlds_words} of {fleet} in {done['seconds']} s: {counted(done['violations'], 'violation')}")
    if broken:
        raise InvariantBroken(f"{len(broken)} of {seeds} worlds broke a promise; the first again: {broken[0].replay}")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _tell(result: WorldResult) -> None:
    faults = ", ".join(f"{count} {kind}" for kind, count in result.injected.items()) or "none"
    ends = ", ".join(f"{count} {state}" for state, count in result.rollouts.items()) or "none"
    say(f"seed {result.seed}: {counted(result.devices, 'device')}, trace {result.trace}, {result.seconds:.1f} s")
    say(f"  injected: {faults}")
    say(f"  rollouts: {ends}")
    say(f"  occurred: {', '.join(f'{count} {what}' for what, count in result.occurred.items()) or 'nothing else'}")
    for violation in result.violations:
        say(f"  broken after {violation.at:.0f} s: {violation.promise}: {violation.what}")
    say(f"  again: {result.replay}")
