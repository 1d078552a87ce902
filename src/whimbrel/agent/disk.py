"""How do the device's files come onto a real disk? The `Disk` port over a file system."""

import hashlib
import os
import secrets
import shutil
import stat
from contextlib import suppress
from pathlib import Path

from whimbrel import limits
from whimbrel.device import ports
from whimbrel.durable import fsync_folder, write_durably

Disk = ports.Disk[Path]


class RealDisk:
    """Files where the paths say."""

    def read(self, path: Path) -> bytes | None:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None

    def write(self, path: Path, content: bytes, *, mode: int = 0o644) -> None:
        try:
            write_durably(path, content, mode=mode)
        except FileNotFoundError:
            self.make_folder(path.parent)
            write_durably(path, content, mode=mode)

    def replace(self, path: Path, content: bytes) -> None:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            temporary.write_bytes(content)
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise

    def size(self, path: Path) -> int | None:
        try:
            return path.stat().st_size
        except FileNotFoundError:
            return None

    def free_bytes(self, folder: Path) -> int:
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        return shutil.disk_usage(folder).free

    def append(self, path: Path, content: bytes) -> None:
        with path.open("ab") as file:
            file.write(content)

    def sync(self, path: Path) -> None:
        if path.is_dir():
            fsync_folder(path)
            return
        with path.open("rb") as file:
            os.fsync(file.fileno())

    def sha256(self, path: Path) -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def move(self, source: Path, target: Path) -> None:
        source.replace(target)

    def remove(self, path: Path) -> None:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def make_folder(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)

    def names(self, folder: Path) -> list[str]:
        try:
            return sorted(os.listdir(folder))
        except FileNotFoundError:
            return []

    def files_below(self, folder: Path) -> list[str]:
        found: list[str] = []
        for place, folders, files in os.walk(folder):
            for name in [*folders, *files]:
                mode = os.lstat(os.path.join(place, name)).st_mode
                if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                    raise OSError(f"{os.path.join(place, name)} is neither a file nor a folder")
            found += [Path(place, name).relative_to(folder).as_posix() for name in files]
            if len(found) > limits.PACKAGE_FILES:
                raise OSError(f"{folder} holds more than {limits.PACKAGE_FILES} files")
        return sorted(found)
