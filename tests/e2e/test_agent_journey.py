"""A device's journey over real HTTP: a signed repository, a real ONNX model, real files, a real probe process."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.repository import Repository, Server, onnx_model, probe_of, signature_of, variant_of
from whimbrel import Agent, AgentOptions
from whimbrel.agent.probes import ProbeServer
from whimbrel.model.release import Reference
from whimbrel.model.selector import Selector
from whimbrel.policy.policy import Arm, Entry, Layer, Quarantine

ONE, TWO, BROKEN = onnx_model(factor=2.0), onnx_model(factor=3.0), onnx_model(factor=5.0)


@pytest.fixture(scope="module")
def probes() -> Iterator[ProbeServer]:
    server = ProbeServer()
    yield server
    server.close()


@pytest.fixture
def repository() -> Repository:
    made = Repository()
    for serial, content, factor in ((1, ONE, 2.0), (2, TWO, 3.0), (3, BROKEN, 4.0)):  # the third does not keep its word
        variant = variant_of(content, probe=probe_of(factor=factor), signature=signature_of())
        made.release("detector", serial, content, variants=(variant,))
    made.policy("detector", baseline=1)
    return made


@pytest.fixture
def server(repository: Repository) -> Iterator[Server]:
    with Server(repository) as running:
        yield running


Opened = Callable[..., Agent]


@pytest.fixture
def opened(tmp_path: Path, server: Server, repository: Repository, probes: ProbeServer) -> Iterator[Opened]:
    agents: list[Agent] = []

    def make(**changes: object) -> Agent:
        given = {
            "server": server.url,
            "root": repository.root_bytes,
            "models": ["detector"],
            "device_id": "dev-1",
            "labels": {"hardware": "pi", "secret": "stays"},
            "enrol_token": server.enrol_token,
            "probes": probes,
            **changes,
        }
        agents.append(Agent.open(tmp_path / "device", AgentOptions(**given)))
        return agents[-1]

    yield make
    for agent in agents:
        agent.close()


def use(agent: Agent, times: int = 3) -> None:
    for _ in range(times):
        with agent.session("detector") as model:
            model.record(latency_ms=3.1, accuracy=1.0)


def layer(serial: int, *, role: str = "treated", stage: int = 0) -> Layer:
    arm = Arm(role=role, name=role, stage=stage, serial=serial, start=0, end=1_000_000)
    return Layer(salt=7, entries=(Entry(rollout="r1", arms=(arm,)),))


def state_of(agent: Agent) -> tuple[str, int | None]:
    found = agent.cycle(force=True).models["detector"]
    return found["state"], found["serial"]


def test_first_version_is_installed_tried_and_committed(opened: Opened, server: Server) -> None:
    agent = opened()
    assert state_of(agent) == ("on trial", 1)
    with agent.session("detector") as model:
        assert model.path.read_bytes() == ONE
        assert (model.serial, model.version) == (1, "2026.03.05.1")
    use(agent)
    assert state_of(agent) == ("committed", 1)
    assert server.steps() == ["activating", "activated", "committed"]


def test_folder_that_is_named_from_where_a_person_stands_is_probed_there(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe runs in another folder: it said that the model's file does not exist, and the version was refused."""
    monkeypatch.chdir(tmp_path)
    options = AgentOptions(server=server.url, root=server.repository.root_bytes, models=["detector"])
    with Agent.open("board-1", options) as agent:
        assert agent.cycle(force=True).models["detector"]["serial"] == 1
        monkeypatch.chdir("/")
        with agent.session("detector") as model:
            assert model.path.exists()


def test_treated_device_says_what_it_does_before_and_after(opened: Opened, server: Server) -> None:
    agent = opened()
    agent.cycle()
    use(agent)
    agent.cycle()
    server.announced.clear()
    server.repository.policy("detector", baseline=1, layers=(layer(2),), report_labels=("hardware",))
    assert state_of(agent) == ("on trial", 2)
    use(agent)
    assert state_of(agent) == ("committed", 2)
    assert server.steps() == ["assigned", "begun", "activating", "activated", "committed"]
    assert {(each["rollout"], each.get("stage", 0), each["serial"]) for each in server.announced} == {("r1", 0, 2)}
    assert server.announced[-1]["bytes_moved"] == len(TWO)
    time.sleep(0.11)
    agent.cycle()
    window = server.windows[-1]
    assert (window["serial"], window["hardware_class"]) == (2, "pi")
    assert [(each["rollout"], each["role"]) for each in window["cohorts"]] == [("r1", "treated")]
    assert server.batches[-1]["labels"] == {"hardware": "pi"}


def test_control_takes_a_placebo_and_is_counted_from_then_on(opened: Opened, server: Server) -> None:
    agent = opened()
    agent.cycle()
    server.announced.clear()
    server.repository.policy("detector", baseline=1, layers=(layer(1, role="control"),))
    assert state_of(agent)[1] == 1
    assert server.steps() == ["assigned", "placebo"]
    time.sleep(0.11)
    agent.cycle()
    assert [each["role"] for each in server.windows[-1]["cohorts"]] == ["control"]


def test_version_that_fails_its_probe_is_quarantined_and_never_active(opened: Opened, server: Server) -> None:
    agent = opened()
    agent.cycle()
    use(agent)
    server.repository.policy("detector", baseline=1, layers=(layer(3),))
    assert state_of(agent) == ("quarantined", 1)
    assert state_of(agent) == ("quarantined", 1)
    failed = [each for each in server.announced if each["step"] == "failed"]
    assert [(each["serial"], each["rollout"]) for each in failed] == [(3, "r1")]
    assert "output 'y' is wrong" in failed[0]["reason"]
    server.repository.policy("detector", baseline=1, layers=(layer(3),), overrides=(3,))
    agent.cycle(force=True)
    agent.cycle(force=True)
    assert server.steps().count("failed") == 2  # a person's override is one more try, not one a cycle
    said = [each["reason"] for each in server.announced if each["step"] == "assigned" and each.get("reason")]
    assert len(said) == 1
    assert "overrides what was refused here: output 'y' is wrong" in said[0]
    assert agent.status()["models"]["detector"]["refused"].keys() == {"3"}


def test_going_back_on_a_policy_needs_no_artifact_and_no_probe(opened: Opened, server: Server) -> None:
    agent = opened()
    agent.cycle()
    use(agent)
    agent.cycle()
    server.repository.policy("detector", baseline=1, layers=(layer(2),))
    agent.cycle(force=True)
    server.repository.blobs.clear()
    server.announced.clear()
    server.repository.policy("detector", baseline=1)
    assert state_of(agent) == ("committed", 1)
    assert [(each["step"], each.get("rollout"), each["serial"]) for each in server.announced] == [
        ("activated", None, 1)
    ]
    with agent.session("detector") as model:
        assert model.path.read_bytes() == ONE


def test_fallback_with_a_flipped_bit_is_fetched_again_and_not_run(opened: Opened, server: Server) -> None:
    agent = opened()
    agent.cycle()
    use(agent)
    agent.cycle()
    with agent.session("detector") as model:
        first = model.path
    server.repository.policy("detector", baseline=2)
    agent.cycle(force=True)
    first.write_bytes(bytes([ONE[0] ^ 1]) + ONE[1:])
    server.repository.policy("detector", baseline=1)
    agent.cycle(force=True)
    agent.cycle(force=True)
    with agent.session("detector") as model:
        assert (model.serial, model.path.read_bytes()) == (1, ONE)


def test_swap_waits_for_the_end_of_every_session(opened: Opened, server: Server) -> None:
    agent = opened()
    agent.cycle()
    use(agent)
    agent.cycle()
    server.repository.policy("detector", baseline=2)
    with agent.session("detector") as model:
        result = agent.cycle(force=True)
        assert result.models["detector"]["state"] == "ready"
        assert result.models["detector"]["waits_for"] == "the end of the open sessions"
        assert model.path.read_bytes() == ONE
    agent.cycle()
    with agent.session("detector") as model:
        assert model.serial == 2


_APP = """
    import sys
    from whimbrel import Agent, AgentOptions
    with Agent.open(sys.argv[1]) as agent, agent.session("detector") as model:
        print(model.serial, flush=True)
        sys.stdin.read()
"""


def crash(agent: Agent) -> None:
    command = [sys.executable, "-c", textwrap.dedent(_APP), str(agent.folder)]
    app = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert app.stdout is not None
    assert app.stdin is not None
    assert app.stdout.readline().strip() in {b"1", b"2"}
    app.send_signal(signal.SIGKILL)
    app.wait()
    app.stdout.close()
    app.stdin.close()


def test_app_that_is_killed_in_a_session_is_a_crash_in_the_next_window(opened: Opened, server: Server) -> None:
    agent = opened()
    agent.cycle()
    crash(agent)
    agent.cycle()
    time.sleep(0.11)
    agent.cycle()
    assert sum(window.get("crashed", 0) for window in server.windows) == 1
    assert not os.listdir(agent.folder / "models" / "detector" / "marks")


def test_version_on_trial_that_kills_its_app_thrice_is_left_by_the_device_itself(
    opened: Opened, server: Server
) -> None:
    agent = opened()
    agent.cycle()
    use(agent)
    agent.cycle()
    server.repository.policy("detector", baseline=1, layers=(layer(2),))
    agent.cycle(force=True)
    server.down = True  # going back needs no network
    for _ in range(3):
        crash(agent)  # between two cycles: a loop is counted start by start
    agent.cycle()
    found = agent.cycle().models["detector"]
    assert (found["state"], found["serial"], list(found["refused"])) == ("quarantined", 1, ["2"])
    server.down = False
    time.sleep(0.3)
    agent.cycle(force=True)
    assert [each["serial"] for each in server.announced if each["step"] == "went_back"] == [2]


def test_exception_in_a_session_is_an_error_and_no_crash(opened: Opened, server: Server) -> None:
    agent = opened()
    agent.cycle()

    def app() -> None:
        with agent.session("detector"):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        app()
    agent.cycle()
    time.sleep(0.11)
    agent.cycle()
    assert [(each.get("errors", 0), each.get("crashed", 0)) for each in server.windows if each.get("sessions")] == [
        (1, 0)
    ]


def test_download_that_was_cut_in_half_goes_on_where_it_ended_after_a_restart(
    opened: Opened, server: Server, repository: Repository
) -> None:
    big = onnx_model(padding=3_000_000)
    repository.release("detector", 4, big)
    repository.policy("detector", baseline=4)
    digest = repository.blob(big)

    def cut(handler: object) -> None:
        handler.send_response(200)
        handler.send_header("ETag", f'"{digest}"')
        handler.send_header("Content-Length", str(len(big)))
        handler.end_headers()
        handler.wfile.write(big[: len(big) // 2])
        handler.wfile.flush()
        handler.close_connection = True

    server.faults[f"artifacts/{digest}"] = cut
    first = opened()
    found = first.cycle().models["detector"]
    assert found["state"] == "downloading"
    first.close()
    server.faults.clear()
    half = (first.folder / "incoming" / f"{digest}.part").stat().st_size
    assert 0 < half < len(big)
    second = opened()
    assert state_of(second) == ("on trial", 4)
    assert server.ranges == [f"bytes={half}-"]
    assert sum(each.get("bytes_moved", 0) for each in server.announced if each["step"] == "activated") == len(big)


def test_refresh_with_nothing_new_asks_two_small_questions(opened: Opened, server: Server) -> None:
    agent = opened(enrol_token=None)
    agent.cycle()
    server.asked.clear()
    agent.cycle(force=True)
    assert server.asked == ["GET metadata/2.root.json 404", "GET metadata/timestamp.json 304"]


def test_device_without_a_network_keeps_its_model_and_says_why(opened: Opened, server: Server) -> None:
    agent = opened()
    agent.cycle()
    server.down = True
    result = agent.cycle(force=True)
    assert result.models["detector"]["serial"] == 1
    assert any("cannot be reached" in problem for problem in result.problems)
    use(agent, 1)


def test_version_that_no_policy_offers_any_more_stops_when_the_policy_says_so(opened: Opened, server: Server) -> None:
    agent = opened()
    agent.cycle()
    server.repository.line("detector", revoked=(1,))
    server.repository.policy("detector", baseline=1, on_revoked="keep")
    assert state_of(agent)[1] == 1
    server.repository.policy("detector", baseline=1, on_revoked="stop")
    assert state_of(agent) == ("idle", None)


def test_lost_credential_is_replaced_by_a_new_enrolment(opened: Opened, server: Server) -> None:
    agent = opened()
    agent.cycle()
    assert (agent.folder / "credential.json").stat().st_mode & 0o777 == 0o600
    server.credentials.clear()
    server.tokens.clear()
    use(agent)
    agent.cycle()
    assert server.steps()[-1] == "committed"


# --- predictions, first runs, and the version to go back to ---


def test_predictions_are_told_by_the_bins_of_the_signed_reference(
    opened: Opened, server: Server, repository: Repository
) -> None:
    reference = Reference(kind="classes", bins=("left", "right"), shares=(0.5, 0.5))
    variant = variant_of(TWO, probe=probe_of(factor=3.0), signature=signature_of())
    repository.release("detector", 4, TWO, variants=(variant,), reference=reference)
    repository.policy("detector", baseline=4)
    agent = opened()
    agent.cycle()
    for prediction, latency_ms in (("left", 900.0), ("left", 3.0), ("up", 3.0)):
        with agent.session("detector") as model:
            model.record(latency_ms=latency_ms, prediction=prediction)
            model.record(feedback=1.0)
    time.sleep(0.11)
    agent.cycle()
    (window,) = [each for each in server.windows if each.get("predictions")]
    assert window["predictions"] == {"0": 2, "2": 1}
    assert window["metrics"]["first_run_ms"]["sum"] == 900.0
    assert (window["inferences"], sum(window["latency"].values())) == (3, 2)
    assert window["metrics"]["feedback"] == {"n": 3, "sum": 3.0, "sumsq": 3.0, "most": 1.0}


def test_a_device_that_the_baseline_has_no_build_for_takes_the_next_good_version(
    opened: Opened, repository: Repository
) -> None:
    """It waited for ever for a variant of the baseline that fits."""
    variant = variant_of(TWO, probe=probe_of(factor=3.0), selector=Selector(match_labels={"hardware": "jetson"}))
    repository.release("detector", 4, TWO, variants=(variant,))
    repository.policy("detector", baseline=4, known_good=(4, 2, 1))
    agent = opened()
    assert state_of(agent) == ("on trial", 2)
    assert "without a variant that fits this device" in agent.status()["models"]["detector"]["because"]


def test_a_version_that_may_run_no_longer_gives_way_to_the_other_slots_before_anything_is_fetched(
    opened: Opened, server: Server, repository: Repository
) -> None:
    agent = opened()
    agent.cycle()
    use(agent)
    agent.cycle()
    repository.policy("detector", baseline=2)
    agent.cycle(force=True)
    use(agent)
    assert state_of(agent) == ("committed", 2)
    variant = variant_of(BROKEN, probe=probe_of(factor=5.0), signature=signature_of())
    repository.release("detector", 4, BROKEN, variants=(variant,))
    repository.policy("detector", baseline=4, known_good=(4, 1), quarantine=(Quarantine(serial=2),))
    assert state_of(agent)[1] == 1
    assert state_of(agent) == ("on trial", 4)
