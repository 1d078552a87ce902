"""Read the metadata of a GGUF model with the gguf package.

Called in the child process.
"""

from whimbrel.stores.inspection import Inspection
from whimbrel.stores.model_readers.bounded import PRECISIONS, metadata_of, weights_of
from whimbrel.stores.model_readers.libraries import is_installed, without_library


def read(path: str) -> Inspection:
    """What the file says. Raises whatever the library raises."""
    if not is_installed("gguf"):
        return without_library("gguf")
    from gguf import GGUFReader, GGUFValueType, LlamaFileType

    reader = GGUFReader(path)
    words: dict[str, str] = {}
    for key, field in reader.fields.items():
        if not field.types or key.startswith("GGUF."):
            continue
        if field.types[0] == GGUFValueType.ARRAY:
            words[key] = f"{len(field.data)} values"
        else:
            words[key] = str(field.contents())
    weights = weights_of(
        ((each.name, each.tensor_type.name.lower(), each.shape.tolist()) for each in reader.tensors),
        {
            "architecture": words.get("general.architecture", ""),
            "name": words.get("general.name", ""),
            "gguf_version": int(reader.fields["GGUF.version"].contents()),
            "keys": len(words),
        },
    )
    file_type = words.get("general.file_type", "")
    if file_type.isdigit() and int(file_type) in set(LlamaFileType):
        named = LlamaFileType(int(file_type)).name.removeprefix("MOSTLY_").removeprefix("ALL_").lower()
        weights["precision"] = PRECISIONS.get(named, named)
    return Inspection(
        format="gguf",
        **weights,
        metadata=metadata_of(words.items()),
    )
