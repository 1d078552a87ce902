"""The active version's signed probe runs again when the device is idle; a fall is told, and may end the version."""

from collections.abc import Iterator
from typing import Any

import pytest

from support.power_cut import CONTENTS, Device, World
from support.repository import probe_of, variant_of
from whimbrel import limits
from whimbrel.device.conditions import Situation
from whimbrel.device.ports import ProbeRequest, ProbeResult
from whimbrel.errors import Unavailable
from whimbrel.model.local_limits import LocalLimits
from whimbrel.sim.disk import ModelledDisk

WEEK_S = limits.RECHECK_S


class Bench:
    """A prober whose answer can be set; it counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.result = ProbeResult(passed=True, accuracy=0.9)
        self.is_away = False

    def probe(self, request: ProbeRequest) -> ProbeResult:
        self.asked += 1
        if self.is_away:
            raise Unavailable("no probe can be made here")
        assert request.probe is not None
        return self.result


class Board:
    def __init__(self, world: World) -> None:
        self.bench = Bench()
        self.situation = Situation(idle=True, charging=True)
        world.options = {"probes": self.bench, "situation": lambda: self.situation}
        for serial, content in CONTENTS.items():
            variants = (variant_of(content, probe=probe_of(factor=float(serial + 1))),)
            world.repository.release("detector", serial, content, variants=variants)
        self.world = world
        self.device = Device(world, ModelledDisk())
        self.device.settle(1)
        self.device.settle(2)
        self.device.cycle()
        self.bench.asked = 0

    def later(self, seconds: float) -> dict[str, Any]:
        self.world.now += seconds
        return self.device.cycle()

    def told(self) -> list[dict[str, Any]]:
        metrics = [window.get("metrics", {}) for window in self.world.server.windows]
        return [each for each in metrics if "recheck_failed" in each]


@pytest.fixture
def board() -> Iterator[Board]:
    with World() as world:
        yield Board(world)


def test_it_runs_weekly_and_not_at_once(board: Board) -> None:
    assert board.bench.asked == 0
    board.later(WEEK_S / 2)
    assert board.bench.asked == 0
    found = board.later(WEEK_S / 2)
    assert board.bench.asked == 1
    assert found["recheck"]["passed"] is True
    board.later(60)
    assert board.bench.asked == 1
    board.later(WEEK_S)
    assert board.bench.asked == 2


@pytest.mark.parametrize(
    "situation",
    [Situation(idle=False, charging=True), Situation(idle=True, charging=False), Situation(charging=True), Situation()],
)
def test_it_waits_for_an_idle_device_on_a_charger_and_unknown_is_no(board: Board, situation: Situation) -> None:
    board.situation = situation
    board.later(2 * WEEK_S)
    assert board.bench.asked == 0
    board.situation = Situation(idle=True, charging=True)
    board.later(60)
    assert board.bench.asked == 1


def test_a_fall_is_told_with_its_accuracy_and_the_version_stays(board: Board) -> None:
    board.bench.result = ProbeResult(passed=False, reason="accuracy 0.5 on 40 samples", accuracy=0.5)
    found = board.later(WEEK_S)
    assert (found["serial"], found["recheck"]["passed"]) == (2, False)
    assert found["recheck"]["reason"] == "accuracy 0.5 on 40 samples"
    board.later(400)
    assert [(each["recheck_failed"]["sum"], each["recheck_accuracy"]["sum"]) for each in board.told()] == [(1.0, 0.5)]
    assert board.device.cycle()["serial"] == 2


def test_a_fall_ends_the_version_where_the_signed_limits_say_so(board: Board) -> None:
    board.world.want(2, local_limits=LocalLimits(on_failed_probe="go_back", probe_every_s=86400))
    board.device.cycle()
    board.bench.result = ProbeResult(passed=False, reason="accuracy 0.5 on 40 samples", accuracy=0.5)
    board.later(86400)
    board.bench.result = ProbeResult(passed=True)
    found = board.later(60)
    assert (found["state"], found["serial"]) == ("quarantined", 1)
    assert found["refused"]["2"] == "its signed probe failed when it ran again: accuracy 0.5 on 40 samples"
    assert "went_back" in [each["step"] for each in board.world.server.announced]


def test_a_build_that_is_only_slow_now_ends_no_version(board: Board) -> None:
    board.world.want(2, local_limits=LocalLimits(on_failed_probe="go_back"))
    board.device.cycle()
    board.bench.result = ProbeResult(passed=False, reason="it takes 80 ms", over_budget=True)
    board.later(WEEK_S)
    found = board.later(60)
    assert (found["serial"], found["recheck"]["reason"]) == (2, "it takes 80 ms")


def test_a_probe_that_cannot_be_made_or_stops_the_device_is_not_tried_at_every_start(board: Board) -> None:
    board.bench.is_away = True
    board.later(WEEK_S)
    board.later(60)
    assert board.bench.asked == 1
    board.device.restart()
    board.later(60)
    assert board.bench.asked == 1


def test_a_clock_that_was_set_back_delays_it_by_one_period_at_most(board: Board) -> None:
    board.later(WEEK_S)
    board.world.now -= 3 * WEEK_S
    board.device.cycle()
    board.later(WEEK_S)
    assert board.bench.asked == 2


def test_a_version_without_golden_values_has_nothing_to_run_again() -> None:
    with World() as world:
        bench = Bench()
        world.options = {"situation": lambda: Situation(idle=True, charging=True)}
        device = Device(world, ModelledDisk())
        device.settle(1)
        world.options["probes"] = bench
        device.restart()
        device.cycle()
        world.now += 2 * WEEK_S
        device.cycle()
    assert bench.asked == 0
