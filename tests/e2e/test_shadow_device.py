"""A device in a shadow stage, over real HTTP, with real ONNX models, a real probe process and a real worker."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import shadow_models
from support.repository import Repository, Server, probe_of, signature_of, variant_of
from whimbrel import Agent, limits
from whimbrel.agent.probes import ProbeServer
from whimbrel.model.documents import digest_of
from whimbrel.policy.policy import Arm, Entry, Layer, Quarantine
from whimbrel.policy.shadow import PPM, Shadow

GOOD, DISAGREES, ABORTS = shadow_models.good(), shadow_models.disagreeing(), shadow_models.aborting()
CONTENTS = {1: GOOD, 2: DISAGREES, 3: ABORTS}


@pytest.fixture(scope="module")
def probes() -> Iterator[ProbeServer]:
    server = ProbeServer()
    yield server
    server.close()


@pytest.fixture
def server() -> Iterator[Server]:
    repository = Repository()
    for serial, content in CONTENTS.items():
        variant = variant_of(content, probe=probe_of(), signature=signature_of())
        repository.release("detector", serial, content, variants=(variant,))
    broken = variant_of(GOOD[:100] + b"\x00" + GOOD[101:], probe=probe_of(), signature=signature_of())
    repository.release("detector", 4, GOOD[:100] + b"\x00" + GOOD[101:], variants=(broken,))
    repository.policy("detector", baseline=1)
    with Server(repository) as running:
        yield running


Opened = Callable[..., Agent]


@pytest.fixture
def opened(tmp_path: Path, server: Server, probes: ProbeServer) -> Iterator[Opened]:
    agents: list[Agent] = []

    def make() -> Agent:
        agent = Agent.open(
            tmp_path / "device",
            server=server.url,
            root=server.repository.root_bytes,
            models=["detector"],
            device_id="dev-1",
            enrol_token=server.enrol_token,
            probes=probes,
        )
        agents.append(agent)
        return agent

    yield make
    for agent in agents:
        agent.close()


def arm(serial: int, *, stage: int = 0, shadow: bool = True) -> Layer:
    made = Arm(
        role="treated",
        name="shadow",
        stage=stage,
        serial=serial,
        start=0,
        end=1_000_000,
        shadow=Shadow(sample_ppm=PPM) if shadow else None,
    )
    return Layer(salt=7, entries=(Entry(rollout="r1", arms=(made,)),))


def wanted(server: Server, serial: int | None, **more: object) -> None:
    layers = (arm(serial),) if serial is not None else ()
    server.repository.policy("detector", **{"baseline": 1, "layers": layers, "refresh_s": 0.1, "report_s": 0.1} | more)


def state_of(agent: Agent) -> tuple[str, int | None]:
    found = agent.cycle(force=True).models["detector"]
    return found["state"], found["serial"]


def committed(agent: Agent) -> None:
    agent.cycle(force=True)
    for _ in range(limits.TRIAL_HEALTHY_SESSIONS):
        with agent.session("detector"):
            pass
    assert state_of(agent) == ("committed", 1)


def feed(agent: Agent, count: int, *, wrong: float = 0.0) -> None:
    """An app's session with so many calls, each of which is tried before the next."""
    with agent.session("detector") as model:
        runner = model.runner()
        for call in shadow_models.calls(count, wrong=wrong):
            assert (runner.run(call)["y"] == call["x"] * 2).all()
            assert agent._shadows["detector"].wait_idle(60)


def flushed(agent: Agent) -> None:
    """The app ends: what it saw is written down."""
    for client in agent._shadows.values():
        client.close()
    agent._shadows.clear()


def test_a_device_in_the_shadow_holds_the_candidate_and_serves_the_active_version(
    opened: Opened, server: Server
) -> None:
    agent = opened()
    committed(agent)
    server.announced.clear()
    wanted(server, 2)
    assert state_of(agent) == ("shadowing", 1)
    assert agent.status()["models"]["detector"]["shadow"] == {"serial": 2, "sample_percent": 100.0, "crashes": 0}
    with agent.session("detector") as model:
        assert model.serial == 1
    assert server.steps() == ["assigned", "begun", "shadowing"]
    assert {(each["rollout"], each["serial"]) for each in server.announced} == {("r1", 2)}
    assert state_of(agent) == ("shadowing", 1)


def test_what_was_seen_is_reported_in_sums_for_the_cohort(opened: Opened, server: Server) -> None:
    agent = opened()
    committed(agent)
    wanted(server, 2)
    agent.cycle(force=True)
    feed(agent, 20, wrong=0.3)
    flushed(agent)
    time.sleep(0.2)
    for _ in range(3):
        agent.cycle(force=True)
        time.sleep(0.12)
    (told,) = [window for window in server.windows if "shadow" in window]
    assert (told["serial"], told["shadow"]["serial"]) == (1, 2)
    # Those before the shadow are in the same window, or in one before it: as the reports came.
    assert sum(window.get("sessions", 0) for window in server.windows) == limits.TRIAL_HEALTHY_SESSIONS + 1
    assert (told["shadow"]["inputs"], told["shadow"]["agreed"]) == (20, 14.0)
    assert [(each["rollout"], each["role"]) for each in told["cohorts"]] == [("r1", "treated")]


def test_what_was_only_tried_is_active_at_once_without_a_download(opened: Opened, server: Server) -> None:
    agent = opened()
    committed(agent)
    wanted(server, 2)
    agent.cycle(force=True)
    asked = len(server.asked)
    server.announced.clear()
    wanted(server, 2, layers=(arm(2, stage=1, shadow=False),))
    assert state_of(agent) == ("on trial", 2)
    assert not [line for line in server.asked[asked:] if "artifacts/" in line]
    assert server.steps() == ["assigned", "activating", "activated"]
    assert {each.get("stage", 0) for each in server.announced} == {1}


def test_a_shadow_that_ends_leaves_the_active_version_and_needs_no_network(opened: Opened, server: Server) -> None:
    agent = opened()
    committed(agent)
    wanted(server, 2)
    agent.cycle(force=True)
    wanted(server, None, quarantine=(Quarantine(serial=2),))
    assert state_of(agent) == ("idle", 1)
    server.down = True
    with agent.session("detector") as model:
        assert model.path.read_bytes() == GOOD
        assert not model.shadow(shadow_models.calls(1)[0])


def test_what_was_held_once_is_not_fetched_again(opened: Opened, server: Server) -> None:
    """A device of the shadow that the next stage does not serve is served by a later one."""
    agent = opened()
    committed(agent)
    wanted(server, 2)
    agent.cycle(force=True)
    wanted(server, None)
    assert state_of(agent) == ("idle", 1)
    asked = len(server.asked)
    wanted(server, 2, layers=(arm(2, stage=1, shadow=False),))
    assert state_of(agent) == ("on trial", 2)
    assert not [line for line in server.asked[asked:] if digest_of(DISAGREES) in line]


def test_a_candidate_that_fails_its_probe_is_never_tried(opened: Opened, server: Server) -> None:
    agent = opened()
    committed(agent)
    wanted(server, 4)
    assert state_of(agent) == ("quarantined", 1)
    assert server.steps()[-1] == "failed"
    with agent.session("detector") as model:
        assert not model.shadow(shadow_models.calls(1)[0])


def test_a_candidate_that_ends_its_process_harms_no_session_and_is_refused(opened: Opened, server: Server) -> None:
    agent = opened()
    committed(agent)
    wanted(server, 3)
    assert state_of(agent) == ("shadowing", 1)
    feed(agent, 6, wrong=1.0)
    flushed(agent)
    assert state_of(agent) == ("quarantined", 1)
    assert "ended its process 3 times" in agent.status()["models"]["detector"]["refused"]["3"]
    assert [each["rollout"] for each in server.announced if each["step"] == "failed"] == ["r1"]
    assert state_of(agent) == ("quarantined", 1)
    with agent.session("detector") as model:
        assert model.serial == 1


def test_files_that_are_changed_while_they_are_tried_are_fetched_again(
    opened: Opened, server: Server, tmp_path: Path
) -> None:
    agent = opened()
    committed(agent)
    wanted(server, 2)
    agent.cycle(force=True)
    slot = next(
        each
        for each in (tmp_path / "device" / "models" / "detector").glob("[ab]/model.onnx")
        if each.read_bytes() == DISAGREES
    )
    slot.write_bytes(GOOD)
    agent.cycle(force=True)
    time.sleep(limits.BACKOFF_FIRST_S * 1.5)
    assert state_of(agent) == ("shadowing", 1)
    assert slot.read_bytes() == DISAGREES


def test_an_agent_that_starts_again_goes_on_shadowing(opened: Opened, server: Server) -> None:
    first = opened()
    committed(first)
    wanted(server, 2)
    first.cycle(force=True)
    first.close()
    server.down = True
    again = opened()
    again.cycle(force=True)
    feed(again, 2)
    flushed(again)
    assert state_of(again) == ("shadowing", 1)
