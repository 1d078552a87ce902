"""Refusals in the log: the first one of a kind at once, then one line in a while with their number.

Under an attack a line for each refusal would fill the disk, and be an attack by itself.
"""

import logging
import time

from whimbrel import limits
from whimbrel.server.logs import fields

log = logging.getLogger(__name__)

_KINDS = 64  # kinds that are counted apart: the program writes the sentences, so there are some ten


class DampedLog:
    """Counts refusals by their sentence. `note` counts one, `flush` writes what is due."""

    def __init__(self, listener: str) -> None:
        self._listener = listener
        self._counts: dict[str, int] = {}
        self._told_at: dict[str, float] = {}
        self.total = 0

    def note(self, reason: str) -> None:
        """Count one, and say it where none of its kind was said lately."""
        self.total += 1
        if reason not in self._told_at and len(self._told_at) >= _KINDS:
            reason = "other refusals"
        self._counts[reason] = self._counts.get(reason, 0) + 1
        if reason not in self._told_at:
            self._tell(reason, time.monotonic())

    def flush(self) -> None:
        """Say what was counted since it was said last. Called about once a second."""
        now = time.monotonic()
        for reason, told_at in list(self._told_at.items()):
            if now - told_at < limits.DAMPED_LOG_S:
                continue
            if reason in self._counts:
                self._tell(reason, now)
            else:
                del self._told_at[reason]

    def _tell(self, reason: str, now: float) -> None:
        self._told_at[reason] = now
        log.warning("refused: %s", reason, extra=fields(listener=self._listener, times=self._counts.pop(reason)))
