"""Is this a whole safetensors model? The header and the places of the tensors, of each of its files.

A large model lies in several files, and an index beside them (`model.safetensors.index.json`) says which tensor lies in
which: `{"weight_map": {"tensor": "model-00001-of-00002.safetensors"}}`. Source:
https://github.com/huggingface/safetensors#format, and for the index the Hugging Face Hub's page on sharded models.
"""

import importlib
import importlib.util
import json
from pathlib import Path

from whimbrel import limits

_HEADER_BYTES_MAX = 100 * limits.MIB
_INDEX_ENDING = ".safetensors.index.json"


def check(path: Path) -> None:
    """Raises `ValueError` with what was found and expected."""
    index = _index_beside(path)
    if index is None:
        _check_file(path)
        return
    name, weight_map = index
    tensors = {file: _check_file(path.with_name(file)) for file in _files(path, weight_map)}
    for tensor, file in weight_map.items():
        if tensor not in tensors[file]:
            raise ValueError(f"{name} says that tensor {tensor!r} lies in {file!r}, and it does not")


def parts(path: Path) -> tuple[str, ...]:
    """All files of the model that this file is one of, the first one first, and their index. Raises `ValueError`."""
    index = _index_beside(path)
    return (path.name,) if index is None else (*_files(path, index[1]), index[0])


def _index_beside(path: Path) -> tuple[str, dict[str, str]] | None:
    """The name and the weight map of the index that lists this file; None where there is none."""
    for place in sorted(path.parent.glob("*" + _INDEX_ENDING)):
        if place.stat().st_size > _HEADER_BYTES_MAX:
            raise ValueError(f"{place.name} has more than {_HEADER_BYTES_MAX} bytes")
        try:
            weight_map = json.loads(place.read_bytes())["weight_map"]
            files = {str(file) for file in weight_map.values()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"{place.name} is no index of tensors: {type(error).__name__}: {error}") from error
        if path.name in files:
            return place.name, {str(tensor): str(file) for tensor, file in weight_map.items()}
    return None


def _files(path: Path, weight_map: dict[str, str]) -> list[str]:
    """The files that an index names, in order; all of them are beside `path`."""
    files = sorted(set(weight_map.values()))
    if len(files) > limits.FILES:
        raise ValueError(f"its index names {len(files)} files; at most {limits.FILES} are taken")
    for name in files:
        if Path(name).name != name or not path.with_name(name).is_file():
            raise ValueError(f"it is one of several files, and {name!r} is not beside it")
    return files


def _check_file(path: Path) -> set[str]:
    """The names of its tensors."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 10 or length > min(size - 8, _HEADER_BYTES_MAX):
            raise ValueError(f"its header says {length} bytes; the file has {size}")
        content = file.read(length)
    try:
        header = json.loads(content)
        places = {name: each["data_offsets"] for name, each in header.items() if name != "__metadata__"}
        spans = {name: (int(first), int(last)) for name, (first, last) in places.items()}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"its header is no table of tensors: {type(error).__name__}: {error}") from error
    end = 0
    for name, (first, last) in spans.items():
        if not 0 <= first <= last <= size - 8 - length:
            raise ValueError(f"tensor {name!r} lies at {first} to {last}; there are {size - 8 - length} bytes of data")
        end = max(end, last)
    if end != size - 8 - length:
        raise ValueError(f"its tensors end at byte {end} of {size - 8 - length}")
    return set(header)


def check_with_library(path: Path) -> None:
    """The same by the safetensors package, where it is installed: it knows more of tensors than we do."""
    if importlib.util.find_spec("safetensors"):
        index = _index_beside(path)
        for name in _files(path, index[1]) if index is not None else [path.name]:
            place = str(path.with_name(name))
            with importlib.import_module("safetensors").safe_open(place, framework="numpy") as tensors:
                list(tensors.keys())
