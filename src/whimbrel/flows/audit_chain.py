"""The chain of the audit log: was an entry changed, taken out, put in or cut off since it was written?

1. Every entry of a namespace has a sequence number, the hash of the entry before it, and its own hash. So whoever
   changes one entry must change every later one too.
2. A hash is SHA-256 over the line `whimbrel-audit-1` and the entry's canonical JSON without its hash: UTF-8, sorted
   keys, no spaces. It is the same on the server and in an exported file.
3. Who can write the database can write a whole new chain. An *anchor* is what such a person cannot reach: the number,
   the hash and the time of the newest entry, signed, and stored elsewhere. A log that does not have that hash under
   that number was rewritten; one that ends before that number was cut off.

Pure. Called by `stores/audit_log`, which writes entries, and by `whimbrel audit verify`, which reads them.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from whimbrel.errors import UntrustedInput
from whimbrel.flows.records import AuditRecord
from whimbrel.model.documents import Document, encode, parse
from whimbrel.model.ids import Digest

BEFORE_THE_FIRST = "0" * 64  # what the first entry of a chain has for the hash before it
ALERT_FORMAT = "whimbrel-alert-1"  # of the alert that an anchor came with (server/alert_forms)
_ENTRY, _ANCHOR = b"whimbrel-audit-1\n", b"whimbrel-audit-anchor-1\n"


class ChainedEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An entry of the audit log in its chain: one line of an export. Times are POSIX seconds."""

    namespace: str
    sequence: Annotated[int, Meta(ge=1)]
    at: float
    actor: str
    action: str
    because: str
    model: str | None
    rollout: str | None
    device: str | None
    evidence: dict[str, Any]
    previous: Digest
    hash: Digest


class Anchor(Document, frozen=True, tag_field="format", tag="whimbrel-audit-anchor-1"):
    """The newest entry of a namespace's log at a time, to be stored elsewhere.

    `keyid` and `signature` (hexadecimal) are of the server's timestamp key, which the root names.
    """

    namespace: str
    sequence: Annotated[int, Meta(ge=0)]  # 0: the log is empty
    hash: Digest
    at: float
    keyid: str = ""
    signature: str = ""

    def signed_bytes(self) -> bytes:
        """What the signature is over: no TUF metadata begins like it."""
        return _ANCHOR + encode(msgspec.structs.replace(self, keyid="", signature=""))


class Formatted(msgspec.Struct, frozen=True):
    """A document that says what it is; an alert also says of what (`moment`)."""

    format: str
    moment: str = ""


class SentAnchor(msgspec.Struct, frozen=True):
    """An anchor as a server sends it by itself: the evidence of an alert, which a receiver may keep as it came."""

    evidence: Anchor


class ChainCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a check of entries: `problem` is a sentence about the first thing that does not fit, or None."""

    entries: int
    first: int | None  # sequence numbers of the first and the last entry that fit
    last: int | None
    hash: str  # of the last entry that fits
    anchors: int  # anchors that were met
    problem: str | None = None


def chained(record: AuditRecord, *, sequence: int, previous: str) -> ChainedEntry:
    """An entry with its place in the chain. Its evidence is what a reader of its JSON will have."""
    evidence = msgspec.json.decode(encode(record.evidence), type=dict[str, Any])
    entry = ChainedEntry(
        **msgspec.structs.asdict(record) | {"at": float(record.at), "evidence": evidence},
        sequence=sequence,
        previous=previous,
        hash=BEFORE_THE_FIRST,
    )
    return msgspec.structs.replace(entry, hash=hash_of(entry))


def hash_of(entry: ChainedEntry) -> str:
    """The hash that an entry should have: 64 lower-case hexadecimal digits."""
    fields = msgspec.to_builtins(entry)
    del fields["hash"]
    return hashlib.sha256(_ENTRY + encode(fields)).hexdigest()


def read_line(line: bytes, *, number: int) -> ChainedEntry:
    """One line of an export. Raises `UntrustedInput` with the number of the line."""
    return parse(ChainedEntry, line, what=f"line {number} of the export")


def check_chain(entries: Iterable[ChainedEntry], *, anchors: Sequence[Anchor] = ()) -> ChainCheck:
    """Check entries, in their order, and stop at the first that does not fit.

    The first entry may have any number: an export may begin in the middle, and then says nothing of what was before.
    Raises `UntrustedInput` for anchors of several namespaces.
    """
    if len({anchor.namespace for anchor in anchors}) > 1:
        raise UntrustedInput("the anchors are of several namespaces; check one namespace at a time")
    expected = {anchor.sequence: anchor for anchor in anchors}
    count, first, before = 0, None, None
    for entry in entries:
        problem = _misfit(entry, before) or _missed(entry, expected.get(entry.sequence))
        if problem is None and first is None and anchors and entry.namespace != anchors[0].namespace:
            problem = f"the anchor is of namespace {anchors[0].namespace!r}, and these entries of {entry.namespace!r}"
        if problem is not None:
            return _checked(count, first, before, met=expected, problem=problem)
        count, before = count + 1, entry
        first = entry if first is None else first
    return _checked(count, first, before, met=expected, problem=_cut_off(first, before, anchors))


def _misfit(entry: ChainedEntry, before: ChainedEntry | None) -> str | None:
    """What is wrong with an entry after the one before it; `before` None: it is the first."""
    name = f"entry {entry.sequence}"
    if before is not None and entry.namespace != before.namespace:
        return f"{name} is of namespace {entry.namespace!r}, and those before it of {before.namespace!r}"
    if before is not None and entry.sequence != before.sequence + 1:
        return f"entry {before.sequence + 1} is missing: {name} follows entry {before.sequence}"
    if before is not None and entry.previous != before.hash:
        return f"{name} does not follow the entry before it: one of the two was replaced"
    if entry.sequence == 1 and entry.previous != BEFORE_THE_FIRST:
        return f"{name} is not the beginning of a chain: what was before it was taken away"
    if entry.hash != hash_of(entry):
        return f"{name} was changed after it was written: its hash is not that of its content"
    return None


def _missed(entry: ChainedEntry, anchor: Anchor | None) -> str | None:
    if anchor is None or anchor.hash == entry.hash:
        return None
    return (
        f"entry {entry.sequence} is not the one that the anchor names: the log was written anew, up to there or further"
    )


def _cut_off(first: ChainedEntry | None, last: ChainedEntry | None, anchors: Sequence[Anchor]) -> str | None:
    for anchor in sorted(anchors, key=lambda each: each.sequence):
        if anchor.sequence == 0:
            continue  # an empty log begins every log
        if last is None or anchor.sequence > last.sequence:
            end = "is empty" if last is None else f"ends with entry {last.sequence}"
            return f"the log was cut off: an anchor names entry {anchor.sequence}, and the log {end}"
        if first is not None and anchor.sequence < first.sequence:
            return (
                f"the anchor names entry {anchor.sequence}, and these entries begin at {first.sequence}; give an "
                "export that holds it"
            )
    return None


def _checked(
    count: int, first: ChainedEntry | None, last: ChainedEntry | None, *, met: dict[int, Anchor], problem: str | None
) -> ChainCheck:
    reached = 0 if last is None else last.sequence
    return ChainCheck(
        entries=count,
        first=None if first is None else first.sequence,
        last=None if last is None else last.sequence,
        hash=BEFORE_THE_FIRST if last is None else last.hash,
        anchors=sum(1 for sequence in met if sequence <= reached),
        problem=problem,
    )
