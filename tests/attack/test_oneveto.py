"""oneveto: one device of 500 takes no rollout back, whatever it says and however long it says it."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from support.values import HOUR, T0, Town, announce, cohort, devices_in, plan, reports, rollout, stage, town, window
from whimbrel.flows.reports.ingest import ingest
from whimbrel.flows.rollouts.advance import advance
from whimbrel.gate.verdict import Verdict
from whimbrel.health.report import Summary

CANARY = devices_in(0, 50_000, 25)
CONTROLS = devices_in(50_000, 1_000_000, 475)
LIAR = CANARY[0]
WINDOWS = 16
PLAN = plan(stage(latency_increase_max=0.5, error_rate_max=0.2), stage("all", 100), min_reports=6)
HUGE = 2**40


def usual(chance: Random) -> dict[str, Any]:
    return {
        "crashed": int(chance.random() < 0.01),
        "errors": int(chance.random() < 0.02),
        "latency": {round(chance.gauss(150, 25)): 4},
        "metrics": {"accuracy": Summary.of(chance.gauss(0.9, 0.05)), "memory_mb": Summary.of(chance.gauss(80, 8))},
    }


def played(here: Town, lie: Callable[[int], dict[str, Any]] | None) -> Verdict:
    """A morning of 500 devices. `lie`: what the first treated device tells in each window; None: what others do."""
    chance = Random(20261130)
    for number in range(1, WINDOWS + 1):
        at = T0 + 300 * number
        said = []
        for role, devices in (("treated", CANARY), ("control", CONTROLS)):
            step = "activating" if role == "treated" else "placebo"
            for device in devices:
                told = usual(chance)
                if device == LIAR and lie is not None:
                    told |= lie(number)
                if number == 1:
                    said.append(announce(device, step, role=role, at=at))
                of = window(number, serial=2 if role == "treated" else 1, cohorts=(cohort(role),), **told)
                said.append(reports(device, of, at=at))
        ingest(here.registry, here.fleet, said, now=at)
    return advance(here.registry, here.fleet, here.registry.rollout("r1"), now=T0 + 30 * HOUR)


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param(lambda _: {"crashed": 1}, id="it crashed in every window"),
        pytest.param(lambda _: {"latency": {4000: HUGE}}, id="2^40 slow sessions in every window"),
        pytest.param(lambda _: {"inferences": HUGE, "errors": HUGE}, id="2^40 errors in every window"),
        pytest.param(
            lambda _: {
                "crashed": 1,
                "inferences": HUGE,
                "errors": HUGE,
                "latency": {4000: HUGE},
                "metrics": {"accuracy": Summary(n=HUGE, sum=0.0, sumsq=0.0)},
            },
            id="everything at once",
        ),
    ],
)
def test_oneveto(lie: Callable[[int], dict[str, Any]]) -> None:
    with town(running=rollout(plan=PLAN)) as here:
        verdict = played(here, lie)
        assert verdict.move not in {"roll_back", "slice_back"}, verdict.because


def test_oneveto_by_going_back() -> None:
    """One device of 25 that goes back by itself is what devices do anyway."""
    with town(running=rollout(plan=PLAN)) as here:
        played(here, None)
        gone = [announce(LIAR, "went_back", at=T0 + 9000), announce(LIAR, "failed", at=T0 + 9001)]
        ingest(here.registry, here.fleet, gone, now=T0 + 9000)
        verdict = advance(here.registry, here.fleet, here.registry.rollout("r1"), now=T0 + 30 * HOUR)
        assert verdict.move not in {"roll_back", "slice_back"}, verdict.because
