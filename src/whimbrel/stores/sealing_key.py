"""The server's sealing key: an age identity in a file, which opens the release keys that the database keeps.

1. The file lies outside of the database, and by `sealing_key` of `whimbrel.toml` outside of the repository's folder.
   Whoever has the database, or its backup, without this file opens no release.
2. Publishers seal a release's key to the public half. The server opens it to hand it out, and for nothing else.
3. While it is being replaced, the file has two lines: the new key, and the one before (`kept_release_keys`).
4. Without the file no release key can be opened by anybody any more: a copy of it must lie somewhere safe.
"""

from pathlib import Path

from whimbrel import agefile
from whimbrel.durable import write_durably
from whimbrel.errors import Conflict, NotFound, Unavailable, UntrustedInput, reason_of
from whimbrel.model.documents import encode, parse
from whimbrel.trust.sealing import KeptReleaseKey

_FILE_BYTES = 4096
_KEYS = 2  # in the file: the key, and the one before while it is being replaced


class SealingKey:
    """The key in the file at `path`. It is read when it is needed, so it may be made while a server runs."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def make(self) -> str:
        """Make the key; its public half. Raises `Conflict` where there is one: it is never overwritten."""
        if self._is_there():
            raise Conflict(
                f"there is a sealing key at {self.path} already; without it no sealed release can be opened. To have "
                "another one take its place: whimbrel keys make-sealing-key --replace"
            )
        return self._write(agefile.new_identity())

    def begin_replacement(self) -> str:
        """Have a new key in the file before the one that is there; the new public half. Goes on with one that began.

        From then on publishers seal to the new key, and both open. Raises as `open` does.
        """
        identities = self._identities()
        if len(identities) == 1:
            return self._write(agefile.new_identity(), *identities)
        return agefile.recipient_of(identities[0])

    def end_replacement(self) -> None:
        """Forget the key before. Nothing may be sealed to it any more."""
        self._write(self._identities()[0])

    @property
    def recipient(self) -> str | None:
        """The public half, `age1...`; None before a key was made."""
        return agefile.recipient_of(self._identities()[0]) if self._is_there() else None

    @property
    def is_replaced_now(self) -> bool:
        """Whether a replacement began and did not end."""
        return self._is_there() and len(self._identities()) > 1

    def open(self, kept: bytes, *, namespace: str, model: str, serial: int) -> str:
        """The key of a release. Raises `UntrustedInput` where it belongs to another release or sealing key."""
        key = parse(KeptReleaseKey, self.content(kept), what="the kept release key")
        if (key.namespace, key.model, key.serial) != (namespace, model, serial):
            raise UntrustedInput(
                f"the key that is kept for {model} at serial {serial} of {namespace} is that of {key.model} at serial "
                f"{key.serial} of {key.namespace}"
            )
        return key.identity

    def content(self, kept: bytes) -> bytes:
        """What is sealed in `kept`. Raises `UntrustedInput` where it is sealed to another sealing key."""
        newest, *before = self._identities()
        try:
            return agefile.open_bytes(kept, identity=newest)
        except UntrustedInput:
            if not before:
                raise
        return agefile.open_bytes(kept, identity=before[0])

    def is_sealed_to_newest(self, kept: bytes) -> bool:
        """Whether the newest key alone opens `kept`."""
        try:
            agefile.open_bytes(kept, identity=self._identities()[0])
        except UntrustedInput:
            return False
        return True

    def _write(self, *identities: str) -> str:
        public = agefile.recipient_of(identities[0])
        lines = (f"# public key: {agefile.recipient_of(each)}\n{each}\n" for each in identities)
        write_durably(self.path, "".join(lines).encode(), mode=0o600)
        return public

    def _is_there(self) -> bool:
        try:
            self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise Unavailable(f"the sealing key {self.path} cannot be read: {reason_of(error)}") from error
        return True

    def _identities(self) -> list[str]:
        """The key, and behind it the one before while it is being replaced."""
        try:
            text = self.path.read_bytes()[:_FILE_BYTES].decode("ascii")
        except FileNotFoundError:
            raise NotFound(
                f"this server has no sealing key at {self.path}; make it with `whimbrel keys make-sealing-key`, or "
                "bring back the copy that was kept"
            ) from None
        except OSError as error:
            raise Unavailable(f"the sealing key {self.path} cannot be read: {reason_of(error)}") from error
        except UnicodeDecodeError as error:
            raise UntrustedInput(f"{self.path} is no sealing key; expected a line AGE-SECRET-KEY-1...") from error
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        if not 1 <= len(lines) <= _KEYS:
            raise UntrustedInput(
                f"{self.path} is no sealing key: {len(lines)} lines; expected a line AGE-SECRET-KEY-1..., and the key "
                "before behind it while it is being replaced"
            )
        try:
            for each in lines:
                agefile.recipient_of(each)
        except UntrustedInput as error:
            raise UntrustedInput(f"{self.path} is no sealing key: {error}") from error
        return lines


def keep_release_key(identity: str, recipient: str, *, namespace: str, model: str, serial: int) -> bytes:
    """A release's key as the registry keeps it: sealed to the server's sealing key, with what it belongs to."""
    kept = KeptReleaseKey(namespace=namespace, model=model, serial=serial, identity=identity)
    return agefile.seal_bytes(encode(kept), recipient=recipient)
