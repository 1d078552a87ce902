"""What is left of a device's folder when the power goes? The agent's `Disk` port over real files, and what is durable.

1. Files lie in memory (a temporary file system where there is one), so that sessions, locks and the TUF cache are the
   real ones. What the disk would keep is modelled beside them.
2. `write` is durable. What `append`, `replace`, `move` and `remove` did is not, before its file and folder were synced:
   a power cut leaves the old, the new, or a torn file; the two ends of a move share one fate.
3. Any change may be the last: the power goes, or the process is killed, before it, after it, or in its middle.
"""

import errno
import random
from collections.abc import Callable
from pathlib import Path

import msgspec

from whimbrel.agent.disk import RealDisk


class Ended(BaseException):
    """The process is gone: killed, or with the power of its device."""


_FLUSHED_S = 40.0  # Linux writes what is dirty for 30 s, and a journal commits every 5 s


class _Pending(msgspec.Struct):
    """What a path held on the disk (None: nothing), before a change that is not durable. `fate` is shared by moves."""

    before: bytes | None
    synced: bool
    fate: int
    at: float


class Folder(RealDisk):
    """The disk of one device."""

    def __init__(self, chance: random.Random, now: Callable[[], float]) -> None:
        self.full = False
        self._now = now
        self.changes_left: int | None = None  # until the process ends
        self._chance = chance
        self._pending: dict[Path, _Pending] = {}
        self._fates = 0
        self._over = False

    # --- the port ---

    def write(self, path: Path, content: bytes, *, mode: int = 0o644) -> None:  # noqa: ARG002 (the port's)
        self._change()
        self._room()
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_bytes(content)
        temporary.replace(path)
        self._pending.pop(path, None)
        self._after()

    def replace(self, path: Path, content: bytes) -> None:
        self._change()
        self._room()
        self._note(path)
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_bytes(content)
        temporary.replace(path)
        self._pending[path].synced = False
        self._after()

    def append(self, path: Path, content: bytes) -> None:
        half = self._last() and self._chance.random() < 0.5
        if not half:
            self._change()
        self._room()
        self._note(path)
        self._pending[path].synced = False
        super().append(path, content[: len(content) // 2] if half else content)
        if half:
            self._change()
        self._after()

    def sync(self, path: Path) -> None:
        self._change()
        if path.is_dir():
            fates = {each.fate for where, each in self._pending.items() if where.parent == path}
            for where, each in list(self._pending.items()):
                if each.fate in fates:
                    if each.synced or not where.exists():
                        del self._pending[where]
                    else:
                        each.before = b""  # the name is durable, and the bytes behind it are not
        elif (held := self._pending.get(path)) is not None:
            held.synced = True
            if held.before is not None:
                del self._pending[path]  # its name was durable already
        self._after()

    def move(self, source: Path, target: Path) -> None:
        self._change()
        self._note(source)
        self._note(target)
        moved = self._pending[source]
        self._pending[target].synced = moved.synced
        self._pending[target].fate = moved.fate
        super().move(source, target)
        self._after()

    def remove(self, path: Path) -> None:
        self._change()
        for each in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if each.is_file():
                self._note(each)
        super().remove(path)
        self._after()

    # --- the faults ---

    def begin(self) -> None:
        """A new process."""
        self._over, self.changes_left = False, None

    def lose_power(self, root: Path) -> None:
        """Leave below `root` what a disk might."""
        now = self._now()
        pending = {path: each for path, each in self._pending.items() if now - each.at <= _FLUSHED_S}
        fates = {each.fate: self._chance.random() for each in pending.values()}
        for path, each in pending.items():
            if fates[each.fate] < 0.4:
                self._restore(path, each.before)
            elif not each.synced and path.exists() and self._chance.random() < 0.6:
                content = path.read_bytes()
                durable = len(each.before) if each.before and content.startswith(each.before) else 0
                kept = self._chance.randrange(durable, len(content) + 1)
                torn = content[:kept] + bytes(len(content) - kept if self._chance.random() < 0.5 else 0)
                path.write_bytes(torn)
        self._pending.clear()
        for path in sorted(root.glob("trust/metadata/*")) + sorted(root.glob("models/*/sessions/*")):
            if path.is_file() and self._chance.random() < 0.1:  # written around the port, and never synced
                content = path.read_bytes()
                path.write_bytes(content[: self._chance.randrange(len(content) + 1)])

    def _restore(self, path: Path, content: bytes | None) -> None:
        if content is None:
            path.unlink(missing_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def _note(self, path: Path) -> None:
        now = self._now()
        held = self._pending.get(path)
        if held is None or now - held.at > _FLUSHED_S:
            self._fates += 1
            # What is not pending is durable: a file that is only removed or moved has its bytes on the disk.
            self._pending[path] = _Pending(self.read(path), synced=True, fate=self._fates, at=now)
        else:
            held.at = now

    def _last(self) -> bool:
        return self.changes_left == 0

    def _change(self) -> None:
        if self._over:
            raise Ended
        if self.changes_left is not None:
            if self.changes_left <= 0 and self._chance.random() < 0.5:
                self._over = True
                raise Ended
            self.changes_left -= 1

    def _after(self) -> None:
        if self.changes_left is not None and self.changes_left < 0:
            self._over = True
            raise Ended

    def _room(self) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
