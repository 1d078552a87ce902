"""Swaps of a set, on a modelled disk: all of it or nothing, and why it waits."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from support.repository import Repository, Server
from support.set_cut import FOLDER, PAIR, AllGood, content, pair
from support.wire import Wire
from whimbrel import Agent, AgentOptions
from whimbrel.device.conditions import Situation
from whimbrel.model.release import Requirement
from whimbrel.policy.policy import Conditions
from whimbrel.sim.disk import ModelledDisk


class Device:
    """A device that keeps both models of a set, at serial 1; serial 2 of both is decided by `go_on`."""

    def __init__(self) -> None:
        self.repository = Repository(PAIR)
        for model, other in (PAIR, PAIR[::-1]):
            for serial in (1, 2):
                requires = (Requirement(model=other, serial=serial),)
                self.repository.release(model, serial, content(model, serial), requires=requires)
            self.repository.policy(model, baseline=1)
        self.server = Server(self.repository)
        self.disk = ModelledDisk()
        self.now = self.repository.now.timestamp() + 10
        self.agent = self.opened(PAIR)
        for _ in range(3):
            self.cycle()
            pair(self.disk)

    def opened(self, models: Sequence[str]) -> Agent:
        return Agent.open(
            FOLDER,
            AgentOptions(
                server="https://models.example.com",
                root=self.repository.root_bytes,
                models=models,
                probes=AllGood(),
                pool=Wire(self.server),
                clock=lambda: self.now,
                chance=random.Random(1),
                disk=self.disk,
                device_id="dev-1",
                situation=Situation,
            ),
        )

    def cycle(self) -> dict[str, Any]:
        self.now += 61
        self.models = self.agent.cycle(self.now, force=True).models
        return self.models

    def status(self, model: str) -> dict[str, Any]:
        return self.models[model]

    def go_on(self) -> None:
        for model in PAIR:
            self.repository.policy(model, baseline=2)


@pytest.fixture
def device() -> Iterator[Device]:
    made = Device()
    yield made
    made.server.close()


def test_a_set_is_swapped_together(device: Device) -> None:
    assert pair(device.disk) == (1, 1)
    device.go_on()
    device.cycle()
    device.cycle()
    assert pair(device.disk) == (2, 2)


def test_one_open_session_keeps_the_whole_set_where_it_is_and_swap_now_does_not_wait_for_it(device: Device) -> None:
    device.go_on()
    with device.agent.session("decoder"):
        for _ in range(3):
            models = device.cycle()
            assert pair(device.disk) == (1, 1)
        assert {models[model]["state"] for model in PAIR} == {"ready"}
        assert "the end of the open sessions" in {models[model]["waits_for"] for model in PAIR}
        assert all(device.agent.swap_now(model) for model in PAIR)
        device.cycle()
        assert pair(device.disk) == (2, 2)
        assert not device.agent.swap_now("decoder")


def test_a_set_waits_for_what_any_of_it_waits_for_and_says_which_one(device: Device) -> None:
    device.go_on()
    with device.agent.session("decoder"):
        for _ in range(3):
            device.cycle()
    device.repository.policy("decoder", baseline=2, conditions=Conditions(charging=True))
    for _ in range(2):
        device.cycle()
        assert pair(device.disk) == (1, 1)
    because = "the policy asks for a charger and that is not known"
    assert device.status("decoder")["waits_for"] == because
    assert device.status("encoder")["waits_for"] == f"decoder, which waits: {because}"
    device.repository.policy("decoder", baseline=2)
    device.cycle()
    assert pair(device.disk) == (2, 2)


def test_a_member_that_goes_back_takes_the_others_along(device: Device) -> None:
    device.go_on()
    device.cycle()
    device.cycle()
    device.repository.policy("encoder", baseline=1)
    device.cycle()
    assert pair(device.disk) == (1, 1)


def test_a_set_whose_other_model_is_kept_no_more_waits_and_says_for_what(device: Device) -> None:
    """It ended every cycle with a `KeyError`: the other model was looked for among those that the agent keeps."""
    device.go_on()
    with device.agent.session("decoder"):
        for _ in range(3):
            device.cycle()
    assert device.status("encoder")["state"] == "ready"
    device.agent.close()
    device.agent = device.opened(["encoder"])
    device.cycle()
    assert device.status("encoder")["waits_for"] == "decoder at serial 2, which serial 2 requires"


def test_a_set_that_goes_back_waits_for_the_sessions_of_all(device: Device) -> None:
    """The encoder went back beside an open session of the decoder: mixed, as long as that session lasted."""
    device.go_on()
    device.cycle()
    device.cycle()
    for model in PAIR:
        device.repository.policy(model, baseline=1)
    with device.agent.session("decoder") as session:
        assert session.serial == 2
        for _ in range(2):
            models = device.cycle()
            assert pair(device.disk) == (2, 2)
        assert {models[model]["waits_for"] for model in PAIR} == {"the end of the open sessions"}
    device.cycle()
    assert pair(device.disk) == (1, 1)


def test_a_set_is_left_as_one_while_no_cycle_runs_and_one_member_alone_is_refused(device: Device) -> None:
    device.go_on()
    for _ in range(4):
        device.cycle()
        pair(device.disk)
    assert pair(device.disk) == (2, 2)
    device.agent.go_back("encoder", "it hears nothing")
    assert pair(device.disk) == (1, 1)
    device.cycle()
    assert pair(device.disk) == (1, 1)
    assert list(device.status("encoder")["refused"]) == ["2"]
    assert device.status("decoder")["refused"] == {}
    for _ in range(3):
        device.cycle()
        assert pair(device.disk) == (1, 1)
