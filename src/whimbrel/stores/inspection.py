"""What is this model file? Its format by its content, and what the format's own library reads out of it.

1. A file's name says nothing: the format is recognised by its bytes (or by what lies in the folder).
2. A loader may abort, loop or eat the memory of the process that calls it. So it is called in a child process with
   limits on CPU, memory, files and time (`whimbrel.stores.model_readers`), in the cage that devices probe in: it reads
   the model and nothing beside it, such as the offline keys. It answers in JSON.
3. Where the library is not installed the format is still recognised, and `note` says what to install.
4. What comes back is bounded, whatever the file claims. An inspection is no integrity check: a loader accepts half of
   all flipped bits. The hash is.

Called by publishing.
"""

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from whimbrel import limits
from whimbrel.cage import child
from whimbrel.errors import Unavailable, UntrustedInput, reason_of
from whimbrel.model import formats, runtime_needs
from whimbrel.model.documents import Document, parse
from whimbrel.model.formats import Format
from whimbrel.model.mistaken_files import HEAD_BYTES, is_pointer, mistaken_for_a_model
from whimbrel.model.release import Signature, TensorSpec
from whimbrel.model.selector import Expression


class Inspection(Document, frozen=True):
    """What a model file says of itself.

    `details`: tensors, parameters, architecture, opset, ...; `metadata`: the file's own words.
    """

    format: Format
    signature: Signature | None = None
    precision: str = ""  # a guess: of most weights (fp32, fp16, bf16, int8, int4, q4_k_m, ...)
    details: Annotated[dict[str, int | str], Meta(max_length=64)] = {}
    metadata: Annotated[dict[str, str], Meta(max_length=limits.INSPECTED_KEYS)] = {}
    tensors: Annotated[tuple[TensorSpec, ...], Meta(max_length=limits.INSPECTED_TENSORS)] = ()  # the largest first
    note: str = ""  # what could not be read, and why
    other_files: Annotated[
        tuple[str, ...], Meta(max_length=limits.INSPECTED_OTHER_FILES)
    ] = ()  # with more of its weights
    shard: Annotated[int, Meta(ge=1)] = 1  # this file is shard 1, 2, ... of `shards` that are one model together
    shards: Annotated[int, Meta(ge=1)] = 1
    too_old: Expression | None = None  # the term that leaves out devices whose runtime is too old for the file


class Reading(Document, frozen=True):
    """What the child process answers: one of the two fields is set."""

    inspection: Inspection | None = None
    refused: str | None = None


def inspect(path: Path, *, beside_bytes: int = 0) -> Inspection:
    """Recognise and read the model at `path`, a file or a folder. `beside_bytes`: of its other files, beside it.

    Raises `UntrustedInput` where it is no whole model of a known format, and `Unavailable` where it cannot be read.
    """
    try:
        kind = recognise(path)
        size = _size(path) + beside_bytes
        if path.is_dir():
            _refuse_pointers(path)
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {reason_of(error)}; check the path and its permissions") from error
    return msgspec.structs.replace(_read_in_child(kind, path, size=size), too_old=_too_old(kind, path))


def recognise(path: Path) -> Format:
    """The format of what lies at `path`, by its content. Raises `UntrustedInput`, and `OSError`."""
    if path.is_dir():
        kind = formats.recognise_folder(lambda name: _head(path / name) if (path / name).is_file() else None)
        if kind is None:
            _refuse_pointers(path)
            raise UntrustedInput(
                f"{path} is a folder, but no Core ML package or compiled model; expected {formats.TITLES}"
            )
        return kind
    if path.exists() and not path.is_file():
        raise UntrustedInput(f"{path} is neither a file nor a folder; expected {formats.TITLES}")
    with path.open("rb") as file:

        def read(offset: int, size: int) -> bytes:
            file.seek(offset)
            return file.read(size)

        head = read(0, formats.HEAD_BYTES)
        if not head:
            raise UntrustedInput(f"{path} is empty; expected {formats.TITLES}")
        if mistaken := mistaken_for_a_model(read(0, HEAD_BYTES)):
            raise UntrustedInput(f"{path} {mistaken}")
        kind = formats.recognise_file(head, os.fstat(file.fileno()).st_size, read)
    if kind is None:
        raise UntrustedInput(f"{path} begins with {head[:8].hex(' ')}: damaged, or none of {formats.TITLES}")
    return kind


def _refuse_pointers(folder: Path) -> None:
    """Raises `UntrustedInput` where a file below `folder` stands for one that was not fetched."""
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            if path.is_file() and is_pointer(head := _head(path, HEAD_BYTES)):
                raise UntrustedInput(f"{path.relative_to(folder.parent)} {mistaken_for_a_model(head)}")


def _too_old(kind: Format, path: Path) -> Expression | None:
    """Which devices' runtimes are too old for the file; None for a folder, and where the file does not say it."""
    if path.is_dir():
        return None
    try:
        with path.open("rb") as file:

            def read(offset: int, size: int) -> bytes:
                file.seek(offset)
                return file.read(size)

            return runtime_needs.too_old(kind, read, os.fstat(file.fileno()).st_size)
    except ValueError as error:
        raise UntrustedInput(f"{path} looks like {kind}, but {error}; export it again and publish that") from error


def _head(path: Path, size: int = limits.MIB) -> bytes:
    with path.open("rb") as file:
        return file.read(size)


def _size(path: Path) -> int:
    """Bytes of a file, or of all plain files below a folder."""
    if not path.is_dir():
        return path.stat().st_size
    total = 0
    for count, (folder, _, names) in enumerate(os.walk(path)):
        if count > limits.PACKAGE_FILES:
            raise UntrustedInput(f"{path} holds more than {limits.PACKAGE_FILES} folders")
        total += sum(os.lstat(os.path.join(folder, name)).st_size for name in names)
    return total


# --- the child process ---


def _read_in_child(kind: Format, path: Path, *, size: int) -> Inspection:
    memory = limits.INSPECTION_MEMORY_BYTES + 2 * size
    command = child.command("whimbrel.stores.model_readers", kind, str(memory), os.path.abspath(path))
    with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as complaint:
        try:
            # Files and not pipes: RLIMIT_FSIZE bounds what a library may print.
            status = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=answer,
                stderr=complaint,
                timeout=limits.INSPECTION_WALL_S,
                check=False,
                cwd=child.ROOT,
                env=child.environment(),
                start_new_session=True,
            ).returncode
        except subprocess.TimeoutExpired as error:
            raise UntrustedInput(
                f"{path} looks like {kind}, but reading it took more than {limits.INSPECTION_WALL_S:g} s; "
                "expected a model that its own library can open"
            ) from error
        answer.seek(0)
        content = answer.read(limits.DOCUMENT_BYTES + 1)
        complaint.seek(max(0, complaint.seek(0, os.SEEK_END) - 2000))
        complaint_end = complaint.read().decode(errors="replace").strip().rpartition("\n")[2][:200]
    if status == 0:
        reading = parse(Reading, content, what=f"the inspection of {path}")
        if reading.inspection is not None:
            return reading.inspection
        raise UntrustedInput(f"{path} looks like {kind}, but {reading.refused}; export it again and publish that")
    if status < 0 or status in {134, 137, 139, 152}:
        signal = -status if status < 0 else status - 128
        raise UntrustedInput(
            f"{path} looks like {kind}, but its library died of signal {signal} while reading it; it is damaged or "
            "made to harm: export it again"
        )
    reason = complaint_end or "no reason given"
    raise Unavailable(f"the inspection of {path} did not start (exit status {status}): {reason}")
