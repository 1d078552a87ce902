"""The parts of an `Inspection`, bounded whatever the model file claims.

Called by every reader in this folder.
"""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

from whimbrel import limits
from whimbrel.errors import UntrustedInput
from whimbrel.model import release
from whimbrel.model.release import Dimension, Signature, TensorSpec

Word = int | str

# How people name the type of most weights. Anything else is its dtype's own name.
PRECISIONS = {
    "float64": "fp64",
    "float32": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "uint8": "int8",
    "f32": "fp32",
    "f16": "fp16",
}


def tensor_spec(name: str, dtype: str, shape: Iterable[Any]) -> TensorSpec:
    """A tensor as the release describes it. Raises `UntrustedInput` where it is larger than a release may say."""
    sizes = list(shape)
    if len(name) > release.TENSOR_NAME_CHARS or len(dtype) > release.DTYPE_CHARS or len(sizes) > release.DIMENSIONS:
        raise UntrustedInput(
            f"a tensor {name[:40]!r} has a name of {len(name)} characters, a type of {len(dtype)} and {len(sizes)} "
            f"dimensions; at most {release.TENSOR_NAME_CHARS}, {release.DTYPE_CHARS} and {release.DIMENSIONS} are taken"
        )
    return TensorSpec(name=name, dtype=dtype, shape=tuple(map(_dimension, sizes)))


def _dimension(size: Any) -> Dimension:
    if isinstance(size, str):
        return size[: release.TENSOR_NAME_CHARS] or None
    return None if size is None or int(size) < 0 else int(size)


def signature_of(inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec]) -> Signature:
    """What a model takes and gives. Raises `UntrustedInput` where those are too many."""
    takes, gives = tuple(inputs), tuple(outputs)
    if max(len(takes), len(gives)) > release.SIGNATURE_TENSORS:
        raise UntrustedInput(f"it has more than {release.SIGNATURE_TENSORS} inputs or outputs")
    return Signature(inputs=takes, outputs=gives)


def weights_of(tensors: Iterable[tuple[str, str, list[int]]], more: dict[str, Word] | None = None) -> dict[str, Any]:
    """The precision guess, the counts (and `more` details) and the largest tensors, as fields of an `Inspection`."""
    elements: Counter[str] = Counter()
    listed: list[tuple[int, TensorSpec]] = []
    count = 0
    for name, dtype, shape in tensors:
        size = math.prod(max(each, 0) for each in shape[: release.DIMENSIONS])
        elements[dtype] += size
        count += 1
        listed.append((size, tensor_spec(name, dtype, shape)))
        if len(listed) > 4 * limits.INSPECTED_TENSORS:
            listed = _largest(listed)
    common = elements.most_common(1)
    return {
        "precision": PRECISIONS.get(common[0][0], common[0][0]) if common and common[0][1] else "",
        "details": details_of(
            {"tensors": count, "parameters": min(sum(elements.values()), 2**63 - 1), **(more or {})},
        ),
        "tensors": tuple(spec for _, spec in _largest(listed)),
    }


def _largest(listed: list[tuple[int, TensorSpec]]) -> list[tuple[int, TensorSpec]]:
    return sorted(listed, key=lambda each: -each[0])[: limits.INSPECTED_TENSORS]


def details_of(words: dict[str, Word]) -> dict[str, Word]:
    """Those that say something, cut to size."""
    return {
        key: value[: limits.INSPECTED_TEXT_CHARS] if isinstance(value, str) else value
        for key, value in words.items()
        if value != ""
    }


def metadata_of(entries: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The first entries by name, cut to size."""
    some = sorted((key[:128], value[: limits.INSPECTED_TEXT_CHARS]) for key, value in entries)
    return dict(some[: limits.INSPECTED_KEYS])
