"""The device's own key: an Ed25519 key that is made here, and never leaves. The server knows the device by it.

It lies in the agent's folder as PEM, mode 0600, and is made when it is first needed. A device whose disk was wiped
makes another one, and is then another device to the server. A file that cannot be read as a key is replaced. Each id
has a key of its own: a copied disk that gets another id does not go on with the key of the first one.
"""

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from whimbrel.agent.disk import Disk
from whimbrel.model.documents import digest_of


class DeviceKey:
    """The key of `device_id`, in `folder`."""

    def __init__(self, folder: Path, device_id: str, *, disk: Disk) -> None:
        self._path = folder / f"device-{digest_of(device_id.encode())[:16]}.key"
        self._disk = disk
        self._key: Ed25519PrivateKey | None = None

    @property
    def exists(self) -> bool:
        """Whether one was made."""
        return self._key is not None or self._kept() is not None

    def get(self) -> Ed25519PrivateKey:
        """The key, made and written durably on first use. Raises `OSError`."""
        if self._key is None:
            key = self._kept()
            if key is None:
                key = Ed25519PrivateKey.generate()
                pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
                self._disk.write(self._path, pem, mode=0o600)
            self._key = key
        return self._key

    def _kept(self) -> Ed25519PrivateKey | None:
        content = self._disk.read(self._path)
        try:
            key = load_pem_private_key(content, password=None) if content else None
        except (ValueError, TypeError, UnsupportedAlgorithm):
            return None
        return key if isinstance(key, Ed25519PrivateKey) else None
