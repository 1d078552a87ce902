"""The device's recipient key: an X25519 key to which the keys of sealed releases are sealed for this device alone.

It is made here when it is first needed, and lies beside the device's Ed25519 key as PEM, mode 0600. The server believes
that it is this device's, because the request for a release key is signed with the Ed25519 key. A file that cannot be
read as a key is replaced.
"""

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from whimbrel.agent.disk import Disk
from whimbrel.agent.folder import PRIVATE_FILE
from whimbrel.model.documents import digest_of


class RecipientKey:
    """The recipient key of `device_id`, in `folder`."""

    def __init__(self, folder: Path, device_id: str, *, disk: Disk) -> None:
        self._path = folder / f"recipient-{digest_of(device_id.encode())[:16]}.key"
        self._disk = disk

    def kept(self) -> X25519PrivateKey | None:
        """The key that was made; None before. Raises `OSError`."""
        content = self._disk.read(self._path)
        try:
            key = load_pem_private_key(content, password=None) if content else None
        except (ValueError, TypeError, UnsupportedAlgorithm):
            return None
        return key if isinstance(key, X25519PrivateKey) else None

    def get(self) -> X25519PrivateKey:
        """The key, made and written durably on first use. Raises `OSError`."""
        key = self.kept()
        if key is None:
            key = X25519PrivateKey.generate()
            pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            self._disk.write(self._path, pem, mode=PRIVATE_FILE)
        return key
