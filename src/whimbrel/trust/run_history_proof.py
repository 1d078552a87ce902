"""Is this run history what the device signed? The proof as a document, and its check, which needs no server.

1. Whoever has the device's public key can check a proof: the signature of each head, and that the entries before it are
   the ones that the head vouches for, complete and in order. The key that a proof names itself proves only that one
   device signed all of it; that it is *the* device is then the server's word.
2. A proof says what the device said of itself. A device that lies about what it runs can sign that; nobody else can
   write it, and the device itself cannot take back later what it has signed, but as a fork, which shows.
3. A branch whose entries were dropped (the device's log is bounded, and the server's) proves the ones that are left.
4. What is not in a proof cannot be missed: whoever hands it over may leave out whole branches, the oldest entries, and,
   where an older head was kept, the newest. What nobody signed (`origin`, `received_at`, `made_at`, the newest
   `public_key`) decides nothing here but when a head is too new to be believed.
"""

from typing import Annotated

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec import Meta

from whimbrel import limits
from whimbrel.errors import UntrustedInput, reason_of
from whimbrel.health.run_history import RunEntry, RunHead, beginning_of, read_chain, read_head, text_to_sign
from whimbrel.model.documents import Document
from whimbrel.model.ids import DeviceId
from whimbrel.trust.possession import PublicKey, from_base64url


class ProofBranch(Document, frozen=True):
    """One chain of entries, oldest first, and the newest head of it. `RunBranch` of the server has the other fields.

    `received_at`: when the server got the newest part, as it says; None on the device itself.
    """

    branch: int
    head: str
    signature: str
    entries: tuple[str, ...] = ()
    origin: str = "log"
    parent: int | None = None
    after: int = 0
    received_at: float | None = None


class RunHistoryProof(Document, frozen=True, tag_field="format", tag="whimbrel-run-history-proof-1"):
    """All that is known of what was active on one device. `made_at`: POSIX seconds, by the clock of who made it.

    `public_key`: by which the server knows the device now; None for none.
    """

    device_id: DeviceId
    made_at: float
    branches: Annotated[tuple[ProofBranch, ...], Meta(max_length=limits.RUN_BRANCHES_IN_ALL)] = ()
    public_key: PublicKey | None = None


class CheckedBranch(msgspec.Struct, frozen=True, kw_only=True):
    """A branch that fits: its head, and its entries with those of its parents before it, oldest first.

    `forks_after`: the number of the entry after which it goes on otherwise than an earlier branch of its log; None: it
    does not. It is taken from what was signed, and not from what the proof says of itself.
    """

    branch: ProofBranch
    head: RunHead
    entries: tuple[RunEntry, ...]
    forks_after: int | None = None

    @property
    def missing(self) -> int:
        """How many of the first entries are not here: dropped from a log that was full, never sent, or cut off."""
        return self.entries[0].number - 1 if self.entries else self.head.number


def read_proof(content: bytes, *, what: str) -> RunHistoryProof:
    """A proof from a file. Raises `UntrustedInput`."""
    if len(content) > limits.RUN_PROOF_BYTES:
        raise UntrustedInput(f"{what} has {len(content)} bytes; a proof has at most {limits.RUN_PROOF_BYTES}")
    try:
        return msgspec.json.decode(content, type=RunHistoryProof)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UntrustedInput(f"{what} is no proof of a run history: {reason_of(error)}") from error


def check_run_proof(proof: RunHistoryProof, *, key: str | None = None) -> list[CheckedBranch]:
    """The branches of a proof, each with all entries that it has. `key`: of the only device key that is believed.

    Raises `UntrustedInput` where anything does not fit, with a sentence that names it.
    """
    checked: dict[int, CheckedBranch] = {}
    digests: dict[int, dict[int, str]] = {}
    for branch in proof.branches:
        if branch.branch in checked:
            raise UntrustedInput(f"the proof has branch {branch.branch} twice")
        head = check_head(branch.head, branch.signature, device_id=proof.device_id)
        chain = read_chain(branch.entries)
        own = {entry.number: digest for entry, digest in chain}
        check_end(head, own, before=branch.after)
        first = chain[0][0] if chain else None
        earlier = _earlier(branch, first, head, checked, digests)
        after = head.number if first is None else first.number - 1
        siblings = [each for each in checked.values() if _log_of(each.head) == _log_of(head)]
        forks = [_fork_of(own, after, other, digests[other.branch.branch]) for other in siblings]
        checked[branch.branch] = CheckedBranch(
            branch=branch,
            head=head,
            entries=(*earlier, *(entry for entry, _ in chain)),
            forks_after=min((each for each in forks if each is not None), default=None),
        )
        inherited = digests.get(branch.parent or 0, {}) if earlier else {}
        digests[branch.branch] = {n: digest for n, digest in inherited.items() if n <= branch.after} | own
    if key is None:
        return list(checked.values())
    return [each for each in checked.values() if each.head.public_key == key]


def _fork_of(own: dict[int, str], after: int, other: CheckedBranch, theirs: dict[int, str]) -> int | None:
    """After which entry a branch with these entries behind `after` contradicts another one of its log; None: nowhere.

    A branch without entries does, by its head: it counts as new, and speaks of no later entry.
    """
    last = other.head.number
    if not own:
        return after if after <= last else None
    if after >= last:
        return None
    shared = sorted(own.keys() & theirs.keys())
    if not shared:
        return after
    return next((number - 1 for number in shared if own[number] != theirs[number]), None)


def _log_of(head: RunHead) -> tuple[str, str]:
    return head.public_key, head.log


def check_head(text: str, signature: str, *, device_id: str) -> RunHead:
    """A head that `device_id` signed with the key that it names. Raises `UntrustedInput`."""
    head = read_head(text)
    if head.device_id != device_id:
        raise UntrustedInput(f"the head is of {head.device_id}, and not of {device_id}: it is another device's history")
    try:
        key = Ed25519PublicKey.from_public_bytes(from_base64url(head.public_key))
        key.verify(from_base64url(signature), text_to_sign(text))
    except (InvalidSignature, ValueError) as error:
        raise UntrustedInput(
            f"the signature of head {head.heads} is not by the key {head.public_key}: the history was changed or forged"
        ) from error
    return head


def check_end(head: RunHead, digests: dict[int, str], *, before: int) -> None:
    """Raise `UntrustedInput` where the entries do not end with the one that the head vouches for."""
    last = max(digests, default=before)
    if head.number != last or (digests and digests[last] != head.digest):
        raise UntrustedInput(
            f"the head vouches for the entries up to {head.number}, and these end with {last} or are others: some were "
            "changed, cut off or put in"
        )


def _earlier(
    branch: ProofBranch,
    first: RunEntry | None,
    head: RunHead,
    checked: dict[int, CheckedBranch],
    digests: dict[int, dict[int, str]],
) -> tuple[RunEntry, ...]:
    """The entries of the parents, up to the branch. Raises `UntrustedInput` where they do not lead to it."""
    number = first.number - 1 if first is not None else head.number
    previous = first.previous if first is not None else head.digest
    if number == 0 and previous != beginning_of(head.log, device_id=head.device_id):
        raise UntrustedInput(f"branch {branch.branch} does not begin as a log of this device does")
    if branch.parent is None or number != branch.after:  # the entries between were dropped, or never came
        return ()
    parent = checked.get(branch.parent)
    if parent is None or parent.head.log != head.log or parent.head.public_key != head.public_key:
        raise UntrustedInput(f"branch {branch.branch} names a parent that is not before it, or of another log")
    known = digests[branch.parent].get(number)
    if known is None:  # it was dropped: nothing proves what came before
        return ()
    if known != previous:
        raise UntrustedInput(f"branch {branch.branch} does not follow entry {number} of branch {branch.parent}")
    return tuple(entry for entry in parent.entries if entry.number <= number)
