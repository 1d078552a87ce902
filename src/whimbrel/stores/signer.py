"""Keys as Ed25519 files: `keys/offline` for people, `keys/online` for the server. PKCS #8, mode 0600.

A key management service or an HSM takes a file's place through securesystemslib's signer URIs; nothing else changes.
"""

import os
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner, Key, Signer, SSlibKey

from whimbrel.durable import write_durably
from whimbrel.errors import Conflict, NotFound, UntrustedInput

__all__ = ["Key", "SSlibKey", "Signer", "load_signer", "make_signer"]

_KEY_BYTES = 64 * 1024


def make_signer(path: Path) -> CryptoSigner:
    """A new Ed25519 key at `path`. Raises `Conflict` where there is one: a key is never overwritten."""
    if path.exists():
        raise Conflict(f"there is a key at {path} already; it is not overwritten")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    signer = CryptoSigner.generate_ed25519()
    write_durably(path, signer.private_bytes, mode=0o600)
    return signer


def load_signer(path: Path) -> CryptoSigner:
    """The key at `path`. Raises `NotFound`, or `UntrustedInput` for a file that is no private key."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"there is no key at {path}; bring it here, or name its folder with --keys") from None
    except OSError as error:
        raise UntrustedInput(f"the key {path} cannot be read: {os.strerror(error.errno or 0)}") from error
    if len(content) > _KEY_BYTES:
        raise UntrustedInput(f"{path} has {len(content)} bytes and is no key; expected a PEM file")
    try:
        return CryptoSigner(load_pem_private_key(content, password=None))
    except (ValueError, TypeError) as error:
        raise UntrustedInput(f"{path} is not an unencrypted private key in PEM form: {error}") from error
