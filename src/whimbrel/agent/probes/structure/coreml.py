"""Is this a whole Core ML model? The top-level protobuf fields of a file (Model.proto), or a package's manifest."""

import json
from pathlib import Path

from whimbrel import limits
from whimbrel.agent.probes.structure.protobuf_file import fields_of
from whimbrel.model.formats import COREML_DESCRIPTION, COREML_MANIFEST, COREML_SPECIFICATION_VERSION


def check(path: Path) -> None:
    """Raises `ValueError` with what was found and expected."""
    if path.is_dir():
        _check_package(path)
        return
    fields = fields_of(path)
    if not {COREML_SPECIFICATION_VERSION, COREML_DESCRIPTION} <= fields:
        raise ValueError(f"it has the protobuf fields {sorted(fields)[:20]}; a Core ML model has 1 and 2")


def _check_package(path: Path) -> None:
    try:
        manifest = json.loads((path / COREML_MANIFEST).read_bytes()[: limits.MIB])
        items = manifest["itemInfoEntries"]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the package has no Manifest.json that can be read: {error}") from error
    for item in items.values():
        place = (path / "Data" / item["path"]).resolve()
        if not place.is_relative_to(path.resolve()) or not place.exists():
            raise ValueError(f"the package's manifest names {item['path']!r}, which is not in it")
