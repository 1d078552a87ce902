"""Seal files and open them again: standard age files (age-encryption.org/v1), by `pyrage`. No cryptography of ours.

1. Files stream: neither the sealed nor the open file is ever wholly in memory.
2. Nothing is believed of a file before its end: whoever opens one checks the digest of what came out.
3. A file that is cut, changed or longer than it should be raises `UntrustedInput`, and so does a wrong key.

`pyrage` is the extra `sealed`; it is imported when it is needed.
"""

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from whimbrel.errors import Unavailable, UntrustedInput, reason_of


class Writes(Protocol):
    """What takes bytes: an open file."""

    def write(self, content: bytes, /) -> int: ...


class Nowhere:
    """Takes bytes, and forgets them."""

    def write(self, content: bytes, /) -> int:
        """How many came."""
        return len(content)


class Reads(Protocol):
    """What gives bytes: an open file."""

    def read(self, size: int = -1, /) -> bytes: ...


def is_installed() -> bool:
    """Whether sealed files can be made and opened here."""
    return find_spec("pyrage") is not None


def new_identity() -> str:
    """A fresh X25519 identity, `AGE-SECRET-KEY-1...`: what opens the files that are sealed to it."""
    return str(_pyrage().x25519.Identity.generate())


def recipient_of(identity: str) -> str:
    """The public half of an identity, `age1...`: what files are sealed to."""
    return str(_identity(identity).to_public())


def seal_file(source: Path, target: Path, *, recipient: str) -> tuple[str, int]:
    """Write `source` to `target` as an age file. Returns the SHA-256 and the size in bytes of the sealed file."""
    with source.open("rb") as plain, target.open("wb") as sealed:
        _pyrage().encrypt_io(plain, sealed, [_recipient(recipient)])
    with target.open("rb") as sealed_file:
        digest = hashlib.file_digest(sealed_file, "sha256").hexdigest()
    return digest, target.stat().st_size


def open_file(sealed: Reads, plain: Writes, *, identity: str, bytes_max: int) -> str:
    """Write what the age file `sealed` holds to `plain`; its SHA-256. At most `bytes_max` are written.

    Raises `UntrustedInput` for a file that is cut, changed, holds more, or is sealed to another key.
    """
    bounded = _Bounded(plain, most=bytes_max)
    try:
        _pyrage().decrypt_io(sealed, bounded, [_identity(identity)])
    except _TooLong as error:
        raise UntrustedInput(f"the sealed file holds more than the {bytes_max} bytes that it may have") from error
    except OSError as error:
        if error.errno is not None:  # of the disk, and not of what was read
            raise
        raise UntrustedInput(f"the sealed file cannot be opened: {reason_of(error)}; it was cut or changed") from error
    except _pyrage().DecryptError as error:
        raise UntrustedInput(f"the sealed file cannot be opened with this key: {error}") from error
    return bounded.digest.hexdigest()


def seal_bytes(content: bytes, *, recipient: str) -> bytes:
    """A short secret as an age file."""
    return bytes(_pyrage().encrypt(content, [_recipient(recipient)]))


def open_bytes(sealed: bytes, *, identity: str) -> bytes:
    """The secret again. Raises `UntrustedInput`."""
    try:
        return bytes(_pyrage().decrypt(sealed, [_identity(identity)]))
    except _pyrage().DecryptError as error:
        raise UntrustedInput(f"what was sealed cannot be opened with this key: {error}") from error


class _TooLong(Exception):
    """More came out than there may be."""


class _Bounded:
    """Counts and hashes what is written, and ends at `most` bytes."""

    def __init__(self, plain: Writes, *, most: int) -> None:
        self._plain = plain
        self._most = most
        self.written = 0
        self.digest = hashlib.sha256()

    def write(self, content: bytes) -> int:
        self.written += len(content)
        if self.written > self._most:
            raise _TooLong
        self.digest.update(content)
        self._plain.write(content)
        return len(content)

    def flush(self) -> None:
        """Whoever gave the file flushes it."""


def _identity(text: str) -> Any:
    try:
        return _pyrage().x25519.Identity.from_str(text)
    except _pyrage().IdentityError as error:
        raise UntrustedInput(f"this is no key of age: {error}; expected AGE-SECRET-KEY-1...") from error


def _recipient(text: str) -> Any:
    try:
        return _pyrage().x25519.Recipient.from_str(text)
    except _pyrage().RecipientError as error:
        raise UntrustedInput(f"this is no recipient of age: {error}; expected age1...") from error


def _pyrage() -> Any:
    try:
        import pyrage
    except ImportError as error:
        raise Unavailable(
            "sealed files are age files, and pyrage is not installed here: pip install 'whimbrel[sealed]'"
        ) from error
    return pyrage
