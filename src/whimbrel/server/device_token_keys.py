"""The keys that device tokens are made with: the one in use, and for an hour the one before it.

`device-tokens.key` is 32 random bytes. After a replacement `device-tokens.before.key` is the old key and, in eight
bytes, until when tokens of it are taken (POSIX seconds, big-endian). Every process looks once a second whether they
changed, so a key is replaced while servers run.
"""

import secrets
from pathlib import Path

from whimbrel.durable import write_durably
from whimbrel.errors import UntrustedInput

TOKEN_LIFE_S = 3600
_KEY_BYTES = 32
_LOOK_S = 1.0


class DeviceTokenKeys:
    """The keys in the files beside `path`, as they are now, or a second ago."""

    def __init__(self, path: Path) -> None:
        self._path, self._before = path, path.with_name(f"{path.stem}.before{path.suffix}")
        self._looked_at: float | None = None
        self._key, self._old, self._old_until = b"", b"", 0.0

    def current(self, now: float) -> bytes:
        """The key that tokens are made with. It is made on first use."""
        self._look(now)
        return self._key

    def accepted(self, now: float) -> tuple[bytes, ...]:
        """The keys whose tokens are taken."""
        self._look(now)
        return (self._key, self._old) if self._old and now < self._old_until else (self._key,)

    def replace(self, *, at_once: bool, now: float) -> float:
        """Make a new key. Tokens of the old one are taken for as long as they live, or no more (`at_once`).

        Returns until when. Killed between the two files: the old key is the current one still, and listed twice.
        """
        old = self.current(now)
        until = now if at_once else now + TOKEN_LIFE_S
        write_durably(self._before, old + int(until).to_bytes(8, "big"), mode=0o600)
        write_durably(self._path, secrets.token_bytes(_KEY_BYTES), mode=0o600)
        self._looked_at = None
        return until

    def _look(self, now: float) -> None:
        if self._looked_at is not None and 0 <= now - self._looked_at < _LOOK_S:
            return
        if not self._path.exists():
            write_durably(self._path, secrets.token_bytes(_KEY_BYTES), mode=0o600)
        self._key = self._path.read_bytes()
        if len(self._key) < _KEY_BYTES:
            raise UntrustedInput(f"{self._path} has {len(self._key)} bytes; expected {_KEY_BYTES} random ones")
        before = self._before.read_bytes() if self._before.exists() else b""
        self._old, self._old_until = before[:-8], float(int.from_bytes(before[-8:], "big")) if before else 0.0
        self._looked_at = now
