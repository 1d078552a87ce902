"""A run history is signed and good, and still must not be believed too far: clocks, cuts, other logs, other models."""

import msgspec
import pytest

from support.run_histories import HOUR, SignedLog
from support.values import T0, town
from whimbrel import limits
from whimbrel.cli.output import when
from whimbrel.cli.run_history import read_time
from whimbrel.errors import UntrustedInput
from whimbrel.flows.devices.take_run_history import take_run_history
from whimbrel.model.documents import encode
from whimbrel.trust.run_history_answer import RunAnswer, answers_of, periods_of
from whimbrel.trust.run_history_proof import CheckedBranch, RunHistoryProof, check_run_proof, read_proof

DAY = 24 * HOUR
_replace = msgspec.structs.replace


def checked(*logs: SignedLog, received_at: float | None = None) -> list[CheckedBranch]:
    """The branches of a proof that has one of each log."""
    branches = [
        _replace(log.proof().branches[0], branch=number, received_at=received_at) for number, log in enumerate(logs, 1)
    ]
    proof = _replace(logs[0].proof(), branches=tuple(branches))
    return check_run_proof(read_proof(encode(proof), what="it"))


def answer(branches: list[CheckedBranch], at: float) -> RunAnswer:
    (only,) = answers_of(branches, at)
    return only


def serial(branches: list[CheckedBranch], at: float) -> int | None:
    """What is known to have been active; 0: it is not known."""
    it = answer(branches, at)
    assert it.known == (it.period is not None)
    return it.period.serial if it.period is not None else 0


def test_time_before_what_the_repository_had_signed_is_not_known() -> None:
    """The clock was set back ten days: the answer said "serial 1", ten days before its metadata could be there."""
    log = SignedLog()
    log.at = T0 - 10 * DAY
    log.runs(1, signed_time=T0)
    it = checked(log)
    assert serial(it, log.at + 30) == 0
    assert answer(it, log.at + 30).because == f"the log begins later, at {when(T0)}.001 UTC"


def test_clock_that_jumped_ahead_makes_nothing_known_that_was_not_so() -> None:
    """Serial 2 ran while the clock was ten days ahead: the log said that serial 1 ran on for these ten days."""
    log = SignedLog()
    log.runs(1)
    first = log.at
    log.at += 10 * DAY
    log.runs(2)
    ahead = log.at
    log.at = first + 2 * HOUR
    log.runs(3)
    log.runs(4)
    it = checked(log)
    assert serial(it, first + 10) == 0  # when the clock jumped is not known
    assert "clock was wrong" in answer(it, first + 2.5 * HOUR).because
    assert serial(it, log.at + 30) == 4  # all that fits together is known
    assert serial(it, first + 3 * HOUR + 30) == 3
    assert serial(it, ahead + 30) == 0
    assert [each.clock_doubted for each in periods_of(it)] == [True, True, False, False]


def test_head_speaks_of_no_time_that_had_not_come() -> None:
    """A clock ten days ahead made the next ten days "known"."""
    log = SignedLog()
    log.runs(1)
    came = log.at + HOUR
    log.at += 10 * DAY
    it = checked(log, received_at=came)
    assert serial(it, came - 60) == 1
    assert serial(it, came + DAY) == 0
    assert "had not come yet" in answer(it, came + DAY).because


def test_log_that_begins_anew_blots_out_no_earlier_one() -> None:
    """A device deletes its log and says that it never looked before: all that it had signed was "not known"."""
    log = SignedLog()
    log.runs(1)
    anew = SignedLog(key=log.key, log="b" * 16)
    anew.at = log.at + 5 * HOUR
    anew.runs(9, not_before=0.0)
    it = checked(log, anew)
    assert serial(it, log.at + 30) == 1
    assert serial(it, anew.at + 30) == 9
    assert serial(it, log.at + 2 * HOUR) == 0


def test_model_that_a_branch_does_not_tell_of_is_not_known() -> None:
    """It was an error of the program, also where one of two epochs does not tell of the model."""
    log, other = SignedLog(), SignedLog(log="b" * 16)
    log.runs(1)
    other.runs(1, model="beta")
    it = checked(log, other)
    assert periods_of(it, model="nosuch") == []
    (none,) = answers_of(it, T0, model="nosuch")
    assert none.because == "no entry tells of nosuch"
    assert [each.known for each in answers_of(it, log.at + 30)] == [True, True]


def test_fork_shows_whatever_the_proof_says_of_it() -> None:
    """`origin` is signed by nobody: a file that called the fork a log showed none."""
    log = SignedLog()
    log.runs(1)
    restored = log.copy()
    log.runs(2)
    restored.at += 5 * HOUR
    restored.runs(3)
    own, other = log.proof(), restored.proof()
    for origin, parent, entries in (("log", 1, 1), ("gap", None, 1), ("log", None, 0)):
        fork = _replace(
            other.branches[0],
            branch=2,
            origin=origin,
            parent=parent,
            after=1,
            entries=tuple(restored.entries[entries:]),
        )
        branches = check_run_proof(_replace(own, branches=(own.branches[0], fork)))
        assert [each.forks_after for each in branches] == [None, 1]


def test_gap_that_is_filled_later_is_no_fork() -> None:
    log = SignedLog()
    for number in range(1, 5):
        log.runs(number)
    whole, gap = log.proof().branches[0], log.proof().branches[0]
    gap = _replace(gap, branch=2, origin="gap", entries=gap.entries[3:])
    both = check_run_proof(RunHistoryProof(device_id="dev-1", made_at=T0, branches=(whole, gap)))
    assert [(each.forks_after, each.missing) for each in both] == [(None, 0), (None, 3)]


def test_oldest_entries_that_were_cut_off_are_missed() -> None:
    log = SignedLog()
    log.runs(1)
    early = log.at
    log.runs(2)
    proof = log.proof()
    cut = _replace(proof, branches=(_replace(proof.branches[0], entries=proof.branches[0].entries[1:]),))
    branches = check_run_proof(cut)
    assert branches[0].missing == 1
    assert "cut off" in answer(branches, early).because


def test_thief_of_an_old_key_keeps_no_later_history_out() -> None:
    """One quota for all keys of an id: whoever had the old key filled it, and the new key's history was not kept."""
    with town() as here:
        stolen = SignedLog()
        here.enrol("dev-1", public_key=stolen.public_key)
        for number in range(limits.RUN_BRANCHES):
            branch = SignedLog(key=stolen.key, log=f"{number:016x}")
            branch.runs(1)
            take_run_history(here.stores.run_histories, here.registry, "dev-1", branch.part(), at=T0)
        here.stores.inventory.remove("dev-1", rollouts=[])
        mine = SignedLog(log="b" * 16)
        here.enrol("dev-1", public_key=mine.public_key)
        mine.runs(2)
        take_run_history(here.stores.run_histories, here.registry, "dev-1", mine.part(), at=T0)
        kept = here.stores.run_histories.branches("dev-1")
        assert [each.public_key for each in kept][-1] == mine.public_key


def test_proof_with_more_branches_than_any_server_keeps_is_refused() -> None:
    log = SignedLog()
    log.runs(1)
    proof = log.proof()
    many = _replace(
        proof,
        branches=tuple(_replace(proof.branches[0], branch=n) for n in range(limits.RUN_BRANCHES_IN_ALL + 1)),
    )
    with pytest.raises(UntrustedInput, match="is no proof"):
        read_proof(encode(many), what="it")


def test_times_without_a_date_are_shown_and_end_no_command() -> None:
    log = SignedLog()
    log.at = 1e12 - 2 * HOUR
    log.runs(1)
    it = checked(log)
    assert answer(it, T0).because == "the log begins later"
    assert "UTC" not in answer(it, T0).because
    assert when(1e12) == "1000000000000 s after 1970"
    for text in ("9999-12-31T23:59:59-12:00", "0001-01-01T00:00+05:00"):
        with pytest.raises(UntrustedInput, match="is no time"):
            read_time(text)
