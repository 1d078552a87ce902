"""Reads the golden values from the file that a card names: a .npz of numpy's, or a .json with a probe.

A .npz holds arrays named `inputs/<name>` and `outputs/<name>`: `numpy.savez(path, **{"inputs/x": x, "outputs/y": y})`.
Nothing in it is unpickled, and its sizes are checked before anything is unpacked. Called by publishing.
"""

import io
import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

from whimbrel import limits
from whimbrel.errors import Unavailable, UntrustedInput, reason_of
from whimbrel.model.documents import parse
from whimbrel.model.mistaken_files import HEAD_BYTES, is_pointer, mistaken_for_a_model
from whimbrel.model.release import Probe, Tensor

# What numpy and zipfile raise for damaged archives; RuntimeError for encrypted ones.
_DAMAGE = (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, KeyError, RuntimeError, MemoryError)


def read_golden(path: Path) -> Probe:
    """The probe with the golden values at `path`. Raises `UntrustedInput`; `Unavailable` where it cannot be read."""
    try:
        with path.open("rb") as file:
            content = file.read(limits.GOLDEN_FILE_BYTES + 1)
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {reason_of(error)}; check the path that the card names") from error
    if is_pointer(content[:HEAD_BYTES]):
        raise UntrustedInput(f"{path} {mistaken_for_a_model(content[:HEAD_BYTES])}")
    if len(content) > limits.GOLDEN_FILE_BYTES:
        raise UntrustedInput(f"{path} has more than {limits.GOLDEN_FILE_BYTES} bytes; take fewer golden values")
    probe = _npz(content, what=str(path)) if content[:2] == b"PK" else parse(Probe, content, what=str(path))
    if not probe.inputs or not probe.outputs:
        raise UntrustedInput(f"{path} holds no golden inputs or no outputs; expected both")
    samples = probe.validation.inputs if probe.validation else {}
    count = sum(len(tensor.values) for tensor in (*probe.inputs.values(), *probe.outputs.values(), *samples.values()))
    if count > limits.GOLDEN_VALUES:
        raise UntrustedInput(f"{path} holds {count} values; at most {limits.GOLDEN_VALUES} fit a release")
    return probe


def _npz(content: bytes, *, what: str) -> Probe:
    try:
        import numpy as np
    except ImportError as error:
        raise Unavailable(f"{what} needs numpy to be read: pip install 'whimbrel[onnx]'") from error
    groups: dict[str, dict[str, Tensor]] = {"inputs": {}, "outputs": {}}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(member.file_size for member in archive.infolist()) > limits.GOLDEN_FILE_BYTES:
                raise UntrustedInput(f"{what} unpacks to more than {limits.GOLDEN_FILE_BYTES} bytes")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            for key in arrays.files:
                group, _, name = key.partition("/")
                if group not in groups or not name:
                    raise UntrustedInput(f"{what} holds {key[:80]!r}; expected names such as inputs/x and outputs/y")
                groups[group][name] = _tensor(arrays[key], what=f"{what}: {key[:80]}")
    except _DAMAGE as error:
        raise UntrustedInput(f"{what} is no whole .npz: {' '.join(str(error).split())[:200]}") from error
    return Probe(inputs=groups["inputs"], outputs=groups["outputs"])


def _tensor(array: Any, *, what: str) -> Tensor:
    if array.dtype.kind not in "biufU":
        raise UntrustedInput(f"{what} is of type {array.dtype}; expected numbers, truth values or text")
    if array.size > limits.GOLDEN_VALUES:
        raise UntrustedInput(f"{what} holds {array.size} values; at most {limits.GOLDEN_VALUES} fit a release")
    values = tuple(array.ravel().tolist())
    if any(isinstance(value, float) and not math.isfinite(value) for value in values):
        raise UntrustedInput(f"{what} holds a value that is not finite; a golden value is a number")
    return Tensor(dtype="string" if array.dtype.kind == "U" else array.dtype.name, shape=array.shape, values=values)
