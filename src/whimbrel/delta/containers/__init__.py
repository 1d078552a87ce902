"""Which bytes of a model file are tensors, and of what kind?

1. Parsers look at what the file says of itself, never at its data; the last part of the path is a hint only.
2. The bytes are hostile: sizes, counts, offsets and depths are bounded, and what is wrong is `UntrustedInput`.
3. A file that no parser knows, or whose parser refuses it, has no tensors: it still travels, as plain bytes.
4. Ranges come out sorted, inside the file and apart from each other; a tensor that would overlap is left out.

Called by `find`'s users: the encoder and the advice. A device that applies a patch parses no container: the patch says
which ranges it means.
"""

from collections.abc import Callable

from whimbrel import limits
from whimbrel.delta.artifact import Artifact, Member
from whimbrel.delta.containers import archive, coreml, gguf, onnx, safetensors, tflite, torchzip
from whimbrel.delta.containers.cursor import Budget, Cursor
from whimbrel.delta.tensor import Tensor
from whimbrel.errors import UntrustedInput

__all__ = ["Budget", "Cursor", "find", "parse"]


def find(artifact: Artifact) -> list[Tensor]:
    """Every tensor of the artifact, at offsets in its one line of bytes. Never raises for what a file contains."""
    budget = Budget()
    external = onnx.External()
    found: list[Tensor] = []
    paths = {member.path: (member, start) for member, start in artifact.starts()}
    specs = coreml.specs(artifact.members, budget)
    for member, start in artifact.starts():
        try:
            tensors = parse(member, budget=budget, external=external, coreml_spec=specs.get(member.path))
        except UntrustedInput:
            continue
        found += (_moved(tensor, start, member.size_bytes) for tensor in tensors)
    for path, tensor in external.tensors:
        if path in paths:
            member, start = paths[path]
            if tensor.end <= member.size_bytes:
                found.append(_moved(tensor, start, member.size_bytes))
    return _apart(found, artifact.size_bytes)


def parse(
    member: Member,
    *,
    budget: Budget | None = None,
    external: onnx.External | None = None,
    coreml_spec: dict[int, coreml.Blob] | None = None,
) -> list[Tensor]:
    """The tensors of one file, at offsets in it, as its container tells them. Raises `UntrustedInput`."""
    budget = budget or Budget()
    cursor = Cursor(member.read, member.size_bytes, budget=budget)
    start = bytes(member.read(0, min(member.size_bytes, 512)))
    parser = _parser(start, member, external, coreml_spec)
    if parser is None:
        return []
    try:
        tensors = parser(cursor)
    except (UnicodeDecodeError, OverflowError, RecursionError) as error:
        raise UntrustedInput(f"'{member.path}' is not the container it looks like: {error}") from error
    return _apart(tensors, member.size_bytes)


def _parser(
    start: bytes, member: Member, external: onnx.External | None, spec: dict[int, coreml.Blob] | None
) -> Callable[[Cursor], list[Tensor]] | None:
    path = member.path.lower()
    if start.startswith(gguf.MAGIC):
        return gguf.parse
    if start[4:8] == tflite.MAGIC:
        return tflite.parse
    if start.startswith(archive.ZIP_MAGIC):
        return torchzip.parse
    if archive.is_tar(start):
        return lambda cursor: archive.parse_tar(cursor, lambda inner: parse(inner, budget=cursor.budget))
    if coreml.is_blob_file(start) and path.endswith(".bin"):
        return lambda cursor: coreml.parse(cursor, spec or {})
    if safetensors.is_header(start, member.size_bytes):
        return safetensors.parse
    if onnx.is_model(start):
        return lambda cursor: onnx.parse(cursor, member.path, external)
    return None


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
