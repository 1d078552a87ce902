"""The record of a set: several models change together or not at all, for it is durable before the first pointer moves.

1. A release's `requires` names the others of its set. A set is swapped when all of it is ready, behind all swap locks.
2. The record says what each model opens from now on. Until every pointer says so too, sessions believe the record: a
   power cut between two pointers is seen by nobody.
3. It is removed when the last pointer is there; whoever starts again moves those that are missing.
"""

from pathlib import Path
from typing import Annotated

import msgspec

from whimbrel import limits
from whimbrel.agent.disk import Disk
from whimbrel.device.journal import seal, unseal
from whimbrel.device.slots import Held, Pointer, swapped
from whimbrel.errors import UntrustedInput
from whimbrel.model.documents import Document
from whimbrel.model.ids import Name


class Together(Document, frozen=True, tag_field="format", tag="whimbrel-set-1"):
    """What each model of the set opens."""

    held: Annotated[dict[Name, Held], msgspec.Meta(min_length=2, max_length=limits.SET_MODELS)]


def record_place(model_folder: Path) -> Path:
    """Where the record lies: beside the models' folders."""
    return model_folder.parent / ".set"


def encode(held: dict[str, Held]) -> bytes:
    """The record's bytes."""
    return seal(Together(held=held))


def decode(content: bytes | None) -> dict[str, Held]:
    """What a record says; a torn one was never believed by anybody."""
    try:
        return dict(unseal(Together, content, what="the record of a set").held) if content else {}
    except UntrustedInput:
        return {}


def remove_record(record: Path, *, disk: Disk) -> None:
    """Every pointer says what the record says: it goes, and durably, before any of them says something else."""
    disk.remove(record)
    disk.sync(record.parent)


def believed(pointer: Pointer | None, model: str, record: dict[str, Held]) -> Pointer | None:
    """What a session opens: as the record says, where there is one."""
    held = record.get(model)
    if held is None:
        return pointer
    return swapped(pointer or Pointer(model=model), held)
