"""How often a device looks for news: as its policies say, and no more often than it can bear itself."""

import random
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from support.agents import AllGood
from support.repository import Repository, Server, onnx_model
from support.values import T0, policy
from whimbrel import Agent, AgentOptions, limits
from whimbrel.agent.refreshing import Refreshing
from whimbrel.device.conditions import Situation
from whimbrel.errors import Unavailable


class Trust:
    """A trust client that is up to date, or that is not reached."""

    def __init__(self, refresh_s: float) -> None:
        self.policies = {"wake": policy(refresh_s=refresh_s), "other": policy(model="other", refresh_s=900)}
        self.reached = True

    def refresh(self, _: float) -> None:
        if not self.reached:
            raise Unavailable("no route")


def refreshing(trust: Trust, *, least_s: float, at: SimpleNamespace) -> Refreshing:
    return Refreshing(trust, now=lambda: at.now, chance=random.Random(7), least_s=lambda: least_s)


@pytest.mark.parametrize(
    ("refresh_s", "least_s", "earliest", "latest"),
    [(30, 0, 27, 30), (300, 0, 270, 300), (30, 300, 300, 300), (30, 29, 29, 30), (0.1, 60, 60, 60)],
)
def test_a_device_never_looks_more_often_than_it_can_bear(
    refresh_s: float, least_s: float, earliest: float, latest: float
) -> None:
    at = SimpleNamespace(now=T0)
    device = refreshing(Trust(refresh_s), least_s=least_s, at=at)
    assert device.attempt(T0)
    assert earliest <= device.next_at - T0 <= latest
    at.now = device.next_at - 0.01
    assert not device.is_due(at.now)
    assert device.is_due(device.next_at)


def test_a_clock_that_was_set_back_is_no_reason_to_wait_longer_than_two_of_its_own_periods() -> None:
    at = SimpleNamespace(now=T0)
    device = refreshing(Trust(30), least_s=300, at=at)
    device.attempt(T0)
    assert not device.is_due(T0 - 200)
    assert device.is_due(T0 - 400)


def test_a_failure_is_tried_again_as_before() -> None:
    at = SimpleNamespace(now=T0)
    trust = Trust(30)
    device = refreshing(trust, least_s=0, at=at)
    trust.reached = False
    assert not device.attempt(T0)
    assert (device.problem, T0 < device.next_at <= T0 + 30) == ("no route", True)


@pytest.mark.parametrize(
    ("unmetered", "settings", "refreshed"),
    [
        (True, {}, True),
        (None, {}, True),  # not known: as the policy says
        (False, {}, False),
        (False, {"metered_refresh_min_s": 0.0}, True),
        (True, {"refresh_min_s": 120.0}, False),
    ],
)
def test_on_a_metered_network_a_device_looks_less_often_than_a_rollout_asks(
    tmp_path: Path, unmetered: bool | None, settings: dict[str, float], refreshed: bool
) -> None:
    repository, now = Repository(), time.time()
    repository.release("detector", 1, onnx_model(factor=2.0))
    repository.policy("detector", baseline=1, refresh_s=30)
    with Server(repository) as server:
        options = AgentOptions(
            server=server.url,
            root=repository.root_bytes,
            models=["detector"],
            situation=lambda: Situation(unmetered=unmetered),
            probes=AllGood(),
            **settings,
        )
        with Agent.open(tmp_path, options) as agent:
            assert agent.cycle(now).refreshed
            assert not agent.cycle(now + 20).refreshed
            assert agent.cycle(now + 31).refreshed is refreshed
            assert agent.cycle(now + 400).refreshed


def test_a_policy_makes_a_device_look_ten_thousand_times_a_day_and_no_more() -> None:
    at = SimpleNamespace(now=T0)
    device = refreshing(Trust(0.1), least_s=0, at=at)
    looks = 0
    while at.now < T0 + 86400:
        device.refresh()
        looks += 1
        at.now = device.next_at
    assert looks <= 2 * limits.POLICY_ACTS_A_DAY + 1  # the budget that was full, and what filled meanwhile
    looks = 0
    while at.now < T0 + 2 * 86400:
        device.refresh()
        looks += 1
        at.now = device.next_at
    assert looks <= limits.POLICY_ACTS_A_DAY + 1
