"""Does the active version crash again and again? The count of crashes, as pure changes of one small value.

1. Crashes count one by one where they came one after the other: a start that finds crashes since the last start counts
   one more, however many processes died at that moment.
2. A session of the version that ended well, or lives well for `limits.STEADY_S`, sets the count to zero.
3. Another version, or the same one in the other slot, begins at zero.

Every session's start keeps the count, and so does every look of the agent: neither needs the other.
"""

from collections.abc import Collection, Iterable
from typing import Annotated

import msgspec
from msgspec import Meta

from whimbrel import limits
from whimbrel.device.slots import Held, SlotName
from whimbrel.model.documents import Document
from whimbrel.model.ids import Serial


class CrashLoop(Document, frozen=True, tag_field="format", tag="whimbrel-crashes-1"):
    """Crashes of one version in a row. `counted`: sessions whose crash is in the count, or will never be."""

    serial: Serial
    slot: SlotName
    crashes: Annotated[int, Meta(ge=0)] = 0
    counted: Annotated[tuple[str, ...], Meta(max_length=2 * limits.CRASHES_IN_A_ROW)] = ()


def count_of(kept: CrashLoop | None, held: Held) -> CrashLoop:
    """The count of `held`: what was kept, or zero where that is another version's."""
    if kept is not None and (kept.serial, kept.slot) == (held.serial, held.slot):
        return kept
    return CrashLoop(serial=held.serial, slot=held.slot)


def after_crashes(loop: CrashLoop, crashed: Collection[str], *, still_there: Collection[str]) -> CrashLoop:
    """The count after these sessions were found dead. `still_there`: the names of all marks."""
    new = sorted(set(crashed) - set(loop.counted))
    if not new:
        return loop
    return msgspec.structs.replace(
        loop, crashes=loop.crashes + 1, counted=_remembered((*loop.counted, *new), still_there)
    )


def after_good(loop: CrashLoop, *, names: Iterable[str] = (), still_there: Collection[str]) -> CrashLoop:
    """The count after a session went well. `names`: sessions that count no more, whatever becomes of them."""
    return msgspec.structs.replace(loop, crashes=0, counted=_remembered((*loop.counted, *names), still_there))


def reason_to_leave(loop: CrashLoop, *, most: int) -> str:
    """Why the version is left; "" while it is not. `most`: crashes in a row that end it, 0: no number does."""
    if not most or loop.crashes < most:
        return ""
    return f"{loop.crashes} sessions of serial {loop.serial} ended their process one after the other"


def _remembered(names: Iterable[str], still_there: Collection[str]) -> tuple[str, ...]:
    present = set(still_there)
    return tuple(dict.fromkeys(name for name in names if name in present))[-2 * limits.CRASHES_IN_A_ROW :]
