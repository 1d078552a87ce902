"""Acts that anybody may repeat without end: how they are in the audit log, and a flood of them fills no table.

1. Some a minute of each kind have an entry of their own, in the transaction of the act (`own_entry`).
2. Further ones are counted (`count`), and one entry a minute says how many they were, and from whom most came. So
   they are bounded in every minute, whoever floods, and what people did stays easy to see.
3. Of sign-ins that fail none has an entry of its own: they change nothing, and asking the database for each would help
   whoever floods. The first of a burst is in the log within a second.

Killed: the count of the last minute is lost. The devices that enrolled in it are in their rows, each with its time.
"""

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Callable

import msgspec

from whimbrel import limits
from whimbrel.errors import WhimbrelError
from whimbrel.flows.audit import audit
from whimbrel.stores.database import Database
from whimbrel.stores.transaction import Stores, all_namespaces, transaction

log = logging.getLogger(__name__)

FAIL_SIGN_IN, FAIL_DEVICE_SIGN_IN, ENROL_DEVICE = "fail_sign_in", "fail_device_sign_in", "enrol_device"
HAND_OUT_RELEASE_KEY = "hand_out_release_key"
_PERIOD_S = 1.0
_WORDS = {
    FAIL_SIGN_IN: (
        "request of people was not let in",
        "requests of people were not let in",
        "from",
    ),
    FAIL_DEVICE_SIGN_IN: (
        "enrolment or sign-in of a device failed",
        "enrolments or sign-ins of devices failed",
        "from",
    ),
    HAND_OUT_RELEASE_KEY: ("further release key was handed out", "further release keys were handed out", "of"),
    ENROL_DEVICE: ("further device enrolled", "further devices enrolled", "with the token"),
}
_OTHERS = "others"
_NOWHERE = ""  # no namespace has this name


class _Acts(msgspec.Struct):
    """The acts of one kind in one namespace that have no entry yet, and what was written of them."""

    by: Counter[str] = msgspec.field(default_factory=Counter)
    since: float = 0.0
    told_at: float = float("-inf")  # when the last entry that counts was written
    minute: float = float("-inf")  # since when own entries are counted
    own: int = 0


class BoundedActs:
    """The acts of one process that anybody may repeat. `note` and `own_entry` ask nothing of the database."""

    def __init__(self, database: Database, *, clock: Callable[[], float]) -> None:
        self._database, self._clock = database, clock
        self._acts: dict[tuple[str, str], _Acts] = {}
        self._lock = threading.Lock()  # requests are answered in several threads

    def own_entry(self, namespace: str, action: str) -> bool:
        """Whether this act has an entry of its own: then the caller writes it, and else calls `count`."""
        now = self._clock()
        with self._lock:
            acts = self._of(namespace, action)
            if not 0 <= now - acts.minute < limits.AUDIT_BOUNDED_S:
                acts.minute, acts.own = now, 0
            acts.own += 1
            return acts.own <= limits.AUDIT_BOUNDED_OWN

    def count(self, namespace: str, action: str, *, by: str) -> None:
        """Count an act that has no entry of its own. `by`: an address, or a token's name."""
        now = self._clock()
        with self._lock:
            acts = self._of(namespace, action)
            if not acts.by:
                acts.since = now
            acts.by[by if by in acts.by or len(acts.by) < limits.AUDIT_BOUNDED_NAMES else _OTHERS] += 1

    async def run(self) -> None:
        """Write what is due, every second, until cancelled. Trouble is logged once, and tried again."""
        troubled = False
        while True:
            await asyncio.sleep(_PERIOD_S)
            try:
                await asyncio.to_thread(self.write)
                troubled = False
            except WhimbrelError as error:
                if not troubled:
                    log.warning("acts that were counted could not be written into the audit log: %s", error)
                troubled = True
            except Exception:  # a bug must not end this loop: a flood would not be in the log
                log.exception("acts that were counted could not be written into the audit log")

    def write(self, *, all_of_it: bool = False) -> None:
        """Write the entries that are due; `all_of_it`: the process ends. Raises `Unavailable`, and keeps the counts."""
        now = self._clock()
        with self._lock:
            due = [
                (namespace, action, Counter(acts.by), acts.since)
                for (namespace, action), acts in self._acts.items()
                if acts.by and (all_of_it or not 0 <= now - acts.told_at < limits.AUDIT_BOUNDED_S)
            ]
        known = frozenset(all_namespaces(self._database) if due else ())
        for namespace, action, by, since in due:
            if namespace in known:  # anybody may invent one
                with transaction(self._database, namespace) as stores:
                    _write(stores, action, by, since=since, now=now)
            with self._lock:
                acts = self._acts[namespace, action]
                acts.by, acts.told_at = acts.by - by, now  # those that came meanwhile stay
                if namespace not in known:
                    del self._acts[namespace, action]

    def _of(self, namespace: str, action: str) -> _Acts:
        key = namespace, action
        if key not in self._acts and len(self._acts) >= limits.AUDIT_BOUNDED_KINDS:
            key = _NOWHERE, action
        return self._acts.setdefault(key, _Acts())


def _write(stores: Stores, action: str, by: Counter[str], *, since: float, now: float) -> None:
    most = by.most_common(limits.AUDIT_BOUNDED_TOLD)
    one, many, preposition = _WORDS[action]
    count, first = by.total(), most[0][0] or "an unknown address"
    audit(
        stores.registry,
        actor="anybody",
        action=action,
        because=f"{count:,} {one if count == 1 else many}, {'most ' * (len(by) > 1)}{preposition} {first}",
        now=now,
        evidence={"count": by.total(), "since": since, "until": now, "most_by": dict(most)},
    )
