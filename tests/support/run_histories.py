"""Run histories as a device writes them, entry by entry, with a key of its own: also as one that lies would."""

from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from support.values import T0
from whimbrel.health.run_history import (
    RunEntry,
    RunHead,
    RunHistoryPart,
    beginning_of,
    text_to_sign,
)
from whimbrel.model.documents import digest_of, encode
from whimbrel.trust.possession import base64url, public_key_of
from whimbrel.trust.run_history_proof import ProofBranch, RunHistoryProof

HOUR = 3600.0


class SignedLog:
    """The log of one device. `entries`: all of them, as text, from number 1."""

    def __init__(self, device_id: str = "dev-1", *, key: Ed25519PrivateKey | None = None, log: str = "a" * 16) -> None:
        self.device_id, self.log = device_id, log
        self.key = key or Ed25519PrivateKey.generate()
        self.public_key = public_key_of(self.key)
        self.entries: list[str] = []
        self.heads = 0
        self.at = T0

    def copy(self) -> "SignedLog":
        """As a folder that was copied: the same key, log and entries."""
        other = SignedLog(self.device_id, key=self.key, log=self.log)
        other.entries, other.heads, other.at = list(self.entries), self.heads, self.at
        return other

    def digest(self, number: int) -> str:
        if number == 0:
            return beginning_of(self.log, device_id=self.device_id)
        return digest_of(self.entries[number - 1].encode())

    def runs(self, serial: int | None, **changes: Any) -> str:
        """Another entry, an hour after the last: from then on this serial is active."""
        self.at += HOUR
        number = len(self.entries) + 1
        fields: dict[str, Any] = {
            "number": number,
            "previous": self.digest(number - 1),
            "model": "wake",
            "change": "begun" if serial is not None else "emptied",
            "serial": serial,
            "version": f"2026.03.05.{serial}" if serial is not None else "",
            "artifact": digest_of(b"%d" % serial) if serial is not None else None,
            "at": self.at,
            "not_before": self.at,
        }
        self.entries.append(encode(RunEntry(**fields | changes)).decode())
        return self.entries[-1]

    def head(self, number: int | None = None, **changes: Any) -> tuple[str, str]:
        """A head with its signature: of the entries up to `number`, or of all."""
        self.heads += 1
        number = len(self.entries) if number is None else number
        fields: dict[str, Any] = {
            "device_id": self.device_id,
            "public_key": self.public_key,
            "log": self.log,
            "number": number,
            "newest": number,
            "digest": self.digest(number),
            "heads": self.heads,
            "at": self.at + 60,
        }
        head = encode(RunHead(**fields | changes)).decode()
        return head, base64url(self.key.sign(text_to_sign(head)))

    def part(self, after: int = 0, *, number: int | None = None, **changes: Any) -> RunHistoryPart:
        """What is sent: the entries behind `after`, with a head."""
        head, signature = self.head(number, **changes)
        return RunHistoryPart(head=head, signature=signature, entries=tuple(self.entries[after:number]))

    def proof(self, **changes: Any) -> RunHistoryProof:
        """The whole log, as a document."""
        head, signature = self.head(**changes)
        branch = ProofBranch(branch=1, head=head, signature=signature, entries=tuple(self.entries))
        return RunHistoryProof(
            device_id=self.device_id, made_at=self.at, public_key=self.public_key, branches=(branch,)
        )
