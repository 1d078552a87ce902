"""How fast are decisions for millions of devices, and what does a forecast of ten million take?

1. `decide_many` against the scalar `decide`, in the same run: a policy with quarantine, two layers and three entered
   stages, devices of 20 kinds. Seconds are of the processor, and one core is used.
2. A forecast of ten million devices through a three-stage plan with four effects, in two processes as the command does
   it. The bar is two minutes on two cores: the processor time of the parent and half of its children's, so that
   a busy machine does not change the figure; the wall clock is told too. Memory: the parent's peak, and each child's.
"""

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from whimbrel.forecast.cohort_sizes import policy_at
from whimbrel.forecast.effects import parse_effect
from whimbrel.forecast.fleet_description import FleetDescription
from whimbrel.forecast.forecast import forecast
from whimbrel.forecast.summary import ForecastRequest
from whimbrel.model.release import Line
from whimbrel.model.selector import Selector
from whimbrel.plan.plan import Plan, Stage
from whimbrel.policy.bucket import device_key
from whimbrel.policy.decide import Profile, decide
from whimbrel.policy.decide_many import BareDecision, Kind, decide_many
from whimbrel.policy.policy import Layer, Policy, Quarantine

SEED = 20261126
KINDS = 20
SCALAR = 20_000  # devices that the scalar form decides
DEVICES = 10_000_000
EFFECTS = ("crash=2x", "latency=1.5x", "accuracy=-0.04", "bricked=2%")
PROCESSES = 2
PLAN = Plan(
    model_version="m@2.0.0",
    stages=(
        Stage(name="canary", target_percent=5, duration_hours=24),
        Stage(name="early", target_percent=25, duration_hours=24),
        Stage(name="general", target_percent=100, duration_hours=24),
    ),
)
BARS = {"decisions_per_s_core": 20e6, "seconds_on_two_cores": 120.0, "peak_gib": 4.0}


def policy() -> Policy:
    """Three stages of a rollout, a slice that refuses its version, and a second layer for the rest."""
    one = policy_at(PLAN, (50_000, 250_000, 900_000))
    again = Layer(salt=7, entries=one.layers[0].entries)
    bad = Quarantine(serial=2, selector=Selector(match_labels={"hardware": "c3"}))
    return msgspec.structs.replace(one, layers=(*one.layers, again), quarantine=(bad,))


def decisions(devices: int) -> dict[str, Any]:
    """Decisions a second of both forms; the answers for some of the devices are compared."""
    asked, line = policy(), Line(model="m", sequence=1)
    kinds = [Kind({"hardware": f"c{number}"}) for number in range(KINDS)]
    ids = [f"dev-{number}" for number in range(SCALAR)]
    draw = np.random.default_rng(SEED)
    keys = draw.integers(0, 2**64, size=devices, dtype=np.uint64)
    keys[:SCALAR] = [device_key(each) for each in ids]
    kind = draw.integers(0, KINDS, size=devices).astype(np.uint16)
    times = []
    for _ in range(3):
        began = time.process_time()
        decided = decide_many(asked, line, keys, kind, kinds)
        times.append(time.process_time() - began)
    profiles = [Profile(each, kinds[kind[number]].labels) for number, each in enumerate(ids)]
    began = time.process_time()
    alone = [decide(asked, line, profile) for profile in profiles]
    scalar = SCALAR / (time.process_time() - began)
    for number, each in enumerate(alone):
        if decided.decisions[decided.which[number]] != BareDecision(
            each.serial, each.offer, each.assignments, each.beside
        ):
            raise SystemExit(f"{ids[number]} is decided differently: {each}")
    best = devices / min(times)
    return {
        "decisions": devices,
        "decisions_per_s_core": round(best),
        "scalar_per_s_core": round(scalar),
        "speed_vs_scalar": round(best / scalar, 1),
        "compared": SCALAR,
    }


def whole(runs: int) -> dict[str, Any]:
    """A forecast of ten million devices, as the command makes it."""
    asked = ForecastRequest(
        plan=PLAN,
        fleet=FleetDescription(),
        devices=DEVICES,
        effects=tuple(map(parse_effect, EFFECTS)),
        runs=runs,
        seed=SEED,
    )
    began, own, theirs = time.monotonic(), _cpu(resource.RUSAGE_SELF), _cpu(resource.RUSAGE_CHILDREN)
    result = forecast(asked, processes=PROCESSES)
    own, theirs = _cpu(resource.RUSAGE_SELF) - own, _cpu(resource.RUSAGE_CHILDREN) - theirs
    memory = [_peak_gib(resource.RUSAGE_SELF), *[_peak_gib(resource.RUSAGE_CHILDREN)] * PROCESSES]
    return {
        "devices": DEVICES,
        "runs": runs,
        "effects": {
            each.effect: {"caught": each.caught.share, "exposed": each.exposed.median, "hours": each.verdict_h.median}
            for each in result.effects
        },
        "false_alarm": result.false_alarm.share,
        "finished": result.finished.share,
        "device_decisions": result.decisions,
        "gate_gap": result.gate_gap,
        "seconds": round(time.monotonic() - began, 1),
        "cpu_s": round(own + theirs, 1),
        "seconds_on_two_cores": round(own + theirs / PROCESSES, 1),
        "peak_gib": round(sum(memory), 3),
        "peak_gib_parent": round(memory[0], 3),
    }


def _cpu(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def _peak_gib(who: int) -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(who).ru_maxrss * unit / 2**30


def main() -> None:
    """Measure, print the figures, write them; with --json the last line is one object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="50 rollouts an effect instead of 100")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--runs", type=int, help="rollouts an effect")
    arguments = parser.parse_args()
    fast = decisions(4_000_000)
    print(
        f"decisions a second and core: {fast['decisions_per_s_core']:,}, "
        f"{fast['speed_vs_scalar']:g} times the scalar {fast['scalar_per_s_core']:,}",
        flush=True,
    )
    slow = whole(arguments.runs or (50 if arguments.quick else 100))
    print(
        f"{slow['devices']:,} devices, {slow['runs']} rollouts of each of {len(EFFECTS)} effects and of none: "
        f"{slow['seconds_on_two_cores']} s on two cores ({slow['seconds']} s by the clock, {slow['cpu_s']} s of "
        f"processor), {slow['peak_gib']} GiB"
    )
    result = {**fast, **slow, "cores": os.cpu_count(), "seed": SEED}
    missed = [
        f"{name} is {result[name]}, {'at least' if name.endswith('core') else 'at most'} {bar:g}"
        for name, bar in BARS.items()
        if (result[name] < bar if name.endswith("core") else result[name] > bar)
    ]
    if result["gate_gap"] > 1e-5:
        missed.append(f"the gate and the arrays differ by {result['gate_gap']} in ln E, at most 1e-5")
    summary = {"ok": not missed, "missed": missed, **result}
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    (folder / "forecast.json").write_text(json.dumps(summary, indent=1, sort_keys=True) + "\n")
    for each in missed:
        print(f"the bar is missed: {each}")
    if arguments.json:
        print(json.dumps(summary, sort_keys=True))
    sys.exit(0 if summary["ok"] else 1)


if __name__ == "__main__":
    main()
