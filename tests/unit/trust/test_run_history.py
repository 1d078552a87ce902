"""What a checked run history answers: every bound of every time, and each reason why something is not known."""

import msgspec
import pytest

from support.run_histories import HOUR, SignedLog
from support.values import T0
from whimbrel import limits
from whimbrel.errors import UntrustedInput
from whimbrel.model.documents import digest_of, encode
from whimbrel.trust.run_history_answer import RunAnswer, answers_of, periods_of
from whimbrel.trust.run_history_clock import NEVER, Bounds, bounds_of
from whimbrel.trust.run_history_proof import CheckedBranch, RunHistoryProof, check_run_proof, read_proof

_replace = msgspec.structs.replace
SLACK = limits.RUN_CLOCK_SLACK_S


def checked(*logs: SignedLog, received_at: float | None = None, **head: float) -> list[CheckedBranch]:
    branches = tuple(
        _replace(log.proof(**head).branches[0], branch=number, received_at=received_at)
        for number, log in enumerate(logs, 1)
    )
    return check_run_proof(_replace(logs[0].proof(), branches=branches))


def answer(branches: list[CheckedBranch], at: float) -> RunAnswer:
    (only,) = answers_of(branches, at)
    return only


def log_of(*serials: int | None) -> SignedLog:
    """An entry an hour from T0 + 1 h on; the head is a minute after the last."""
    log = SignedLog()
    for serial in serials:
        log.runs(serial)
    return log


# --- times of one good log ---


def test_a_period_tells_all_that_its_entries_say() -> None:
    log = SignedLog()
    log.runs(1, change="trial", not_before=T0 + 1800, signed_time=T0 - 60)
    log.runs(1, change="committed")
    log.runs(2, change="went_back", reason="it crashed", not_before=T0 + 2.5 * HOUR)
    first, second = periods_of(checked(log))
    assert msgspec.to_builtins(first) == {
        "branch": 1,
        "model": "wake",
        "serial": 1,
        "version": "2026.03.05.1",
        "artifact": digest_of(b"1"),
        "began": "trial",
        "began_not_before": T0 + 1800,
        "began_at": T0 + HOUR,
        "committed_at": T0 + 2 * HOUR,
        "ended_not_before": T0 + 2.5 * HOUR,
        "ended_at": T0 + 3 * HOUR,
        "ended_by": "went_back",
        "reason": "it crashed",
        "seen_until": T0 + 3 * HOUR + 60,
        "signed_time": T0 - 60,
        "entries": (1, 2),
        "clock_doubted": False,
    }
    assert (second.serial, second.ended_by, second.ended_at, second.ended_not_before) == (2, None, None, None)
    assert (second.reason, second.entries, second.committed_at) == ("", (3,), None)


@pytest.mark.parametrize(
    ("at", "serial"),
    [
        (T0 + HOUR - 0.001, 0),
        (T0 + HOUR, 1),
        (T0 + 1.5 * HOUR - 0.001, 1),
        (T0 + 1.5 * HOUR, 0),  # between two looks of the device
        (T0 + 2 * HOUR - 0.001, 0),
        (T0 + 2 * HOUR, 2),
        (T0 + 2 * HOUR + 60, 2),  # the head's own time
        (T0 + 2 * HOUR + 60.001, 0),
    ],
)
def test_what_is_known_begins_and_ends_at_exact_times(at: float, serial: int) -> None:
    log = log_of(1)
    log.runs(2, not_before=T0 + 1.5 * HOUR)
    told = answer(checked(log), at)
    assert (told.period.serial if told.period else 0) == serial
    assert told.known is (serial != 0)
    assert (told.because == "") is told.known
    assert (told.model, told.at) == ("wake", at)


@pytest.mark.parametrize(
    ("at", "because"),
    [
        (T0 + HOUR - 1, "the log begins later, at 2026-01-01 01:00:00.001 UTC"),
        (T0 + 1.75 * HOUR, "it changed between two looks of the device, and this time lies between them"),
        (T0 + 3 * HOUR, "the device signed nothing after this time"),
    ],
)
def test_what_is_not_known_has_its_reason(at: float, because: str) -> None:
    log = log_of(1)
    log.runs(2, not_before=T0 + 1.5 * HOUR)
    assert answer(checked(log), at).because == because


def test_a_version_whose_beginning_was_not_seen_is_possible_before() -> None:
    log = SignedLog()
    log.runs(1, not_before=T0)
    told = answer(checked(log), T0 + 10)
    assert told.because == "the log begins later: that it was active is known from a later time on"
    assert [period.serial for period in told.possible] == [1]


def test_no_version_is_an_answer_too() -> None:
    log = log_of(1, None)
    told = answer(checked(log), T0 + 2 * HOUR)
    assert told.known
    assert told.period is not None
    assert (told.period.serial, told.period.artifact, told.period.version) == (None, None, "")


def test_a_version_that_comes_again_is_a_period_of_its_own() -> None:
    assert [(each.serial, each.entries) for each in periods_of(checked(log_of(1, 1, 2, 1)))] == [
        (1, (1, 2)),
        (2, (3,)),
        (1, (4,)),
    ]


def test_the_same_serial_with_other_bytes_is_another_period() -> None:
    log = log_of(1)
    for _ in range(2):
        log.runs(1, artifact=digest_of(b"other"))
    assert [each.entries for each in periods_of(checked(log))] == [(1,), (2, 3)]


def test_an_entry_that_repeats_what_is_active_says_so_from_its_earlier_time_on() -> None:
    log = SignedLog()
    log.runs(1, change="still", not_before=T0)
    (period,) = periods_of(checked(log))
    assert (period.began_at, period.began_not_before) == (T0, T0)
    assert answer(checked(log), T0).known
    assert not answer(checked(log), T0 - 0.001).known


def test_models_are_told_apart() -> None:
    log = log_of(1)
    log.runs(5, model="alpha")
    log.runs(2)
    branches = checked(log)
    assert [(each.model, each.serial) for each in periods_of(branches)] == [("alpha", 5), ("wake", 1), ("wake", 2)]
    assert [each.serial for each in periods_of(branches, model="wake")] == [1, 2]
    assert [(each.model, each.known) for each in answers_of(branches, T0 + 2.5 * HOUR)] == [
        ("alpha", True),
        ("wake", True),
    ]
    (only,) = answers_of(branches, T0 + 2.5 * HOUR, model="alpha")
    assert only.period is not None
    assert only.period.serial == 5


def test_a_proof_without_branches_holds_nothing() -> None:
    (told,) = answers_of([], T0, model="wake")
    assert (told.known, told.because, told.possible) == (False, "the proof holds no history", ())
    assert answers_of([], T0) == []


# --- parts that are missing ---


def test_entries_that_never_came_are_told_and_bound_what_is_known() -> None:
    log = log_of(1, 2)
    branches = checked(log, newest=5)
    assert answer(branches, T0 + 2 * HOUR).known
    told = answer(branches, T0 + 2 * HOUR + 30)
    assert (told.known, told.because) == (False, "later entries never came in")


def test_a_log_whose_first_entries_are_gone_says_so_for_their_time() -> None:
    log = log_of(1, 2)
    proof = log.proof()
    cut = _replace(proof, branches=(_replace(proof.branches[0], entries=proof.branches[0].entries[1:], after=1),))
    (branch,) = check_run_proof(cut)
    assert branch.missing == 1
    assert answer([branch], T0 + HOUR).because == (
        "the entries of this time are not here: dropped from a log that was full, never sent, or cut off"
    )


def test_branches_that_differ_fork_and_those_that_agree_do_not() -> None:
    log = log_of(1)
    restored = log.copy()
    log.runs(2)
    restored.runs(3)
    told = answer(checked(log, restored), T0 + 2 * HOUR)
    assert told.because == "the history forks: the same device signed two that differ here"
    assert {period.serial for period in told.possible} == {2, 3}
    assert answer(checked(log, restored), T0 + HOUR).known


# --- clocks ---


def bounds(log: SignedLog, **head: float) -> list[tuple[float, float, bool]]:
    found, _ = bounds_of(checked(log, **head)[0])
    return [(each.earliest - T0, each.latest - T0, each.is_doubted) for each in found]


def test_a_good_clock_is_believed() -> None:
    log = log_of(1)
    log.runs(2, not_before=T0 + 1.5 * HOUR)
    assert bounds(log) == [(HOUR, HOUR, False), (1.5 * HOUR, 2 * HOUR, False)]
    assert bounds_of(checked(log)[0])[1] == T0 + 2 * HOUR + 60


def test_a_clock_behind_a_signed_time_is_doubted_beyond_the_slack() -> None:
    late, doubted = SignedLog(), SignedLog()
    late.runs(1, signed_time=T0 + HOUR + SLACK)
    doubted.runs(1, signed_time=T0 + HOUR + SLACK + 1)
    assert bounds(late) == [(HOUR, HOUR + SLACK, False)]
    ((earliest, _, is_doubted),) = bounds(doubted)
    assert (earliest, is_doubted) == (HOUR + SLACK + 1, True)


def test_an_entry_that_does_not_fit_lies_between_those_beside_it() -> None:
    log = log_of(1)
    log.at = T0 + 100 * HOUR
    log.runs(2)
    log.at = T0 + 2 * HOUR
    log.runs(3)
    log.runs(4)
    assert bounds(log) == [
        (HOUR, HOUR, False),
        (HOUR, 3 * HOUR, True),
        (3 * HOUR, 3 * HOUR, False),
        (4 * HOUR, 4 * HOUR, False),
    ]


def test_where_two_runs_are_as_long_what_is_in_one_alone_is_doubted() -> None:
    log = log_of(1)
    log.at = T0 + 4 * HOUR
    log.runs(2)
    log.at = T0 + 2 * HOUR
    log.runs(3)
    found = bounds(log, at=T0 + 9 * HOUR)
    assert [doubted for _, _, doubted in found] == [False, True, True]
    assert found[1][:2] == found[2][:2] == (HOUR, 9 * HOUR)


def test_equal_times_are_in_order() -> None:
    log = log_of(1)
    log.at = T0
    log.runs(2)
    assert bounds(log) == [(HOUR, HOUR, False)] * 2


def test_a_look_before_the_entry_that_lies_after_it_is_not_believed() -> None:
    log = log_of(1)
    log.runs(2, not_before=T0 + 5 * HOUR)
    assert bounds(log)[1] == (HOUR, 2 * HOUR, False)


def test_a_doubted_last_entry_has_no_bound_and_the_head_ends_at_a_signed_time() -> None:
    log = log_of(1)
    log.at = T0 - 100 * HOUR
    log.runs(2, signed_time=T0 + 2 * HOUR)
    branch = checked(log)[0]
    found, until = bounds_of(branch)
    assert found[1] == Bounds(T0 + 2 * HOUR, NEVER, is_doubted=True)
    assert until == T0 + 2 * HOUR


def test_a_head_speaks_of_no_time_after_it_came_in() -> None:
    log = log_of(1)
    head_at = T0 + HOUR + 60
    assert bounds_of(checked(log, received_at=head_at - SLACK)[0])[1] == head_at
    assert bounds_of(checked(log, received_at=head_at - SLACK - 1)[0])[1] == head_at - 1


# --- proofs that do not fit ---


def refusal(proof: RunHistoryProof) -> str:
    with pytest.raises(UntrustedInput) as caught:
        check_run_proof(proof)
    return str(caught.value)


def test_the_same_branch_twice_is_refused() -> None:
    proof = log_of(1).proof()
    assert refusal(_replace(proof, branches=proof.branches * 2)) == "the proof has branch 1 twice"


def test_a_head_of_another_device_and_a_signature_of_another_key_are_refused() -> None:
    log = log_of(1)
    assert refusal(_replace(log.proof(), device_id="dev-2")) == (
        "the head is of dev-1, and not of dev-2: it is another device's history"
    )
    branch = log.proof().branches[0]
    for signature in (log_of(1).proof().branches[0].signature, "A" * 85, "!"):
        told = refusal(_replace(log.proof(), branches=(_replace(branch, signature=signature),)))
        assert "signature" in told or "base64url" in told


def test_a_head_vouches_for_the_last_entry_and_for_its_bytes() -> None:
    log = log_of(1, 2)
    branch = log.proof().branches[0]
    for entries, last in ((branch.entries[:1], 1), ((), 0)):
        told = refusal(_replace(log.proof(), branches=(_replace(branch, entries=entries),)))
        assert told.startswith(f"the head vouches for the entries up to 2, and these end with {last} or are others")
    other = log_of(1, 3)
    told = refusal(_replace(log.proof(), branches=(_replace(branch, entries=tuple(other.entries)),)))
    assert told.startswith("the head vouches for the entries up to 2, and these end with 2 or are others")


def test_a_first_entry_begins_as_a_log_of_the_device_does() -> None:
    log = SignedLog()
    log.runs(1, previous="0" * 64)
    assert refusal(log.proof()) == "branch 1 does not begin as a log of this device does"


def child_of(log: SignedLog, other: SignedLog, **changes: object) -> RunHistoryProof:
    """A proof with the whole of `log`, and of `other` what follows its first entry."""
    own, fork = log.proof(), other.proof().branches[0]
    child = _replace(fork, **{"branch": 2, "parent": 1, "after": 1, "entries": fork.entries[1:]} | changes)
    return _replace(own, branches=(own.branches[0], child))


def test_a_branch_has_the_entries_of_its_parent_before_its_own() -> None:
    log = log_of(1)
    other = log.copy()
    log.runs(2)
    other.runs(3)
    first, second = check_run_proof(child_of(log, other))
    assert [entry.serial for entry in second.entries] == [1, 3]
    assert (second.missing, second.forks_after, first.forks_after) == (0, 1, None)


def test_a_parent_is_before_its_branch_of_the_same_log_and_key() -> None:
    log = log_of(1)
    other = log.copy()
    log.runs(2)
    other.runs(3)
    words = "branch 2 names a parent that is not before it, or of another log"
    assert refusal(child_of(log, other, parent=7)) == words
    key, name = SignedLog(), SignedLog(key=log.key, log="b" * 16)
    for stranger in (key, name):
        stranger.runs(1)
        stranger.runs(3)
        assert refusal(child_of(log, stranger)) == words


def test_a_branch_follows_the_very_entry_of_its_parent() -> None:
    log, other = log_of(1, 2), SignedLog()
    other.key, other.public_key = log.key, log.public_key
    other.runs(9)
    other.runs(3)
    assert refusal(child_of(log, other)) == "branch 2 does not follow entry 1 of branch 1"


def test_only_the_branches_of_the_key_that_is_believed_are_given() -> None:
    log, other = log_of(1), SignedLog()
    other.runs(2)
    both = _replace(log.proof(), branches=(log.proof().branches[0], _replace(other.proof().branches[0], branch=2)))
    assert [each.branch.branch for each in check_run_proof(both)] == [1, 2]
    assert [each.branch.branch for each in check_run_proof(both, key=other.public_key)] == [2]
    assert check_run_proof(both, key="A" * 43) == []


def test_a_proof_is_read_to_its_size_and_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encode(log_of(1).proof())
    monkeypatch.setattr(limits, "RUN_PROOF_BYTES", len(content))
    assert read_proof(content, what="it").device_id == "dev-1"
    monkeypatch.setattr(limits, "RUN_PROOF_BYTES", len(content) - 1)
    with pytest.raises(UntrustedInput) as caught:
        read_proof(content, what="proof.json")
    assert str(caught.value) == f"proof.json has {len(content)} bytes; a proof has at most {len(content) - 1}"
    for wrong in (b"", b"{}", b"\xff", content[:-1]):
        with pytest.raises(UntrustedInput, match=r"^it is no proof of a run history: "):
            read_proof(wrong, what="it")
