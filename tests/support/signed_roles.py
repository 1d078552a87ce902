"""Signed metadata in memory: whatever is signed `GOOD` is believed, and anything else is refused."""

from collections.abc import Collection, Mapping
from datetime import datetime

from whimbrel.errors import UntrustedInput

GOOD = b"signed by the right key"


class InMemoryRoles:
    """The signed documents of one namespace: by role and path."""

    def __init__(self) -> None:
        self.documents: dict[tuple[str, str], bytes] = {}
        self.delegated: set[str] = set()
        self.expires: dict[str, float] = {}
        self.accepted: list[tuple[str, datetime]] = []  # roles in the order in which they were accepted

    def accept_delegation(self, content: bytes, *, of: Collection[str], now: datetime) -> None:
        self._accept("targets", content, now)

    def accept_publication(self, role: str, content: bytes, documents: Mapping[str, bytes], *, now: datetime) -> None:
        self._accept(role, content, now)
        self.documents |= {(role, path): document for path, document in documents.items()}

    def current_target(self, role: str, path: str) -> bytes | None:
        return self.documents.get((role, path))

    def is_delegated(self, role: str) -> bool:
        return role in self.delegated

    def expires_at(self, role: str) -> float | None:
        return self.expires.get(role)

    def _accept(self, role: str, content: bytes, now: datetime) -> None:
        if content != GOOD:
            raise UntrustedInput(f"{role} is not signed by a key that may")
        self.accepted.append((role, now))
