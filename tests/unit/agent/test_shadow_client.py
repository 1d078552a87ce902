"""What the app's process counts of calls that are tried in the shadow, whatever becomes of the worker.

The worker is scripted here; tests/e2e/test_shadow_worker.py has real ones.
"""

import io
import random
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from support.values import file
from whimbrel import limits
from whimbrel.agent import shadow
from whimbrel.agent.disk import RealDisk
from whimbrel.agent.marks import harvest
from whimbrel.agent.places import Places
from whimbrel.agent.shadow import Died, ShadowClient, frames
from whimbrel.agent.shadow import __main__ as worker_program
from whimbrel.agent.shadow.order import Order, WorkerAnswer, read_order
from whimbrel.device.journal import Candidate, Journal, seal
from whimbrel.device.shadowing import Shadowing
from whimbrel.device.slots import Content, Held, Pointer, SlotName
from whimbrel.device.states import State
from whimbrel.health.shadow import ShadowSums
from whimbrel.health.sketch import key_of
from whimbrel.policy.shadow import PPM, Shadow

CALL = {"x": np.zeros((1, 4), np.float32)}
READY = WorkerAnswer()


def held(slot: SlotName, serial: int) -> Held:
    contents = (Content(name="model.onnx", sha256="a" * 64),)
    return Held(slot=slot, serial=serial, version=f"v{serial}", entry="model.onnx", contents=contents)


class Script:
    """The workers of a test: each takes the next answers, of `begin` and of calls, and notes what was done to it."""

    def __init__(self) -> None:
        self.begins: list[WorkerAnswer | Died] = []
        self.answers: list[WorkerAnswer | Died] = []
        self.done: list[str] = []
        self.waits: list[float] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.asked = threading.Event()

    def worker(self, order: Order) -> Any:
        script = self

        class Worker:
            def __init__(self) -> None:
                self.order = order
                script.done.append("started")

            def begin(self) -> WorkerAnswer | Died:
                return script.begins.pop(0) if script.begins else READY

            def ask(self, _: bytes, wait_s: float) -> WorkerAnswer | Died:
                script.waits.append(wait_s)
                script.asked.set()
                assert script.may_answer.wait(20)
                return script.answers.pop(0)

            def kill(self) -> None:
                script.done.append("killed")
                script.answers.insert(0, Died("candidate"))
                script.may_answer.set()

            def end(self) -> None:
                script.done.append("ended")

        return Worker()


class Desk:
    """A model's folder, serial 2 in the shadow of serial 1, and the app's client."""

    def __init__(self, folder: Path) -> None:
        self.places = Places(folder, disk=RealDisk())
        self.places.make()
        self.places.disk.write(self.places.pointer, seal(Pointer(model="wake", active=held("a", 1))))
        self.say(State.SHADOWING)
        self.client = ShadowClient(self.places, chance=random.Random(1))

    def say(self, state: State, *, sample_ppm: int = PPM, **changes: Any) -> None:
        candidate = Candidate(
            serial=2,
            version="v2",
            slot="b",
            files=(file(),),
            policy_sequence=1,
            offered_at=0.0,
            held=held("b", 2),
            shadow=Shadowing(how=Shadow(sample_ppm=sample_ppm)),
        )
        journal = Journal(model="wake", state=state, candidate=msgspec.structs.replace(candidate, **changes))
        self.places.disk.write(self.places.journal, seal(journal))

    def offer(self, count: int = 1) -> int:
        taken = 0
        for _ in range(count):
            taken += self.client.offer(1, CALL)
            assert self.client.wait_idle(20)
        return taken

    def told(self) -> ShadowSums:
        self.client.close()
        total = ShadowSums(serial=2)
        for each in harvest(self.places):
            assert each.closed is not None
            assert (each.closed.serial, each.closed.session) == (1, False)
            assert each.closed.shadow is not None
            total = total.plus(each.closed.shadow)
        return total


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    made = Script()
    monkeypatch.setattr(shadow, "Worker", made.worker)
    return made


@pytest.fixture
def desk(tmp_path: Path, script: Script) -> Iterator[Desk]:
    made = Desk(tmp_path / "wake")
    yield made
    script.may_answer.set()
    made.client.close()


def test_every_answer_is_counted_as_what_it_says(desk: Desk, script: Script) -> None:
    script.answers = [
        WorkerAnswer(agreement=0.75, active_ms=2.0, candidate_ms=30.0),
        WorkerAnswer(agreement=1.5, active_ms=2.0, candidate_ms=2.0),
        WorkerAnswer(agreement=-0.5, active_ms=1.0, candidate_ms=2.0),
        WorkerAnswer(skipped="the active version failed"),
        WorkerAnswer(failed="no such operator"),
        WorkerAnswer(),
    ]
    assert desk.offer(6) == 6
    assert desk.told() == ShadowSums(
        serial=2,
        inputs=5,
        compared=3,
        agreed=1.75,
        errors=2,
        skipped=1,
        active_ms=5.0,
        candidate_ms=34.0,
        active={key_of(2.0): 2, key_of(1.0): 1},
        candidate={key_of(30.0): 1, key_of(2.0): 2},
    )
    assert script.done == ["started", "ended"]
    assert set(script.waits) == {limits.SHADOW_WALL_S + limits.SHADOW_GRACE_S}


def test_a_worker_that_dies_of_the_candidate_is_a_crash_and_of_anything_else_says_nothing(
    desk: Desk, script: Script
) -> None:
    script.answers = [Died("candidate"), Died("active"), READY]
    assert desk.offer(2) == 2
    assert script.done == ["started", "ended"] * 2
    assert desk.client.problem == ""
    assert desk.told() == ShadowSums(serial=2, inputs=1, crashed=1, skipped=1)


def test_after_some_deaths_no_other_worker_is_started(desk: Desk, script: Script) -> None:
    script.answers = [Died("candidate")] * 9
    assert desk.offer(limits.SHADOW_CRASHES + 2) == limits.SHADOW_CRASHES
    assert desk.client.problem == "the worker ended 3 times; serial 2 is not tried any more"
    assert script.done == ["started", "ended"] * limits.SHADOW_CRASHES
    assert desk.told() == ShadowSums(serial=2, inputs=3, crashed=3)


def test_a_worker_that_cannot_load_the_versions_says_why_and_is_not_asked_again(desk: Desk, script: Script) -> None:
    script.begins = [WorkerAnswer(skipped="no runtime for onnx is installed to run the active version")]
    assert desk.offer(2) == 1
    assert desk.client.problem == "no runtime for onnx is installed to run the active version"
    assert script.done == ["started", "ended"]
    assert desk.told() == ShadowSums(serial=2)


def test_a_worker_that_dies_as_it_loads_the_candidate_is_a_crash(desk: Desk, script: Script) -> None:
    script.begins = [Died("candidate")]
    assert desk.offer(1) == 1
    assert desk.told() == ShadowSums(serial=2, inputs=1, crashed=1)


def test_no_more_calls_wait_than_the_queue_holds_and_the_others_are_counted(desk: Desk, script: Script) -> None:
    script.may_answer.clear()
    script.answers = [WorkerAnswer(skipped="x")] * limits.SHADOW_QUEUE
    taken = [desk.client.offer(1, CALL) for _ in range(limits.SHADOW_QUEUE + 2)]
    assert taken == [*[True] * limits.SHADOW_QUEUE, False, False]
    assert not desk.client.wait_idle(0)
    script.may_answer.set()
    assert desk.client.wait_idle(20)
    assert desk.told() == ShadowSums(serial=2, skipped=limits.SHADOW_QUEUE, dropped=2)


@pytest.mark.parametrize("name", ["SHADOW_CALL_BYTES", "SHADOW_QUEUE_BYTES"])
def test_a_call_is_taken_up_to_its_limit(
    desk: Desk, script: Script, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    script.answers = [WorkerAnswer(skipped="x")]
    size = frames.size_of(CALL, None)
    monkeypatch.setattr(limits, name, size)
    assert desk.offer() == 1
    monkeypatch.setattr(limits, name, size - 1)
    assert desk.offer() == 0
    assert desk.told() == ShadowSums(serial=2, skipped=1, dropped=1)


class Draws(random.Random):
    def random(self) -> float:
        return 0.25


@pytest.mark.parametrize(("sample_ppm", "taken"), [(250_000, 0), (250_001, 1)])
def test_the_share_of_the_calls_that_the_policy_asks_for_is_tried(
    desk: Desk, script: Script, sample_ppm: int, taken: int
) -> None:
    desk.say(State.SHADOWING, sample_ppm=sample_ppm)
    desk.client = ShadowClient(desk.places, chance=Draws())
    script.answers = [WorkerAnswer(skipped="x")]
    assert desk.offer() == taken


def test_a_call_of_another_version_is_not_tried(desk: Desk, script: Script) -> None:
    assert not desk.client.offer(3, CALL)
    assert script.done == []


def test_a_worker_without_work_ends_and_the_next_call_starts_another(
    desk: Desk, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SHADOW_FLUSH_S", 0.005)
    monkeypatch.setattr(limits, "SHADOW_IDLE_S", 0.0)
    script.answers = [WorkerAnswer(skipped="x")] * 2
    desk.offer()
    pause = threading.Event()
    for _ in range(2000):
        if "ended" in script.done:
            break
        pause.wait(0.005)
    assert script.done == ["started", "ended"]
    other = ShadowClient(desk.places)  # the lock is free: another process of the device may have the shadow
    script.answers = [WorkerAnswer(skipped="x")]
    assert other.offer(1, CALL)
    assert other.wait_idle(20)
    other.close()
    assert script.done == ["started", "ended"] * 2


def test_one_process_of_a_device_shadows_a_model_at_a_time(desk: Desk, script: Script) -> None:
    script.answers = [WorkerAnswer(skipped="x")]
    desk.offer()
    other = ShadowClient(desk.places)
    assert other.offer(1, CALL)
    assert other.wait_idle(20)
    other.close()
    assert script.done == ["started"]
    assert desk.told() == ShadowSums(serial=2, skipped=1)


def test_a_close_in_the_middle_of_a_call_ends_the_worker_and_counts_no_crash(
    desk: Desk, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SHADOW_CLOSE_S", 0.05)
    script.may_answer.clear()
    for _ in range(3):
        assert desk.client.offer(1, CALL)
    assert script.asked.wait(20)
    desk.client.close()
    monkeypatch.setattr(limits, "SHADOW_CLOSE_S", 20.0)
    assert desk.told() == ShadowSums(serial=2, dropped=2)
    assert script.done == ["started", "killed", "ended"]
    assert not desk.client.offer(1, CALL)


def test_a_shadow_is_ordered_while_the_journal_says_so_and_by_the_wider_tolerance(desk: Desk) -> None:
    how = Shadow(sample_ppm=7, compare="values", tolerance=0.25)
    desk.say(State.SHADOWING, shadow=Shadowing(how=how, absolute_tolerance=0.5, relative_tolerance=0.125))
    order = read_order(desk.places, held("a", 1))
    assert order == Order(
        serial=2,
        beside=1,
        candidate_path=str(desk.places.folder / "b" / "model.onnx"),
        candidate_format="onnx",
        active_path=str(desk.places.folder / "a" / "model.onnx"),
        active_format="onnx",
        candidate_folder=str(desk.places.folder / "b"),
        active_folder=str(desk.places.folder / "a"),
        sample_ppm=7,
        compare="values",
        absolute=0.5,
        relative=0.25,
    )
    assert read_order(desk.places, None) is None
    assert read_order(desk.places, held("b", 1)) is None
    for state, changes in (
        (State.READY, {}),
        (State.SHADOWING, {"held": None}),
        (State.SHADOWING, {"shadow": None}),
    ):
        desk.say(state, **changes)
        assert read_order(desk.places, held("a", 1)) is None
    desk.places.disk.write(desk.places.journal, b"torn")
    assert read_order(desk.places, held("a", 1)) is None


# --- the worker's bench ---

ORDER = Order(2, 1, "b/model.onnx", "onnx", "a/model.onnx", "onnx", "b", "a", PPM, "auto", 0.0, 0.0)
Run = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Run, Run], tuple[worker_program.Bench, io.BytesIO]]]:
    def make(active: Run, candidate: Run) -> tuple[worker_program.Bench, io.BytesIO]:
        class Model:
            def __init__(self, path: Path) -> None:
                self.run = active if path == Path("a/model.onnx") else candidate

        monkeypatch.setattr(worker_program, "runtime_of", lambda _: Model)
        out = io.BytesIO()
        made = worker_program.Bench(ORDER, out)
        assert made.load() == ""
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert out.getvalue() == b'"active"\n"candidate"\n'
        return made, out

    yield make
    signal.setitimer(signal.ITIMER_REAL, 0)


def one(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"y": inputs["x"] + 1}


def broken(_: dict[str, Any]) -> dict[str, Any]:
    raise RuntimeError("no such operator")


INPUTS = frames.Call({"x": np.array([[0.0, 1.0]], np.float32)}, None)


def test_each_version_is_first_in_turn(bench: Any) -> None:
    made, out = bench(one, one)
    out.seek(0), out.truncate()
    for _ in range(3):
        answer = made.try_call(INPUTS)
        assert (answer.agreement, answer.failed, answer.skipped) == (1.0, "", "")
        assert answer.active_ms > 0 < answer.candidate_ms
    turns = [b'"active"', b'"candidate"', b'"candidate"', b'"active"', b'"active"', b'"candidate"']
    assert out.getvalue().split() == turns
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_what_a_version_fails_on_is_the_candidates_fault_where_the_active_one_answers(bench: Any) -> None:
    assert bench(one, broken)[0].try_call(INPUTS) == WorkerAnswer(failed="RuntimeError: no such operator")
    assert bench(broken, one)[0].try_call(INPUTS) == WorkerAnswer(skipped="RuntimeError: no such operator")
    assert bench(broken, broken)[0].try_call(INPUTS) == WorkerAnswer(skipped="RuntimeError: no such operator")
    infinite = bench(one, lambda inputs: {"y": inputs["x"] / np.float32(0)})[0]
    with np.errstate(all="ignore"):
        answer = infinite.try_call(INPUTS)
    assert answer == WorkerAnswer(failed="output 'y' has values that are not finite")


def test_answers_are_compared_with_what_the_app_got_where_it_says_so(bench: Any) -> None:
    made, _ = bench(one, one)
    got = {"y": np.array([[9.0, 1.0]], np.float32)}  # another class than both versions say
    assert made.try_call(frames.Call(INPUTS.inputs, got)).agreement == 0.0
