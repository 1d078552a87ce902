"""How do fifty devices verify the same signatures without doing it fifty times? One verdict for the same bytes.

A verification is a pure function of the bytes, the key and the signature, and so is the reading of metadata: the first
device does it, by python-tuf's own code, and the others get its answer. A failure is never remembered. Expiry, versions
and rollback, which depend on a device's time and memory, are not touched.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from securesystemslib.signer import SSlibKey
from tuf.ngclient._internal import trusted_metadata_set


@contextmanager
def shared_verification() -> Iterator[None]:
    """Within: metadata is read once, and a signature is verified once."""
    load = trusted_metadata_set._load_from_metadata
    verify = SSlibKey.verify_signature
    loaded: dict[Any, Any] = {}
    verified: set[tuple[str, str, str, bytes]] = set()

    def load_once(role: Any, data: bytes, delegator: Any = None, role_name: str | None = None) -> Any:
        key = role, data, id(delegator), role_name
        if key not in loaded:
            loaded[key] = *load(role, data, delegator, role_name), delegator  # kept, so that its id stays its own
        return loaded[key][:3]

    def verify_once(self: SSlibKey, signature: Any, data: bytes) -> None:
        key = self.keyid, str(self.keyval), signature.signature, data
        if key not in verified:
            verify(self, signature, data)
            verified.add(key)

    trusted_metadata_set._load_from_metadata = load_once
    SSlibKey.verify_signature = verify_once  # type: ignore[method-assign]
    try:
        yield
    finally:
        trusted_metadata_set._load_from_metadata = load
        SSlibKey.verify_signature = verify  # type: ignore[method-assign]
