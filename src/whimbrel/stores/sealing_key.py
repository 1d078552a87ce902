"""The server's sealing key: an age identity in a file, which opens the release keys that the database keeps.

1. The file lies outside of the database, and by `sealing_key` of `whimbrel.toml` outside of the repository's folder.
   Whoever has the database, or its backup, without this file opens no release.
2. Publishers seal a release's key to the public half. The server opens it to hand it out, and for nothing else.
3. Without the file no release key can be opened by anybody any more: a copy of it must lie somewhere safe.
"""

from pathlib import Path

from whimbrel import agefile
from whimbrel.durable import write_durably
from whimbrel.errors import Conflict, NotFound, Unavailable, UntrustedInput, reason_of
from whimbrel.model.documents import encode, parse
from whimbrel.trust.sealing import KeptReleaseKey

_FILE_BYTES = 4096


class SealingKey:
    """The key in the file at `path`. It is read when it is needed, so it may be made while a server runs."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def make(self) -> str:
        """Make the key; its public half. Raises `Conflict` where there is one: it is never overwritten."""
        if self.path.exists():
            raise Conflict(f"there is a sealing key at {self.path} already; without it no sealed release can be opened")
        identity = agefile.new_identity()
        public = agefile.recipient_of(identity)
        write_durably(self.path, f"# public key: {public}\n{identity}\n".encode(), mode=0o600)
        return public

    @property
    def recipient(self) -> str | None:
        """The public half, `age1...`; None before a key was made."""
        return agefile.recipient_of(self._identity()) if self.path.exists() else None

    def open(self, kept: bytes, *, namespace: str, model: str, serial: int) -> str:
        """The key of a release. Raises `UntrustedInput` where it belongs to another release or sealing key."""
        content = agefile.open_bytes(kept, identity=self._identity())
        key = parse(KeptReleaseKey, content, what="the kept release key")
        if (key.namespace, key.model, key.serial) != (namespace, model, serial):
            raise UntrustedInput(
                f"the key that is kept for {model} at serial {serial} of {namespace} is that of {key.model} at serial "
                f"{key.serial} of {key.namespace}"
            )
        return key.identity

    def _identity(self) -> str:
        try:
            text = self.path.read_bytes()[:_FILE_BYTES].decode("ascii")
        except FileNotFoundError:
            raise NotFound(
                f"this server has no sealing key at {self.path}; make it with `whimbrel keys make-sealing-key`, or "
                "bring back the copy that was kept"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise Unavailable(f"the sealing key {self.path} cannot be read: {reason_of(error)}") from error
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        if len(lines) != 1:
            raise UntrustedInput(f"{self.path} is no sealing key; expected one line AGE-SECRET-KEY-1...")
        return lines[0]


def keep_release_key(identity: str, recipient: str, *, namespace: str, model: str, serial: int) -> bytes:
    """A release's key as the registry keeps it: sealed to the server's sealing key, with what it belongs to."""
    kept = KeptReleaseKey(namespace=namespace, model=model, serial=serial, identity=identity)
    return agefile.seal_bytes(encode(kept), recipient=recipient)
