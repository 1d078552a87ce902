"""When does an entry of this device's run history begin, and what does it say? The log, and what is added to it: pure.

1. The pointer says what is active; so an entry is made from the pointer, after that is durable. Where the process ended
   in between, the next one sees that the log says something else, and the entry tells between which times it happened.
2. The log is bounded: of too many entries the oldest are dropped, and the digest of the last dropped one stays, so that
   the chain goes on. A model whose newest entry is dropped is said again (`still`), so that the log covers all models.
3. A log belongs to one key. Where the device has another key, or its log is torn, a new log begins with what is active.

Called by `agent/run_history.py`, which keeps the log on the disk and signs it.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from whimbrel import limits
from whimbrel.device.journal import Journal
from whimbrel.device.slots import Held, Pointer
from whimbrel.health.run_history import (
    EntryText,
    HeadText,
    LogId,
    Moment,
    Number,
    RunChange,
    RunEntry,
    RunHead,
    RunHistoryPart,
    beginning_of,
    read_entry,
)
from whimbrel.model.documents import Document, digest_of, encode
from whimbrel.model.ids import DeviceId, Digest, Name

_replace = msgspec.structs.replace
_Refusals = Annotated[tuple[tuple[int, int], ...], Meta(max_length=limits.REFUSED)]  # serial, sequence of the policy


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """When something is seen, POSIX seconds. `at` and `signed_time` as in `RunEntry`.

    `unseen_since`: since when the device did not look, so that what it sees now may have happened before; None: never.
    """

    at: float
    signed_time: float
    unseen_since: float | None = None


class RunLog(Document, frozen=True, tag_field="format", tag="whimbrel-run-log-1"):
    """The log of one device. `public_key`: "" until a head is signed.

    `dropped`: the number of the newest entry that is not kept any more, whose digest is `dropped_digest`.
    `acknowledged`: the number of the newest entry that the server has. `heads`, `head` and `signature`: how many were
    signed, and the last of them. `seen_at`: when the device last saw that the log says what is active.
    `refusals`: by model, what was refused when the log last looked.
    """

    device_id: DeviceId
    log: LogId
    dropped_digest: Digest
    dropped: Number = 0
    entries: Annotated[tuple[EntryText, ...], Meta(max_length=limits.RUN_ENTRIES + limits.DEVICE_MODELS + 1)] = ()
    public_key: str = ""
    acknowledged: Number = 0
    heads: Number = 0
    head: HeadText = ""
    signature: str = ""
    seen_at: Moment = 0.0
    refusals: Annotated[dict[Name, _Refusals], Meta(max_length=limits.DEVICE_MODELS)] = {}

    @property
    def newest(self) -> int:
        """The number of the newest entry; 0 before the first."""
        return self.dropped + len(self.entries)

    def digest(self, number: int) -> str:
        """The digest of an entry that is kept, or of the newest that is not."""
        return self.dropped_digest if number <= self.dropped else digest_of(self.texts(number - 1, number)[0].encode())

    def texts(self, after: int, last: int) -> tuple[str, ...]:
        """The entries `after` + 1 to `last`, of those that are kept."""
        return self.entries[max(0, after - self.dropped) : max(0, last - self.dropped)]


def new_log(log: str, *, device_id: str) -> RunLog:
    """A log without entries. `log`: 16 hexadecimal digits, drawn at random."""
    return RunLog(device_id=device_id, log=log, dropped_digest=beginning_of(log, device_id=device_id))


def newest_entries(log: RunLog) -> dict[str, RunEntry]:
    """The newest entry of each model."""
    return {entry.model: entry for entry in map(read_entry, log.entries)}


def with_model(log: RunLog, pointer: Pointer, journal: Journal, before: RunEntry | None, times: Times) -> RunLog:
    """The log, with what is new of one model. `before`: its newest entry. The same log, where nothing is new."""
    entry = _entry(before, pointer, journal, times)
    if entry is not None:
        log = _added(log, entry)
    newest = entry or before
    left = newest.about if newest is not None and newest.change != "refused" else None
    told = log.refusals.get(pointer.model, ())
    now = tuple((refusal.serial, refusal.policy_sequence) for refusal in journal.refused)
    for refusal in journal.refused:
        if (refusal.serial, refusal.policy_sequence) not in told and refusal.serial != left:
            what = _what(pointer, "refused", times, about=refusal.serial, reason=refusal.reason)
            log = _added(log, what)
    return log if now == told else _replace(log, refusals={**log.refusals, pointer.model: now})


def bounded(log: RunLog) -> RunLog:
    """The log with at most `limits.RUN_ENTRIES` entries: of more, some of the oldest are dropped."""
    if len(log.entries) <= limits.RUN_ENTRIES:
        return log
    many = len(log.entries) - limits.RUN_ENTRIES + limits.RUN_ENTRIES_DROPPED
    gone, kept = log.entries[:many], log.entries[many:]
    shorter = _replace(log, dropped=log.dropped + many, dropped_digest=log.digest(log.dropped + many), entries=kept)
    newest = newest_entries(shorter)
    latest = read_entry(log.entries[-1])
    for model, entry in newest_entries(_replace(log, entries=gone)).items():
        if model not in newest:
            again = _replace(
                entry, change="still", at=latest.at, not_before=entry.at, about=None, reason="",
                signed_time=latest.signed_time,
            )  # fmt: skip
            shorter = _added(shorter, again)
    return shorter


def head_of(log: RunLog, number: int, *, public_key: str, times: Times) -> RunHead:
    """The next head to sign: it vouches for the entries up to `number`."""
    return RunHead(
        device_id=log.device_id,
        public_key=public_key,
        log=log.log,
        number=number,
        newest=log.newest,
        digest=log.digest(number),
        heads=log.heads + 1,
        at=times.at,
        signed_time=times.signed_time,
    )


def part_of(log: RunLog) -> RunHistoryPart | None:
    """What its newest head vouches for and the server does not have; None where it is not signed."""
    if not log.head:
        return None
    number = msgspec.json.decode(log.head, type=RunHead).number
    return RunHistoryPart(head=log.head, signature=log.signature, entries=log.texts(log.acknowledged, number))


def next_number(log: RunLog) -> int:
    """The entry that the next head should end with: so many are sent at once."""
    return min(log.newest, max(log.acknowledged, log.dropped) + limits.RUN_ENTRIES_SENT)


def artifact_of(held: Held) -> str:
    """The digest of what a slot holds: that of its one file, or of the lines `sha256  name` of all, by name."""
    if len(held.contents) == 1:
        return held.contents[0].sha256
    lines = [f"{each.sha256}  {each.name}\n" for each in sorted(held.contents, key=lambda each: each.name)]
    return digest_of("".join(lines).encode())


def _entry(before: RunEntry | None, pointer: Pointer, journal: Journal, times: Times) -> RunEntry | None:
    """What is new of the active version; None where the log says it already."""
    active = pointer.active
    if before is None:
        if active is None and pointer.stopped is None:
            return None
        return _what(pointer, "trial" if pointer.trial else "begun" if active else "stopped", times)
    ran = before.serial, before.artifact
    runs = (active.serial, artifact_of(active)) if active is not None else (None, None)
    if runs == ran:
        if active is None or pointer.trial == before.on_trial:
            return None
        return _what(pointer, "trial" if pointer.trial else "committed", times)
    if active is None:
        return _left(pointer, journal, before, "stopped" if pointer.stopped is not None else "emptied", times)
    if pointer.trial:
        return _what(pointer, "trial", times)
    if before.serial is None and before.change == "stopped":
        return _what(pointer, "resumed", times)
    if journal.going_back is not None or any(refusal.serial == before.serial for refusal in journal.refused):
        return _left(pointer, journal, before, "went_back", times)
    return _what(pointer, "begun", times)


def _left(pointer: Pointer, journal: Journal, before: RunEntry, change: RunChange, times: Times) -> RunEntry:
    going = journal.going_back
    reasons = [refusal.reason for refusal in journal.refused if refusal.serial == before.serial]
    reason = going.reason if going is not None else reasons[-1] if reasons else ""
    return _what(pointer, change, times, about=before.serial, reason=reason)


def _what(pointer: Pointer, change: RunChange, times: Times, **more: Any) -> RunEntry:
    active = pointer.active
    more["reason"] = _sentence(more.get("reason", ""))
    return RunEntry(
        number=1,  # given where it is added
        previous="0" * 64,
        model=pointer.model,
        change=change,
        serial=active.serial if active is not None else None,
        version=active.version[: limits.NAME_CHARS] if active is not None else "",
        artifact=artifact_of(active) if active is not None else None,
        on_trial=active is not None and pointer.trial,
        at=times.at,
        not_before=times.at if times.unseen_since is None else times.unseen_since,
        signed_time=times.signed_time,
        **more,
    )


def _sentence(reason: str) -> str:
    """A reason in one line, cut where an entry with it would be too large."""
    words = " ".join("".join(each if each.isprintable() else " " for each in reason).split())
    while len(words) > limits.RUN_REASON_CHARS or len(encode(words)) > 2 * limits.RUN_REASON_CHARS:
        words = words[: min(limits.RUN_REASON_CHARS, len(words) - 1)]
    return words


def _added(log: RunLog, entry: RunEntry) -> RunLog:
    linked = _replace(entry, number=log.newest + 1, previous=log.digest(log.newest))
    return _replace(log, entries=(*log.entries, encode(linked).decode()))
