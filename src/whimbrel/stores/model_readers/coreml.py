"""Read the metadata of a Core ML model with coremltools, from a file or a package.

Called in the child process.
"""

import os
from typing import Any

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
