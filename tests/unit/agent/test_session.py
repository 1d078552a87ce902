"""Sessions: marks, summaries, crashes, and a swap that never happens inside one."""

import math
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from whimbrel import limits
from whimbrel.agent.disk import RealDisk
from whimbrel.agent.marks import Mark, between_sessions, forget, harvest
from whimbrel.agent.places import Places
from whimbrel.agent.session import Session
from whimbrel.device.journal import seal
from whimbrel.device.slots import Content, Held, Pointer
from whimbrel.errors import Unavailable, UntrustedInput
from whimbrel.health.sketch import key_of
from whimbrel.model.documents import digest_of, encode, parse
from whimbrel.model.release import Reference

HELD = Held(
    slot="a",
    serial=3,
    version="2026.03.05.3",
    entry="model.onnx",
    contents=(Content(name="model.onnx", sha256=digest_of(b"weights")),),
)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    made = Places(tmp_path, disk=RealDisk())
    made.make()
    made.slot("a").mkdir()
    (made.slot("a") / "model.onnx").write_bytes(b"weights")
    made.pointer.write_bytes(seal(Pointer(model="m", active=HELD)))
    return made


def test_a_session_says_what_it_opened(places: Places) -> None:
    with Session("m", places) as model:
        assert (model.path, model.serial, model.version) == (places.folder / "a/model.onnx", 3, "2026.03.05.3")


def warmed(places: Places) -> None:
    places.warm.write_bytes(b"a 3")


def test_the_first_run_of_a_version_is_a_metric_of_its_own(places: Places) -> None:
    """Cold caches: they would make every new version look slow beside a control that has run for weeks."""
    for latency_ms in (900.0, 9.0):
        with Session("m", places) as model:
            model.record(latency_ms=latency_ms)
    first, then = sorted((each.closed for each in harvest(places) if each.closed), key=lambda c: c.latency_key or 0)
    assert (first.latency_key, first.metrics["first_run_ms"].sum) == (None, 900.0)
    assert (then.latency_key, then.metrics) == (key_of(9.0), {})
    held = msgspec.structs.replace(HELD, serial=4)
    places.pointer.write_bytes(seal(Pointer(model="m", active=held)))
    with Session("m", places) as model:
        model.record(latency_ms=700.0)
    assert 700.0 in [c.metrics["first_run_ms"].sum for each in harvest(places) if (c := each.closed) and c.metrics]


def test_a_session_leaves_a_summary_with_its_worst_latency(places: Places) -> None:
    warmed(places)
    with Session("m", places) as model:
        model.record(latency_ms=3.0, accuracy=1.0)
        model.record(latency_ms=9.0, ok=False, accuracy=0.0)
        model.record(latency_ms=5.0)
    (ended,) = harvest(places)
    assert ended.closed is not None
    assert (ended.closed.inferences, ended.closed.errors, ended.closed.latency_key) == (3, 1, key_of(9.0))
    assert (ended.closed.metrics["accuracy"].n, ended.closed.metrics["accuracy"].sum) == (2, 1.0)
    assert ended.closed.healthy
    assert os.listdir(places.marks) == []
    forget(places, [ended.name])
    assert harvest(places) == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300])
def test_a_metric_that_is_no_number_is_an_error_and_does_not_travel(places: Places, value: float) -> None:
    with Session("m", places) as model:
        model.record(accuracy=value)
    closed = harvest(places)[0].closed
    assert closed is not None
    assert (closed.errors, closed.metrics) == (1, {})


def test_a_session_whose_every_answer_is_an_error_speaks_for_nothing(places: Places) -> None:
    with Session("m", places) as model:
        model.record(ok=False)
    closed = harvest(places)[0].closed
    assert closed is not None
    assert (closed.healthy, closed.failed) == (False, False)


class Odd:
    """A value that raises whatever is asked of it."""

    def __float__(self) -> float:
        raise RuntimeError("no")

    __bool__ = __str__ = __index__ = __float__


@pytest.mark.parametrize("value", [None, "0.9", b"1", [0.5], {}, 10**400, 1j, Odd(), object()])
def test_value_that_is_no_number_is_dropped_and_counted_and_never_raises(places: Places, value: Any) -> None:
    """`record(accuracy=None)` raised TypeError in the middle of the app's work, and the session counted as failed."""
    warmed(places)
    with Session("m", places) as model:
        model.record(latency_ms=3.0, accuracy=value, loss=0.5)
        model.record(latency_ms=value if value is not None else "soon")
    assert model.dropped == 2
    closed = harvest(places)[0].closed
    assert closed is not None
    assert (closed.inferences, closed.errors, closed.failed, closed.latency_key) == (2, 0, False, key_of(3.0))
    assert {name: each.sum for name, each in closed.metrics.items()} == {"loss": 0.5, "dropped_values": 2.0}


def test_odd_arguments_never_raise(places: Places) -> None:
    sorting(places, NUMBERS)
    odd: Any = Odd()
    with Session("m", places) as model:
        model.record(**{"a b": 1.0}, fine=1.0)
        model.record(**{"a\n": 1.0})  # it was written, could not be read again, and the whole session was lost
        model.record(ok=odd)
        model.record(latency_ms=math.nan)
        model.record(latency_ms=-1.0)
        assert model.dropped == 5
        model.record(prediction=odd)
        model.record(feedback=math.nan)
        for number in range(limits.SESSION_METRICS + 3):
            model.record(**{f"metric{number}": 1.0})
        assert model.dropped == 5 + 1 + 4
    closed = harvest(places)[0].closed
    assert closed is not None
    assert (closed.errors, closed.failed, len(closed.metrics)) == (1, False, limits.SESSION_METRICS)


def test_numbers_of_other_kinds_are_numbers(places: Places) -> None:
    with Session("m", places) as model:
        model.record(a=True, b=np.float32(0.5), c=Fraction(1, 4), d=np.array(2))
    closed = harvest(places)[0].closed
    assert closed is not None
    assert {name: each.sum for name, each in closed.metrics.items()} == {"a": 1.0, "b": 0.5, "c": 0.25, "d": 2.0}


def test_what_a_session_ran_can_be_read_after_its_block(places: Places) -> None:
    session = Session("m", places)
    with pytest.raises(Unavailable, match="not entered"):
        _ = session.serial
    with session:
        pass
    assert (session.model, session.serial, session.version) == ("m", 3, "2026.03.05.3")


def test_without_a_version_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="let the agent run"), Session("m", Places(tmp_path, disk=RealDisk())):
        pass


def test_a_torn_pointer_opens_nothing(places: Places) -> None:
    places.pointer.write_bytes(places.pointer.read_bytes()[:-5])
    with pytest.raises(UntrustedInput, match="torn"), Session("m", places):
        pass


def test_outside_of_its_block_a_session_has_no_path(places: Places) -> None:
    session = Session("m", places)
    with session:
        pass
    with pytest.raises(Unavailable, match="not open"):
        _ = session.path


def test_an_open_session_keeps_the_slots_as_they_are(places: Places) -> None:
    with Session("m", places), between_sessions(places) as safe:
        assert not safe
    with between_sessions(places) as safe:
        assert safe


def test_an_open_session_is_no_crash(places: Places) -> None:
    with Session("m", places):
        assert harvest(places) == []


def test_a_mark_that_nobody_holds_is_a_crash_and_lets_the_swap_go_on(places: Places) -> None:
    with Session("m", places):
        (name,) = os.listdir(places.marks)
        content = (places.marks / name).read_bytes()
    forget(places, [name])
    (places.marks / "dead").write_bytes(content)
    (ended,) = harvest(places)
    assert (ended.crashed, ended.serial) == (True, 3)
    with between_sessions(places) as safe:
        assert safe


def test_a_summary_that_was_torn_by_a_power_cut_is_skipped_and_removed(places: Places) -> None:
    (places.summaries / "torn").write_bytes(b'{"seri')
    (ended,) = harvest(places)
    assert (ended.crashed, ended.closed) == (False, None)


def test_an_interrupted_user_is_no_failure_of_the_model(places: Places) -> None:
    with pytest.raises(KeyboardInterrupt), Session("m", places):
        raise KeyboardInterrupt
    closed = harvest(places)[0].closed
    assert closed is not None
    assert closed.healthy


def test_many_sessions_leave_no_open_files(places: Places) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        with Session("m", places, durable=False):
            pass
    harvest(places)
    assert len(os.listdir("/proc/self/fd")) == before


def died(places: Places, *, crashes_before: int) -> None:
    """A session whose process is gone: its mark has no lock."""
    content = encode(Mark(serial=3, slot="a", process=1, crashes_before=crashes_before))
    (places.marks / f"1-{len(os.listdir(places.marks))}").write_bytes(content)


def test_a_start_after_a_crash_says_how_many_came_before_it(places: Places) -> None:
    died(places, crashes_before=0)
    died(places, crashes_before=1)
    with Session("m", places), Session("m", places):
        marks = [parse(Mark, path.read_bytes(), what="a mark") for path in places.marks.iterdir()]
        assert sorted(mark.crashes_before for mark in marks) == [0, 1, 2, 2]
    assert [ended.crashes_before for ended in harvest(places) if ended.crashed] == [0, 1]


def test_sessions_that_live_are_no_crashes_before_another(places: Places) -> None:
    with Session("m", places), Session("m", places):
        marks = [parse(Mark, path.read_bytes(), what="a mark") for path in places.marks.iterdir()]
        assert [mark.crashes_before for mark in marks] == [0, 0]


# --- predictions and feedback ---


def sorting(places: Places, reference: Reference) -> None:
    held = msgspec.structs.replace(HELD, reference=reference)
    places.pointer.write_bytes(seal(Pointer(model="m", active=held)))


NUMBERS = Reference(bins=(0.25, 0.5), shares=(0.25, 0.25, 0.5))
CLASSES = Reference(kind="classes", bins=("cat", 1), shares=(0.5, 0.5))


@pytest.mark.parametrize(
    ("reference", "predictions", "counts"),
    [
        (NUMBERS, (0.1, 0.25, 0.26, 9, -9.0), {0: 3, 1: 1, 2: 1}),
        (CLASSES, ("cat", 1, True, 1.0, "dog", 7), {0: 1, 1: 3, 2: 2}),
    ],
)
def test_a_prediction_is_told_as_a_count_of_its_bin(
    places: Places, reference: Reference, predictions: tuple[float | str, ...], counts: dict[int, int]
) -> None:
    sorting(places, reference)
    with Session("m", places) as model:
        for each in predictions:
            model.record(prediction=each)
    closed = harvest(places)[0].closed
    assert closed is not None
    assert (closed.predictions, closed.inferences, closed.errors) == (counts, len(predictions), 0)


@pytest.mark.parametrize("prediction", [math.nan, math.inf, "cat"])
def test_a_prediction_that_is_no_number_where_numbers_are_expected_is_an_error(
    places: Places, prediction: float | str
) -> None:
    sorting(places, NUMBERS)
    with Session("m", places) as model:
        model.record(prediction=prediction)
    closed = harvest(places)[0].closed
    assert closed is not None
    assert (closed.predictions, closed.errors) == ({}, 1)


def test_without_a_reference_a_prediction_stays_on_the_device(places: Places) -> None:
    with Session("m", places) as model:
        model.record(prediction="secret")
    closed = harvest(places)[0].closed
    assert closed is not None
    assert (closed.predictions, closed.inferences, closed.errors) == ({}, 1, 0)


def test_feedback_alone_is_no_inference(places: Places) -> None:
    with Session("m", places) as model:
        model.record(latency_ms=3.0)
        model.record(feedback=1.0)
        model.record(feedback=0.0, ok=False)
        model.record(feedback=5.0)  # dropped
        assert model.dropped == 1
    closed = harvest(places)[0].closed
    assert closed is not None
    assert (closed.inferences, closed.errors, closed.metrics["feedback"].sum) == (2, 1, 1.0)
