"""The `Disk` port over a file system."""

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from whimbrel import limits
from whimbrel.agent.locks import FileHold, is_held, take_hold
from whimbrel.device import ports
from whimbrel.durable import RealFiles, make_folders, replace, write_durably

Disk = ports.Disk[Path]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class RealDisk(RealFiles):
    """Files where the paths say."""

    def boot(self) -> str:
        try:
            return _BOOT_ID.read_text().strip()
        except OSError:
            return ""  # no boot to tell apart here

    def read(self, path: Path) -> bytes | None:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None

    def write(self, path: Path, content: bytes, *, mode: int = 0o644) -> None:
        try:
            write_durably(path, content, mode=mode, files=self)
        except FileNotFoundError:
            self.make_folder(path.parent)
            write_durably(path, content, mode=mode, files=self)

    def replace(self, path: Path, content: bytes) -> None:
        replace(path, content, files=self)

    def size(self, path: Path) -> int | None:
        try:
            return path.stat().st_size
        except FileNotFoundError:
            return None

    def stamp(self, path: Path) -> object:
        try:
            status = path.stat()
        except FileNotFoundError:
            return None
        return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size

    def free_bytes(self, folder: Path) -> int:
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        return shutil.disk_usage(folder).free

    def append(self, path: Path, content: bytes) -> None:
        with path.open("ab") as file:
            file.write(content)

    def sha256(self, path: Path) -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def remove(self, path: Path) -> None:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def make_folder(self, path: Path) -> None:
        make_folders(path, files=self)

    def names(self, folder: Path) -> list[str]:
        try:
            return sorted(os.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def files_below(self, folder: Path) -> list[str]:
        paths: list[str] = []
        for place, folders, files in os.walk(folder):
            for name in [*folders, *files]:
                mode = os.lstat(os.path.join(place, name)).st_mode
                if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                    raise OSError(f"{os.path.join(place, name)} is neither a file nor a folder")
            paths += [Path(place, name).relative_to(folder).as_posix() for name in files]
            if len(paths) > limits.PACKAGE_FILES:
                raise OSError(f"{folder} holds more than {limits.PACKAGE_FILES} files")
        return sorted(paths)

    def hold(self, path: Path, *, make: bool = True, wait: bool = False) -> FileHold | None:
        return take_hold(path, make=make, wait=wait)

    def is_held(self, path: Path) -> bool:
        return is_held(path)

    @contextmanager
    def lend(self, *given: Path, made: Path | None = None) -> Iterator[tuple[Path, ...]]:
        yield (*given, made) if made is not None else given
