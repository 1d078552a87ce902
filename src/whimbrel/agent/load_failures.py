"""The active version could not be loaded, and there was no version to leave it for: one durable note of that.

1. The session whose load failed writes it, so that it is known where no cycle runs.
2. A load that works, and a session that answered well, remove it. A note about another version says nothing.
3. Cycles try again to leave the version for it, and the status says why it stays.

Written by sessions; read by cycles and by the status.
"""

from typing import Annotated

from msgspec import Meta

from whimbrel import limits
from whimbrel.agent.places import Places
from whimbrel.device.slots import Held, SlotName
from whimbrel.errors import UntrustedInput
from whimbrel.model import documents
from whimbrel.model.documents import Document
from whimbrel.model.ids import Serial


class LoadFailure(Document, frozen=True, tag_field="format", tag="whimbrel-load-failure-1"):
    """What a version's load met, in words."""

    serial: Serial
    slot: SlotName
    reason: Annotated[str, Meta(max_length=limits.REASON_CHARS)]


def note_failure(places: Places, held: Held, reason: str) -> None:
    """Keep it, where the same is not kept already: an app may try again every second, and flash wears."""
    content = documents.encode(LoadFailure(serial=held.serial, slot=held.slot, reason=reason))
    if places.disk.read(places.load_failure) != content:
        places.disk.write(places.load_failure, content)


def failure_of(places: Places, held: Held | None) -> str:
    """What the last load of this version met; "" where it worked, or nothing is known."""
    content = places.disk.read(places.load_failure)
    try:
        failure = documents.parse(LoadFailure, content, what=str(places.load_failure)) if content else None
    except UntrustedInput:
        return ""
    is_its = failure is not None and held is not None and (failure.serial, failure.slot) == (held.serial, held.slot)
    return failure.reason if failure is not None and is_its else ""


def forget_failure(places: Places) -> None:
    """The version was loaded, or is left."""
    if places.disk.size(places.load_failure) is not None:
        places.disk.remove(places.load_failure)
