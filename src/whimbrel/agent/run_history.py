"""The run history of this device, on its disk: kept crash-safe, signed with the device's key, sent with the reports.

1. The pointer of a model is durable before the log tells of it. An entry is made at once, in memory, and written when
   the swap's locks are free: a full disk hinders no swap. What the process could not write is seen by the next one.
2. What a session left while no cycle ran is told when a cycle follows it: the change lies between two looks.
3. A head is counted durably before it is sent, so that no number is signed twice by the device itself.
4. A device without a key (it only listens) keeps the log too; nobody vouches for it.
"""

import secrets
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from whimbrel import limits
from whimbrel.agent.disk import Disk
from whimbrel.agent.places import Places, read_pointer
from whimbrel.device.journal import Journal, seal, unseal
from whimbrel.device.ports import Clock
from whimbrel.device.run_history import (
    RunLog,
    Times,
    bounded,
    head_of,
    new_log,
    newest_entries,
    next_number,
    part_of,
    with_model,
)
from whimbrel.device.slots import Pointer
from whimbrel.errors import UntrustedInput
from whimbrel.health.run_history import RunEntry, RunHistoryPart, text_to_sign
from whimbrel.model.documents import encode
from whimbrel.trust.possession import base64url, public_key_of

FILE = "runs.log"
_replace = msgspec.structs.replace


class ModelOnDisk(Protocol):
    """What the log must know of a model."""

    @property
    def model(self) -> str: ...
    @property
    def places(self) -> Places: ...
    @property
    def journal(self) -> Journal: ...
    @property
    def pointer(self) -> Pointer: ...


class RunHistory:
    """The log of one device. `key`: its key, where it has one. `signed_time`: the newest that a signature taught."""

    def __init__(
        self,
        folder: Path,
        *,
        device_id: str,
        key: Callable[[], Ed25519PrivateKey | None],
        disk: Disk,
        now: Clock,
        signed_time: Clock,
    ) -> None:
        self._path = folder / FILE
        self._device_id = device_id
        self._key, self._disk, self._now, self._signed_time = key, disk, now, signed_time
        self._log: RunLog | None = None
        self._newest: dict[str, RunEntry] = {}
        self._looked_at: dict[str, float] = {}  # by this process: when the log last said what was active of a model
        self._is_written = True

    def look(self, state: ModelOnDisk) -> None:
        """Tell what changed of a model while nobody looked. At the start and at the end of a pass."""
        self._add(state.pointer, state.journal, unseen_since=self._unseen_since(state.model))
        if _is_believed(state):
            self._looked_at[state.model] = self._now()  # else apps have another version already

    def changed(self, state: ModelOnDisk, *, late: bool = False) -> None:
        """Tell that the pointer of a model was changed just now. `late`: apps believed what it says before."""
        going = state.journal.going_back
        late = late or (going is not None and not going.by_policy)  # apps may have left before the cycle saw it
        since = self._unseen_since(state.model) if late else None
        self._add(state.pointer, state.journal, unseen_since=since)

    def keeps_only(self, models: Collection[str]) -> None:
        """Tell that models which this agent does not keep any more are not active here."""
        self._read()
        for model, entry in list(self._newest.items()):
            if model not in models and entry.serial is not None:
                self._add(Pointer(model=model), Journal(model=model), unseen_since=self._unseen_since(model))

    def save(self) -> None:
        """Make the log durable: at once where it has new entries, else once in a while. Raises `OSError`."""
        log = self._read()
        now = min(self._looked_at.values(), default=log.seen_at)
        if self._is_written and 0 <= now - log.seen_at < limits.RUN_HEAD_S:
            return
        self._write(_replace(log, seen_at=now))

    def part(self) -> RunHistoryPart | None:
        """What is to be sent with the next batch of reports; None for nothing. Raises `OSError`.

        Its head is signed anew where entries wait, or where the last one is old.
        """
        log, key = self._read(), self._key()
        if key is None:
            return None
        public_key = public_key_of(key)
        if log.public_key not in {"", public_key}:
            self._begin_anew()
            return None  # the next look says what is active
        waits, now = log.newest > log.acknowledged, self._now()
        before = msgspec.json.decode(log.head) if log.head else None
        if not waits and before is not None and 0 <= now - before["at"] < limits.RUN_HEAD_S:
            return None
        if before is None or not waits or before["number"] <= log.acknowledged:
            times = Times(at=now, signed_time=self._signed_time())
            head = encode(head_of(log, next_number(log), public_key=public_key, times=times)).decode()
            signature = base64url(key.sign(text_to_sign(head)))
            signed = _replace(log, public_key=public_key, head=head, signature=signature, heads=log.heads + 1)
            self._write(_replace(signed, seen_at=min(self._looked_at.values(), default=log.seen_at)))
        return part_of(self._read())

    def acknowledged(self, part: RunHistoryPart) -> None:
        """The server has stored this part, or will never take it. Not durable at once: what comes twice counts once."""
        log = self._read()
        number = msgspec.json.decode(part.head)["number"]
        self._log = _replace(log, acknowledged=max(log.acknowledged, min(number, log.newest)))
        self._is_written = self._is_written and not part.entries

    def send_again(self) -> None:
        """The server knows this device by a new credential: it may have forgotten what it had."""
        log = self._read()
        if log.acknowledged:
            self._log, self._is_written = _replace(log, acknowledged=0), False

    def _unseen_since(self, model: str) -> float:
        log = self._read()
        return self._looked_at.get(model, log.seen_at if model in self._newest else 0.0)

    def _add(self, pointer: Pointer, journal: Journal, *, unseen_since: float | None) -> None:
        log = self._read()
        times = Times(at=self._now(), signed_time=self._signed_time(), unseen_since=unseen_since)
        after = with_model(log, pointer, journal, self._newest.get(pointer.model), times)
        if after == log:
            return
        self._log, self._is_written = bounded(after), False
        if self._log.newest != log.newest:
            self._newest = newest_entries(self._log)

    def _read(self) -> RunLog:
        if self._log is None:
            kept = read_log(self._path, disk=self._disk)
            if kept is None or kept.device_id != self._device_id:
                self._begin_anew()
            else:
                self._log, self._newest = kept, newest_entries(kept)
        return self._log or self._begin_anew()

    def _begin_anew(self) -> RunLog:
        self._log = log = new_log(secrets.token_hex(8), device_id=self._device_id)
        self._newest, self._is_written = {}, True  # nothing to write yet
        return log

    def _write(self, log: RunLog) -> None:
        self._disk.write(self._path, seal(log))
        self._log, self._is_written = log, True


def _is_believed(state: ModelOnDisk) -> bool:
    """Whether apps open what the pointer says: no record of a set, or of a version that was left, says otherwise."""
    try:
        believed = read_pointer(state.places)
    except UntrustedInput:
        return False
    return (believed.active if believed is not None else None) == state.pointer.active


def read_log(path: Path, *, disk: Disk) -> RunLog | None:
    """The log of a device; None where there is none, or where it is torn: a new one begins, and says so by its name."""
    content = disk.read(path)
    try:
        return unseal(RunLog, content, what=str(path)) if content else None
    except UntrustedInput:
        return None
