"""What is wrong with signed metadata, said to the person who runs the device: python-tuf's errors, in their words.

1. What was signed wrongly, or does not fit its hash, is untrusted; what did not come is not available. Nothing else
   decides which of the two it is.
2. A sentence names what to check: the address, the port, the namespace, the root.

Called by the trust client.
"""

import re
from collections.abc import Iterable

from tuf.api.exceptions import (
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)

from whimbrel.errors import Unavailable, UntrustedInput, reason_of

_SIGNED_BY = re.compile(r"^(\S+) was signed by (\d+)/(\d+) keys")  # python-tuf 7, Metadata.verify_delegate
_MODELS_NAMED = 8


def problem_of(error: Exception, what: str) -> UntrustedInput | Unavailable:
    """The error that `error` is for callers. `what`: what was asked for, such as "the signed metadata"."""
    if isinstance(error, RepositoryError) and not isinstance(error, DownloadError):
        return UntrustedInput(f"{what} cannot be trusted: {signature_words(error)}")
    if isinstance(error, DownloadLengthMismatchError | ValueError):
        return UntrustedInput(f"{what} cannot be trusted: {reason_of(error)}")
    return Unavailable(f"{what} cannot be fetched: {reason_of(error)}")


def metadata_problem(error: Exception, *, url: str) -> UntrustedInput | Unavailable:
    """The same of the metadata below `url`, which is the server's address and the namespace."""
    if isinstance(error, DownloadHTTPError) and error.status_code == 404:
        return Unavailable(
            f"there is no signed metadata at {url}: it answered 404; check the server's address, its port (devices and "
            "people ask different ones) and the namespace"
        )
    if isinstance(error, UnsignedMetadataError):
        return UntrustedInput(
            f"the signed metadata cannot be trusted: {signature_words(error)}; either the root.json of this device is "
            f"another server's than that of {url}, or somebody changed the metadata on its way"
        )
    return problem_of(error, "the signed metadata")


def signature_words(error: Exception) -> str:
    """An error of python-tuf; what it says of missing signatures, in words."""
    signed = _SIGNED_BY.match(str(error))
    if signed is None:
        return str(error)
    role, valid, needed = signed[1], int(signed[2]), int(signed[3])
    keys = "the key that it needs" if needed == 1 else f"the {needed} keys that it needs"
    count = "not signed by" if valid == 0 else f"signed by only {valid} of"
    return f"its {role} is {count} {keys}"


def unknown_model(model: str, *, known: Iterable[str]) -> str:
    """The sentence for a model that the repository does not have."""
    names = sorted(known)
    more = ", ..." if len(names) > _MODELS_NAMED else ""
    have = f"it has {', '.join(names[:_MODELS_NAMED])}{more}" if names else "it has none yet"
    return f"the server has no model {model!r}; {have}"
