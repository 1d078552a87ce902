"""Worlds keep every promise, the same seed is the same world, and a broken promise says how to see it again."""

import json
from typing import Any

import pytest

from build_server import whimbrel
from whimbrel.agent.installation import Installation
from whimbrel.device import events
from whimbrel.sim.faults import DEVICE, LINK, SERVER
from whimbrel.sim.simulate import simulate

PINNED = {  # what each world showed, before it was fixed
    1: "a power cut after a report made the same sessions count twice, under new numbers",
    7: "metadata without its policy made an old policy look fresh, and a stopped version was activated",
    9: "a revocation that had come was not believed, as the policy beside it had not come",
}


@pytest.mark.parametrize("seed", PINNED)
def test_world_that_showed_a_defect_keeps_every_promise(seed: int) -> None:
    assert simulate(seed, devices=50).violations == ()


def test_same_seed_is_the_same_world() -> None:
    one, other = simulate(3, devices=12), simulate(3, devices=12)
    assert (one.trace, one.injected, one.rollouts) == (other.trace, other.injected, other.rollouts)


def test_other_seed_is_another_world() -> None:
    assert simulate(3, devices=4).trace != simulate(4, devices=4).trace


def test_every_kind_of_fault_is_injected_and_rollouts_end_in_every_way() -> None:
    said = whimbrel("simulate", "--seed", 1000, "--seeds", 16, "--devices", 8, "--json")
    *_, last = said.out.splitlines()
    assert said.status == 0, said.out
    assert set(json.loads(last)["injected"]) == {*LINK, *DEVICE, *SERVER}
    worlds = [json.loads(line) for line in said.out.splitlines()[:-1]]
    ends = {state for world in worlds for state in world["rollouts"]}
    assert ends >= {"completed", "rolled_back", "aborted"}


def test_broken_promise_is_said_with_the_command_that_plays_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Installation, "_probe", _nothing_is_probed)
    said = whimbrel("simulate", "--seed", 0, "--devices", 2, "--processes", 1)
    assert said.status == 70
    assert "broken after" in said.out
    assert "whimbrel simulate --seed 0 --devices 2" in said.err


def _nothing_is_probed(*_: Any) -> events.Event:
    return events.ProbePassed()
