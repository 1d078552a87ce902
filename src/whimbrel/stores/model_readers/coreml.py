"""Read the metadata of a Core ML model with coremltools, from a file or a package.

The weights of a package or a compiled model are checked by hand: coremltools reads them only where Core ML itself is
(macOS). Called in the child process.
"""

import os
from collections.abc import Callable
from typing import Any

from whimbrel import limits
from whimbrel.delta.artifact import Member
from whimbrel.delta.containers import coreml as container
from whimbrel.delta.containers.cursor import Budget, Cursor
from whimbrel.errors import UntrustedInput
from whimbrel.model import formats
from whimbrel.model.release import TensorSpec
from whimbrel.stores.inspection import Inspection
from whimbrel.stores.model_readers.bounded import details_of, metadata_of, signature_of, tensor_spec
from whimbrel.stores.model_readers.libraries import is_installed, without_library

# Model.proto, ArrayFeatureType.ArrayDataType
_TYPES = {65568: "float32", 65600: "float64", 131104: "int32", 65552: "float16", 131080: "int8"}


def read(path: str) -> Inspection:
    """What the file or package says. Raises whatever the library raises."""
    if os.path.isdir(path):
        _check_weights(path)
    if os.path.isdir(path) and not os.path.isfile(os.path.join(path, formats.COREML_MANIFEST)):
        return Inspection(format="coreml", note="a compiled model is recognised only; publish the package to read it")
    if not is_installed("coremltools"):
        return without_library("coreml")
    from coremltools.models.utils import load_spec

    spec = load_spec(path)
    about = spec.description
    if not about.input and not about.output:
        raise UntrustedInput("it names neither inputs nor outputs")
    return Inspection(
        format="coreml",
        signature=signature_of(map(_spec, about.input), map(_spec, about.output)),
        details=details_of(
            {
                "specification_version": spec.specificationVersion,
                "architecture": spec.WhichOneof("Type") or "",
                "author": about.metadata.author,
                "license": about.metadata.license,
                "description": about.metadata.shortDescription,
                "model_version": about.metadata.versionString,
            }
        ),
        metadata=metadata_of(about.metadata.userDefined.items()),
    )


def _check_weights(folder: str) -> None:
    """Raises `UntrustedInput` where weights that the model points at are missing or cut."""
    files = {each.path: each for each in _members(folder)}
    for path, blobs in container.specs(list(files.values()), Budget()).items():
        if path not in files:
            raise UntrustedInput(f"its weights {path} are missing from the package")
        end = files[path].size_bytes
        for offset in blobs:
            if offset + container.RECORD_BYTES > end:
                raise UntrustedInput(
                    f"its weights {path} have {end} bytes, and the model points at byte {offset}: they were cut"
                )
    for path, file in files.items():
        if not container.is_blob_file(file.read(0, min(file.size_bytes, 2 * container.RECORD_BYTES))):
            continue
        for tensor in container.parse(Cursor(file.read, file.size_bytes, budget=Budget()), {}):
            if tensor.end > file.size_bytes:
                raise UntrustedInput(
                    f"its weights {path} have {file.size_bytes} bytes, and a tensor ends at {tensor.end}: they were cut"
                )


def _members(folder: str) -> list[Member]:
    members = []
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            if os.path.isfile(path):
                relative = os.path.relpath(path, folder).replace(os.sep, "/")
                members.append(Member(relative, os.path.getsize(path), _reading(path)))
        if len(members) > limits.PACKAGE_FILES:
            raise UntrustedInput(f"it holds more than {limits.PACKAGE_FILES} files")
    return members


def _reading(path: str) -> Callable[[int, int], bytes]:
    def read(offset: int, size: int) -> bytes:
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(size)

    return read


def _spec(feature: Any) -> TensorSpec:
    kind = feature.type
    case = kind.WhichOneof("Type") or "undefined"
    if case == "multiArrayType":
        array = kind.multiArrayType
        return tensor_spec(feature.name, _TYPES.get(array.dataType, f"type {array.dataType}"), list(array.shape))
    if case == "imageType":
        return tensor_spec(feature.name, "image", [kind.imageType.height, kind.imageType.width])
    words = {"int64Type": "int64", "doubleType": "float64", "stringType": "string"}
    return tensor_spec(feature.name, words.get(case, case.removesuffix("Type")), ())
