"""Read a file that a person wrote: as text, with a bound on its size, and with errors that name the file."""

from pathlib import Path

from whimbrel import limits
from whimbrel.errors import UntrustedInput, reason_of


def read_text(path: Path, what: str = "the plan") -> str:
    """The text of `path`; `what` says what it should be. Raises `UntrustedInput`."""
    try:
        size_bytes = path.stat().st_size
        if size_bytes > limits.PLAN_BYTES:
            raise UntrustedInput(f"{path} has {size_bytes} bytes; {what} has at most {limits.PLAN_BYTES}")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UntrustedInput(f"{what} {path} cannot be read: {reason_of(error)}") from error
    except UnicodeDecodeError as error:
        raise UntrustedInput(f"{what} {path} cannot be read: {reason_of(error)}") from error
