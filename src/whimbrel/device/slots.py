"""The pointer: what the two slots of a model hold, and which one apps open. One small file, swapped whole.

1. `active` is what a session opens. `fallback` is what the other slot holds: it ran before.
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


class Content(Document, frozen=True):
    """One file of a slot, or one unpacked folder with the digest of its tree."""

    name: str
    sha256: Digest
    folder: bool = False


class Held(Document, frozen=True):
    """A version in a slot, complete and verified. `entry`: what an app opens, a name within the slot."""

    slot: SlotName
    serial: Serial
    version: str
    entry: str
    contents: Annotated[tuple[Content, ...], Meta(min_length=1, max_length=limits.FILES)]
    reference: Reference | None = None  # into whose bins sessions sort what it predicts


class Pointer(Document, frozen=True, tag_field="format", tag="whimbrel-pointer-1"):
    """What a model's slots hold. `trial`: the active one is not committed yet."""

    model: Name
    active: Held | None = None
    fallback: Held | None = None
    trial: bool = False

    @property
    def serial(self) -> int | None:
        """The active serial."""
        return self.active.serial if self.active else None

    @property
    def inactive(self) -> SlotName:
        """The slot that a new version may be staged in."""
        return "b" if self.active is not None and self.active.slot == "a" else "a"


def without_inactive(pointer: Pointer) -> Pointer:
    """The pointer that must be durable before the inactive slot is emptied."""
    return msgspec.structs.replace(pointer, fallback=None)


def swapped(pointer: Pointer, held: Held) -> Pointer:
    """`held` active on trial, and what was active behind it. Doing it twice is doing it once."""
    if pointer.active == held:
        return pointer
    return msgspec.structs.replace(pointer, active=held, fallback=pointer.active, trial=True)


def committed(pointer: Pointer) -> Pointer:
    """The trial is over."""
    return msgspec.structs.replace(pointer, trial=False)


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
