"""What a day may cost a device: bytes on a metered network, acts that policies ask for; and waits after failures."""

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from support.values import arm, file, policy
from whimbrel import limits
from whimbrel.agent.allowance import Allowance, Spent, day_budget_bytes
from whimbrel.agent.backoff import Backoff, Busy, after_s_of, check_patience
from whimbrel.agent.disk import RealDisk
from whimbrel.agent.pace import Pace
from whimbrel.device.journal import Candidate
from whimbrel.device.ports import Answer
from whimbrel.errors import Unavailable
from whimbrel.model import documents
from whimbrel.policy.bucket import BUCKETS
from whimbrel.policy.policy import Conditions, Entry, Layer

MIB, DAY_S, TODAY = limits.MIB, 86400, 20_000
CANDIDATE = Candidate(serial=2, version="v2", slot="b", files=(file(),), policy_sequence=1, offered_at=0.0)


# --- the bytes of a day ---


def asks(mib: int | None, **changes: Any) -> Any:
    return policy(conditions=Conditions(metered_mib_a_day=mib), **changes)


@pytest.mark.parametrize(
    ("asked", "own_mib", "budget_mib"),
    [
        ((), 0, None),
        ((None,), 0, None),
        ((None,), 7, 7),
        ((5,), 0, 5),
        ((5, 3), 0, 3),
        ((3, 5), 4, 3),
        ((5, 6), 4, 4),
        ((0,), 7, 0),
    ],
)
def test_a_day_carries_the_least_that_policies_and_settings_ask_for(
    asked: tuple[int | None, ...], own_mib: int, budget_mib: int | None
) -> None:
    policies = {f"m{number}": asks(mib) for number, mib in enumerate(asked)}
    budget = day_budget_bytes(policies, {}, own_mib=own_mib)
    assert budget == (None if budget_mib is None else budget_mib * MIB)


def test_a_candidate_is_fetched_by_the_budget_of_its_own_cohort() -> None:
    conditions = {"conditions": Conditions(metered_mib_a_day=9)}
    arms = (arm("treated", 0, 10, serial=2), arm("treated", 10, 20, serial=2, stage=1, **conditions))
    asking = asks(5, layers=(Layer(salt=1, entries=(Entry(rollout="r1", arms=arms, end=BUCKETS),)),))

    def budget(**cohort: Any) -> int | None:
        candidate = msgspec.structs.replace(CANDIDATE, **cohort)
        return day_budget_bytes({"wake": asking}, {"wake": candidate}, own_mib=0)

    assert budget(rollout="r1", stage=1) == 9 * MIB
    assert budget(rollout="r1", stage=0) == 5 * MIB
    assert budget() == 5 * MIB


class Budget:
    """An allowance of `budget` bytes a day, in a folder that outlives it."""

    def __init__(self, folder: Path, *, budget: int | None = 10 * MIB) -> None:
        self.path, self.budget = folder / "budget.json", budget
        self.clock = SimpleNamespace(now=float(TODAY * DAY_S))
        self.opened()

    def opened(self) -> Allowance:
        self.allowance = Allowance(
            self.path,
            disk=RealDisk(),
            now=lambda: self.clock.now,
            budget_bytes=lambda: self.budget,
            bytes_per_s=None,
            pause=lambda _: None,
        )
        return self.allowance

    @property
    def kept(self) -> Spent:
        return documents.parse(Spent, self.path.read_bytes(), what="it")


def test_a_budget_ends_with_its_last_byte(tmp_path: Path) -> None:
    device = Budget(tmp_path, budget=100)
    assert device.allowance.begin() == 100
    assert device.allowance.spend(99)
    assert device.allowance.left == 1
    assert not device.allowance.spend(1)
    assert device.allowance.left == 0
    assert not device.allowance.spend(1)
    assert device.allowance.left == 0


def test_what_is_fetched_is_set_aside_a_megabyte_ahead_and_what_is_left_of_that_given_back(tmp_path: Path) -> None:
    device = Budget(tmp_path)
    device.allowance.begin()
    device.allowance.spend(100)
    assert device.kept == Spent(day=TODAY, bytes=MIB + 100)
    device.allowance.spend(MIB)
    assert device.kept == Spent(day=TODAY, bytes=MIB + 100)
    device.allowance.spend(1)
    assert device.kept == Spent(day=TODAY, bytes=2 * MIB + 101)
    assert device.opened().begin() == 10 * MIB - (2 * MIB + 101)  # the process ended: it loses some, and wins none
    device.allowance.spend(9)
    device.allowance.end()
    assert device.kept == Spent(day=TODAY, bytes=2 * MIB + 110)
    assert device.opened().begin() == 10 * MIB - (2 * MIB + 110)


@pytest.mark.parametrize(
    ("days", "left"),
    [(0, 900), (1, 1000), (2, 1000), (-1, 900), (-2, 900), (-400, 900)],
)
def test_only_a_later_day_brings_a_new_budget(tmp_path: Path, days: int, left: int) -> None:
    device = Budget(tmp_path, budget=1000)
    device.allowance.begin()
    device.allowance.spend(100)
    device.allowance.end()
    device.clock.now += days * DAY_S + DAY_S - 1
    assert device.opened().begin() == left


@pytest.mark.parametrize(("days", "whole_after"), [(-1, 2), (-2, 1), (-400, 1)])
def test_a_count_of_a_clock_that_was_ahead_ends_with_the_day_that_it_is(
    tmp_path: Path, days: int, whole_after: int
) -> None:
    """A clock that is one day back is near midnight, or in another zone: the count stays with its own day."""
    device = Budget(tmp_path, budget=1000)
    device.allowance.begin()
    device.allowance.spend(100)
    device.allowance.end()
    device.clock.now += days * DAY_S
    lefts = []
    for _ in range(3):
        lefts.append(device.allowance.begin())
        device.clock.now += DAY_S
    assert lefts == [*[900] * whole_after, *[1000] * (3 - whole_after)]


def test_without_a_budget_nothing_is_counted(tmp_path: Path) -> None:
    device = Budget(tmp_path, budget=None)
    assert device.allowance.begin() is None
    assert device.allowance.spend(10**12)
    assert device.allowance.left is None
    device.allowance.end()
    assert not device.path.exists()


def test_a_count_that_cannot_be_read_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "budget.json").write_bytes(b'{"format":"whimbrel-budget-1","day":20000,"byt')
    assert Budget(tmp_path, budget=1000).allowance.begin() == 1000


# --- the acts of a day ---


def test_policies_make_a_device_act_as_often_as_its_day_allows_and_then_as_it_fills_again() -> None:
    pace = Pace(a_day=4)
    for _ in range(3):
        pace.spend(1000.0)
        assert pace.least_s == 0
    pace.spend(1000.0)
    assert pace.least_s == DAY_S / 4
    pace.spend(1000.0 + DAY_S / 4)  # one filled, and was spent
    assert pace.least_s == DAY_S / 4
    pace.spend(1000.0 + 3 * DAY_S / 4)  # two filled, and one is left
    assert pace.least_s == 0


def test_a_budget_of_acts_fills_to_a_day_and_by_no_clock_that_was_set_back() -> None:
    pace = Pace(a_day=2)
    pace.spend(1000.0)
    pace.spend(1000.0 + 30 * DAY_S)
    assert pace.least_s == 0
    pace.spend(1000.0)  # the clock was set back: nothing filled
    assert pace.least_s == DAY_S / 2
    pace.spend(1000.0 + DAY_S / 4)
    assert pace.least_s == DAY_S / 2


# --- waits ---


class Highest(random.Random):
    """Draws the longest wait."""

    def uniform(self, a: float, b: float) -> float:
        assert a == 0
        return b


def test_a_wait_doubles_up_to_its_cap_and_begins_anew_after_a_success() -> None:
    backoff, waits = Backoff(Highest()), []
    for _ in range(7):
        backoff.failed(1000.0, "no route", cap_s=40.0)
        waits.append(backoff.until - 1000.0)
    first = limits.BACKOFF_FIRST_S
    assert waits == [min(40.0, first * 2**number) for number in range(7)]
    assert waits[-1] == 40.0
    assert backoff.problem == "no route"
    backoff.worked()
    assert (backoff.until, backoff.problem) == (0.0, "")
    backoff.failed(1000.0, "no route", cap_s=40.0, at_least_s=60.0)
    assert backoff.until == 1000.0 + 60.0 + first


def test_a_wait_is_over_at_its_end_and_where_a_clock_was_set_back() -> None:
    backoff = Backoff(Highest())
    backoff.failed(1000.0, "no route", cap_s=40.0, at_least_s=60.0)
    assert backoff.waiting(1000.0)
    assert backoff.waiting(backoff.until - 1)
    assert not backoff.waiting(backoff.until)
    assert backoff.waiting(backoff.until - DAY_S)
    assert not backoff.waiting(backoff.until - DAY_S - 1)


@pytest.mark.parametrize("status", [429, 503, 507])
def test_an_answer_that_asks_for_patience_says_until_when(status: int) -> None:
    with pytest.raises(Busy) as caught:
        check_patience("http://s/x", Answer(status, {"retry-after": "120"}, b""), now=0.0)
    assert str(caught.value) == f"http://s/x answered {status}, and asks to come again later"
    assert (caught.value.after_s, after_s_of(caught.value)) == (120.0, 120.0)
    check_patience("http://s/x", Answer(status, {}, b""), now=0.0)  # it does not say when: it is a failure as any other


def test_other_answers_ask_for_no_patience() -> None:
    for status in (200, 404, 428, 430, 500, 502, 504, 506, 508):
        check_patience("http://s/x", Answer(status, {"retry-after": "120"}, b""), now=0.0)
    assert after_s_of(Unavailable("no route")) == 0.0
