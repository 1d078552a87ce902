"""Verify the same bytes once for all simulated devices, and not once for each of them.

A verification is a pure function of the bytes, the key and the signature, and so are the reading of metadata and what a
patch makes of a base: the first device does it, by the product's own code, and the others get its answer. A failure is
never remembered. Expiry, versions and rollback, which depend on a device's time and memory, are not touched.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from securesystemslib.signer import SSlibKey

from whimbrel import patchfile
from whimbrel.agent.tuf_internals import reading_metadata_by
from whimbrel.errors import InvariantBroken
from whimbrel.sim.power import DeviceDisk


@contextmanager
def shared_verification() -> Iterator[None]:
    """Within: metadata is read once, a signature is verified once, and a patch is applied to its base once."""
    verify = SSlibKey.verify_signature
    loaded: dict[Any, Any] = {}
    verified: set[tuple[str, str, str, bytes]] = set()
    apply = patchfile.apply_files
    made: dict[Any, bytes] = {}

    def loading_once(load: Callable[..., Any]) -> Callable[..., Any]:
        def load_once(role: Any, data: bytes, delegator: Any = None, role_name: str | None = None) -> Any:
            key = role, data, id(delegator), role_name
            if key not in loaded:
                loaded[key] = *load(role, data, delegator, role_name), delegator  # kept, so that its id stays its own
            return loaded[key][:3]

        return load_once

    def verify_once(self: SSlibKey, signature: Any, data: bytes) -> None:
        key = self.keyid, str(self.keyval), signature.signature, data
        if key not in verified:
            verify(self, signature, data)
            verified.add(key)

    def apply_once(base: Path, patch: Path, out: Path, **expected: Any) -> int:
        disk = DeviceDisk.lends
        if disk is None:
            raise InvariantBroken("a patch is applied to a disk that lent nothing")
        key = disk.read(base) or b"", disk.read(patch) or b"", tuple(sorted(expected.items()))
        if key not in made:
            with tempfile.TemporaryDirectory() as folder:
                files = [Path(folder, name) for name in ("base", "patch", "out")]
                for file, content in zip(files[:2], key[:2], strict=True):
                    file.write_bytes(content)
                apply(*files, **expected)
                made[key] = files[2].read_bytes()
        disk.remove(out)
        disk.create(out, made[key])
        return len(made[key])

    patchfile.apply_files = apply_once
    SSlibKey.verify_signature = verify_once  # type: ignore[method-assign]
    try:
        with reading_metadata_by(loading_once):
            yield
    finally:
        SSlibKey.verify_signature = verify  # type: ignore[method-assign]
        patchfile.apply_files = apply
