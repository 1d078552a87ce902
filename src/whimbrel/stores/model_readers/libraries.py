"""Whether the library of a format is installed here, and what installs it."""

import importlib.util

from whimbrel.model import formats
from whimbrel.model.formats import Format
from whimbrel.stores.inspection import Inspection


def is_installed(module: str) -> bool:
    """Whether `import module` would find something."""
    return importlib.util.find_spec(module) is not None


def without_library(kind: Format) -> Inspection:
    """What is said of a model whose format's library is missing: its format, and what to install."""
    row = formats.BY_NAME[kind]
    return Inspection(format=kind, note=install_note(row.reader, row.extra))


def install_note(package: str, extra: str) -> str:
    """A sentence for people."""
    return f"{package} is not installed here: pip install 'whimbrel[{extra}]'"
