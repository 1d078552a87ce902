"""Who may sign a role, and what does a change of keys change? In sentences, for whoever is asked to sign it.

Pure: a body reads the keys out of signed metadata (stores/key_ceremony.py), and shows the sentences.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from whimbrel import limits
from whimbrel.trust import roles

SHOWN_CHARS = 8  # of a key's id: people compare that many


class RoleKeys(NamedTuple):
    """The ids of the keys that may sign a role, and how many of them must."""

    keyids: tuple[str, ...]
    threshold: int

    def signed_by(self, keyids: set[str]) -> bool:
        """Whether signatures with these keys are enough."""
        return len(keyids.intersection(self.keyids)) >= self.threshold


def key_changes(before: Mapping[str, RoleKeys], after: Mapping[str, RoleKeys]) -> list[str]:
    """What differs, a sentence each; the same change of many roles is one sentence. Role by role, in their order."""
    same: dict[str, list[str]] = {}
    for role in [*after, *(each for each in before if each not in after)]:
        for words in _changes(before.get(role), after.get(role)):
            same.setdefault(words, []).append(role)
    return [f"{_named(names)}: {words}" for words, names in same.items()]


def _changes(before: RoleKeys | None, after: RoleKeys | None) -> list[str]:
    if before == after:
        return []
    if after is None:
        return ["is delegated no more"]
    old = before or RoleKeys((), 0)
    removed = [short(keyid) for keyid in old.keyids if keyid not in after.keyids]
    added = [short(keyid) for keyid in after.keyids if keyid not in old.keyids]
    words = ["is delegated anew"] * (before is None)
    words += [f"key {keyid} is removed" for keyid in removed]
    words += [f"key {keyid} is added" for keyid in added]
    if before is not None and before.threshold != after.threshold:
        words.append(f"{after.threshold} of {len(after.keyids)} keys must sign, {before.threshold} before")
    return words or ["its keys are in another order"]


def _named(names: list[str]) -> str:
    return f"{', '.join(names[:3])}{f' and {len(names) - 3} more' * (len(names) > 3)}"


def short(keyid: str) -> str:
    """A key's id as people read it."""
    return keyid[:SHOWN_CHARS]


def expiry_warning(role: str, expires: float, *, now: float) -> str | None:
    """The sentence about a role that expires soon, or did. None for one that has time, and for an online role.

    `expires`, `now`: POSIX seconds. Online roles are signed anew by the server; when that fails, its log says so.
    """
    if not roles.is_offline(role) or expires - now > limits.EXPIRY_WARNING_S:
        return None
    day = f"{datetime.fromtimestamp(expires, UTC):%Y-%m-%d}"
    if expires <= now:
        return f"{role} expired on {day}: devices take no news under it; sign it anew with: whimbrel keys renew {role}"
    left = int((expires - now) // 86400)
    days = "within a day" if left == 0 else f"in {left} day{'s' * (left != 1)}"
    return f"{role} expires on {day}, {days}; sign it anew with: whimbrel keys renew {role}"
