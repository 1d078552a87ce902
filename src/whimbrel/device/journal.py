"""What does a device remember of a model, so that it can go on after the power went? The journal, and how it is read.

1. It is saved, whole, before anything that it says is done; so whoever starts again repeats at most one effect.
2. It carries a checksum. One that is torn, or written by a later version, is not guessed at: `recovered` goes back to
   what the pointer says was committed.
3. What the server should hear waits in `outbox`, so that an announcement is as durable as the state it tells of.
"""

import hashlib
from typing import Annotated, TypeVar

from msgspec import Meta

from whimbrel import limits
from whimbrel.device.shadowing import Shadowing
from whimbrel.device.slots import Held, Pointer, SlotName
from whimbrel.device.states import State
from whimbrel.errors import UntrustedInput
from whimbrel.health.report import Announcement, Finite, Role, Stage, WayName
from whimbrel.model import documents
from whimbrel.model.documents import Document
from whimbrel.model.ids import Label, Name, Serial
from whimbrel.model.release import File

T = TypeVar("T")


class Candidate(Document, frozen=True):
    """The version that is on its way, or on trial."""

    serial: Serial
    version: str
    slot: SlotName
    files: tuple[File, ...]
    policy_sequence: int
    offered_at: float
    rollout: Name | None = None
    stage: Stage = 0
    held: Held | None = None
    install_attempts: int = 0  # whose bytes were not those that the release names
    again_at: float = 0.0  # not before this time, after such an attempt
    probe_attempts: int = 0
    bytes_moved: int = 0
    moved_by: dict[WayName, int] = {}
    healthy_sessions: int = 0
    failed_sessions: int = 0
    shadow: Shadowing | None = None  # it is not to be activated yet
    variant: str = ""  # the name of its build; unknown where an earlier agent wrote the journal


class GoingBack(Document, frozen=True):
    """A swap to the other slot (`to`), or to no version (None). By the policy, or by this device itself."""

    leaves: int | None
    to: int | None
    by_policy: bool
    reason: str
    policy_sequence: int = 0  # of the policy that was known; of the candidate's, where there is one


class Refusal(Document, frozen=True):
    """A version that failed here; tried again only when a policy after `policy_sequence` overrides it."""

    serial: Serial
    reason: str
    policy_sequence: int
    overridden_by: int | None = None  # the sequence of the policy that said: try again


class Membership(Document, frozen=True):
    """A cohort this device is counted in. `since`: when it activated or took its placebo; None: not yet.

    `before`: means of the metrics that are asked for, over the windows before it was assigned; never changed later.
    `permitted_at`: when a control's conditions and jitter first let it begin what the treated begin.
    `serial`: what its devices run, or try; unknown where an earlier agent wrote the journal.
    """

    rollout: Name
    stage: Stage
    role: Role
    assigned_at: float
    permitted_at: float | None = None
    since: float | None = None
    before: Annotated[dict[Label, Finite], Meta(max_length=limits.BEFORE)] = {}
    serial: Serial | None = None


class Journal(Document, frozen=True, tag_field="format", tag="whimbrel-journal-1"):
    """All of it, for one model."""

    model: Name
    state: State = State.IDLE
    candidate: Candidate | None = None
    going_back: GoingBack | None = None
    refused: Annotated[tuple[Refusal, ...], Meta(max_length=limits.REFUSED)] = ()
    memberships: tuple[Membership, ...] = ()
    outbox: Annotated[tuple[Announcement, ...], Meta(max_length=limits.OUTBOX)] = ()
    stopped_at: float | None = None  # when a policy alone first offered no version (device/stopping.py)


def seal(value: object) -> bytes:
    """The bytes of a journal or pointer: SHA-256 in hexadecimal, a new line, JSON."""
    body = documents.encode(value)
    return documents.digest_of(body).encode() + b"\n" + body


def unseal(kind: type[T], content: bytes, *, what: str) -> T:
    """Read what `seal` wrote. Raises `UntrustedInput` when it is torn or not understood."""
    digest, _, body = content.partition(b"\n")
    if digest != hashlib.sha256(body).hexdigest().encode():
        raise UntrustedInput(f"{what} is torn: its checksum does not fit its {len(body)} bytes")
    return documents.parse(kind, body, what=what)


def recovered(pointer: Pointer, *, reason: str) -> Journal:
    """The journal of a device whose own cannot be read: a trial is taken back, what was committed is kept."""
    if pointer.trial and pointer.active is not None:
        to = pointer.fallback.serial if pointer.fallback else None
        return Journal(
            model=pointer.model,
            state=State.GOING_BACK,
            going_back=GoingBack(leaves=pointer.active.serial, to=to, by_policy=False, reason=reason),
        )
    return Journal(model=pointer.model, state=State.COMMITTED if pointer.active else State.IDLE)
