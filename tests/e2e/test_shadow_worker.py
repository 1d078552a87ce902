"""A version is tried beside the active one: what is seen of it, and that nothing of it reaches the app.

Real ONNX and TFLite models in a real worker process; the journal is written as the agent would.
"""

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support import model_files, shadow_models, tflite_models
from whimbrel import limits
from whimbrel.agent.disk import RealDisk
from whimbrel.agent.marks import harvest
from whimbrel.agent.places import Places
from whimbrel.agent.session import Session
from whimbrel.agent.shadow import ShadowClient, Worker
from whimbrel.agent.shadow.order import read_order
from whimbrel.agent.spool import Spool, WindowPlace
from whimbrel.device.journal import Candidate, Journal, seal
from whimbrel.device.shadowing import Shadowing
from whimbrel.device.slots import Content, Held, Pointer, SlotName
from whimbrel.device.states import State
from whimbrel.errors import UntrustedInput
from whimbrel.health.shadow import ShadowSums
from whimbrel.model.documents import digest_of
from whimbrel.model.formats import Format
from whimbrel.model.release import File
from whimbrel.policy.shadow import PPM, Shadow

EVERY = Shadow(sample_ppm=PPM)
WAIT_S = 60.0  # a busy machine


def held(slot: SlotName, serial: int, content: bytes, *, entry: str = "model.onnx") -> Held:
    contents = (Content(name=entry, sha256=digest_of(content)),)
    return Held(slot=slot, serial=serial, version=f"2026.03.05.{serial}", entry=entry, contents=contents)


class Device:
    """A model's folder: serial 1 active, `candidate` as serial 2 in the shadow."""

    def __init__(
        self, folder: Path, candidate: bytes, how: Shadow = EVERY, *, active: bytes | None = None, kind: Format = "onnx"
    ) -> None:
        self.places = Places(folder, disk=RealDisk())
        self.places.make()
        self.candidate, self.kind = candidate, kind
        self.entry = f"model.{kind}"
        active = active or shadow_models.good()
        for slot, content in (("a", active), ("b", candidate)):
            (folder / slot).mkdir()
            (folder / slot / self.entry).write_bytes(content)
        pointer = Pointer(model="wake", active=held("a", 1, active, entry=self.entry))
        self.places.disk.write(self.places.pointer, seal(pointer))
        self.say(State.SHADOWING, how=how)
        self.client = ShadowClient(self.places, chance=random.Random(1))

    def say(self, state: State, *, how: Shadow = EVERY) -> None:
        file = File(name=self.entry, size_bytes=9, sha256=digest_of(self.candidate), format=self.kind)
        candidate = Candidate(
            serial=2,
            version="2026.03.05.2",
            slot="b",
            files=(file,),
            policy_sequence=1,
            offered_at=0.0,
            held=held("b", 2, self.candidate, entry=self.entry),
            shadow=Shadowing(how=how),
        )
        journal = Journal(model="wake", state=state, candidate=candidate)
        self.places.disk.write(self.places.journal, seal(journal))

    def feed(self, inputs: list[dict[str, Any]], *, output: Callable[[dict[str, Any]], Any] | None = None) -> int:
        """Offer calls, each when the one before is done with; how many were taken."""
        taken = 0
        for each in inputs:
            taken += self.client.offer(1, each, output(each) if output else None)
            assert self.client.wait_idle(WAIT_S)
        return taken

    def told(self) -> ShadowSums:
        """What the agent would harvest."""
        self.client.close()
        found = [each.closed for each in harvest(self.places) if each.closed and each.closed.shadow]
        assert all(not each.session and each.serial == 1 for each in found)
        total = ShadowSums(serial=2)
        for each in found:
            assert each.shadow is not None
            total = total.plus(each.shadow)
        return total


Make = Callable[..., Device]


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Make]:
    made: list[Device] = []

    def make(candidate: bytes | None = None, **more: Any) -> Device:
        made.append(Device(tmp_path / f"wake-{len(made)}", candidate or shadow_models.good(), **more))
        return made[-1]

    yield make
    for each in made:
        each.client.close()


def twice(call: dict[str, Any]) -> dict[str, Any]:
    return {"y": call["x"] * 2}


# --- what is seen ---


def test_a_candidate_that_answers_alike_agrees_and_both_are_timed(device: Make) -> None:
    here = device(shadow_models.good(factor=3.0))  # other scores, the same class
    assert here.feed(shadow_models.calls(20)) == 20
    seen = here.told()
    assert (seen.inputs, seen.compared, seen.agreed, seen.errors, seen.crashed) == (20, 20, 20.0, 0, 0)
    assert seen.active_ms > 0
    assert seen.candidate_ms > 0
    assert sum(seen.active.values()) == sum(seen.candidate.values()) == 20


def test_versions_of_several_files_run_with_their_files_beside_them(device: Make, tmp_path: Path) -> None:
    """The graphs are the same bytes: only the weights beside them differ."""
    graph = model_files.onnx_external(tmp_path).read_bytes()
    here = device(graph, active=graph)
    for slot, factor in (("a", 1.0), ("b", -1.0)):
        weights = model_files.external_weights(factor=factor)
        (here.places.slot(slot) / "model.onnx.data").write_bytes(weights.tobytes())
    here.feed([{"x": np.eye(64, dtype=np.float32)[place : place + 1]} for place in range(5)])
    seen = here.told()
    assert (seen.compared, seen.agreed, seen.errors, seen.crashed) == (5, 0.0, 0, 0)


@pytest.mark.parametrize("output", [None, twice, lambda call: [call["x"] * 2], lambda call: call["x"] * 2])
def test_a_candidate_that_disagrees_is_seen_with_the_apps_output_in_any_form_and_without(
    device: Make, output: Callable[[dict[str, Any]], Any] | None
) -> None:
    here = device(shadow_models.disagreeing())
    here.feed(shadow_models.calls(20, wrong=0.3), output=output)
    seen = here.told()
    assert (seen.compared, seen.agreed) == (20, 14.0)


def test_the_apps_own_output_is_what_counts(device: Make) -> None:
    here = device()
    here.feed(shadow_models.calls(4), output=lambda call: {"y": -call["x"]})
    assert here.told().agreed == 0.0


def test_a_candidate_that_ends_its_process_is_counted_and_after_three_times_left_alone(device: Make) -> None:
    here = device(shadow_models.aborting())
    here.feed(shadow_models.calls(3))
    taken = here.feed(shadow_models.calls(6, wrong=1.0))
    assert taken == limits.SHADOW_CRASHES
    assert "ended 3 times" in here.client.problem
    seen = here.told()
    assert (seen.inputs, seen.compared, seen.crashed) == (6, 3, 3)


def test_a_candidate_that_hangs_is_ended_and_counted(device: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SHADOW_WALL_S", 2.0)
    here = device(shadow_models.hanging())
    here.feed(shadow_models.calls(2))
    begin = time.monotonic()
    assert here.client.offer(1, shadow_models.calls(1, wrong=1.0)[0])
    assert time.monotonic() - begin < 1
    assert here.client.wait_idle(WAIT_S)
    seen = here.told()
    assert (seen.compared, seen.crashed) == (2, 1)


def test_a_candidate_that_wants_all_memory_fails_in_its_cage(device: Make) -> None:
    here = device(shadow_models.hungry())
    here.feed(shadow_models.calls(4, wrong=0.5))
    seen = here.told()
    assert (seen.compared, seen.errors + seen.crashed) == (2, 2)


def test_what_the_active_version_fails_on_as_well_is_held_against_nobody(device: Make) -> None:
    here = device()
    here.feed([{"x": np.zeros((1, 3), np.float32)}, *shadow_models.calls(1)])  # a shape that neither takes
    seen = here.told()
    assert (seen.inputs, seen.skipped) == (1, 1)


# --- other runtimes ---


def test_tflite_candidates_agree_and_disagree_through_a_runner(device: Make) -> None:
    doubling = tflite_models.doubling
    for factor, agreed in ((3.0, 8.0), (-2.0, 0.0)):
        here = device(doubling(factor=factor), active=doubling(), kind="tflite")
        with Session("wake", here.places, shadow=here.client) as model:
            runner = model.runner()
            assert (runner.inputs, runner.outputs) == (["x"], ["y"])
            for call in shadow_models.calls(8):
                np.testing.assert_array_equal(runner.run(call)["y"], call["x"] * 2)
                assert here.client.wait_idle(WAIT_S)
        seen = here.told()
        assert (seen.inputs, seen.compared, seen.agreed, seen.errors) == (8, 8, agreed, 0)
        assert seen.candidate_ms > 0


def test_tflite_candidate_that_ends_its_process_or_takes_all_memory_is_counted(device: Make) -> None:
    here = device(tflite_models.remainder(), active=tflite_models.doubling(), kind="tflite")
    here.feed(shadow_models.calls(2))
    here.feed([{"x": np.array([[-(2.0**31), 1, 2, 3]], np.float32)}])
    seen = here.told()
    assert (seen.inputs, seen.compared, seen.crashed) == (3, 2, 1)
    here = device(tflite_models.large(2**31 - 1), active=tflite_models.doubling(), kind="tflite")
    here.feed(shadow_models.calls(2))
    assert here.told().compared == 0
    assert here.told().crashed + here.told().errors > 0


def test_tflite_takes_the_size_of_each_call_where_the_signature_leaves_it_free(device: Make) -> None:
    both = tflite_models.doubling(rows=None)
    here = device(both, active=both, kind="tflite")
    here.feed([{"x": np.ones((rows, 4), np.float32)} for rows in (1, 3, 2)])
    seen = here.told()
    assert (seen.compared, seen.agreed) == (3, 3.0)


def test_gguf_candidates_run_where_llama_cpp_is_installed(
    device: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "support" / "stand_ins"))
    active = model_files.gguf(tmp_path / "tiny").read_bytes()
    tokens = [{"tokens": np.array([[0, 2]], np.int32)}] * 3
    for candidate, agreed in ((active, 3.0), (active.replace(b"tiny", b"turn"), 0.0)):
        here = device(candidate, active=active, kind="gguf")
        here.feed(tokens)
        seen = here.told()
        assert (seen.compared, seen.agreed) == (3, agreed)


# --- how little of it reaches the app ---


def test_a_worker_that_is_busy_drops_calls_and_counts_them_and_nobody_waits(
    device: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SHADOW_WALL_S", 2.0)
    here = device(shadow_models.hanging())
    here.feed(shadow_models.calls(1))
    bad = shadow_models.calls(1, wrong=1.0)[0]
    longest = 0.0
    taken = 0
    for _ in range(50):
        begin = time.perf_counter()
        taken += here.client.offer(1, bad)
        longest = max(longest, time.perf_counter() - begin)
    assert taken == limits.SHADOW_QUEUE
    assert longest < 1
    time.sleep(0.3)
    begin = time.monotonic()
    seen = here.told()
    assert time.monotonic() - begin < 2 * limits.SHADOW_CLOSE_S + 5
    assert seen.dropped in {49, 50}  # one may have been under way, and nobody knows what it would have said


def test_a_share_of_the_calls_is_sampled(device: Make) -> None:
    here = device(how=Shadow(sample_ppm=PPM // 4))
    taken = here.feed(shadow_models.calls(100))
    assert 10 <= taken <= 40
    assert here.told().inputs == taken


def test_nothing_is_tried_that_the_journal_does_not_name(device: Make) -> None:
    here = device()
    here.say(State.READY)
    assert not here.client.offer(1, shadow_models.calls(1)[0])
    here.say(State.SHADOWING)
    time.sleep(limits.SHADOW_LOOK_S + 0.1)
    assert not here.client.offer(3, shadow_models.calls(1)[0])  # a session of another version
    assert here.client.offer(1, shadow_models.calls(1)[0])


def test_a_torn_journal_names_nothing(device: Make) -> None:
    here = device()
    here.places.journal.write_bytes(b"torn")
    assert read_order(here.places, held("a", 1, b"")) is None
    assert not here.client.offer(1, shadow_models.calls(1)[0])


def test_a_call_that_is_too_large_or_no_numbers_is_dropped(device: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SHADOW_CALL_BYTES", 1000)
    here = device()
    assert not here.client.offer(1, {"x": np.zeros((1000,), np.float32)})
    assert not here.client.offer(1, {"x": np.zeros(3, dtype=[("a", "i4")])})
    assert "numbers, booleans and texts" in here.client.problem
    assert here.feed(shadow_models.calls(1)) == 1
    assert here.told().dropped == 1


def test_one_process_of_a_device_shadows_at_a_time(device: Make) -> None:
    here = device()
    other = ShadowClient(here.places, chance=random.Random(2))
    assert here.feed(shadow_models.calls(2)) == 2
    assert other.offer(1, shadow_models.calls(1)[0])
    assert other.wait_idle(WAIT_S)
    other.close()
    assert here.told().inputs == 2


def test_the_worker_goes_with_the_app(device: Make) -> None:
    here = device()
    order = read_order(here.places, held("a", 1, b""))
    assert order is not None
    worker = Worker(order)
    assert worker.begin() is not None
    process = worker._process.pid
    assert Path(f"/proc/{process}/oom_score_adj").read_text().strip() == "1000"
    assert os.getpriority(os.PRIO_PROCESS, process) > os.getpriority(os.PRIO_PROCESS, 0)
    worker.end()
    assert not Path(f"/proc/{process}").exists()


def test_a_session_wants_inputs_by_name(device: Make) -> None:
    here = device()
    with Session("wake", here.places, shadow=here.client) as model:
        with pytest.raises(UntrustedInput, match="by name"):
            model.shadow([1, 2, 3])
        assert model.shadow(shadow_models.calls(1)[0])


def test_a_runner_answers_counts_and_shadows_by_itself(device: Make) -> None:
    here = device(shadow_models.disagreeing())
    with Session("wake", here.places, shadow=here.client) as model:
        runner = model.runner()
        assert (runner.inputs, runner.outputs) == (["x"], ["y"])
        for call in shadow_models.calls(10, wrong=0.5):
            np.testing.assert_array_equal(runner.run(call)["y"], call["x"] * 2)
            assert here.client.wait_idle(WAIT_S)
        with pytest.raises(Exception, match="Got invalid dimensions"):
            runner.run({"x": np.zeros((1, 3), np.float32)})
    seen = here.told()
    assert (seen.compared, seen.agreed) == (10, 5.0)
    (closed,) = [each.closed for each in harvest(here.places) if each.closed and each.closed.session]
    assert (closed.inferences, closed.errors) == (11, 1)


# --- what is told ---


def test_what_was_tried_is_no_session_and_adds_up_in_the_window(device: Make, tmp_path: Path) -> None:
    here = device()
    here.feed(shadow_models.calls(3))
    here.client.close()
    spool = Spool(tmp_path / "spool.json", disk=RealDisk())
    ended = harvest(here.places)
    spool.add("wake", ended, names=[each.name for each in ended])
    spool.cut("wake", serial=1, place=WindowPlace())
    (window,) = spool.batch(windows_max=9)[1]
    assert window.sessions == 0
    assert window.shadow is not None
    assert (window.shadow.serial, window.shadow.inputs) == (2, 3)
