"""The pointer: what the two slots of a model hold, and which one apps open. One small file, swapped whole.

1. `active` is what a session opens. `fallback` is what the other slot holds: it ran before. `stopped` is what ran until
   the policy offered no version: no session opens it, and it is kept because a stop may be over (device/stopping.py).
2. A slot's files are never changed in place: it is emptied, and before that the pointer no longer names it.
3. The pointer alone is enough to go back by: it is read when the journal cannot be.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from whimbrel import limits
from whimbrel.model.documents import Document
from whimbrel.model.ids import Digest, Name, Serial
from whimbrel.model.release import Reference

SlotName = Literal["a", "b"]


class Opened(Document, frozen=True):
    """What an age file holds: the file that the release names."""

    sha256: Digest
    size_bytes: int


class Content(Document, frozen=True):
    """One file of a slot, or one unpacked folder with the digest of its tree. `opens_to`: where the slot holds the file
    sealed, what it holds.
    """

    name: str
    sha256: Digest
    folder: bool = False
    opens_to: Opened | None = None

    @property
    def file_sha256(self) -> str:
        """The digest by which the release names this file."""
        return self.opens_to.sha256 if self.opens_to is not None else self.sha256


class Held(Document, frozen=True):
    """A version in a slot, complete and verified. `entry`: what an app opens, a name within the slot. `sealed`: it
    travelled sealed.
    """

    slot: SlotName
    serial: Serial
    version: str
    entry: str
    contents: Annotated[tuple[Content, ...], Meta(min_length=1, max_length=limits.FILES)]
    reference: Reference | None = None  # into whose bins sessions sort what it predicts
    sealed: bool = False

    @property
    def is_sealed_at_rest(self) -> bool:
        """Whether the slot holds it sealed, so that a session opens it into memory."""
        return any(content.opens_to is not None for content in self.contents)


class Pointer(Document, frozen=True, tag_field="format", tag="whimbrel-pointer-1"):
    """What a model's slots hold. `trial`: the active one is not committed yet."""

    model: Name
    active: Held | None = None
    fallback: Held | None = None
    trial: bool = False
    stopped: Held | None = None

    @property
    def serial(self) -> int | None:
        """The active serial."""
        return self.active.serial if self.active else None

    @property
    def inactive(self) -> SlotName:
        """The slot that a new version may be staged in."""
        kept = self.active or self.stopped
        return "b" if kept is not None and kept.slot == "a" else "a"


def without_inactive(pointer: Pointer) -> Pointer:
    """The pointer that must be durable before the inactive slot is emptied."""
    stopped = pointer.stopped
    if stopped is not None and stopped.slot == pointer.inactive:
        stopped = None
    return msgspec.structs.replace(pointer, fallback=None, stopped=stopped)


def swapped(pointer: Pointer, held: Held) -> Pointer:
    """`held` active on trial, and what was active behind it. Doing it twice is doing it once."""
    if pointer.active == held:
        return pointer
    return msgspec.structs.replace(pointer, active=held, fallback=pointer.active, trial=True)


def committed(pointer: Pointer) -> Pointer:
    """The trial is over. What was stopped before it is needed no more."""
    return msgspec.structs.replace(pointer, trial=False, stopped=None)


def back(pointer: Pointer) -> Pointer:
    """The fallback active again. What was on trial is forgotten; what was committed stays as the new fallback."""
    left = None if pointer.trial else pointer.active
    return msgspec.structs.replace(pointer, active=pointer.fallback, fallback=left, trial=False)


def left(pointer: Pointer) -> Pointer:
    """The fallback active again. What was active is forgotten: it did badly here, and is nothing to go back to."""
    return msgspec.structs.replace(pointer, active=pointer.fallback, fallback=None, trial=False)


def emptied(pointer: Pointer) -> Pointer:
    """No version is offered."""
    return Pointer(model=pointer.model)


def stopped(pointer: Pointer) -> Pointer:
    """No version is offered, and what was active is kept. Doing it twice is doing it once."""
    return Pointer(model=pointer.model, stopped=pointer.active or pointer.stopped)


def resumed(pointer: Pointer) -> Pointer:
    """What was stopped is active again."""
    return Pointer(model=pointer.model, active=pointer.stopped)
