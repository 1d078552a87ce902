"""Is one identity on two machines: a copied SD card, a cloned disk, one id given to two boards?

An agent draws a new epoch after every boot, and where its folder was copied. Within an epoch it numbers its windows,
and what was sent once under a number never changes (agent/spool). So there are three signs of a second installation:

1. *It came back*: an epoch tells new windows after another epoch of the same device told some. An agent sends what is
   left of the epoch before first, so its own epochs never take turns. A device that was installed anew, or wiped, has a
   new epoch, and the one before never comes back.
2. *It contradicts*: a number comes again with other contents (a machine that was cloned while it ran keeps its epoch).
3. *It lags*: a number comes again that is older than every number remembered; what a network delays is not so old.

One sign alone may be an accident (a machine set back to an earlier snapshot, a server of another version in between),
so people are told at the second one within a week, and again when signs come after a quiet week.

Pure. Called for each batch of reports, before its windows are counted.
"""

from collections.abc import Mapping, Sequence

import msgspec
import xxhash

from whimbrel import limits
from whimbrel.flows.device_records import SequenceMark
from whimbrel.flows.devices.records import DuplicateIdentity
from whimbrel.health.report import Batch, Window

_EPOCH_CHARS = 8  # of an epoch, in a sentence


def sign_of_duplicate(marks: Mapping[str, SequenceMark], batch: Batch) -> str:
    """What contradicts that one installation sends this batch; "" for nothing. `marks`: the device's, by epoch."""
    mark = marks.get(batch.epoch)
    if mark is None or not batch.windows:
        return ""
    epoch = batch.epoch[:_EPOCH_CHARS]
    if batch.windows[-1].last > mark.last:
        after = max(((other.at, name) for name, other in marks.items() if name != batch.epoch), default=(0.0, ""))
        if mark.at and after[0] > mark.at:
            return f"installation {epoch} reports again after installation {after[1][:_EPOCH_CHARS]} did"
    for window in batch.windows:
        if window.last in mark.digests and mark.digests[window.last] != digest_of(window):
            return f"installation {epoch} sent window {window.last} twice, with different contents"
    newest = batch.windows[-1].last
    if len(mark.digests) == limits.WINDOW_DIGESTS and newest < min(mark.digests):
        return f"installation {epoch} sent window {newest} again, long after window {mark.last}"
    return ""


def digest_of(window: Window) -> str:
    """What tells two windows apart: XXH64 of the window as JSON."""
    return xxhash.xxh64_hexdigest(msgspec.json.encode(window))


def digests_after(mark: SequenceMark | None, fresh: Sequence[Window]) -> dict[int, str]:
    """The digests that are remembered when `fresh` windows were tallied: of the newest ones."""
    remembered = dict(mark.digests) if mark is not None else {}
    remembered |= {window.last: digest_of(window) for window in fresh[-limits.WINDOW_DIGESTS :]}
    return {last: remembered[last] for last in sorted(remembered)[-limits.WINDOW_DIGESTS :]}


def with_sign(before: DuplicateIdentity | None, device_id: str, because: str, *, at: float) -> DuplicateIdentity:
    """What is known of a device after one more sign. `noticed_at` equals `at` where people are to be told now."""
    if before is None or at - before.last_at > limits.DUPLICATE_WITHIN_S:
        return DuplicateIdentity(device_id=device_id, signs=1, first_at=at, last_at=at, because=because)
    signs = before.signs + 1
    noticed_at = before.noticed_at
    if noticed_at is None and signs >= limits.DUPLICATE_SIGNS:
        noticed_at = at
    return msgspec.structs.replace(
        before, signs=signs, last_at=max(at, before.last_at), noticed_at=noticed_at, because=because
    )
