"""A file system in memory, behind the agent's `Disk` port, that knows what a power cut may leave of the files.

1. Written bytes are visible at once, and durable after `sync` of the file. Before the sync a power cut leaves what was
   durable, all of the new bytes, a torn part of them, or their length without the bytes.
2. A name (made, renamed or removed) is visible at once, and durable after `sync` of its folder. Before the sync a power
   cut leaves the first few of these changes, in order, or any of them. A rename is atomic: both names change or
   neither. To sync a file does not make its name durable; to sync a folder does not make its files' bytes durable
   (POSIX).
3. `crash(choose)` gives one state that a power cut may leave, `states` gives all of them, or a sample. The disk itself
   is not changed. Locks do not survive a crash, nor the end of a process (`let_go`).
4. `before` is called with every change before it is made, and with every lock ("hold"): it may raise `PowerCut`, or an
   `OSError` for a full disk, or take a `copy`. After a `PowerCut` every further change raises it too, whatever the
   code does on its way out.
5. `leave_out` names calls of `sync` that do nothing, as `file.py:function:line`; for a durable write followed by
   ` of file.py:function` of its caller. With it a suite of power cuts checks itself.

Used by tests/crash and by the simulator, by one thread at a time. The durable write is that of durable.py.
"""

import errno
import hashlib
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from whimbrel import durable, limits
from whimbrel.durable import make_folders, replace, write_durably
from whimbrel.errors import InvariantBroken

Choose = Callable[[int], int]  # a number in [0, n)
Before = Callable[[str, Path], None]

_ROOT = 0
_WRITING = frozenset({__file__, durable.__file__})
_SWEEP = 8  # how often it is settled before what has no name any more is forgotten
_FATES = 4  # of a file that was not synced: what was durable, all, torn, length without bytes


class PowerCut(BaseException):
    """The machine is off."""


class _Node(NamedTuple):
    """A file, or a folder (`entries`). `durable`: bytes at the last sync; `unsynced`: writes since, in order."""

    entries: tuple[tuple[str, int], ...] | None = None
    durable: bytes = b""
    unsynced: tuple[bytes, ...] = ()
    mode: int = 0o644
    version: int = 0

    @property
    def content(self) -> bytes:
        return self.durable + b"".join(self.unsynced) if self.unsynced else self.durable


class _Change(NamedTuple):
    """Names that change together: (folder, name, node or None)."""

    names: tuple[tuple[int, str, int | None], ...]


class ModelledDisk:
    """The `Disk` port in memory. Paths are absolute; `/` is there."""

    def __init__(self, *, boot: int = 1) -> None:
        self.before: Before | None = None
        self.leave_out: frozenset[str] = frozenset()
        self.synced_at: set[str] = set()  # the calls of `sync` so far
        self.notes_callers = True  # of `sync`: this costs more than the sync, and only a suite of power cuts needs it
        self.is_off = False
        self._boot = boot
        self._nodes: dict[int, _Node] = {}
        self._names: dict[int, dict[str, int]] = {_ROOT: {}}  # as processes see them
        self._durable_names: dict[int, dict[str, int]] = {_ROOT: {}}
        self._changes: list[_Change] = []  # not durable yet
        self._last = _ROOT
        self._locks: dict[int, _Hold] = {}
        self._settled = 0

    # --- power ---

    def copy(self) -> "ModelledDisk":
        """A copy of the disk as it is now: switched on, and without locks."""
        other = ModelledDisk(boot=self._boot)
        other.leave_out = self.leave_out
        other._nodes = dict(self._nodes)
        other._names = {folder: dict(names) for folder, names in self._names.items()}
        other._durable_names = {folder: dict(names) for folder, names in self._durable_names.items()}
        other._changes = list(self._changes)
        other._last = self._last
        return other

    def let_go(self) -> None:
        """All processes end: their locks are released, and their writes stay."""
        self._locks.clear()

    def freedom(self) -> int:
        """How many ways a power cut has now, at most."""
        changes = len(self._changes)
        return int((changes + 1 + 2**changes) * _FATES ** sum(bool(node.unsynced) for node in self._nodes.values()))

    def crash(self, choose: Choose) -> "ModelledDisk":
        """One state that a power cut may leave, durable as a whole, after a new boot."""
        names = {folder: dict(entries) for folder, entries in self._durable_names.items()}
        for change in self._survivors(choose):
            for folder, name, node in change.names:
                _set(names.setdefault(folder, {}), name, node)
        left = ModelledDisk(boot=self._boot + 1)
        left.leave_out = self.leave_out
        left._last = self._last
        left._names = {}
        waiting = [_ROOT]
        while waiting:
            folder = waiting.pop()
            left._names[folder] = names.get(folder, {})
            for node in left._names[folder].values():
                if node in self._names:
                    waiting.append(node)
                elif node not in left._nodes:
                    left._nodes[node] = self._fate(self._nodes[node], choose)
        left._durable_names = {folder: dict(entries) for folder, entries in left._names.items()}
        return left

    def settle(self) -> None:
        """Make everything durable, as when nothing was written for a while."""
        for change in self._changes:
            for folder, name, node in change.names:
                _set(self._durable_names[folder], name, node)
        self._changes.clear()
        for number, file in self._nodes.items():
            if file.unsynced:
                self._nodes[number] = file._replace(durable=file.content, unsynced=())
        self._settled += 1
        if self._settled % _SWEEP == 0:
            self._sweep()

    def _sweep(self) -> None:
        """Forget files and folders without a name, here and after a power cut. Called when all is durable."""
        folders: list[int] = [_ROOT]
        files: list[int] = []
        for folder in folders:  # the list grows while it is read
            for node in self._names[folder].values():
                (folders if node in self._names else files).append(node)
        self._names = {folder: self._names[folder] for folder in folders}
        self._durable_names = {folder: self._durable_names[folder] for folder in folders}
        self._nodes = {number: self._nodes[number] for number in files}

    def states(self, *, most: int, chance: random.Random) -> Iterator["ModelledDisk"]:
        """Every state that a power cut may leave; where there may be more than `most`: the two extremes, and a sample.

        States that look alike are given once.
        """
        fingerprints: set[str] = set()
        crashes = every(self.crash) if self.freedom() <= most else self._sample(most, chance)
        for state in crashes:
            fingerprint = state.fingerprint()
            if fingerprint not in fingerprints:
                fingerprints.add(fingerprint)
                yield state

    def fingerprint(self) -> str:
        """The same for disks with the same names and bytes."""
        digest = hashlib.sha256()

        def walk(folder: int, path: str) -> None:
            for name, node in sorted(self._names[folder].items()):
                if node in self._names:
                    digest.update(f"{path}/{name}/\n".encode())
                    walk(node, f"{path}/{name}")
                else:
                    digest.update(f"{path}/{name} {len(self._nodes[node].content)}\n".encode())
                    digest.update(self._nodes[node].content)

        walk(_ROOT, "")
        return digest.hexdigest()

    def _sample(self, most: int, chance: random.Random) -> Iterator["ModelledDisk"]:
        yield self.crash(lambda _: 0)
        yield self.crash(lambda n: min(1, n - 1))
        for _ in range(most - 2):
            yield self.crash(chance.randrange)

    def _survivors(self, choose: Choose) -> list[_Change]:
        if not self._changes:
            return []
        if choose(2) == 0:
            return self._changes[: choose(len(self._changes) + 1)]
        return [change for change in self._changes if choose(2)]

    @staticmethod
    def _fate(node: _Node, choose: Choose) -> _Node:
        if not node.unsynced:
            return node
        fate = choose(_FATES)
        if fate == 0:
            content = node.durable
        elif fate == 1:
            content = node.content
        elif fate == 2:
            content = node.durable + b"".join(node.unsynced[:-1]) + node.unsynced[-1][: len(node.unsynced[-1]) // 2]
        else:
            content = node.durable + bytes(len(node.unsynced[0])) + b"".join(node.unsynced[1:])
        return node._replace(durable=content, unsynced=())

    def _about_to(self, what: str, path: Path) -> None:
        if self.is_off:
            raise PowerCut
        if self.before is not None:
            try:
                self.before(what, path)
            except PowerCut:
                self.is_off = True
                raise

    # --- the Disk port: reading ---

    def boot(self) -> str:
        return f"boot-{self._boot}"

    def read(self, path: Path) -> bytes | None:
        node = self._find(path)
        if node is None:
            return None
        if node in self._names:
            raise IsADirectoryError(errno.EISDIR, "Is a directory", str(path))
        return self._nodes[node].content

    def size(self, path: Path) -> int | None:
        node = self._find(path)
        if node is None:
            return None
        return 0 if node in self._names else len(self._nodes[node].content)

    def stamp(self, path: Path) -> object:
        node = self._find(path)
        return None if node is None or node in self._names else (node, self._nodes[node].version)

    def sha256(self, path: Path) -> str:
        return hashlib.sha256(self._content(path)).hexdigest()

    def is_folder(self, path: Path) -> bool:
        """Whether a folder is there."""
        return self._find(path) in self._names

    def names(self, folder: Path) -> list[str]:
        node = self._find(folder)
        return sorted(self._names[node]) if node in self._names and node is not None else []

    def files_below(self, folder: Path) -> list[str]:
        paths: list[str] = []
        for name in self.names(folder):
            if self.is_folder(folder / name):
                paths += [f"{name}/{below}" for below in self.files_below(folder / name)]
            else:
                paths.append(name)
        if len(paths) > limits.PACKAGE_FILES:
            raise OSError(f"{folder} holds more than {limits.PACKAGE_FILES} files")
        return sorted(paths)

    # --- the Disk port: changes ---

    def create(self, path: Path, content: bytes, *, mode: int = 0o644) -> None:
        self._about_to("create", path)
        folder = self._folder_of(path)
        if path.name in self._names[folder]:
            raise FileExistsError(errno.EEXIST, "File exists", str(path))
        self._last += 1
        self._nodes[self._last] = _Node(unsynced=(content,) if content else (), mode=mode)
        self._change((folder, path.name, self._last))

    def write(self, path: Path, content: bytes, *, mode: int = 0o644) -> None:
        self.make_folder(path.parent)
        write_durably(path, content, mode=mode, files=self)

    def replace(self, path: Path, content: bytes) -> None:
        replace(path, content, files=self)

    def append(self, path: Path, content: bytes) -> None:
        node = self._find(path)
        if node is None:
            self.create(path, content)
            return
        self._about_to("append", path)
        file = self._nodes[node]
        if content:
            self._nodes[node] = file._replace(unsynced=(*file.unsynced, content), version=file.version + 1)

    def sync(self, path: Path) -> None:
        site = _caller() if self.notes_callers else ""
        self.synced_at.add(site)
        self._about_to("sync", path)
        node = self._find(path)
        if node is None:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        if self.leave_out & {site, site.partition(" of ")[0]}:
            return
        if node in self._names:
            self._sync_names(node)
        else:
            file = self._nodes[node]
            self._nodes[node] = file._replace(durable=file.content, unsynced=())

    def move(self, source: Path, target: Path) -> None:
        self._about_to("move", target)
        before, after = self._folder_of(source), self._folder_of(target)
        node, there = self._names[before].get(source.name), self._names[after].get(target.name)
        if node is None:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(source))
        if there is not None and self._names.get(there):
            raise OSError(errno.ENOTEMPTY, "Directory not empty", str(target))
        self._change((before, source.name, None), (after, target.name, node))

    def remove(self, path: Path) -> None:
        node = self._find(path)
        if node is None:
            return
        if node in self._names:
            for name in self.names(path):
                self.remove(path / name)
        self._about_to("remove", path)
        self._change((self._folder_of(path), path.name, None))

    def make_folder(self, path: Path) -> None:
        make_folders(path, files=self)

    def add_folder(self, path: Path) -> None:
        if self.is_folder(path):
            return
        if self._find(path) is not None:
            raise NotADirectoryError(errno.ENOTDIR, "Not a directory", str(path))
        self._about_to("add_folder", path)
        self._last += 1
        self._names[self._last] = {}
        self._durable_names[self._last] = {}
        self._change((self._folder_of(path), path.name, self._last))

    # --- the Disk port: locks, and files for libraries ---

    def hold(self, path: Path, *, make: bool = True, wait: bool = False) -> "_Hold | None":
        self._about_to("hold", path)
        if self._find(path) is None:
            if not make:
                raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
            self.create(path, b"")
        node = self._find(path)
        if node is None:
            raise InvariantBroken(f"{path} is gone again")
        if node in self._locks:
            if wait:
                raise InvariantBroken(f"{path} is held in this one thread, and is waited for: it never ends")
            return None
        hold = self._locks[node] = _Hold(self._locks, node)
        return hold

    def is_held(self, path: Path) -> bool:
        return self._find(path) in self._locks

    @contextmanager
    def lend(self, *given: Path, made: Path | None = None) -> Iterator[tuple[Path, ...]]:
        with tempfile.TemporaryDirectory() as place:
            lent = []
            for number, path in enumerate((*given, *([made] if made else []))):
                real = Path(place, str(number), path.name)
                real.parent.mkdir()
                if path != made:
                    self._export(path, real)
                lent.append(real)
            yield tuple(lent)
            if made is not None and lent[-1].exists():
                self.remove(made)
                self._import(lent[-1], made)

    def _export(self, path: Path, real: Path) -> None:
        if self.is_folder(path):
            real.mkdir()
            for name in self.names(path):
                self._export(path / name, real / name)
        elif (content := self.read(path)) is not None:
            real.write_bytes(content)

    def _import(self, real: Path, path: Path) -> None:
        if real.is_dir():
            self.make_folder(path)
            for each in sorted(real.iterdir()):
                self._import(each, path / each.name)
        else:
            self.create(path, real.read_bytes())

    # --- parts ---

    def _find(self, path: Path) -> int | None:
        return self._walk(path.parts[1:])

    def _walk(self, parts: tuple[str, ...]) -> int | None:
        node, names = _ROOT, self._names
        try:
            for part in parts:
                node = names[node][part]
        except KeyError:
            return None
        return node

    def _folder_of(self, path: Path) -> int:
        node = self._walk(path.parts[1:-1])
        if node is None or node not in self._names:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path.parent))
        return node

    def _content(self, path: Path) -> bytes:
        content = self.read(path)
        if content is None:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        return content

    def _change(self, *names: tuple[int, str, int | None]) -> None:
        for folder, name, node in names:
            _set(self._names[folder], name, node)
        self._changes.append(_Change(names))

    def _sync_names(self, folder: int) -> None:
        """Make durable what touches `folder`; an older change of the same name is over."""
        waiting: list[_Change] = []
        over: set[tuple[int, str]] = set()
        done: list[_Change] = []
        for change in reversed(self._changes):
            if change.names[0][0] == folder or change.names[-1][0] == folder:  # it has one or two
                done.append(change)
                over |= {(place, name) for place, name, _ in change.names}
            elif not over:
                waiting.append(change)
            elif left := tuple(each for each in change.names if each[:2] not in over):
                waiting.append(_Change(left))
        for change in reversed(done):
            for place, name, node in change.names:
                _set(self._durable_names[place], name, node)
        self._changes = waiting[::-1]


class _Hold:
    """A lock that is held."""

    def __init__(self, locks: "dict[int, _Hold]", node: int) -> None:
        self._locks = locks
        self._node = node

    def release(self) -> None:
        if self._locks.get(self._node) is self:
            del self._locks[self._node]


def every(crash: "Callable[[Choose], ModelledDisk]") -> Iterator[ModelledDisk]:
    """Every sequence of choices for `crash`, in the order of an odometer's wheels."""
    wheels: list[int] = []
    while True:
        turned: list[tuple[int, int]] = []

        def choose(n: int, turned: list[tuple[int, int]] = turned, wheels: list[int] = wheels) -> int:
            place = len(turned)
            turned.append((wheels[place] if place < len(wheels) else 0, n))
            return turned[-1][0]

        yield crash(choose)
        while turned and turned[-1][0] + 1 >= turned[-1][1]:
            turned.pop()
        if not turned:
            return
        wheels = [number for number, _ in turned]
        wheels[-1] += 1


def _set(names: dict[str, int], name: str, node: int | None) -> None:
    if node is None:
        names.pop(name, None)
    else:
        names[name] = node


def _caller() -> str:
    """The caller of `sync`, as file:function:line. For a durable write also that one's caller, after " of "."""
    frame = sys._getframe(2)
    site = f"{Path(frame.f_code.co_filename).name}:{frame.f_code.co_name}:{frame.f_lineno}"
    asking: FrameType | None = frame
    while asking is not None and asking.f_code.co_filename in _WRITING:
        asking = asking.f_back
    if asking is frame or asking is None:
        return site
    return f"{site} of {Path(asking.f_code.co_filename).name}:{asking.f_code.co_name}"
