"""The log of what was active: entries for every change, times that are bounds, a bounded chain, and one key."""

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from whimbrel import limits
from whimbrel.agent.disk import RealDisk
from whimbrel.agent.places import Places
from whimbrel.agent.run_history import FILE, RunHistory, read_log
from whimbrel.device import slots
from whimbrel.device.journal import GoingBack, Journal, Refusal, seal
from whimbrel.device.run_history import RunLog, artifact_of, newest_entries
from whimbrel.device.slots import Content, Held, Pointer
from whimbrel.health.run_history import read_chain, read_entry, read_head
from whimbrel.trust.run_history_answer import answers_of
from whimbrel.trust.run_history_proof import ProofBranch, RunHistoryProof, check_run_proof

KEY = Ed25519PrivateKey.generate()


def held(serial: int, slot: Any = "a") -> Held:
    return Held(
        slot=slot,
        serial=serial,
        version=f"2026.03.05.{serial}",
        entry="m.onnx",
        contents=(Content(name="m.onnx", sha256=f"{serial:064x}"),),
    )


class Model:
    """A model whose pointer and journal are changed by hand."""

    def __init__(self, folder: Path, model: str = "wake") -> None:
        self.model = model
        self.places = Places(folder / "models" / model, disk=RealDisk())
        self.places.make()
        self.pointer = Pointer(model=model)
        self.journal = Journal(model=model)

    def point(self, pointer: Pointer) -> None:
        self.places.disk.write(self.places.pointer, seal(pointer))
        self.pointer = pointer


class Desk:
    """One device. `now`: its clock."""

    def __init__(self, folder: Path, *, key: Ed25519PrivateKey | None = KEY) -> None:
        self.folder, self.key, self.now = folder, key, 1000.0
        self.wake = Model(folder)
        self.runs = self.restarted()

    def restarted(self) -> RunHistory:
        self.runs = RunHistory(
            self.folder,
            device_id="dev-1",
            key=lambda: self.key,
            disk=RealDisk(),
            now=lambda: self.now,
            signed_time=lambda: 900.0,
        )
        return self.runs

    def look(self) -> None:
        self.runs.look(self.wake)
        self.runs.save()

    def swap(self, serial: int) -> None:
        self.wake.point(slots.swapped(self.wake.pointer, held(serial)))
        self.runs.changed(self.wake)

    def log(self) -> RunLog:
        self.runs.save()
        log = read_log(self.folder / FILE, disk=RealDisk())
        assert log is not None
        return log

    def told(self) -> list[tuple[str, int | None]]:
        return [(entry.change, entry.serial) for entry in map(read_entry, self.log().entries)]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_every_change_of_what_is_active_is_an_entry_with_its_reason(desk: Desk) -> None:
    desk.look()
    desk.swap(1)
    desk.wake.point(slots.committed(desk.wake.pointer))
    desk.runs.changed(desk.wake)
    desk.now += 60
    desk.swap(2)
    desk.wake.journal = Journal(
        model="wake", going_back=GoingBack(leaves=2, to=1, by_policy=True, reason="it\ncrashed")
    )
    desk.wake.point(slots.back(desk.wake.pointer))
    desk.runs.changed(desk.wake)
    desk.wake.journal = Journal(
        model="wake", refused=(Refusal(serial=3, reason="its probe failed", policy_sequence=4),)
    )
    desk.look()
    desk.look()
    desk.wake.point(slots.stopped(desk.wake.pointer))
    desk.runs.changed(desk.wake)
    desk.wake.point(slots.resumed(desk.wake.pointer))
    desk.runs.changed(desk.wake)
    assert desk.told() == [
        ("trial", 1),
        ("committed", 1),
        ("trial", 2),
        ("went_back", 1),
        ("refused", 1),
        ("stopped", None),
        ("resumed", 1),
    ]
    back, refused = (read_entry(desk.log().entries[number]) for number in (3, 4))
    assert (back.about, back.reason, back.at == back.not_before) == (2, "it crashed", True)
    assert (refused.about, refused.reason, refused.signed_time) == (3, "its probe failed", 900.0)
    read_chain(desk.log().entries)


def test_what_the_power_cut_kept_from_the_log_is_told_later_between_two_times(desk: Desk) -> None:
    desk.look()
    desk.now += 5
    desk.wake.point(slots.swapped(desk.wake.pointer, held(1)))  # durable, and then the power goes
    desk.restarted()
    desk.now += 500
    desk.look()
    (entry,) = map(read_entry, desk.log().entries)
    assert (entry.change, entry.not_before, entry.at) == ("trial", 0.0, 1505.0)  # nothing was logged of it before
    desk.now += 100
    desk.look()
    desk.wake.point(slots.committed(slots.swapped(desk.wake.pointer, held(2, "b"))))
    desk.restarted()
    desk.now += 100
    desk.look()
    entry = read_entry(desk.log().entries[-1])
    assert (entry.serial, entry.not_before, entry.at) == (2, 1505.0, 1705.0)  # the last look that is on the disk


def test_a_torn_log_is_replaced_by_another_one(desk: Desk) -> None:
    desk.look()
    desk.swap(1)
    before = desk.log()
    (desk.folder / FILE).write_bytes((desk.folder / FILE).read_bytes()[:-3])
    desk.restarted()
    desk.look()
    after = desk.log()
    assert (after.log == before.log, desk.told()) == (False, [("trial", 1)])
    assert read_entry(after.entries[0]).not_before == 0.0


def test_a_head_is_signed_where_something_is_new_or_an_hour_is_over(desk: Desk) -> None:
    desk.look()
    desk.swap(1)
    desk.runs.save()
    part = desk.runs.part()
    assert part is not None
    assert desk.runs.part() == part  # not acknowledged: the same again
    desk.runs.acknowledged(part)
    assert desk.runs.part() is None
    desk.now += limits.RUN_HEAD_S
    later = desk.runs.part()
    assert later is not None
    assert (later.entries, read_head(later.head).heads, read_head(later.head).number) == ((), 2, 1)
    desk.restarted()
    again = desk.runs.part()
    assert again is None or read_head(again.head).heads == 2  # a number is never signed twice


def test_a_device_without_a_key_keeps_a_log_and_another_key_begins_another(desk: Desk) -> None:
    desk.key = None
    desk.look()
    desk.swap(1)
    assert desk.runs.part() is None
    desk.key = KEY
    first = desk.runs.part()
    assert first is not None
    desk.runs.acknowledged(first)
    desk.key = Ed25519PrivateKey.generate()
    assert desk.runs.part() is None
    desk.look()
    part = desk.runs.part()
    assert part is not None
    assert read_head(part.head).log != read_head(first.head).log
    assert [read_entry(text).serial for text in part.entries] == [1]


def test_a_full_log_drops_its_oldest_and_says_again_what_is_active(desk: Desk) -> None:
    other = Model(desk.folder, "other")
    other.point(Pointer(model="other", active=held(9)))
    desk.runs.look(other)
    for serial in range(1, limits.RUN_ENTRIES + 60):
        desk.now += 10
        desk.swap(serial)
    log = desk.log()
    assert len(log.entries) <= limits.RUN_ENTRIES
    assert log.dropped > 0
    newest = newest_entries(log)
    assert (newest["other"].change, newest["other"].serial) == ("still", 9)
    chain = read_chain(log.entries)
    assert chain[0][0].previous == log.dropped_digest
    sent: list[str] = []
    while (part := desk.runs.part()) is not None:
        sent += part.entries
        desk.runs.acknowledged(part)
    assert sent == list(log.entries)  # those that were dropped before they were sent are a gap
    done = desk.runs._read()
    branch = ProofBranch(branch=1, head=done.head, signature=done.signature, entries=done.entries)
    checked = check_run_proof(RunHistoryProof(device_id="dev-1", made_at=0.0, branches=(branch,)))
    (answer,) = answers_of(checked, desk.now - 15, model="wake")
    (beside,) = answers_of(checked, desk.now - 1000, model="other")
    assert answer.period is not None
    assert (beside.known, beside.period is not None and beside.period.serial) == (True, 9)
    assert answer.period.serial == limits.RUN_ENTRIES + 57


def test_a_model_that_is_kept_no_more_is_not_active_any_more(desk: Desk) -> None:
    desk.look()
    desk.swap(1)
    desk.runs.keeps_only(["another"])
    assert desk.told()[-1] == ("emptied", None)


def test_the_longest_reason_and_version_fit_an_entry(desk: Desk) -> None:
    desk.look()
    long = msgspec.structs.replace(held(2**53 - 1), version="9" * 200)
    desk.wake.point(slots.swapped(desk.wake.pointer, long))
    desk.runs.changed(desk.wake)
    for reason in ('"' * 2000, "\u20ac" * 2000, "\udcff\x00\x1b[31m" * 500, "\\" * 999):
        going = GoingBack(leaves=1, to=None, by_policy=True, reason=reason)
        desk.wake.journal = msgspec.structs.replace(desk.wake.journal, going_back=going)
        desk.wake.point(slots.emptied(desk.wake.pointer))
        desk.runs.changed(desk.wake)
        desk.wake.point(slots.swapped(desk.wake.pointer, long))
        desk.runs.changed(desk.wake)
    assert all(len(text.encode()) <= limits.RUN_ENTRY_BYTES for text in desk.log().entries)


def test_several_files_have_one_digest_as_sha256sum_would_print_them() -> None:
    files = (Content(name="b", sha256="b" * 64), Content(name="a", sha256="a" * 64))
    several = msgspec.structs.replace(held(1), contents=files)
    lines = f"{'a' * 64}  a\n{'b' * 64}  b\n"
    assert artifact_of(several) == hashlib.sha256(lines.encode()).hexdigest()
    assert artifact_of(held(1)) == held(1).contents[0].sha256
