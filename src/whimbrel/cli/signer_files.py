"""Files that say who signed: a public key or root certificates, read within bounds.

Called by `whimbrel publish`, `model set` and `version provenance`.
"""

from pathlib import Path

import msgspec

from whimbrel import limits
from whimbrel.errors import UntrustedInput, reason_of
from whimbrel.interop.model_signing.signature import read_anchor
from whimbrel.model.provenance import ModelSigner


def signer_of(place: Path, *, method: str, identity: str) -> ModelSigner:
    """A signer by a file with a public key or root certificates. Raises `UntrustedInput`."""
    anchor = read_anchor(read_bytes(place, limits.ANCHOR_BYTES, what=str(place)), method=method, what=str(place))
    try:
        return msgspec.convert({"method": method, "anchor": anchor, "identity": identity}, ModelSigner)
    except msgspec.ValidationError as error:
        raise UntrustedInput(f"{place}: {reason_of(error)}") from error


def read_bytes(path: Path, bytes_max: int, *, what: str) -> bytes:
    """The bytes of a file that has at most so many. Raises `UntrustedInput`."""
    try:
        with path.open("rb") as file:
            content = file.read(bytes_max + 1)
    except OSError as error:
        raise UntrustedInput(f"{path} cannot be read: {reason_of(error)}") from error
    if len(content) > bytes_max:
        raise UntrustedInput(f"{what} has more than {bytes_max} bytes; is {path.name} the right file?")
    return content
