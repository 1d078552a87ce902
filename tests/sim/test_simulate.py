"""Worlds keep every promise, the same seed is the same world, and a broken promise says how to see it again."""

import json
import os
import subprocess
import sys
import threading
from typing import Any

import pytest

from support.server import whimbrel
from whimbrel.agent.preparation import Preparation
from whimbrel.agent.session_results import SessionResults
from whimbrel.device import events
from whimbrel.sim.faults import DEVICE, LINK, PATCH, SERVER
from whimbrel.sim.simulate import Simulation, simulate

PINNED = {  # what each world showed, before it was fixed
    1: "a power cut after a report made the same sessions count twice, under new numbers",
    7: "metadata without its policy made an old policy look fresh, and a stopped version was activated",
    9: "a revocation that had come was not believed, as the policy beside it had not come",
}


@pytest.mark.long
@pytest.mark.parametrize("seed", PINNED)
def test_world_that_showed_a_defect_keeps_every_promise(seed: int) -> None:
    assert simulate(seed, devices=50, prepare=_as_it_was).violations == ()


def _as_it_was(world: Simulation) -> None:
    """Before worlds had patches, shadows and experiments: else these seeds are other worlds."""
    world.backend.shadows = world.backend.patches = world.compares = False


@pytest.mark.long
def test_same_seed_is_the_same_world() -> None:
    one, other = simulate(3, devices=12), simulate(3, devices=12)
    assert (one.trace, one.injected, one.occurred) == (other.trace, other.injected, other.occurred)


@pytest.mark.long
def test_worlds_are_the_same_however_many_are_played_at_once_and_however_sets_are_ordered() -> None:
    told = []
    for jobs, hash_seed in ((1, "1"), (3, "2")):
        arguments = ("--seed", "5", "--seeds", "3", "--devices", "6", "--json", "--jobs", str(jobs))
        command = [sys.executable, "-m", "whimbrel.cli", "simulate", *arguments]
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        *worlds, _ = map(json.loads, done.stdout.splitlines())
        told.append([world | {"seconds": 0} for world in worlds])
    assert [world["seed"] for world in told[0]] == [5, 6, 7]
    assert told[0] == told[1]


def test_a_world_is_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch over every request had a thread of its own, and worlds waited for the machine a third of their time."""

    def refuses(_: threading.Thread) -> None:
        raise RuntimeError("a thread is started")

    monkeypatch.setattr(threading.Thread, "start", refuses)
    assert simulate(3, devices=4).violations == ()


@pytest.mark.long
def test_other_seed_is_another_world() -> None:
    assert simulate(3, devices=4).trace != simulate(4, devices=4).trace


@pytest.mark.long
def test_every_kind_of_fault_is_injected_and_rollouts_end_in_every_way() -> None:
    said = whimbrel("simulate", "--seed", 1029, "--seeds", 16, "--devices", 8, "--json")
    *_, last = said.out.splitlines()
    assert said.status == 0, said.out
    assert set(json.loads(last)["injected"]) == {*LINK, *DEVICE, *SERVER, *PATCH}
    worlds = [json.loads(line) for line in said.out.splitlines()[:-1]]
    ends = {state for world in worlds for state in world["rollouts"]}
    assert ends >= {"completed", "rolled_back", "aborted"}
    occurred = {what for world in worlds for what in world["occurred"]}
    assert occurred >= {"update: whole", "update: delta", "session beside a shadow", "experiment"}


def test_broken_promise_is_said_with_the_command_that_plays_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Preparation, "probe", _nothing_is_probed)
    said = whimbrel("simulate", "--seed", 0, "--devices", 2, "--jobs", 1)
    assert said.status == 70
    assert "broken after" in said.out
    assert "whimbrel simulate --seed 0 --devices 2" in said.err


def test_an_exception_that_nobody_meant_is_a_broken_promise_and_the_seed_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SessionResults, "collect", _fails)
    (violation,) = simulate(2, devices=2).violations
    line = _fails.__code__.co_firstlineno + 1
    assert violation.promise == "unbroken"
    assert violation.what == f"ZeroDivisionError in test_simulate.py:{line} (_fails): division by zero"


def _fails(*_: Any) -> None:
    1 / 0  # noqa: B018


def _nothing_is_probed(*_: Any) -> events.Event:
    return events.ProbePassed()
