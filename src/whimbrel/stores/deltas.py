"""Patches: the rows of those that were tried, and the child process that encodes one.

The encoder runs in a process of its own (`python -m whimbrel.stores.deltas TASK`), at the lowest priority.
It may take minutes of a core, and the server goes on serving.
"""

import asyncio
import hashlib
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import msgspec
from sqlalchemy import Connection, delete, select, update

from whimbrel import limits
from whimbrel.errors import NotFound, Unavailable
from whimbrel.flows.publishing.build_deltas import DeltaRecord, Graph, Pair, worth_keeping
from whimbrel.model.documents import encode, parse
from whimbrel.model.ways import NOTHING
from whimbrel.stores import schema
from whimbrel.stores.blobs import Blobs
from whimbrel.stores.rows import upsert


class EncodeTask(msgspec.Struct, frozen=True):
    """What the child process is told: paths, and the graphs that describe base and target with their paths there."""

    base: str
    target: str
    patch: str
    base_graph: tuple[str, str] | None = None
    target_graph: tuple[str, str] | None = None


class EncodedPatch(msgspec.Struct, frozen=True):
    """What the child process answers: the size of the patch, and its advice on memory."""

    size_bytes: int
    advice: str


class Deltas:
    """The deltas of one namespace, within one transaction."""

    def __init__(self, connection: Connection, namespace: str) -> None:
        self.connection = connection
        self.namespace = namespace

    def add(self, delta: DeltaRecord, *, at: float) -> None:
        """Note that a patch was tried. A row of the same pair stays as it is."""
        values = msgspec.structs.asdict(delta) | {"namespace": self.namespace, "created_at": at}
        upsert(self.connection, schema.deltas, values)

    def of(self, model: str) -> list[DeltaRecord]:
        """All patches that were tried for a model."""
        table = schema.deltas
        rows = self.connection.execute(
            select(table)
            .where(table.c.namespace == self.namespace, table.c.model == model)
            .order_by(table.c.target, table.c.base)
        )
        return [DeltaRecord(**{name: getattr(row, name) for name in DeltaRecord.__struct_fields__}) for row in rows]

    def unlisted_models(self) -> list[str]:
        """Models with a patch that the signed index does not list yet."""
        table = schema.deltas
        rows = self.connection.execute(
            select(table.c.model)
            .where(table.c.namespace == self.namespace, table.c.listed.is_(False), table.c.sha256.is_not(None))
            .distinct()
        )
        return sorted(rows.scalars())

    def set_listed(self, model: str) -> None:
        """Note that the signed index lists every patch of a model that is kept."""
        table = schema.deltas
        self.connection.execute(
            update(table).where(table.c.namespace == self.namespace, table.c.model == model).values(listed=True)
        )

    def forget_target(self, sha256: str) -> None:
        """Forget the patches to and from an artifact that is gone."""
        table = schema.deltas
        self.connection.execute(
            delete(table).where(
                table.c.namespace == self.namespace, (table.c.target == sha256) | (table.c.base == sha256)
            )
        )


async def build_delta(blobs: Blobs, namespace: str, model: str, pair: Pair, *, whole_bytes: int | None) -> DeltaRecord:
    """Build one patch, and store it where it pays. Raises `NotFound` where an artifact is gone, and `Unavailable`."""
    with tempfile.TemporaryDirectory(prefix="whimbrel-delta-") as scratch:
        folder = Path(scratch)
        base = await _local(blobs, namespace, pair.base, folder)
        target = await _local(blobs, namespace, pair.target, folder)
        patch = folder / "patch"
        base_graph, target_graph = [
            await _graph(blobs, namespace, graph, folder) for graph in (pair.base_graph, pair.target_graph)
        ]
        encoded = await encode_patch(EncodeTask(str(base), str(target), str(patch), base_graph, target_graph))
        record = DeltaRecord(
            model=model,
            base=pair.base,
            target=pair.target,
            target_bytes=pair.target_bytes,
            sha256=None,
            size_bytes=encoded.size_bytes,
            advice="" if pair.base == NOTHING else encoded.advice,
        )
        if not worth_keeping(encoded.size_bytes, target_bytes=pair.target_bytes, whole_bytes=whole_bytes):
            return record
        digest = await asyncio.to_thread(_digest, patch)
        await blobs.receive(f"{namespace}/artifacts/{digest}", _chunks(patch), sha256=digest)
        return msgspec.structs.replace(record, sha256=digest)


async def _local(blobs: Blobs, namespace: str, sha256: str, scratch: Path) -> Path:
    """An artifact as a file on this machine: the stored one, or a copy of it."""
    if sha256 == NOTHING:
        empty = scratch / NOTHING
        empty.touch()
        return empty
    path = f"{namespace}/artifacts/{sha256}"
    meta = await blobs.head(path)
    local = blobs.local_path(path)
    if local is not None:
        return local
    copy = scratch / sha256
    with copy.open("wb") as file:
        async for chunk in blobs.read(path, start=0, end=meta.size_bytes):
            file.write(chunk)
    return copy


async def _graph(blobs: Blobs, namespace: str, graph: Graph | None, scratch: Path) -> tuple[str, str] | None:
    """The path of a graph, and the path by which it speaks of the file; None where it is not stored any more."""
    if graph is None:
        return None
    try:
        return str(await _local(blobs, namespace, graph.sha256, scratch)), graph.path
    except NotFound:
        return None  # the file is coded as plain bytes


async def encode_patch(task: EncodeTask) -> EncodedPatch:
    """Make one patch in a child process. Raises `Unavailable`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "whimbrel.stores.deltas",
        encode(task).decode(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), limits.DELTA_BUILD_S)
    except BaseException:  # a time-out, or the server stops: nothing goes on behind its back
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    if process.returncode:
        lines = err.decode(errors="replace").strip().splitlines()
        raise Unavailable(f"a patch could not be made: {lines[-1] if lines else f'exit status {process.returncode}'}")
    return msgspec.json.decode(out, type=EncodedPatch)


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(limits.COPY_CHUNK_BYTES):
            yield chunk


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _main(text: str) -> None:
    from whimbrel.delta.advice import advise
    from whimbrel.patchfile import Described, encode_files, inspect_file

    if hasattr(os, "nice"):
        os.nice(10)
    task = parse(EncodeTask, text.encode(), what="the task")
    before, after = (
        None if graph is None else Described(Path(graph[0]), graph[1]) for graph in (task.base_graph, task.target_graph)
    )
    encoded = encode_files(Path(task.base), Path(task.target), Path(task.patch), described=(before, after))
    answer = EncodedPatch(encoded.patch_bytes, str(advise(inspect_file(Path(task.patch)))))
    sys.stdout.buffer.write(encode(answer))


def codec_is_installed() -> bool:
    """Whether patches can be made here: the extra `delta`."""
    from importlib.util import find_spec

    return all(find_spec(name) is not None for name in ("numpy", "pcodec", "zstandard"))


if __name__ == "__main__":
    _main(sys.argv[1])
