"""What the device says, and what it does with each answer: over real HTTP, against a server that answers as told."""

import random
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from support.agents import AllGood
from support.repository import Repository, Server, onnx_model, variant_of
from whimbrel import Agent, AgentOptions
from whimbrel.device.conditions import Situation
from whimbrel.device.journal import unseal
from whimbrel.device.ports import ProbeRequest, ProbeResult
from whimbrel.device.slots import Pointer
from whimbrel.model.documents import digest_of
from whimbrel.model.release import Probe
from whimbrel.model.selector import Selector
from whimbrel.policy.policy import Arm, Conditions, Entry, Layer
from whimbrel.trust import roles

CONTENTS = onnx_model(factor=2.0), onnx_model(factor=3.0)
START = time.time()


@pytest.fixture
def server() -> Iterator[Server]:
    repository = Repository()
    for serial, content in enumerate(CONTENTS, start=1):
        repository.release("detector", serial, content)
    repository.policy("detector", baseline=1, report_s=60, refresh_s=60)
    with Server(repository) as running:
        yield running


Opened = Callable[..., Agent]


@pytest.fixture
def opened(tmp_path: Path, server: Server) -> Iterator[Opened]:
    agents: list[Agent] = []

    def make(**changes: object) -> Agent:
        given: dict[str, object] = {
            "server": server.url,
            "root": server.repository.root_bytes,
            "models": ["detector"],
            "device_id": "dev-1",
            "enrol_token": server.enrol_token,
            "probes": AllGood(),
            **changes,
        }
        agents.append(Agent.open(tmp_path, AgentOptions(**given)))
        return agents[-1]

    yield make
    for agent in agents:
        agent.close()


def after(agent: Agent, minutes: float) -> dict[str, object]:
    return agent.cycle(START + 60 * minutes, force=True).models["detector"]


def committed(agent: Agent) -> None:
    after(agent, 0)
    for _ in range(3):
        with agent.session("detector"):
            pass
    assert after(agent, 1)["state"] == "committed"


def test_the_models_that_it_follows_are_told_at_enrolment_and_with_every_batch(opened: Opened, server: Server) -> None:
    agent = opened(models=["detector", "speech"])
    after(agent, 0)
    after(agent, 2)
    assert server.enrolled[-1]["models"] == ["detector", "speech"]
    assert server.batches[-1]["models"] == ["detector", "speech"]
    agent.close()
    again = opened(models=["detector"])
    after(again, 5)
    after(again, 7)
    assert server.batches[-1]["models"] == ["detector"]


def test_a_device_is_enrolled_in_its_first_pass_also_where_nothing_is_offered(opened: Opened, server: Server) -> None:
    """It came with the first report, half an interval later, and never with `agent check`: nobody knew the device."""
    server.repository.policy("detector")
    opened().cycle()
    assert len(server.enrolled) == 1


def test_without_an_enrolment_token_the_device_listens_and_says_nothing(opened: Opened, server: Server) -> None:
    agent = opened(enrol_token=None)
    after(agent, 0)
    after(agent, 5)
    assert not [line for line in server.asked if line.startswith("POST")]
    assert agent.status()["windows_waiting"] == 0


def test_wrong_enrolment_token_is_said_and_stops_nothing(opened: Opened, server: Server) -> None:
    agent = opened(enrol_token="w" * 32)
    result = agent.cycle()
    assert result.models["detector"]["serial"] == 1
    assert any("check the enrolment token" in problem for problem in result.problems)


def patience(server: Server, seconds: int) -> Callable[[BaseHTTPRequestHandler], None]:
    def fault(handler: BaseHTTPRequestHandler) -> None:
        server.asked.append(handler.path)
        handler.send_response(503)
        handler.send_header("Retry-After", str(seconds))
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return fault


@pytest.mark.parametrize("path", ["metadata/2.root.json", "metadata/timestamp.json", "metadata/1.targets.json"])
@pytest.mark.parametrize("is_new", [True, False], ids=["new", "known"])
def test_server_that_asks_for_patience_is_left_alone_until_then(
    opened: Opened, server: Server, path: str, is_new: bool
) -> None:
    """Asked for the root first, it was asked again with the next pass; and when it said more than two periods."""
    agent = opened(enrol_token=None)
    if not is_new:
        agent.cycle(START)
    server.faults |= {path: patience(server, 3000), "metadata/2.policy-detector.json": patience(server, 3000)}
    server.repository.policy("detector", baseline=1, report_s=60, refresh_s=60)
    agent.cycle(START + 60)
    server.asked.clear()
    for minutes in range(2, 50):
        agent.cycle(START + 60 * minutes)
    assert server.asked == []
    server.faults.clear()
    assert agent.cycle(START + 60 * 60).problems == ()
    assert agent.status()["models"]["detector"]["sequence"] == 2


@pytest.mark.parametrize("status", [500, 503, 507, 429])
def test_report_that_was_not_stored_is_sent_again_as_it_was(opened: Opened, server: Server, status: int) -> None:
    agent = opened()
    after(agent, 0)
    server.answers["reports"] = status
    after(agent, 2)
    server.answers.clear()
    waiting = agent.status()["windows_waiting"]
    assert waiting >= 1
    after(agent, 10)
    assert server.windows[0]["first"] == 1
    assert agent.status()["windows_waiting"] == 0


def test_clock_that_was_set_back_holds_nothing_back(opened: Opened, server: Server) -> None:
    agent = opened()
    agent.cycle(START)
    agent.cycle(START + 120)
    told = len(server.windows)
    back = START - 10 * 86400
    server.repository.policy("detector", baseline=1, report_s=60, refresh_s=60)
    for minutes in range(3):
        agent.cycle(back + 60 * minutes)
    assert agent.status()["models"]["detector"]["sequence"] == 2
    assert len(server.windows) > told


def test_report_that_will_never_be_taken_is_dropped(opened: Opened, server: Server) -> None:
    agent = opened()
    after(agent, 0)
    server.answers["reports"] = 400
    after(agent, 2)
    assert agent.status()["windows_waiting"] == 0
    server.answers.clear()
    after(agent, 10)
    assert [window["first"] for window in server.windows] == [2]


def test_windows_of_days_without_a_server_come_in_one_batch_and_in_order(opened: Opened, server: Server) -> None:
    agent = opened()
    after(agent, 0)
    server.down = True
    for minutes in range(2, 40, 2):
        after(agent, minutes)
    server.down = False
    after(agent, 200)
    numbers = [window["first"] for window in server.windows]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= 19
    assert len(server.batches) == 1
    assert server.compressed == ["reports"]


def test_announcement_that_will_never_be_taken_holds_no_other_back(opened: Opened, server: Server) -> None:
    agent = opened()
    server.answers["announce"] = 400
    result = agent.cycle(START)
    assert any("answered 400" in problem for problem in result.problems)
    server.answers.clear()
    for _ in range(3):
        with agent.session("detector"):
            pass
    assert after(agent, 2)["state"] == "committed"
    assert server.steps() == ["committed"]


def test_token_that_ended_is_replaced_without_a_new_enrolment(opened: Opened, server: Server) -> None:
    agent = opened()
    after(agent, 0)
    server.tokens.clear()
    after(agent, 2)
    assert server.windows
    assert len([line for line in server.asked if line.startswith("POST device/v1/enrol")]) == 1


class TooLargeTwice(dict[str, int]):
    """What the server answers to the next two batches."""

    left = 2

    def __contains__(self, what: object) -> bool:
        if what != "reports" or not self.left:
            return False
        self.left -= 1
        return True

    def __getitem__(self, what: str) -> int:
        return 413


def test_batch_that_is_too_large_is_halved_and_loses_no_window(opened: Opened, server: Server) -> None:
    agent = opened()
    after(agent, 0)
    server.down = True
    for minutes in range(2, 40, 2):
        after(agent, minutes)
    server.down, server.answers = False, TooLargeTwice()
    for minutes in (200, 201, 202):
        after(agent, minutes)
    numbers = [window["first"] for window in server.windows]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= 19
    assert len(server.batches[0]["windows"]) == 5  # of 20 or more: it was halved twice


def test_announcement_waits_for_the_network_and_comes_in_order(opened: Opened, server: Server) -> None:
    agent = opened()
    server.answers["announce"] = 500
    after(agent, 0)
    assert server.announced == []
    server.answers.clear()
    agent.close()
    again = opened()
    after(again, 10)
    assert server.steps() == ["activating", "activated"]


def test_only_the_labels_that_a_policy_asks_for_leave_the_device(opened: Opened, server: Server) -> None:
    server.repository.policy("detector", baseline=1, report_s=60, report_labels=("region",))
    agent = opened(labels={"region": "NZ", "owner": "me"})
    after(agent, 0)
    after(agent, 2)
    assert server.batches[-1]["labels"] == {"region": "NZ"}


def test_conditions_that_are_not_known_to_hold_keep_the_old_version(opened: Opened, server: Server) -> None:
    situations = [Situation()]
    agent = opened(situation=lambda: situations[-1])
    after(agent, 0)
    server.repository.policy("detector", baseline=2, conditions=Conditions(charging=True))
    for _ in range(3):
        with agent.session("detector"):
            pass
    found = after(agent, 1)
    assert (found["state"], found["serial"]) == ("offered", 1)
    assert "asks for a charger and that is not known" in str(found["waits_for"])
    situations.append(Situation(charging=True))
    assert after(agent, 2)["serial"] == 2


def test_start_jitter_holds_back_and_then_lets_go(opened: Opened, server: Server) -> None:
    server.repository.policy("detector", baseline=1, conditions=Conditions(start_jitter_s=1000))
    agent = opened()
    found = after(agent, 0)
    assert (found["state"], found["waits_for"]) == ("offered", "its turn: starts are spread over 1000 s")
    assert after(agent, 20)["serial"] == 1


def test_placebo_waits_for_its_turn_like_an_activation(opened: Opened, server: Server) -> None:
    agent = opened()
    after(agent, 0)
    arm = Arm(role="control", name="control", stage=0, serial=1, start=0, end=1_000_000)
    layer = Layer(salt=7, entries=(Entry(rollout="r1", arms=(arm,)),))
    server.repository.policy("detector", baseline=1, layers=(layer,), conditions=Conditions(start_jitter_s=1000))
    after(agent, 1)
    assert server.steps()[-1] == "assigned"
    after(agent, 30)
    assert server.steps()[-1] == "placebo"


def control_of(*delays_s: float) -> tuple[Layer, ...]:
    arm = Arm(role="control", name="control", stage=0, serial=1, start=0, end=1_000_000)
    return (Layer(salt=7, entries=(Entry(rollout="r1", arms=(arm,), delays_s=delays_s),)),)


def test_placebo_takes_as_long_as_the_treated_devices_do_and_the_status_says_so(opened: Opened, server: Server) -> None:
    agent = opened()
    after(agent, 0)
    server.repository.policy("detector", baseline=1, layers=control_of(1200, 1200))
    found = after(agent, 1)
    assert found["waits_for"] == "its placebo: an update would take this device 1200 s"
    after(agent, 20)
    assert server.steps()[-1] == "assigned"
    assert after(agent, 22)["waits_for"] is None
    assert server.steps()[-1] == "placebo"


def test_placebo_whose_delay_is_told_late_is_dated_back(opened: Opened, server: Server) -> None:
    """The table comes a window and a refresh after the treated devices' activations: ages would differ by that."""
    agent = opened()
    after(agent, 0)
    server.repository.policy("detector", baseline=1, report_s=60, layers=control_of(10_800))
    after(agent, 1)
    server.repository.policy("detector", baseline=1, report_s=60, layers=control_of(120, 120))
    after(agent, 11)
    after(agent, 13)
    (cohort,) = server.windows[-1]["cohorts"]
    assert cohort["role"] == "control"
    assert cohort["age_s"] == pytest.approx(10 * 60, abs=30)


def test_placebo_waits_for_its_conditions_after_its_delay_too(opened: Opened, server: Server) -> None:
    situations = [Situation(charging=True)]
    agent = opened(situation=lambda: situations[-1])
    after(agent, 0)
    policy = {"baseline": 1, "report_s": 60, "conditions": Conditions(charging=True)}
    server.repository.policy("detector", **policy, layers=control_of(120, 120))
    after(agent, 1)
    situations.append(Situation(charging=False))
    assert "asks for a charger" in str(after(agent, 10)["waits_for"])
    assert server.steps()[-1] == "assigned"
    situations.append(Situation(charging=True))
    after(agent, 11)
    after(agent, 13)
    assert server.steps()[-1] == "placebo"
    assert server.windows[-1]["cohorts"][0]["age_s"] == pytest.approx(3 * 60, abs=30)


@pytest.mark.parametrize(("max_age_s", "serial"), [(600, 2), (30, 1)])
def test_old_policy_activates_nothing(
    opened: Opened, server: Server, tmp_path: Path, max_age_s: float, serial: int
) -> None:
    agent = opened()
    after(agent, 0)
    for _ in range(3):
        with agent.session("detector"):
            pass
    after(agent, 1)
    server.repository.policy("detector", baseline=2, activate_max_age_s=max_age_s, refresh_s=60)
    with agent.session("detector"):
        assert after(agent, 2)["state"] == "ready"
    server.down = True
    assert after(agent, 5)["serial"] == serial


def test_policy_that_changes_before_the_activation_withdraws_the_version(opened: Opened, server: Server) -> None:
    agent = opened()
    after(agent, 0)
    for _ in range(3):
        with agent.session("detector"):
            pass
    after(agent, 1)
    server.repository.policy("detector", baseline=2)
    with agent.session("detector"):
        assert after(agent, 2)["state"] == "ready"
    server.repository.policy("detector", baseline=1)
    found = after(agent, 3)
    assert (found["state"], found["serial"]) == ("idle", 1)


class Announced(list[dict[str, object]]):
    """What was announced, and what the device ran and had fetched by then."""

    def __init__(self, folder: Path, server: Server) -> None:
        super().__init__()
        self._pointer, self._server = folder / "models/detector/pointer", server

    def append(self, said: dict[str, object]) -> None:
        runs = unseal(Pointer, self._pointer.read_bytes(), what="the pointer").serial
        super().append({**said, "runs": runs, "fetched": len(self._server.ranges)})


def test_what_a_device_is_about_to_do_is_told_before_it_does_it(opened: Opened, server: Server, tmp_path: Path) -> None:
    """So that one that dies of it is missed."""
    agent = opened()
    committed(agent)
    server.announced, server.ranges[:] = Announced(tmp_path, server), []
    arm = Arm(role="treated", name="t", stage=0, serial=2, start=0, end=1_000_000)
    server.repository.policy(
        "detector", baseline=1, layers=(Layer(salt=1, entries=(Entry(rollout="r", arms=(arm,)),)),)
    )
    after(agent, 2)
    assert [(each["step"], each["runs"], each["fetched"]) for each in server.announced] == [
        ("assigned", 1, 0),
        ("begun", 1, 0),
        ("activating", 1, 1),
        ("activated", 2, 1),
    ]


class Meanwhile:
    """A probe that takes five seconds, in which something happens."""

    def __init__(self) -> None:
        self.happens: Callable[[ProbeRequest], object] = lambda _: None
        self.uptime_s = 0.0

    def probe(self, request: ProbeRequest) -> ProbeResult:
        self.happens(request)
        self.uptime_s += 5
        return ProbeResult(passed=True)


def test_device_decides_again_on_the_newest_policy_before_it_activates(opened: Opened, server: Server) -> None:
    probe = Meanwhile()
    agent = opened(probes=probe, monotonic=lambda: probe.uptime_s)
    committed(agent)
    probe.happens = lambda _: server.repository.policy("detector", baseline=1)
    server.repository.policy("detector", baseline=2)
    found = after(agent, 2)
    assert (found["state"], found["serial"], found["sequence"]) == ("idle", 1, 3)


def test_trial_is_not_disturbed_by_a_newer_version_and_gives_way_after_a_day(opened: Opened, server: Server) -> None:
    agent, repository = opened(), server.repository
    committed(agent)
    repository.policy("detector", baseline=2)
    assert after(agent, 2)["state"] == "on trial"
    repository.release("detector", 3, CONTENTS[0])
    repository.policy("detector", baseline=3)
    found = after(agent, 3)
    assert (found["state"], found["serial"]) == ("on trial", 2)
    assert found["waits_for"] == "the end of the trial of serial 2"
    repository.now += timedelta(days=2)
    repository.timestamp.expires = repository.now + roles.TIMESTAMP_LIFE
    repository.policy("detector", baseline=3)
    for minutes in (1445, 1446):
        found = after(agent, minutes)
    assert (found["state"], found["serial"]) == ("on trial", 3)


def test_conditions_are_asked_again_before_it_activates(opened: Opened, server: Server) -> None:
    probe, situations = Meanwhile(), [Situation(charging=True)]
    agent = opened(probes=probe, situation=lambda: situations[-1])
    committed(agent)
    probe.happens = lambda _: situations.append(Situation(charging=False))
    server.repository.policy("detector", baseline=2, conditions=Conditions(charging=True))
    found = after(agent, 2)
    assert (found["state"], found["serial"], found["waits_for"]) == ("ready", 1, "the policy asks for a charger")


def test_files_are_hashed_again_before_they_are_active(opened: Opened, server: Server) -> None:
    probe = Meanwhile()
    agent = opened(probes=probe)
    committed(agent)
    probe.happens = lambda request: Path(request.path).write_bytes(b"x")
    server.repository.policy("detector", baseline=2)
    found = after(agent, 2)
    assert (found["serial"], found["waits_for"]) == (1, "the files in the slot are not whole any more")


def test_what_failed_is_tried_again_later_and_later_up_to_a_refresh_period(opened: Opened, server: Server) -> None:
    class Latest(random.Random):
        def uniform(self, a: float, b: float) -> float:
            return b

    asked: list[float] = []
    seconds = 0.0

    def broken(handler: BaseHTTPRequestHandler) -> None:
        asked.append(seconds)
        handler.send_response(500)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    server.faults[f"artifacts/{digest_of(CONTENTS[0])}"] = broken
    agent = opened(chance=Latest(), monotonic=lambda: 0.0, enrol_token=None)
    while seconds < 200:
        agent.cycle(START + seconds)
        seconds += 0.5
    assert asked == [0, 1, 3, 7, 15, 31, 63, 123, 183]


@pytest.mark.long
def test_hundred_agents_share_one_pool_and_hold_no_files(tmp_path: Path, server: Server) -> None:
    import os

    import urllib3

    pool = urllib3.PoolManager(num_pools=2, maxsize=4)
    agents = [
        Agent.open(
            tmp_path / str(number),
            AgentOptions(
                server=server.url,
                root=server.repository.root_bytes,
                enrol_token=server.enrol_token,
                probes=AllGood(),
                pool=pool,
                models=["detector"],
            ),
        )
        for number in range(100)
    ]
    before = len(os.listdir("/proc/self/fd"))
    for agent in agents:
        assert agent.cycle().models["detector"]["serial"] == 1
    assert len(os.listdir("/proc/self/fd")) - before < 10
    pool.clear()


# --- what holds a model up ---


def told(server: Server) -> list[dict[str, str]]:
    """What batches said of it, but for those that said nothing."""
    return [batch["waiting"] for batch in server.batches if "waiting" in batch]


def test_what_holds_a_model_up_is_told_when_it_changes_and_without_measurements(opened: Opened, server: Server) -> None:
    situation = [Situation(battery=0.43, charging=False)]
    agent = opened(situation=lambda: situation[0])
    committed(agent)
    after(agent, 2)
    assert told(server) == [{"detector": ""}]  # once after a start: an earlier process may have told something else
    server.repository.policy("detector", baseline=2, report_s=60, refresh_s=60, conditions=Conditions(battery_min=0.5))
    status = after(agent, 4)
    assert status["waits_for"] == "the policy asks for a battery at 50% (it is at 43%)"
    situation[0] = Situation(battery=0.41, charging=False)
    after(agent, 6)
    after(agent, 8)
    assert told(server)[1:] == [{"detector": "the policy asks for a battery at 50%"}]
    assert len(server.batches) > len(told(server))
    situation[0] = Situation(battery=0.9)
    after(agent, 10)
    assert told(server)[2:] == [{"detector": ""}]


def test_what_was_not_stored_is_told_again(opened: Opened, server: Server) -> None:
    server.answers["reports"] = 503
    agent = opened()
    committed(agent)
    after(agent, 3)
    assert server.batches == []
    del server.answers["reports"]
    after(agent, 9)
    assert told(server) == [{"detector": ""}]


def test_what_a_failed_try_met_stays_on_the_device(opened: Opened, server: Server) -> None:
    agent = opened()
    committed(agent)
    server.repository.policy("detector", baseline=2, report_s=60, refresh_s=60)
    server.repository.blobs.pop(digest_of(CONTENTS[1]))
    problem = str(after(agent, 4)["waits_for"])
    assert "artifacts" in problem
    assert told(server)[-1] == {"detector": "another try: the last one failed, as the device's own status says"}


def test_the_chosen_build_and_its_budgets_are_told_when_they_change(opened: Opened, server: Server) -> None:
    budget = Probe(latency_ms_max=20.0, memory_mib_max=100)
    for serial in (3, 4):
        large = variant_of(b"large" * serial, name="large", selector=Selector(match_labels={"ram": "much"}))
        small = variant_of(b"small" * serial, name="small", probe=budget)
        server.repository.release("detector", serial, b"large" * serial, b"small" * serial, variants=(large, small))
    server.repository.policy("detector", baseline=3, report_s=60, refresh_s=60)
    agent = opened()
    committed(agent)
    after(agent, 2)
    assert not any("builds" in batch for batch in server.batches)  # it would tell of `ram`, which nobody asked for
    server.repository.policy("detector", baseline=3, report_s=60, refresh_s=60, report_labels=("ram",))
    for minutes in (4, 6):
        after(agent, minutes)
    builds = [batch["builds"]["detector"] for batch in server.batches if "builds" in batch]
    assert builds == [{"serial": 3, "variant": "small", "latency_ms_max": 20.0, "memory_mib_max": 100.0}]
    server.repository.policy("detector", baseline=4, report_s=60, refresh_s=60, report_labels=("ram",))
    for minutes in (8, 10, 12):
        after(agent, minutes)
    builds = [batch["builds"]["detector"] for batch in server.batches if "builds" in batch]
    assert [each["serial"] for each in builds] == [3, 4]
