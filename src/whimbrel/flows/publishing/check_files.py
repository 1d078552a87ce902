"""Check that a variant's files are the whole model, and of the precision that the publisher says.

A function answers a sentence, or "" where it has no objection. Called at publication.
"""

import posixpath
import re
from collections.abc import Collection
from typing import Protocol

_SHARD_NAME = re.compile(r"^(?P<stem>.+)-(?P<shard>\d{5})-of-(?P<shards>\d{5})(?P<end>\.\w+)\Z")
_LISTED = 3


class ModelFile(Protocol):
    """What a file says of the files that it is one model with.

    `other_files`: names of files with more of its weights. `shard` of `shards`: its place among files that are one
    model together, from 1.
    """

    @property
    def other_files(self) -> tuple[str, ...]: ...
    @property
    def shard(self) -> int: ...
    @property
    def shards(self) -> int: ...


def missing_files(entry: str, model: ModelFile, names: Collection[str]) -> str:
    """Whether the files of these names, which are all that a device gets, are the whole `model` that `entry` opens."""
    folder = posixpath.dirname(entry)
    needed = {posixpath.normpath(posixpath.join(folder, name)) for name in model.other_files}
    if lacking := sorted(needed - set(names)):
        others = ", ".join(lacking[:_LISTED]) + (f" and {len(lacking) - _LISTED} more" * (len(lacking) > _LISTED))
        return f"{entry} has weights in other files, which devices would not get: {others}"
    named = _SHARD_NAME.match(entry)
    shard, shards = model.shard, model.shards
    if shards == 1 and named:
        shard, shards = int(named["shard"]), int(named["shards"])
    if len(names) < shards:
        return (
            f"{entry} is shard {shard} of {shards} of one model, and {len(names)} of them would be published; "
            "merge them into one file (GGUF: llama-gguf-split --merge)"
        )
    return ""


# The families of names that people and formats give to the precision of weights.
_PRECISIONS = (
    ("fp64", r"fp64|f64|float64|double"),
    ("fp32", r"fp32|f32|float32|float|full"),
    ("fp16", r"fp16|f16|float16|half"),
    ("bf16", r"bf16|bfloat16"),
    ("8 bits", r"u?int8|[iu]8|8 ?bits?|w8\w*|i?q8(_\w+)?"),
    ("6 bits", r"u?int6|6 ?bits?|i?q6(_\w+)?"),
    ("5 bits", r"u?int5|5 ?bits?|i?q5(_\w+)?"),
    ("4 bits", r"u?int4|[iu]4|4 ?bits?|w4\w*|i?q4(_\w+)?|mxfp4\w*|nvfp4\w*|fp4"),
    ("3 bits", r"u?int3|3 ?bits?|i?q3(_\w+)?"),
    ("2 bits", r"u?int2|2 ?bits?|[it]?q2(_\w+)?"),
)


def precision_objection(*, given: str, of_file: str) -> str:
    """Whether a variant's precision contradicts that of most weights of its file. Unknown words contradict nothing."""
    said, read = _family(given), _family(of_file)
    if not said or not read or said == read:
        return ""
    return f"the variant's precision is {given}, and most weights of the file are {of_file}"


def _family(precision: str) -> str:
    word = precision.strip().lower().replace("-", "_")
    return next((name for name, pattern in _PRECISIONS if re.fullmatch(pattern, word)), "")
