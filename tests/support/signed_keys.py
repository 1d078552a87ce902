"""Changes of keys in memory: what is signed for is taken or tried, and proposals wait in a list."""

from collections.abc import Callable, Mapping
from datetime import datetime

from whimbrel.errors import Conflict, UntrustedInput
from whimbrel.flows.key_records import KeyProposal
from whimbrel.model.documents import digest_of, encode
from whimbrel.trust.role_keys import RoleKeys

FORGED, SUPERSEDED = b"forged", b"superseded"


class InMemoryKeys:
    """Who may sign. `accepted`, `tried`: the documents that came, each with the time."""

    def __init__(self) -> None:
        self.accepted: list[tuple[dict[str, bytes], datetime]] = []
        self.tried: list[tuple[dict[str, bytes], datetime]] = []

    def accept(self, documents: Mapping[str, bytes], *, holds: Callable[[RoleKeys], bool], now: datetime) -> list[str]:
        changes = self._changes(documents)
        self.accepted.append((dict(documents), now))
        return changes

    def preview(self, documents: Mapping[str, bytes], *, holds: Callable[[RoleKeys], bool], now: datetime) -> list[str]:
        changes = self._changes(documents)
        self.tried.append((dict(documents), now))
        return changes

    def _changes(self, documents: Mapping[str, bytes]) -> list[str]:
        if FORGED in documents.values():
            raise UntrustedInput("root is not signed by a key that may")
        if SUPERSEDED in documents.values():
            raise Conflict("root version 3 came, 4 is next")
        return [f"{role}: a key is added" for role in sorted(documents)]


class InMemoryProposals:
    """Changes of keys that wait for a second person."""

    def __init__(self) -> None:
        self.waiting: list[KeyProposal] = []

    def id_of(self, documents: dict[str, bytes]) -> str:
        return digest_of(encode(documents))

    def add(self, proposal: KeyProposal) -> None:
        self.waiting.append(proposal)

    def all(self) -> list[KeyProposal]:
        return sorted(self.waiting, key=lambda each: each.at)

    def count(self) -> int:
        return len(self.waiting)

    def remove(self, identifier: str) -> None:
        self.waiting = [each for each in self.waiting if each.id != identifier]

    def remove_older(self, *, at: float) -> None:
        self.waiting = [each for each in self.waiting if each.at >= at]
