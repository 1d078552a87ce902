"""The file of a change of keys that is passed around, read from a person's disk."""

from pathlib import Path

from whimbrel import limits
from whimbrel.errors import NotFound, UntrustedInput
from whimbrel.stores.key_ceremony import Draft, read_draft


def read_draft_file(file: Path) -> Draft:
    """Read a draft. Raises `NotFound` where there is none, `UntrustedInput` for a file that is none."""
    try:
        if file.stat().st_size > limits.CEREMONY_BYTES:
            raise UntrustedInput(f"{file} is larger than a draft may be ({limits.CEREMONY_BYTES} bytes)")
        return read_draft(file.read_bytes())
    except FileNotFoundError:
        raise NotFound(
            f"there is no draft {file}; make one with --draft, such as: whimbrel keys rotate root --draft FILE"
        ) from None
