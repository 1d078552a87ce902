"""How often may an address show a wrong token? A bound on failed sign-ins, in memory.

1. Tokens are random and long, so nobody guesses one; the bound keeps who tries from occupying the database.
2. An address that has failed too often in a minute is answered 429 before its token is looked up. A token that was
   good lately is looked up all the same, so that nobody shuts a colleague out who shares his address.
3. What is remembered is bounded: the addresses and tokens of longest ago are forgotten first.
"""

import hashlib
from collections import OrderedDict

from whimbrel import limits
from whimbrel.errors import TooMany

_WITHIN_S = 60.0


class FailureLimit:
    """The failures of addresses in this minute. `now` is POSIX seconds."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()  # address -> its minute's begin, how many
        self._known: OrderedDict[bytes, None] = OrderedDict()

    def check(self, address: str, token: str = "", *, now: float) -> None:
        """Raise `TooMany` for an address that failed too often, unless its token was good lately."""
        began, count = self._failures.get(address, (now, 0))
        if count >= limits.SIGN_IN_FAILURES and now < began + _WITHIN_S and _digest(token) not in self._known:
            raise TooMany(
                f"{count} sign-ins from {address} failed within a minute; wait for a minute, then use the right token"
            )

    def failed(self, address: str, *, now: float) -> bool:
        """Count a failure. Whether it is the one from which on the address is refused: it is worth a line in a log."""
        began, count = self._failures.pop(address, (now, 0))
        if now >= began + _WITHIN_S:
            began, count = now, 0
        self._failures[address] = began, count + 1
        while len(self._failures) > limits.SIGN_IN_ADDRESSES:
            self._failures.popitem(last=False)
        return count + 1 == limits.SIGN_IN_FAILURES

    def good(self, token: str) -> None:
        """Note that a token is good."""
        digest = _digest(token)
        self._known[digest] = None
        self._known.move_to_end(digest)
        while len(self._known) > limits.KNOWN_TOKENS:
            self._known.popitem(last=False)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
