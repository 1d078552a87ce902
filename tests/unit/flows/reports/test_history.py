"""What a fleet's history says is what its devices told, and nothing else."""

import pytest

from support.values import HOUR, T0, accuracy, cell, file, release, rollout, town, version
from whimbrel.flows.device_records import Participation, RunningVersion
from whimbrel.flows.reports.history import Delays, History, history_of, inventory_of
from whimbrel.model.release import Release, Variant
from whimbrel.model.ways import NOTHING, Step


def published(serial: int, digest: str) -> Release:
    return release(serial, variants=(Variant(name="any", files=(file(digest, size_bytes=1000),)),))


def step(base: str, target: str, size: int) -> Step:
    return Step(base=base, target=target, target_bytes=1000, sha256="f" * 64, size_bytes=size)


def test_controls_speak_by_the_hour_and_the_new_version_does_not() -> None:
    with town(running=rollout()) as made:
        made.enrol("a", "b", "c")
        made.fleet.note_running(RunningVersion(device_id="a", model="wake", serial=1, hardware_class="pi4", at=T0))
        made.fleet.tally(
            "r1",
            [
                cell(
                    "control",
                    0,
                    n=100,
                    crashed=2,
                    errors=1.5,
                    due=30,
                    overdue=4,
                    due_again=20,
                    overdue_again=3,
                    metrics=accuracy(0.9, 40),
                ),
                cell("control", 12, n=50, latency={100: 99, 200: 1}),
                cell("treated", 0, n=100, crashed=99),
            ],
        )
        told = history_of(made.registry, made.fleet, "wake", running=())
    assert (told.devices, told.rollouts, told.hardware) == (3, 1, {"pi4": 1})
    assert (told.at_risk, told.active, told.crashed, told.errors) == (150, 150, 2, 1.5)
    assert told.at_risk_by_hour[:2] == (100, 50)  # it began at midnight
    assert (told.labelled, told.right, told.due, told.overdue) == (40, pytest.approx(36), 10, 1)
    assert told.latency_p50_ms == pytest.approx(1.0202**100, rel=0.01)
    assert told.delays == Delays()


def test_rehearsals_with_short_hours_tell_nothing_of_a_day() -> None:
    with town(running=rollout(hour_s=1.0)) as made:
        made.fleet.tally("r1", [cell("control", 0, n=100)])
        told = history_of(made.registry, made.fleet, "wake", running=())
    assert told == History(model="wake", devices=0, refresh_s=30)


def test_delays_are_of_devices_that_had_a_day() -> None:
    with town(running=rollout()) as made:
        for index in range(44):
            late = index >= 40
            made.fleet.save_participation(
                Participation(
                    rollout="r1",
                    stage=0,
                    device_id=f"d{index}",
                    role="treated",
                    assigned_at=T0 + 30 * HOUR * late,
                    activated_at=None if late or index % 4 == 0 else T0 + index * HOUR,
                    reported_at=T0 + 30 * HOUR,
                )
            )
        told = history_of(made.registry, made.fleet, "wake", running=())
    assert told.delays.devices == 40
    assert told.delays.never == pytest.approx(0.25)
    assert list(told.delays.mean_h) == sorted(told.delays.mean_h)
    assert sum(told.delays.mean_h) / 4 == pytest.approx(20, abs=1)


def test_each_version_has_the_way_that_its_devices_would_take() -> None:
    digests = {serial: str(serial) * 64 for serial in (1, 2, 3, 4)}
    releases = {serial: published(serial, digest) for serial, digest in digests.items()}
    steps = [step(digests[3], digests[4], 10), step(digests[2], digests[3], 5), step(NOTHING, digests[4], 400)]
    found = inventory_of(
        {3: 50, 2: 30, 1: 20, None: 10, 4: 99}, [version(n) for n in digests], releases=releases, steps=steps, target=4
    )
    assert [(each.serial, each.devices, each.way, each.size_bytes) for each in found] == [
        (3, 50, "delta", 10),
        (2, 30, "chain", 15),
        (1, 20, "compressed", 400),
        (None, 10, "compressed", 400),
    ]
    (whole, *_) = inventory_of({1: 1}, [version(1)], releases=releases, steps=(), target=4)
    assert (whole.way, whole.size_bytes) == ("whole", 1000)
    (unasked, *_) = inventory_of({1: 1}, [version(1)], releases=releases, steps=(), target=None)
    assert (unasked.way, unasked.size_bytes) == (None, None)
