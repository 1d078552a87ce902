"""The log of what was active, as pure changes: which entry follows from a pointer, what is dropped, what is sent."""

from typing import Any

import msgspec
import pytest

from whimbrel import limits
from whimbrel.device import slots
from whimbrel.device.journal import GoingBack, Journal, Refusal
from whimbrel.device.run_history import (
    RunLog,
    Times,
    artifact_of,
    bounded,
    head_of,
    new_log,
    newest_entries,
    next_number,
    part_of,
    with_model,
)
from whimbrel.device.slots import Content, Held, Pointer
from whimbrel.health.run_history import RunEntry, RunHead, RunHistoryPart, beginning_of, read_chain, read_entry
from whimbrel.model.documents import digest_of, encode

replace = msgspec.structs.replace
LOG = new_log("0" * 16, device_id="dev-1")
TIMES = Times(at=100.0, signed_time=90.0)
CRASHED = GoingBack(leaves=2, to=1, by_policy=False, reason="it crashed")
KEY = "k" * 43
REFUSED = Refusal(serial=2, reason="it failed", policy_sequence=4)


def held(serial: int, slot: Any = "a") -> Held:
    contents = (Content(name="m", sha256=f"{serial:064x}"),)
    return Held(slot=slot, serial=serial, version=f"v{serial}", entry="m", contents=contents)


RUNS_1 = Pointer(model="wake", active=held(1))
RUNS_2 = Pointer(model="wake", active=held(2, "b"), fallback=held(1))
TRIES_2 = slots.swapped(RUNS_1, held(2, "b"))
NOTHING = Pointer(model="wake")
STOPPED_2 = slots.stopped(RUNS_2)


def journal(*refused: Refusal, going_back: GoingBack | None = None) -> Journal:
    return Journal(model="wake", refused=refused, going_back=going_back)


def logged(log: RunLog, pointer: Pointer, state: Journal = journal(), times: Times = TIMES) -> RunLog:
    return with_model(log, pointer, state, newest_entries(log).get(pointer.model), times)


def changes(before: Pointer | None, after: Pointer, state: Journal = journal()) -> list[tuple[str, Any, Any, str]]:
    """Of each entry that a change makes: what changed, what runs, what it is about, the reason."""
    log = LOG if before is None else logged(LOG, before)
    more = logged(log, after, state).entries[len(log.entries) :]
    return [(each.change, each.serial, each.about, each.reason) for each in map(read_entry, more)]


@pytest.mark.parametrize(
    ("before", "after", "state", "entries"),
    [
        (None, NOTHING, journal(), []),
        (None, RUNS_1, journal(), [("begun", 1, None, "")]),
        (None, TRIES_2, journal(), [("trial", 2, None, "")]),
        (None, STOPPED_2, journal(), [("stopped", None, None, "")]),
        (RUNS_1, RUNS_1, journal(), []),
        (RUNS_1, TRIES_2, journal(), [("trial", 2, None, "")]),
        (TRIES_2, RUNS_2, journal(), [("committed", 2, None, "")]),
        (RUNS_2, TRIES_2, journal(), [("trial", 2, None, "")]),
        (TRIES_2, RUNS_1, journal(going_back=CRASHED), [("went_back", 1, 2, "it crashed")]),
        (TRIES_2, RUNS_1, journal(REFUSED), [("went_back", 1, 2, "it failed")]),
        (RUNS_2, RUNS_1, journal(REFUSED, going_back=CRASHED), [("went_back", 1, 2, "it crashed")]),
        (RUNS_2, RUNS_1, journal(), [("begun", 1, None, "")]),
        (RUNS_1, RUNS_2, journal(), [("begun", 2, None, "")]),
        (RUNS_2, STOPPED_2, journal(), [("stopped", None, 2, "")]),
        (RUNS_2, NOTHING, journal(going_back=CRASHED), [("emptied", None, 2, "it crashed")]),
        (RUNS_2, NOTHING, journal(REFUSED), [("emptied", None, 2, "it failed")]),
        (STOPPED_2, RUNS_2, journal(), [("resumed", 2, None, "")]),
        (STOPPED_2, STOPPED_2, journal(), []),
        (STOPPED_2, NOTHING, journal(), []),
        (RUNS_1, RUNS_1, journal(REFUSED), [("refused", 1, 2, "it failed")]),
        (
            RUNS_1,
            TRIES_2,
            journal(replace(REFUSED, serial=7)),
            [("trial", 2, None, ""), ("refused", 2, 7, "it failed")],
        ),
    ],
)
def test_what_changed_follows_from_the_pointer_and_the_reason_from_the_journal(
    before: Pointer | None, after: Pointer, state: Journal, entries: list[tuple[str, Any, Any, str]]
) -> None:
    assert changes(before, after, state) == entries


def test_the_newest_refusal_of_a_version_says_why_it_was_left() -> None:
    twice = journal(replace(REFUSED, reason="first"), replace(REFUSED, reason="then"), replace(REFUSED, serial=9))
    assert changes(TRIES_2, RUNS_1, twice)[0] == ("went_back", 1, 2, "then")


def test_an_emptied_model_that_gets_a_version_begins_and_does_not_resume() -> None:
    log = logged(logged(LOG, RUNS_2), NOTHING)
    assert [read_entry(text).change for text in logged(log, RUNS_2).entries] == ["begun", "emptied", "begun"]


def test_an_entry_says_what_runs_since_when_and_what_stands_before_it() -> None:
    times = Times(at=100.0, signed_time=90.0, unseen_since=40.0)
    log = logged(logged(LOG, RUNS_1), TRIES_2, times=times)
    first, second = map(read_entry, log.entries)
    assert first == RunEntry(
        number=1,
        previous=beginning_of("0" * 16, device_id="dev-1"),
        model="wake",
        change="begun",
        serial=1,
        version="v1",
        artifact=f"{1:064x}",
        on_trial=False,
        at=100.0,
        not_before=100.0,
        signed_time=90.0,
    )
    assert second == replace(
        first,
        number=2,
        previous=digest_of(log.entries[0].encode()),
        change="trial",
        serial=2,
        version="v2",
        artifact=f"{2:064x}",
        on_trial=True,
        not_before=40.0,
    )
    empty = read_entry(logged(log, replace(NOTHING, trial=True)).entries[-1])
    assert (empty.serial, empty.version, empty.artifact, empty.on_trial) == (None, "", None, False)


def test_a_refusal_is_told_once_for_a_policy_and_again_where_it_failed_again() -> None:
    log = logged(logged(LOG, RUNS_1), RUNS_1, journal(REFUSED))
    assert logged(log, RUNS_1, journal(REFUSED)) is log
    again = logged(log, RUNS_1, journal(replace(REFUSED, policy_sequence=9)))
    assert [read_entry(text).change for text in again.entries] == ["begun", "refused", "refused"]
    assert again.refusals == {"wake": ((2, 9),)}
    fewer = logged(again, RUNS_1)
    assert (fewer.entries, fewer.refusals) == (again.entries, {"wake": ()})


def test_a_version_that_was_left_is_not_told_as_refused_besides() -> None:
    log = logged(logged(LOG, TRIES_2), RUNS_1, journal(REFUSED))
    assert logged(log, RUNS_1, journal(REFUSED)) == log
    assert [read_entry(text).change for text in log.entries] == ["trial", "went_back"]


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("it\ncrashed \x00 twice", "it crashed twice"),
        ("x" * limits.RUN_REASON_CHARS, "x" * limits.RUN_REASON_CHARS),
        ("x" * (limits.RUN_REASON_CHARS + 1), "x" * limits.RUN_REASON_CHARS),
        ('"' * limits.RUN_REASON_CHARS, '"' * (limits.RUN_REASON_CHARS - 1)),  # each takes two bytes, and two quotes
    ],
)
def test_a_reason_is_one_line_that_fits_an_entry(reason: str, told: str) -> None:
    entry = changes(TRIES_2, RUNS_1, journal(going_back=replace(CRASHED, reason=reason)))[0]
    assert entry == ("went_back", 1, 2, told)


def test_a_version_is_cut_where_an_entry_would_not_hold_it() -> None:
    long = replace(held(1), version="9" * (limits.NAME_CHARS + 1))
    log = logged(LOG, Pointer(model="wake", active=long))
    assert read_entry(log.entries[0]).version == "9" * limits.NAME_CHARS


def long_log(count: int) -> RunLog:
    log = logged(LOG, Pointer(model="other", active=held(9)))
    for number in range(1, count):
        log = logged(log, Pointer(model="wake", active=held(number)), times=replace(TIMES, at=100.0 + number))
    return log


def test_a_log_keeps_as_many_entries_as_it_may_and_of_one_more_it_drops_the_oldest() -> None:
    full = long_log(limits.RUN_ENTRIES)
    assert bounded(full) is full
    more = long_log(limits.RUN_ENTRIES + 1)
    log = bounded(more)
    gone = 1 + limits.RUN_ENTRIES_DROPPED
    assert (log.dropped, log.newest) == (gone, limits.RUN_ENTRIES + 2)
    assert log.dropped_digest == digest_of(more.entries[gone - 1].encode())
    assert log.entries[:-1] == more.entries[gone:]
    still = read_entry(log.entries[-1])
    assert (still.model, still.change, still.serial, still.about, still.reason) == ("other", "still", 9, None, "")
    assert (still.at, still.not_before) == (100.0 + limits.RUN_ENTRIES, 100.0)
    assert len(read_chain(log.entries)) == len(log.entries)


def test_entries_are_found_by_their_numbers_also_where_some_were_dropped() -> None:
    log = bounded(long_log(limits.RUN_ENTRIES + 1))
    first = log.dropped
    assert log.texts(first, first + 2) == log.entries[:2]
    assert log.texts(0, first + 1) == log.entries[:1]
    assert log.texts(0, first) == ()
    assert log.digest(first) == log.digest(3) == log.dropped_digest
    assert log.digest(first + 1) == digest_of(log.entries[0].encode())


@pytest.mark.parametrize(
    ("acknowledged", "dropped", "count", "number"),
    [
        (0, 0, 5, 5),
        (0, 0, limits.RUN_ENTRIES_SENT, limits.RUN_ENTRIES_SENT),
        (0, 0, limits.RUN_ENTRIES_SENT + 1, limits.RUN_ENTRIES_SENT),
        (2, 0, limits.RUN_ENTRIES_SENT + 9, limits.RUN_ENTRIES_SENT + 2),
        (2, 7, limits.RUN_ENTRIES_SENT + 9, limits.RUN_ENTRIES_SENT + 7),
        (9, 7, limits.RUN_ENTRIES_SENT + 9, limits.RUN_ENTRIES_SENT + 9),
    ],
)
def test_so_many_entries_are_sent_at_once(acknowledged: int, dropped: int, count: int, number: int) -> None:
    log = replace(LOG, acknowledged=acknowledged, dropped=dropped, entries=("{}",) * count)
    assert next_number(log) == number


def test_a_head_vouches_for_the_entries_up_to_its_number_and_what_the_server_has_is_not_sent() -> None:
    log = replace(long_log(6), heads=3, acknowledged=2)
    head = head_of(log, 4, public_key=KEY, times=TIMES)
    assert head == RunHead(
        device_id="dev-1",
        public_key=KEY,
        log="0" * 16,
        number=4,
        newest=6,
        digest=digest_of(log.entries[3].encode()),
        heads=4,
        at=100.0,
        signed_time=90.0,
    )
    assert part_of(log) is None
    text = encode(head).decode()
    signed = replace(log, head=text, signature="s" * 86)
    assert part_of(signed) == RunHistoryPart(head=text, signature="s" * 86, entries=log.entries[2:4])


def test_what_a_slot_holds_has_one_digest() -> None:
    assert artifact_of(held(7)) == f"{7:064x}"
    two = (Content(name="b", sha256="b" * 64), Content(name="a", sha256="a" * 64))
    text = "a" * 64 + "  a\n" + "b" * 64 + "  b\n"
    assert artifact_of(replace(held(7), contents=two)) == digest_of(text.encode())
