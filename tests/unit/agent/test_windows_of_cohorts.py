"""Which sessions do the windows of a cohort tell of? Those since the device began to count in it, whatever its arm."""

from collections.abc import Iterator
from typing import Any

import pytest

from support.power_cut import MODEL, Device, World
from whimbrel import limits
from whimbrel.agent.crash_counts import kept_count
from whimbrel.agent.places import Places
from whimbrel.device.conditions import Situation
from whimbrel.policy.bucket import BUCKETS
from whimbrel.policy.policy import Arm, Entry, Layer
from whimbrel.policy.shadow import Shadow
from whimbrel.sim.disk import ModelledDisk

DAY_S = 86400.0
CONTROL = Arm(role="control", name="control", stage=0, serial=1, start=0, end=BUCKETS)
TREATED = Arm(role="treated", name="canary", stage=0, serial=2, start=0, end=BUCKETS)
RUNS_IT = Arm(role="treated", name="canary", stage=0, serial=1, start=0, end=BUCKETS)
SHADOW = Arm(
    role="treated", name="shadow", stage=0, serial=2, start=0, end=BUCKETS, shadow=Shadow(sample_ppm=1_000_000)
)


@pytest.fixture
def device() -> Iterator[Device]:
    """It runs version 1, committed; its windows are a day long."""
    with World() as world:
        made = Device(world, ModelledDisk())
        made.settle(1)
        world.want(1, report_s=DAY_S)
        made.cycle()
        yield made


def assigned(device: Device, arm: Arm, **changes: Any) -> None:
    layer = Layer(salt=7, entries=(Entry(rollout="r1", arms=(arm,), **changes),))
    device.world.repository.policy("detector", baseline=1, report_s=DAY_S, layers=(layer,))


def told(device: Device) -> list[tuple[list[str], int, int]]:
    """Of every window that was not empty: its roles, its sessions and its crashes. The last one is closed now."""
    device.world.now += 2 * DAY_S
    device.cycle()
    return [
        ([cohort["role"] for cohort in window.get("cohorts", ())], window["sessions"], window.get("crashed", 0))
        for window in device.world.server.windows
        if window.get("sessions")
    ]


@pytest.mark.parametrize(
    ("arm", "role"),
    [(TREATED, "treated"), (CONTROL, "control"), (RUNS_IT, "treated"), (SHADOW, "treated")],
    ids=["an update", "a placebo", "the version that ran already", "a shadow"],
)
def test_the_first_window_in_a_cohort_holds_nothing_from_before_the_device_counted_in_it(
    device: Device, arm: Arm, role: str
) -> None:
    """A control's held all since its last report, a treated device's began at the swap: of 100% of the control's
    windows and 3% of the treated ones it was told that the model was used, and a good arm was stopped for harm."""
    device.world.server.batches.clear()
    device.use(4)
    device.crash_in_a_session()
    assigned(device, arm)
    device.cycle()
    device.use(3)
    assert told(device) == [([], 5, 1), ([role], 3, 0)]


def test_a_placebo_that_is_waited_for_ends_the_window_when_it_is_taken(device: Device) -> None:
    device.world.server.batches.clear()
    assigned(device, CONTROL, delays_s=(100.0, 100.0))
    device.cycle()
    device.use(2)
    device.cycle()
    device.use(3)
    device.cycle()  # 122 s after it was permitted
    device.use(4)
    assert told(device) == [([], 5, 0), (["control"], 4, 0)]


def test_a_session_that_ends_while_the_pass_runs_is_told_before_the_placebo_and_still_judged(device: Device) -> None:
    """What was only looked at to close the window would be forgotten by the crash loop that it is one of."""
    with World() as world:
        ends: list[int] = []

        def situation() -> Situation:
            if ends:
                ends.pop()
                device.crash_in_a_session()
            return Situation()

        world.options["situation"] = situation
        device = Device(world, ModelledDisk())
        device.settle(1)
        world.want(1, report_s=DAY_S)
        device.cycle()
        world.server.batches.clear()
        assigned(device, CONTROL)
        ends.append(1)
        device.cycle()
        places = Places(MODEL, disk=device.disk)
        count = kept_count(places)
        assert count is not None
        assert count.crashes == 1
        device.use(2)
        assert told(device) == [([], 1, 1), (["control"], 2, 0)]


def test_a_window_in_which_nothing_happened_is_not_told_for_a_placebo(device: Device) -> None:
    device.world.server.batches.clear()
    assigned(device, CONTROL)
    for _ in range(3):
        device.cycle()
    assert [len(batch["windows"]) for batch in device.world.server.batches] == []


def test_the_crashes_of_a_version_that_was_left_while_no_cycle_ran_are_told_in_its_cohort(device: Device) -> None:
    """They were told in no cohort: the sessions of the version before closed their window, and it named none."""
    device.world.server.batches.clear()
    assigned(device, TREATED)
    assert device.cycle()["state"] == "on trial"
    device.use(1)
    for _ in range(limits.CRASH_LOOP):
        device.crash_in_a_session()
    with device.agent.session("detector") as session:
        assert session.serial == 1
    assert sorted(told(device)) == [(["treated"], 1, 0), (["treated"], 1 + limits.CRASH_LOOP, 1)]
