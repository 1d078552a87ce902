"""Two installations with one identity are noticed, and an honest device never is: reboots, reinstalls, lost answers."""

import itertools
import random

import pytest

from support.values import T0, Town, reports, town, window
from whimbrel import limits
from whimbrel.flows.device_records import DeviceMessage, SequenceMark
from whimbrel.flows.devices.duplicates import sign_of_duplicate, with_sign
from whimbrel.flows.devices.records import DuplicateIdentity
from whimbrel.flows.reports.ingest import ingest
from whimbrel.health.report import Batch

BEFORE, AFTER, THIRD = "a" * 16, "b" * 16, "c" * 16
PERIOD = 300.0


class Sent:
    """The messages of a device, a period apart; what is noticed of them."""

    def __init__(self, here: Town) -> None:
        self.here = here
        self.at = T0
        here.enrol("dev-1")

    def take(self, epoch: str, *numbers: int, sessions: int = 1) -> DeviceMessage:
        self.at += PERIOD
        windows = [window(number, sessions=sessions, cohorts=()) for number in numbers]
        message = reports("dev-1", *windows, at=self.at, epoch=epoch)
        self.again(message)
        return message

    def again(self, message: DeviceMessage) -> None:
        ingest(self.here.registry, self.here.fleet, [message], now=self.at, devices=self.here.stores.inventory)

    @property
    def signs(self) -> int:
        duplicate = self.here.stores.inventory.duplicate("dev-1")
        return duplicate.signs if duplicate else 0

    @property
    def is_noticed(self) -> bool:
        return self.here.stores.inventory.device("dev-1").duplicate is not None


# --- honest devices ---


def test_reboots_and_reinstalls_are_no_sign() -> None:
    with town() as here:
        sent = Sent(here)
        for epoch, number in itertools.product((BEFORE, AFTER, THIRD), (1, 2, 3)):
            sent.take(epoch, number)
        assert sent.signs == 0


def test_what_was_left_before_a_reboot_is_no_sign() -> None:
    """Frozen windows of the epoch before are sent first, under their old numbers."""
    with town() as here:
        sent = Sent(here)
        sent.take(BEFORE, 1, 2)
        sent.take(BEFORE, 3, 4)  # after the boot: not acknowledged before it
        sent.take(AFTER, 1)
        sent.take(AFTER, 2)
        assert sent.signs == 0


def test_what_is_sent_again_and_what_the_network_delays_is_no_sign() -> None:
    with town() as here:
        sent = Sent(here)
        for first in range(1, 40, 3):
            late = sent.take(BEFORE, first, first + 1, first + 2)
            sent.again(late)
        sent.take(BEFORE, 40)
        sent.again(late)  # it had been kept by a proxy
        sent.take(AFTER, 1)
        sent.again(late)
        assert sent.signs == 0


def test_honest_devices_on_a_bad_network_are_never_noticed() -> None:
    """Any order of reboots, windows and answers that were lost, as an agent sends them."""
    for seed in range(12):
        chance = random.Random(seed)
        with town() as here:
            sent = Sent(here)
            boot, last = 0, 0
            for _ in range(60):
                if chance.random() < 0.15:
                    boot, last = boot + 1, 0
                epoch, several = f"{boot:016x}", chance.randint(1, 4)
                message = sent.take(epoch, *range(last + 1, last + 1 + several))
                last += several
                while chance.random() < 0.4:
                    sent.again(message)
            assert sent.signs == 0, seed


# --- two installations ---


def test_installations_that_take_turns_are_noticed() -> None:
    with town() as here:
        sent = Sent(here)
        sent.take(BEFORE, 1)
        sent.take(AFTER, 1)
        assert sent.signs == 0
        sent.take(BEFORE, 2)
        assert (sent.signs, sent.is_noticed) == (1, False)
        sent.take(AFTER, 2)
        assert (sent.signs, sent.is_noticed) == (2, True)
        (entry,) = here.registry.audit_log(device="dev-1")
        assert (entry.action, entry.actor, entry.rollout) == ("notice_duplicate", "tally", None)
        assert "installation bbbbbbbb reports again after installation aaaaaaaa did" in entry.because
        sent.take(BEFORE, 3)
        assert len(here.registry.audit_log(device="dev-1")) == 1  # people were told


def test_a_machine_that_was_cloned_while_it_ran_is_noticed_by_contents() -> None:
    with town() as here:
        sent = Sent(here)
        for number in range(1, 4):
            sent.take(BEFORE, number, sessions=1)
            sent.take(BEFORE, number, sessions=7)
        assert (sent.signs, sent.is_noticed) == (3, True)
        assert "sent window 2 twice, with different contents" in here.registry.audit_log()[0].because


def test_a_clone_that_lags_far_behind_is_noticed() -> None:
    with town() as here:
        sent = Sent(here)
        sent.take(BEFORE, *range(1, 41))
        sent.take(BEFORE, 2)
        sent.take(BEFORE, 3)
        assert sent.is_noticed


def test_one_accident_is_not_told_and_neither_are_two_that_are_weeks_apart() -> None:
    with town() as here:
        sent = Sent(here)
        sent.take(BEFORE, 1)
        sent.take(AFTER, 1)
        sent.take(BEFORE, 2)  # somebody looked once more at a board that was replaced
        sent.at += limits.DUPLICATE_WITHIN_S + 1
        sent.take(AFTER, 2)
        assert (sent.signs, sent.is_noticed) == (1, False)
        sent.take(BEFORE, 3)
        assert sent.is_noticed


def test_signs_after_a_quiet_week_are_news_again() -> None:
    told = DuplicateIdentity(device_id="d", signs=9, first_at=0.0, last_at=10.0, noticed_at=5.0)
    again = with_sign(told, "d", "x", at=10.0 + limits.DUPLICATE_WITHIN_S + 1)
    assert (again.signs, again.noticed_at) == (1, None)
    assert with_sign(again, "d", "x", at=again.last_at + 1).noticed_at == again.last_at + 1
    assert with_sign(told, "d", "x", at=11.0).noticed_at == 5.0


def test_a_device_that_is_removed_begins_anew() -> None:
    with town() as here:
        sent = Sent(here)
        for number in (1, 2):
            sent.take(BEFORE, number)
            sent.take(AFTER, number)
        assert sent.is_noticed
        here.stores.inventory.remove("dev-1", rollouts=[])
        here.enrol("dev-1")
        assert sent.signs == 0


@pytest.mark.parametrize("at", [0.0, T0])
def test_marks_from_before_times_were_noted_prove_nothing(at: float) -> None:
    marks = {BEFORE: SequenceMark(3), AFTER: SequenceMark(5, at)}
    assert sign_of_duplicate(marks, Batch(epoch=BEFORE, windows=(window(4),))) == ""
