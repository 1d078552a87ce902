"""Experiments are judged as rollouts are: once a window, and at once after a device failed; ended ones no more."""

import pytest

from support.experiments import written
from support.rollouts_in_memory import audited, enrolled, policy, send
from support.server_in_memory import ServerInMemory
from support.values import HOUR, announce, devices_in
from whimbrel.flows.experiments.advance import act_by_person
from whimbrel.flows.experiments.start import start_experiment
from whimbrel.flows.records import ExperimentRecord


@pytest.fixture
def begun(server: ServerInMemory) -> str:
    """An experiment that is live; its id."""
    enrolled(server, *(f"dev-{number}" for number in range(4)))
    with server.stores() as stores:
        record = start_experiment(
            stores.registry,
            stores.experiments,
            written(),
            plan_text="",
            tag="t",
            salt=7,
            hour_s=HOUR,
            actor="ana",
            now=server.clock.now,
        )
    return record.id


def record_of(server: ServerInMemory, identifier: str) -> ExperimentRecord:
    with server.stores() as stores:
        return stores.experiments.one(identifier)


def treated(server: ServerInMemory, identifier: str) -> str:
    """A device whose bucket is in the arm that is compared with the control."""
    share = record_of(server, identifier).plan.ranges()["large"]
    (device,) = devices_in(share.start, share.end, 1)
    enrolled(server, device)
    return device


def verdicts(server: ServerInMemory, identifier: str) -> list[tuple[int, str]]:
    """The windows in which it was judged, and what the gate said."""
    with server.stores() as stores:
        return [(each.window, each.move) for each in stores.registry.verdicts(identifier)]


def test_an_experiment_is_in_the_policy_after_one_round_and_judged_once_a_window(
    server: ServerInMemory, begun: str
) -> None:
    server.round()
    assert [entry.rollout for layer in policy(server).layers for entry in layer.entries] == [begun]
    server.round()
    assert [window for window, _ in verdicts(server, begun)] == [0]
    server.clock.now += record_of(server, begun).window_s - 1
    server.round()
    assert [window for window, _ in verdicts(server, begun)] == [0]
    server.clock.now += 1
    server.round()
    assert [window for window, _ in verdicts(server, begun)] == [0, 1]


def test_a_device_that_failed_has_experiments_judged_at_once(server: ServerInMemory, begun: str) -> None:
    server.round()
    send(server, [announce(treated(server, begun), "failed", rollout=begun, at=server.clock.now)])
    server.round()
    assert len(verdicts(server, begun)) == 2


def test_an_experiment_whose_time_is_over_ends_by_itself_and_is_judged_no_more(
    server: ServerInMemory, begun: str
) -> None:
    server.round()
    server.clock.now += 0.5 * 24 * HOUR + record_of(server, begun).window_s
    server.round()
    (entry,) = audited(server, "experiment end")
    assert (entry.actor, entry.rollout) == ("gate", begun)
    assert not record_of(server, begun).live
    judged = verdicts(server, begun)
    server.clock.now += record_of(server, begun).window_s
    server.round()
    assert verdicts(server, begun) == judged
    assert [entry for layer in policy(server).layers for entry in layer.entries] == []


def test_an_experiment_that_a_person_ended_is_judged_no_more(server: ServerInMemory, begun: str) -> None:
    server.round()
    with server.stores() as stores:
        act_by_person(
            begun,
            "stop",
            registry=stores.registry,
            fleet=stores.fleet,
            experiments=stores.experiments,
            tag="e",
            arm=None,
            because="enough",
            actor="ana",
            now=server.clock.now,
        )
    server.clock.now += record_of(server, begun).window_s
    server.round()
    assert len(verdicts(server, begun)) == 1
