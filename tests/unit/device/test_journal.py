"""A journal that is torn, cut, or from another time: the device goes back to what was committed, and never guesses."""

import pytest

from whimbrel.device import slots
from whimbrel.device.journal import GoingBack, Journal, recovered, seal, unseal
from whimbrel.device.slots import Content, Held, Pointer
from whimbrel.device.states import State
from whimbrel.errors import UntrustedInput

CONTENTS = (Content(name="model.onnx", sha256="a" * 64),)
ONE = Held(slot="a", serial=1, version="2026.03.05.1", entry="model.onnx", contents=CONTENTS)
TWO = Held(slot="b", serial=2, version="2026.03.05.2", entry="model.onnx", contents=CONTENTS)


def test_a_journal_comes_back_as_it_went() -> None:
    journal = Journal(model="m", state=State.COMMITTED)
    assert unseal(Journal, seal(journal), what="it") == journal


@pytest.mark.parametrize("length", range(0, len(seal(Journal(model="m"))), 7))
def test_a_journal_cut_anywhere_is_torn(length: int) -> None:
    with pytest.raises(UntrustedInput, match="torn"):
        unseal(Journal, seal(Journal(model="m"))[:length], what="the journal")


def test_a_torn_document_says_which_it_is_and_how_much_of_it_is_there() -> None:
    content = seal(Journal(model="m"))
    with pytest.raises(UntrustedInput) as caught:
        unseal(Journal, content[:-3], what="the journal")
    here = len(content) - 3 - 65
    assert str(caught.value) == f"the journal is torn: its checksum does not fit its {here} bytes"


def test_a_journal_with_one_bit_flipped_is_torn() -> None:
    content = bytearray(seal(Journal(model="m")))
    content[-3] ^= 1
    with pytest.raises(UntrustedInput, match="torn"):
        unseal(Journal, bytes(content), what="the journal")


def test_a_journal_of_a_later_version_is_not_guessed_at() -> None:
    content = seal({"format": "whimbrel-journal-2", "model": "m"})
    with pytest.raises(UntrustedInput, match="cannot be read"):
        unseal(Journal, content, what="the journal")


def test_without_a_journal_a_trial_is_taken_back() -> None:
    pointer = Pointer(model="m", active=TWO, fallback=ONE, trial=True)
    journal = recovered(pointer, reason="torn")
    back = GoingBack(leaves=2, to=1, by_policy=False, reason="torn")
    assert journal == Journal(model="m", state=State.GOING_BACK, going_back=back)
    alone = recovered(Pointer(model="m", active=TWO, trial=True), reason="torn")
    assert alone.going_back == GoingBack(leaves=2, to=None, by_policy=False, reason="torn")


def test_without_a_journal_what_was_committed_is_kept() -> None:
    committed = Journal(model="m", state=State.COMMITTED)
    assert recovered(Pointer(model="m", active=TWO, fallback=ONE), reason="torn") == committed
    assert recovered(Pointer(model="m"), reason="torn") == Journal(model="m", state=State.IDLE)
    assert recovered(Pointer(model="m", trial=True), reason="torn") == Journal(model="m", state=State.IDLE)


def test_a_swap_done_twice_is_done_once() -> None:
    pointer = slots.swapped(Pointer(model="m", active=ONE), TWO)
    assert pointer == slots.swapped(pointer, TWO) == Pointer(model="m", active=TWO, fallback=ONE, trial=True)


def test_a_version_that_failed_its_trial_is_no_fallback() -> None:
    trial = Pointer(model="m", active=TWO, fallback=ONE, trial=True)
    assert slots.back(trial) == Pointer(model="m", active=ONE)
    assert slots.back(slots.committed(trial)) == Pointer(model="m", active=ONE, fallback=TWO)


def test_what_did_badly_is_nothing_to_go_back_to() -> None:
    assert slots.left(Pointer(model="m", active=TWO, fallback=ONE)) == Pointer(model="m", active=ONE)
    assert slots.left(Pointer(model="m", active=TWO, fallback=ONE, trial=True)) == Pointer(model="m", active=ONE)


def test_what_is_stopped_is_kept_until_another_version_is_committed_or_needs_its_slot() -> None:
    stopped = slots.stopped(Pointer(model="m", active=TWO, fallback=ONE))
    assert stopped == slots.stopped(stopped) == Pointer(model="m", stopped=TWO)
    assert slots.resumed(stopped) == Pointer(model="m", active=TWO)
    assert (stopped.serial, stopped.inactive) == (None, "a")
    other = slots.swapped(stopped, ONE)
    assert other == Pointer(model="m", active=ONE, trial=True, stopped=TWO)
    assert slots.committed(other) == Pointer(model="m", active=ONE)
    assert slots.without_inactive(stopped) == stopped
    assert slots.without_inactive(other) == Pointer(model="m", active=ONE, trial=True)
    assert slots.without_inactive(Pointer(model="m", active=TWO, fallback=ONE)) == Pointer(model="m", active=TWO)
    assert slots.emptied(other) == Pointer(model="m")


def test_the_inactive_slot_is_never_the_active_one() -> None:
    assert Pointer(model="m").inactive == "a"
    assert Pointer(model="m", active=ONE).inactive == "b"
    assert Pointer(model="m", active=TWO).inactive == "a"
