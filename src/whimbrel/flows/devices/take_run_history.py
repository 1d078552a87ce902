"""What a device tells of its run history is checked, put where it belongs, and kept. Nothing is ever overwritten.

1. A part is taken where the device's own key signed its head, and its entries are a chain that ends there.
2. Entries that are known are left out: what comes twice counts once. Those that follow the end of a branch lengthen it.
3. Anything else begins another branch: entries that go on otherwise than what is known, or a head that takes back later
   ones (a *fork*: the device's folder was restored or copied, or it lies), entries behind missing ones (a *gap*), or
   another log. People are told by the audit log, once a branch. An older head changes nothing.
4. A branch keeps `limits.RUN_ENTRIES_KEPT` entries, the newest; a key of a device has `limits.RUN_BRANCHES`
   branches, the first ones: so a device that lies fills its own quota, and can neither push out what it signed before
   nor keep out what the id signs with another key later.

Called by `flows/reports/ingest`, in the order in which messages came.
"""

from collections.abc import Sequence

import msgspec

from whimbrel import limits
from whimbrel.errors import UntrustedInput
from whimbrel.flows.audit import audit
from whimbrel.flows.devices.ports import RunHistoryPort
from whimbrel.flows.devices.records import RunBranch, RunOrigin, RunRow
from whimbrel.flows.ports import AuditPort
from whimbrel.health.run_history import RunEntry, RunHead, RunHistoryPart, beginning_of, read_chain
from whimbrel.trust.run_history_proof import check_end, check_head

_replace = msgspec.structs.replace
_Chain = list[tuple[RunEntry, str]]


class RunHistoryIntake:
    """The run histories that come in within one transaction. `port` None: they are kept nowhere."""

    def __init__(self, port: RunHistoryPort | None, registry: AuditPort) -> None:
        self._port, self._registry = port, registry

    def take(self, device_id: str, part: RunHistoryPart, *, at: float) -> bool:
        """Whether a part could be believed. One that cannot be is left out; the reports beside it count."""
        if self._port is None:
            return True
        try:
            take_run_history(self._port, self._registry, device_id, part, at=at)
        except UntrustedInput:
            return False
        return True


def take_run_history(
    port: RunHistoryPort, registry: AuditPort, device_id: str, part: RunHistoryPart, *, at: float
) -> None:
    """Keep a part. `at`: when it came in. Raises `UntrustedInput` where it cannot be believed, and keeps nothing."""
    head = check_head(part.head, part.signature, device_id=device_id)
    chain = read_chain(part.entries)
    check_end(head, {entry.number: digest for entry, digest in chain}, before=head.number)
    branches = port.branches(device_id)
    if head.public_key not in {port.public_key(device_id), *(each.public_key for each in branches)}:
        raise UntrustedInput(f"the run history of {device_id} is signed with a key that is not its own")
    own = [each for each in branches if (each.public_key, each.log) == (head.public_key, head.log)]
    _Place(port, registry, own, head, part, at=at, branches=branches).put(chain)


class _Place:
    """Where a part belongs among the branches of its log (`own`). `branches`: all of the device."""

    def __init__(
        self,
        port: RunHistoryPort,
        registry: AuditPort,
        own: Sequence[RunBranch],
        head: RunHead,
        part: RunHistoryPart,
        *,
        at: float,
        branches: Sequence[RunBranch],
    ) -> None:
        self._port, self._registry, self._own, self._head, self._part = port, registry, own, head, part
        self._at, self._branches = at, branches

    def put(self, chain: _Chain) -> None:
        head = self._head
        oldest = min((each.first for each in self._own), default=0)
        chain = [each for each in chain if each[0].number >= oldest]
        number, digest = (chain[0][0].number - 1, chain[0][0].previous) if chain else (head.number, head.digest)
        mine = {each.branch for each in self._own}
        rows = self._port.rows(head.device_id, first=number, last=head.number) if mine else []
        known = {(row.number, row.digest): row.branch for row in rows if row.branch in mine}
        known |= {(each.last, each.last_digest): each.branch for each in self._own}
        taken = {row.number for row in rows if row.branch in mine}
        while chain and (chain[0][0].number, chain[0][1]) in known:
            number, digest = chain[0][0].number, chain[0][1]
            chain = chain[1:]
        if chain:
            self._lengthen(chain, number, digest, known, is_told_otherwise=chain[0][0].number in taken)
        else:
            self._take_head(number, digest, known)

    def _lengthen(
        self,
        chain: _Chain,
        number: int,
        digest: str,
        known: dict[tuple[int, str], int],
        *,
        is_told_otherwise: bool,
    ) -> None:
        ends = [each for each in self._own if (each.last, each.last_digest) == (number, digest)]
        earlier = [each for each in ends if each.heads < self._head.heads]
        if ends:
            return self._save(max(earlier or ends, key=lambda each: each.heads), chain)
        parent = known.get((number, digest))
        is_beginning = number == 0 and digest == beginning_of(self._head.log, device_id=self._head.device_id)
        if parent is None and not self._own and is_beginning:
            return self._begin("log", None, number, digest, chain)
        origin: RunOrigin = "fork" if parent is not None or is_beginning or is_told_otherwise else "gap"
        return self._begin(origin, parent, number, digest, chain)

    def _take_head(self, number: int, digest: str, known: dict[tuple[int, str], int]) -> None:
        """A head without new entries: later than the newest of its branch, the same, an older one, or another's."""
        head, ends = self._head, [each for each in self._own if (each.last, each.last_digest) == (number, digest)]
        if any(each.head == self._part.head for each in self._own):
            return
        if earlier := [each for each in ends if each.heads < head.heads]:
            self._save(max(earlier, key=lambda each: each.heads), [])
        elif head.heads >= max((each.heads for each in ends), default=0) and (ends or not self._is_older()):
            parent = ends[-1].branch if ends else known.get((number, digest))
            origin: RunOrigin = "log" if not self._own and number == 0 else "gap" if parent is None else "fork"
            self._begin(origin, parent, number, digest, [])

    def _is_older(self) -> bool:
        """Whether a branch of this log has a newer head: this one came late, or somebody plays it again."""
        return any(each.heads >= self._head.heads for each in self._own)

    def _begin(self, origin: RunOrigin, parent: int | None, number: int, digest: str, chain: _Chain) -> None:
        of_key = sum(each.public_key == self._head.public_key for each in self._branches)
        if of_key >= limits.RUN_BRANCHES or len(self._branches) >= limits.RUN_BRANCHES_IN_ALL:
            raise UntrustedInput(
                f"the run history of {self._head.device_id} has {of_key} branches of this key and "
                f"{len(self._branches)} in all, and no more are kept"
            )
        branch = RunBranch(
            device_id=self._head.device_id,
            branch=max((each.branch for each in self._branches), default=0) + 1,
            public_key=self._head.public_key,
            log=self._head.log,
            origin=origin,
            parent=parent,
            after=number,
            first=number + 1,
            last=number,
            last_digest=digest,
            head="",
            signature="",
            heads=0,
            began_at=self._at,
            received_at=self._at,
        )
        self._save(branch, chain)
        if self._branches:
            full = of_key + 1 >= limits.RUN_BRANCHES or len(self._branches) + 1 >= limits.RUN_BRANCHES_IN_ALL
            audit(
                self._registry,
                device=branch.device_id,
                actor="tally",
                action="notice_run_history",
                because=_WORDS[origin].format(after=number) + ("; no further branch is kept" if full else ""),
                now=self._at,
                evidence={"branch": branch.branch, "parent": parent, "log": branch.log, "key": branch.public_key},
            )

    def _save(self, branch: RunBranch, chain: _Chain) -> None:
        head = self._head
        last, digest = (chain[-1][0].number, chain[-1][1]) if chain else (branch.last, branch.last_digest)
        rows = [
            RunRow(branch=branch.branch, number=entry.number, digest=digest, entry=text)
            for (entry, digest), text in zip(chain, self._part.entries[-len(chain) :] if chain else (), strict=True)
        ]
        first = max(branch.first, last - limits.RUN_ENTRIES_KEPT + 1)
        longer = _replace(branch, first=first, last=last, last_digest=digest, received_at=self._at)
        newer = _replace(longer, head=self._part.head, signature=self._part.signature, heads=head.heads)
        self._port.save(newer, rows)


_WORDS: dict[RunOrigin, str] = {
    "log": "the device began another run history: its folder was lost, or its key is another",
    "fork": "its run history forks after entry {after}: its folder was restored or copied, or it takes back its word",
    "gap": "entries of its run history up to {after} never came in",
}
