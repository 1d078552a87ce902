"""Which version of each model was active on a device, and when? The log that a device keeps and signs: its wire types.

1. An entry says that from `at` on another version of one model is active, or that something else happened to it, and
   why. What an entry says ends where the next entry of its model begins.
2. Each entry holds the digest of the one before, over its exact bytes; the first one holds that of the log's beginning.
   So an entry that is changed, left out or moved fits no longer. Entries travel as text, and are never encoded anew.
3. The device signs heads: how far the log goes, and until when nothing else happened. A head vouches for all entries
   before it. It counts the heads of its log, so that a folder that was restored or copied signs one number twice.

`trust/run_history_proof.py` checks what others say; `device/run_history.py` knows when an entry begins.
"""

from typing import Annotated, Literal

from msgspec import Meta

from whimbrel import limits
from whimbrel.errors import UntrustedInput
from whimbrel.model.documents import Document, digest_of, parse
from whimbrel.model.ids import END, ONE_LINE_PATTERN, ONE_LINE_WORDS, DeviceId, Digest, Name, Serial
from whimbrel.model.patterns import matching

EntryText = Annotated[str, Meta(max_length=limits.RUN_ENTRY_BYTES)]
HeadText = Annotated[str, Meta(max_length=limits.RUN_HEAD_BYTES)]
Signature = Annotated[str, matching("^[A-Za-z0-9_-]{86}" + END, "64 bytes as base64url, without padding")]
LogId = Annotated[str, matching("^[0-9a-f]{16}" + END, "16 lower-case hexadecimal digits")]
Number = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Moment = Annotated[float, Meta(ge=-1e12, le=1e12)]  # POSIX seconds: a device's clock may say anything
_PublicKey = Annotated[str, matching("^[A-Za-z0-9_-]{43}" + END, "a public key of 43 characters of base64url")]

RunChange = Literal[
    "begun",  # it was active when the log began, or became so unseen: in between the agent did not run
    "trial",  # active, not yet committed
    "committed",  # the trial is over
    "went_back",  # the version before is active again
    "stopped",  # no version is active; the one that ran is kept
    "resumed",  # what was stopped is active again
    "emptied",  # no version is active, and none is kept
    "refused",  # a version failed here before it was active; the active one stays
    "still",  # nothing changed: said again, since the entry that said so was dropped from a log that was full
]


class RunEntry(Document, frozen=True):
    """One entry. Times are POSIX seconds.

    `serial`: what is active from then on; None: no version. `artifact`: the SHA-256 of its one file, or of the lines
    `sha256  name` of all its files, by name. `about`: the version that was left or refused, for `reason`.
    `at`: when the device wrote it, by its own clock. `not_before`: when the device last saw the state before, by that
    clock. The change lies between the two; where the agent made it, they are equal. `signed_time`: the newest time that
    the repository's signature had taught the device: `at` is not earlier, whatever its clock said. 0: none yet.
    """

    number: Annotated[int, Meta(ge=1, le=2**53 - 1)]
    previous: Digest
    model: Name
    change: RunChange
    at: Moment
    not_before: Moment
    serial: Serial | None = None
    version: Annotated[str, matching(ONE_LINE_PATTERN, ONE_LINE_WORDS, max_length=limits.NAME_CHARS)] = ""
    artifact: Digest | None = None
    on_trial: bool = False
    about: Serial | None = None
    reason: Annotated[str, matching(ONE_LINE_PATTERN, ONE_LINE_WORDS, max_length=limits.RUN_REASON_CHARS)] = ""
    signed_time: Moment = 0.0


class RunHead(Document, frozen=True, tag_field="format", tag="whimbrel-run-head-1"):
    """What a device signs: its log has these entries, and until `at` nothing else happened.

    `log`: which one; a device that lost its folder begins another. `number` and `digest`: of the last entry that the
    head vouches for. `newest`: of the last entry that the device has; more than `number` where others follow, and then
    nothing is said of `at`. `heads`: how many heads of this log were signed, this one among them.
    """

    device_id: DeviceId
    public_key: _PublicKey
    log: LogId
    number: Number
    newest: Number
    digest: Digest
    heads: Annotated[int, Meta(ge=1, le=2**53 - 1)]
    at: Moment
    signed_time: Moment = 0.0


class RunHistoryPart(Document, frozen=True):
    """What travels with a batch of reports: entries in order, which may be none, and a head that ends with the last."""

    head: HeadText
    signature: Signature
    entries: Annotated[tuple[EntryText, ...], Meta(max_length=limits.RUN_ENTRIES_SENT)] = ()


def beginning_of(log: str, *, device_id: str) -> str:
    """The digest before the first entry of a log: it binds the entries to their device."""
    return digest_of("\n".join(("whimbrel run history 1", device_id, log)).encode())


def text_to_sign(head: str) -> bytes:
    """The bytes under a head's signature. They name what it is for: a signature for one purpose serves no other."""
    return b"whimbrel run head 1\n" + head.encode()


def read_entry(text: str) -> RunEntry:
    """One entry. Raises `UntrustedInput`."""
    return parse(RunEntry, _bounded(text, limits.RUN_ENTRY_BYTES, "an entry of a run history"), what="an entry")


def read_head(text: str) -> RunHead:
    """One head. Raises `UntrustedInput`."""
    return parse(RunHead, _bounded(text, limits.RUN_HEAD_BYTES, "the head of a run history"), what="a head")


def read_chain(texts: tuple[str, ...]) -> list[tuple[RunEntry, str]]:
    """Entries that follow each other, each with its digest. Raises `UntrustedInput` where one does not follow."""
    chain: list[tuple[RunEntry, str]] = []
    for text in texts:
        entry = read_entry(text)
        if chain:
            before, digest = chain[-1]
            if entry.number != before.number + 1 or entry.previous != digest:
                raise UntrustedInput(
                    f"entry {entry.number} of a run history does not follow entry {before.number}: one was changed, "
                    "left out or moved"
                )
        chain.append((entry, digest_of(text.encode())))
    return chain


def _bounded(text: str, most: int, what: str) -> bytes:
    content = text.encode()
    if len(content) > most:
        raise UntrustedInput(f"{what} has {len(content)} bytes; at most {most} are read")
    return content
