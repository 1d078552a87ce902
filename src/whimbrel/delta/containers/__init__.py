"""Which bytes of a model file are tensors, and of what kind?

1. Parsers look at what the file says of itself, never at its data; the last part of the path is a hint only.
2. The bytes are hostile: sizes, counts, offsets and depths are bounded, and what is wrong is `UntrustedInput`.
3. A file that no parser knows, or whose parser refuses it, has no tensors: it still travels, as plain bytes.
4. Ranges come out sorted, inside the file and apart from each other; a tensor that would overlap is left out.
5. One module a container; `CONTAINERS` is their table.

Called by the encoder and by the advice. A device that applies a patch parses no container: the patch says which ranges
it means.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from whimbrel import limits
from whimbrel.delta.artifact import Artifact, Description, Member
from whimbrel.delta.containers import archive, coreml, gguf, onnx, safetensors, tflite, torchzip
from whimbrel.delta.containers.cursor import Budget, Cursor
from whimbrel.delta.tensor import Tensor
from whimbrel.errors import UntrustedInput, reason_of
from whimbrel.model.formats import GGUF_MAGIC, TFLITE_IDENTIFIER, Format, Without

__all__ = ["CONTAINERS", "Budget", "Container", "Cursor", "find", "parse"]

_START_BYTES = 512  # a tar header


def find(artifact: Artifact) -> list[Tensor]:
    """Every tensor of the artifact, at offsets in its one line of bytes. Never raises for what a file contains."""
    if artifact.description is not None:
        return _described(artifact, artifact.description)
    budget = Budget()
    external = onnx.External()
    tensors: list[Tensor] = []
    members = {member.path: (member, start) for member, start in artifact.starts()}
    specs = coreml.specs(artifact.members, budget)
    for member, start in artifact.starts():
        try:
            inside = parse(member, budget=budget, external=external, coreml_spec=specs.get(member.path))
        except UntrustedInput:
            continue
        tensors += (_moved(tensor, start, member.size_bytes) for tensor in inside)
    for path, tensor in external.tensors:
        if path in members:
            member, start = members[path]
            if tensor.end <= member.size_bytes:
                tensors.append(_moved(tensor, start, member.size_bytes))
    return _apart(tensors, artifact.size_bytes)


def _described(artifact: Artifact, description: Description) -> list[Tensor]:
    (file,) = artifact.members
    named = Member(description.path, file.size_bytes, file.read)
    graph = Member("", description.graph.size_bytes, description.graph.read)
    return [tensor for tensor in find(Artifact([named, graph])) if tensor.end <= file.size_bytes]


def parse(
    member: Member,
    *,
    budget: Budget | None = None,
    external: onnx.External | None = None,
    coreml_spec: dict[int, coreml.Blob] | None = None,
) -> list[Tensor]:
    """The tensors of one file, at offsets in it, as its container lists them. Raises `UntrustedInput`."""
    budget = budget or Budget()
    cursor = Cursor(member.read, member.size_bytes, budget=budget)
    start = bytes(member.read(0, min(member.size_bytes, _START_BYTES)))
    file = _File(member, external, coreml_spec or {})
    container = next((each for each in _SERVED if each.recognises(start, member)), None)
    if container is None:
        return []
    try:
        tensors = container.parse(cursor, file)
    except (UnicodeDecodeError, OverflowError, RecursionError) as error:
        raise UntrustedInput(f"'{member.path}' is not the container it looks like: {reason_of(error)}") from error
    return _apart(tensors, member.size_bytes)


@dataclass(frozen=True, slots=True)
class _File:
    """A file, and what the other files of its artifact say of it."""

    member: Member
    external: onnx.External | None
    coreml_spec: dict[int, coreml.Blob]


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """How a container is recognised by a file's first 512 bytes, and parsed."""

    recognises: Callable[[bytes, Member], bool]
    parse: Callable[[Cursor, _File], list[Tensor]]


# Delta's table of formats: the first row that recognises a file parses it. Besides the formats of the registry it has
# the containers that other model files travel in. What is parsed decides what an encoder writes, so its recognition is
# its own where it is laxer than the registry's.
CONTAINERS: dict[Format | Literal["zip", "tar"], Container | Without] = {
    "gguf": Container(
        recognises=lambda start, _: start.startswith(GGUF_MAGIC),
        parse=lambda cursor, _: gguf.parse(cursor),
    ),
    "tflite": Container(
        recognises=lambda start, _: start[4:8] == TFLITE_IDENTIFIER,
        parse=lambda cursor, _: tflite.parse(cursor),
    ),
    "zip": Container(
        recognises=lambda start, _: start.startswith(archive.ZIP_MAGIC),
        parse=lambda cursor, _: torchzip.parse(cursor),
    ),
    "tar": Container(
        recognises=lambda start, _: archive.is_tar(start),
        parse=lambda cursor, _: archive.parse_tar(cursor, lambda inner: parse(inner, budget=cursor.budget)),
    ),
    "coreml": Container(
        recognises=lambda start, member: coreml.is_blob_file(start) and member.path.lower().endswith(".bin"),
        parse=lambda cursor, file: coreml.parse(cursor, file.coreml_spec),
    ),
    "safetensors": Container(
        recognises=lambda start, member: safetensors.is_header(start, member.size_bytes),
        parse=lambda cursor, _: safetensors.parse(cursor),
    ),
    "executorch": Without("its tensors lie in blobs of the backends, which no schema tells apart"),
    "onnx": Container(
        recognises=lambda start, _: onnx.is_model(start),
        parse=lambda cursor, file: onnx.parse(cursor, file.member.path, file.external),
    ),
}
_SERVED = [container for container in CONTAINERS.values() if not isinstance(container, Without)]


def _moved(tensor: Tensor, start: int, size_bytes: int) -> Tensor:
    if tensor.end > size_bytes:
        raise UntrustedInput("a tensor lies outside its file")
    return Tensor(tensor.name, tensor.dtype, tensor.shape, start + tensor.offset, tensor.size_bytes)


def _apart(tensors: list[Tensor], size_bytes: int) -> list[Tensor]:
    """Sorted, inside, not empty, not overlapping, with a shape that accounts for the bytes or none."""
    kept: list[Tensor] = []
    end = 0
    for tensor in sorted(tensors, key=lambda one: (one.offset, -one.size_bytes)):
        if tensor.offset < end or tensor.size_bytes <= 0 or tensor.end > size_bytes:
            continue
        if tensor.size_bytes % tensor.dtype.block_bytes:
            continue
        if not tensor.is_whole:
            tensor = Tensor(  # noqa: PLW2901 - the same tensor with an honest shape
                tensor.name, tensor.dtype, (tensor.dtype.elements(tensor.size_bytes),), tensor.offset, tensor.size_bytes
            )
        kept.append(tensor)
        end = tensor.end
    return kept[: limits.DELTA_TENSORS]
