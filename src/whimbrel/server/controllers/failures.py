"""What fails by itself stops nothing beside it: one rollout that cannot be judged keeps no other from going back.

1. A failure is remembered, and the round goes on with what is next. At its end the first failure is raised, so that the
   round counts as failed; the others are in the log.
2. `Unavailable` is no such failure: the database, the inbox or the lead is gone, and the rest would only wait for it.

Used by the round, and by the controllers that work through a list.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from whimbrel.errors import Unavailable, WhimbrelError

log = logging.getLogger(__name__)


class Failures:
    """The failures of one pass through a list."""

    def __init__(self) -> None:
        self._first: Exception | None = None

    @contextmanager
    def apart(self, doing: str) -> Iterator[None]:
        """Remember what fails in the block, and go on after it. `doing`: what the block does, for the log."""
        try:
            yield
        except Unavailable:
            raise
        except Exception as error:  # a bug in one must not end the others
            if self._first is None:
                self._first = error
            elif isinstance(error, WhimbrelError):
                log.warning("%s failed, too: %s", doing, error)
            else:
                log.exception("%s failed, too", doing)

    def raise_first(self) -> None:
        """Raise the failure that came first, if any did."""
        if self._first is not None:
            raise self._first
