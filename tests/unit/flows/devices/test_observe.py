"""Which messages of devices count, and what is noted of two installations: borders, words and evidence."""

import pytest

from support.values import EPOCH, T0, Town, reports, town, window
from whimbrel import limits
from whimbrel.flows.device_records import SequenceMark
from whimbrel.flows.devices.duplicates import digest_of, digests_after, sign_of_duplicate, with_sign
from whimbrel.flows.devices.observe import admitted
from whimbrel.flows.devices.records import AccessState, DeviceAccess, DuplicateIdentity
from whimbrel.flows.reports.ingest import ingest
from whimbrel.health.report import Batch

OTHER = "f" * 16


@pytest.mark.parametrize(
    ("state", "at", "counts"),
    [
        ("blocked", T0 + 9.9, True),  # it was acknowledged before the block
        ("blocked", T0 + 10, True),
        ("blocked", T0 + 10.1, False),
        ("removed", T0, False),
        ("removed", T0 + 99, False),
        ("open", T0 + 4.9, False),  # from before its removal
        ("open", T0 + 5, True),
    ],
)
def test_a_message_counts_by_when_it_came_in(state: AccessState, at: float, counts: bool) -> None:
    with town() as here:
        access = DeviceAccess(device_id="dev-1", state=state, since=T0 + 10, not_before=T0 + 5)
        here.stores.inventory.set_access(access)
        message, other = reports("dev-1", at=at), reports("dev-2", at=at)
        kept = admitted(here.stores.inventory, [message, other])
        assert kept == ((message, other) if counts else (other,))


# --- signs of a second installation, in words ---


def mark(last: int, *, at: float = T0, digests: dict[int, str] | None = None) -> SequenceMark:
    return SequenceMark(last, at, digests or {})


def batch(*numbers: int, sessions: int = 1) -> Batch:
    return Batch(epoch=EPOCH, windows=tuple(window(number, sessions=sessions, cohorts=()) for number in numbers))


def test_each_sign_says_which_installation_did_what() -> None:
    eight = {n: digest_of(window(n, sessions=1, cohorts=())) for n in range(3, 3 + limits.WINDOW_DIGESTS)}
    took_turns = {EPOCH: mark(3), OTHER: mark(5, at=T0 + 1)}
    assert sign_of_duplicate(took_turns, batch(4)) == (
        "installation 01234567 reports again after installation ffffffff did"
    )
    assert sign_of_duplicate({EPOCH: mark(10, digests=eight)}, batch(9, sessions=2)) == (
        "installation 01234567 sent window 9 twice, with different contents"
    )
    assert sign_of_duplicate({EPOCH: mark(10, digests=eight)}, batch(1, 2)) == (
        "installation 01234567 sent window 2 again, long after window 10"
    )


def test_what_is_no_sign() -> None:
    eight = {n: digest_of(window(n, sessions=1, cohorts=())) for n in range(3, 3 + limits.WINDOW_DIGESTS)}
    seven = {n: each for n, each in eight.items() if n > 3}
    for marks, told in (
        ({}, batch(1)),
        ({EPOCH: mark(3)}, batch()),
        ({EPOCH: mark(3), OTHER: mark(5, at=T0)}, batch(4)),  # at the same time
        ({EPOCH: mark(3), OTHER: mark(5, at=T0 + 1)}, batch(3)),  # nothing new
        ({EPOCH: mark(3, at=0.0), OTHER: mark(5, at=T0 + 1)}, batch(4)),
        ({EPOCH: mark(10, digests=eight)}, batch(9)),  # the same contents
        ({EPOCH: mark(10, digests=eight)}, batch(3)),
        ({EPOCH: mark(10, digests=seven)}, batch(2)),  # few are remembered: an older one may be honest
    ):
        assert sign_of_duplicate(marks, told) == ""


def test_of_several_other_installations_the_newest_is_named() -> None:
    marks = {EPOCH: mark(3), "a" * 16: mark(9, at=T0 + 1), "b" * 16: mark(9, at=T0 + 2)}
    assert sign_of_duplicate(marks, batch(4)).endswith("after installation bbbbbbbb did")


def test_so_many_digests_are_remembered_the_newest() -> None:
    first = digests_after(None, [window(n) for n in range(1, 6)])
    assert list(first) == [1, 2, 3, 4, 5]
    later = digests_after(mark(5, digests=first), [window(n) for n in range(6, 11)])
    assert list(later) == list(range(11 - limits.WINDOW_DIGESTS, 11))
    assert later[10] == digest_of(window(10))
    many = digests_after(None, [window(n) for n in range(1, 40)])
    assert list(many) == list(range(40 - limits.WINDOW_DIGESTS, 40))


def test_people_are_told_at_the_second_sign_within_a_week_to_the_second() -> None:
    first = with_sign(None, "d", "one", at=T0)
    assert first == DuplicateIdentity(device_id="d", signs=1, first_at=T0, last_at=T0, because="one")
    at = T0 + limits.DUPLICATE_WITHIN_S
    assert with_sign(first, "d", "two", at=at) == DuplicateIdentity(
        device_id="d", signs=2, first_at=T0, last_at=at, noticed_at=at, because="two"
    )
    assert with_sign(first, "d", "two", at=at + 0.1).signs == 1
    early = with_sign(first, "d", "two", at=T0 - 5)  # messages of two servers
    assert (early.signs, early.last_at, early.noticed_at) == (2, T0, T0 - 5)


def test_the_entry_names_the_device_its_signs_and_since_when() -> None:
    with town() as here:
        here.enrol("dev-1")
        for place, epoch in enumerate((EPOCH, OTHER, EPOCH, OTHER)):
            take(here, epoch, place)
        (entry,) = here.registry.audit_log(device="dev-1")
    assert (entry.actor, entry.action, entry.at) == ("tally", "notice_duplicate", T0 + 3)
    assert entry.because == (
        "two installations report as dev-1: installation ffffffff reports again after installation 01234567 did"
    )
    assert entry.evidence == {"signs": 2, "first_at": T0 + 2}


def take(here: Town, epoch: str, place: int) -> None:
    told = reports("dev-1", window(place + 1, cohorts=()), at=T0 + place, epoch=epoch)
    ingest(here.registry, here.fleet, [told], now=T0 + place, devices=here.stores.inventory)
