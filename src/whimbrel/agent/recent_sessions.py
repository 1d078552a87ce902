"""The newest sessions of the active version, as its signed limits look at them. Kept only where there is such a limit.

1. The file is replaced, not made durable: a power cut loses some sessions, and none is counted twice.
2. It is of one version in one slot; another one begins anew.
"""

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta

from whimbrel import limits
from whimbrel.agent.marks import Closed, Ended
from whimbrel.agent.places import Places
from whimbrel.device.limit_checks import SessionFigures
from whimbrel.device.slots import Held, SlotName
from whimbrel.errors import UntrustedInput
from whimbrel.model import documents
from whimbrel.model.documents import Document
from whimbrel.model.ids import Serial


class Recent(Document, frozen=True, tag_field="format", tag="whimbrel-recent-1"):
    """The file. `last`: names of the sessions that were added last: their summaries may still be there."""

    serial: Serial
    slot: SlotName
    sessions: Annotated[tuple[SessionFigures, ...], Meta(max_length=limits.LIMIT_SESSIONS_MOST)] = ()
    last: Annotated[tuple[str, ...], Meta(max_length=4 * limits.SESSION_FILES)] = ()


def add_sessions(places: Places, held: Held, ended: Sequence[Ended]) -> None:
    """Add the sessions of `held` that were closed."""
    recent = recent_of(places, held)
    new = [each for each in ended if each.name not in recent.last]
    figures = [figures_of(each.closed) for each in new if each.closed is not None and each.serial == held.serial]
    told = [each for each in figures if each != SessionFigures()]
    if not told:
        return
    kept = (*recent.sessions, *told)[-limits.LIMIT_SESSIONS_MOST :]
    after = Recent(serial=held.serial, slot=held.slot, sessions=kept, last=tuple(each.name for each in ended))
    places.disk.replace(places.recent, documents.encode(after))


def recent_of(places: Places, held: Held) -> Recent:
    """What is kept of `held`; nothing, where it is of another version or cannot be read."""
    content = places.disk.read(places.recent)
    try:
        kept = documents.parse(Recent, content, what=str(places.recent)) if content else None
    except UntrustedInput:
        kept = None
    if kept is not None and (kept.serial, kept.slot) == (held.serial, held.slot):
        return kept
    return Recent(serial=held.serial, slot=held.slot)


def figures_of(closed: Closed) -> SessionFigures:
    """What a session says; an accuracy that is no share says nothing."""
    if not closed.session:
        return SessionFigures()
    accuracy = closed.metrics.get("accuracy")
    mean = accuracy.sum / accuracy.n if accuracy is not None and accuracy.n else None
    return SessionFigures(
        errors=closed.errors / closed.inferences if closed.inferences else None,
        latency_key=closed.latency_key,
        accuracy=mean if mean is not None and 0 <= mean <= 1 else None,
    )
