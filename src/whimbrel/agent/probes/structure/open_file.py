"""An open file, as the parsers of containers ask for it: its bytes at a place, and its size."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def reading(path: Path) -> Iterator[tuple[Callable[[int, int], bytes], int]]:
    """`read(offset, size_bytes)`, which comes back short at the file's end, and the bytes that the file has."""
    with path.open("rb") as file:

        def read(offset: int, size_bytes: int) -> bytes:
            file.seek(offset)
            return file.read(size_bytes)

        yield read, path.stat().st_size
