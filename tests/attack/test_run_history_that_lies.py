"""A run history that was forged, changed, cut, replayed or forked is refused, or shows; none fills a table."""

import msgspec
import pytest
from sqlalchemy import func, select

from support.run_histories import HOUR, SignedLog
from support.values import T0, Town, reports, town, window
from whimbrel import limits
from whimbrel.errors import UntrustedInput
from whimbrel.flows.devices.records import RunBranch
from whimbrel.flows.devices.take_run_history import take_run_history
from whimbrel.flows.reports.ingest import ingest
from whimbrel.health.run_history import RunHistoryPart, read_entry
from whimbrel.model.documents import encode, parse
from whimbrel.server.admin.devices import run_history_proof
from whimbrel.stores import run_history_tables
from whimbrel.trust.possession import base64url
from whimbrel.trust.run_history_answer import answers_of
from whimbrel.trust.run_history_proof import RunHistoryProof, check_run_proof

DEVICE = "dev-1"


def take(here: Town, part: RunHistoryPart, *, device: str = DEVICE, at: float = T0) -> None:
    take_run_history(here.stores.run_histories, here.registry, device, part, at=at)


def branches(here: Town) -> list[tuple[str, int | None, int, int]]:
    kept: list[RunBranch] = here.stores.run_histories.branches(DEVICE)
    return [(each.origin, each.parent, each.first, each.last) for each in kept]


def told(here: Town) -> list[str]:
    return [each.because for each in here.stores.audit.newest(limit=100) if each.action == "notice_run_history"]


def entries(here: Town) -> int:
    table = run_history_tables.entries
    return int(here.stores.connection.execute(select(func.count()).select_from(table)).scalar_one())


def with_log(here: Town, *serials: int) -> SignedLog:
    """A device whose log the server has."""
    log = SignedLog(DEVICE)
    here.enrol(DEVICE, public_key=log.public_key)
    for serial in serials:
        log.runs(serial)
    take(here, log.part())
    return log


def test_forged_history_of_another_device_is_refused() -> None:
    with town() as here:
        log = with_log(here, 1, 2)
        stranger = SignedLog(DEVICE, log=log.log)
        stranger.runs(3)
        with pytest.raises(UntrustedInput, match="a key that is not its own"):
            take(here, stranger.part())
        theirs = SignedLog("dev-2")
        theirs.runs(3)
        with pytest.raises(UntrustedInput, match="it is another device's history"):
            take(here, theirs.part())
        pasted = log.part(2)
        head, signature = stranger.head()
        for part in (
            msgspec.structs.replace(pasted, signature=signature),
            msgspec.structs.replace(pasted, head=head.replace(stranger.public_key, log.public_key)),
            msgspec.structs.replace(
                pasted, head=pasted.head.replace('"at":', '"at": ')
            ),  # the bytes are what is signed
        ):
            with pytest.raises(UntrustedInput, match="the history was changed or forged"):
                take(here, part)
        assert branches(here) == [("log", None, 1, 2)]


def test_signature_for_another_purpose_signs_no_history() -> None:
    log = SignedLog(DEVICE)
    log.runs(1)
    proof = log.proof()
    (branch,) = proof.branches
    bare = base64url(log.key.sign(branch.head.encode()))
    moved = msgspec.structs.replace(branch, signature=bare)
    with pytest.raises(UntrustedInput, match="changed or forged"):
        check_run_proof(msgspec.structs.replace(proof, branches=(moved,)))


@pytest.mark.parametrize("how", ["dropped", "reordered", "changed", "cut off", "put in"])
def test_entry_that_is_dropped_reordered_or_changed_breaks_the_proof(how: str) -> None:
    log = SignedLog(DEVICE)
    for serial in (1, 2, 3, 4):
        log.runs(serial)
    proof = log.proof()
    (branch,) = proof.branches
    one, two, three, four = branch.entries
    attacked = {
        "dropped": (one, three, four),
        "reordered": (one, three, two, four),
        "changed": (one, two.replace('"serial":2', '"serial":9'), three, four),
        "cut off": (one, two, three),
        "put in": (one, two, two, three, four),
    }[how]
    with pytest.raises(UntrustedInput, match=r"changed, (left out|cut off)"):
        check_run_proof(msgspec.structs.replace(proof, branches=(msgspec.structs.replace(branch, entries=attacked),)))
    with town() as here:
        here.enrol(DEVICE, public_key=log.public_key)
        with pytest.raises(UntrustedInput):
            take(here, RunHistoryPart(head=branch.head, signature=branch.signature, entries=attacked))
        assert branches(here) == []


def test_log_that_begins_elsewhere_is_not_a_log_from_its_beginning() -> None:
    log = SignedLog(DEVICE)
    log.runs(1, previous="e" * 64)
    with pytest.raises(UntrustedInput, match="does not begin as a log of this device does"):
        check_run_proof(log.proof())


def test_replayed_old_head_takes_nothing_back() -> None:
    with town() as here:
        log = SignedLog(DEVICE)
        here.enrol(DEVICE, public_key=log.public_key)
        log.runs(1)
        old = log.part()
        take(here, old)
        log.runs(2)
        newest = log.part(1)
        take(here, newest)
        for part in (old, old, newest):
            take(here, part)
        (kept,) = here.stores.run_histories.branches(DEVICE)
        assert (kept.head, kept.last, kept.heads, told(here)) == (newest.head, 2, 2, [])


def test_a_part_that_comes_twice_or_is_sent_anew_counts_once() -> None:
    with town() as here:
        log = with_log(here, 1, 2)
        log.runs(3)
        take(here, log.part())  # all of it again, with the new one
        take(here, log.part(1))
        assert (branches(here), entries(here), told(here)) == ([("log", None, 1, 3)], 3, [])


def test_fork_is_kept_as_a_second_branch_and_told() -> None:
    with town() as here:
        log = with_log(here, 1, 2)
        restored = log.copy()
        log.runs(3)
        take(here, log.part(2))
        restored.runs(4)
        take(here, restored.part(2))
        assert branches(here) == [("log", None, 1, 3), ("fork", 1, 3, 3)]
        assert len(told(here)) == 1
        assert "forks after entry 2" in told(here)[0]
        log.runs(5)
        restored.runs(6)
        take(here, log.part(3))
        take(here, restored.part(3))
        assert branches(here) == [("log", None, 1, 4), ("fork", 1, 3, 4)]
        checked = check_run_proof(proof_of(here))
        assert [[entry.serial for entry in each.entries] for each in checked] == [[1, 2, 3, 5], [1, 2, 4, 6]]
        before, after = (answers_of(checked, at)[0] for at in (T0 + 2.5 * HOUR, T0 + 3.5 * HOUR))
        assert before.period is not None
        assert (before.known, before.period.serial) == (True, 2)
        assert (after.known, "forks" in after.because) == (False, True)
        assert {each.serial for each in after.possible} == {3, 4}


def test_branch_under_another_branch_than_its_own_is_refused() -> None:
    with town() as here:
        log = with_log(here, 1, 2)
        restored = log.copy()
        log.runs(3)
        take(here, log.part(2))
        restored.runs(4)
        take(here, restored.part(2))
        restored.runs(5)
        fork_of_fork = restored.copy()
        take(here, restored.part(3))
        fork_of_fork.entries.pop()
        fork_of_fork.runs(6)
        take(here, fork_of_fork.part(3))
        proof = proof_of(here)
        assert [[e.serial for e in each.entries] for each in check_run_proof(proof)][2] == [1, 2, 4, 6]
        moved = msgspec.structs.replace(proof.branches[2], parent=1)
        with pytest.raises(UntrustedInput, match="does not follow entry 3 of branch 1"):
            check_run_proof(msgspec.structs.replace(proof, branches=(*proof.branches[:2], moved)))


def test_device_that_takes_back_its_newest_entries_forks_without_an_entry() -> None:
    with town() as here:
        log = with_log(here, 1)
        restored = log.copy()
        log.runs(2)
        take(here, log.part(1))
        restored.heads += 5  # it went on signing, as it would after it was restored
        restored.at += 3 * HOUR
        take(here, restored.part(1))
        assert branches(here) == [("log", None, 1, 2), ("fork", 1, 2, 1)]
        restored.runs(7)
        take(here, restored.part(1))
        assert branches(here) == [("log", None, 1, 2), ("fork", 1, 2, 2)]


def test_two_heads_of_one_number_are_a_copy() -> None:
    with town() as here:
        log = with_log(here, 1)
        copy = log.copy()
        copy.at += 30
        take(here, log.part(1))
        take(here, copy.part(1))
        assert [each[0] for each in branches(here)] == ["log", "fork"]
        for _ in range(3):
            take(here, log.part(1))
            take(here, copy.part(1))
        assert [each[0] for each in branches(here)] == ["log", "fork"]


def test_entries_that_never_came_are_a_gap_and_no_answer() -> None:
    with town() as here:
        log = with_log(here, 1)
        for serial in (2, 3, 4):
            log.runs(serial)
        take(here, log.part(3), at=T0 + 5 * HOUR)
        assert branches(here) == [("log", None, 1, 1), ("gap", None, 4, 4)]
        checked = check_run_proof(proof_of(here))
        (answer,) = answers_of(checked, T0 + 2.5 * HOUR)
        assert not answer.known
        assert answers_of(checked, T0 + 4 * HOUR + 30)[0].period is not None


def test_history_outlives_the_device_and_its_key() -> None:
    with town() as here:
        log = with_log(here, 1)
        here.stores.inventory.remove(DEVICE, rollouts=[])
        again = SignedLog(DEVICE, log="b" * 16)
        here.enrol(DEVICE, public_key=again.public_key)
        again.at = log.at + 10 * HOUR
        again.runs(2)
        take(here, again.part())
        log.runs(3)
        late = log.part(1)  # it lay in the inbox: an earlier key of the device is known
        take(here, late)
        assert [each[0] for each in branches(here)] == ["log", "log"]
        checked = check_run_proof(proof_of(here), key=again.public_key)
        assert [entry.serial for each in checked for entry in each.entries] == [2]


def test_oversized_entries_and_parts_are_refused_at_the_door() -> None:
    log = SignedLog(DEVICE)
    log.runs(1)
    part = log.part()
    for large in (
        msgspec.structs.replace(part, entries=("x" * (limits.RUN_ENTRY_BYTES + 1),)),
        msgspec.structs.replace(part, entries=part.entries * (limits.RUN_ENTRIES_SENT + 1)),
        msgspec.structs.replace(part, head="x" * (limits.RUN_HEAD_BYTES + 1)),
    ):
        with pytest.raises(UntrustedInput):
            parse(RunHistoryPart, encode(large), what="a part")
    with pytest.raises(UntrustedInput, match="bytes; at most"):
        read_entry("\u20ac" * limits.RUN_ENTRY_BYTES)  # characters of three bytes each


def test_invented_models_and_logs_fill_no_table() -> None:
    with town() as here:
        log = SignedLog(DEVICE)
        here.enrol(DEVICE, public_key=log.public_key)
        sent = 0
        for n in range(limits.RUN_ENTRIES_KEPT + 100):
            log.runs(n + 1, model=f"invented-{n}")
            if len(log.entries) - sent == limits.RUN_ENTRIES_SENT:
                take(here, log.part(sent))
                sent = len(log.entries)
        assert entries(here) == limits.RUN_ENTRIES_KEPT
        for n in range(limits.RUN_BRANCHES + 5):
            other = SignedLog(DEVICE, key=log.key, log=f"{n:016x}")
            other.runs(1)
            if n + 1 < limits.RUN_BRANCHES:
                take(here, other.part())
            else:
                with pytest.raises(UntrustedInput, match="no more are kept"):
                    take(here, other.part())
        assert len(branches(here)) == limits.RUN_BRANCHES
        assert branches(here)[0][3] == sent  # what was there first stays
        assert len(told(here)) == limits.RUN_BRANCHES - 1


def test_a_history_that_lies_stops_no_report_beside_it() -> None:
    with town() as here:
        log = with_log(here, 1)
        bad = msgspec.structs.replace(log.part(), signature="A" * 86)
        counts = ingest(
            here.registry,
            here.fleet,
            [reports(DEVICE, window(1, cohorts=()), run_history=bad)],
            now=T0 + 400,
            devices=here.stores.inventory,
            runs=here.stores.run_histories,
        )
        assert (counts.windows, counts.contradictions) == (1, 1)


def proof_of(here: Town) -> RunHistoryProof:
    return run_history_proof(here.stores, DEVICE, now=T0)
