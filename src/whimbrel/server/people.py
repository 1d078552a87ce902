"""Which account is asking? The bearer token of a person or a machine, looked up by its hash.

1. Whoever has a repository's folder has its keys and its database: a command that works on the folder itself shows no
   token, and acts as the user of the operating system (`folder_caller`).
2. A token that is unknown, revoked or over is 401, all three with one sentence, and counts as a failed sign-in of its
   address. The first one too many of a minute is in the log.
3. Every sign-in that fails is counted for the audit log here, and nowhere else: `bounded_acts` writes one entry a
   minute, however many they are.
"""

import getpass
import logging
import os
from collections.abc import Callable

from whimbrel import limits
from whimbrel.errors import NotAllowed, TooMany
from whimbrel.flows.accounts.permissions import Caller, Role
from whimbrel.flows.accounts.records import TokenRecord
from whimbrel.server.auth import bearer
from whimbrel.server.bounded_acts import FAIL_SIGN_IN, BoundedActs
from whimbrel.server.failure_limit import FailureLimit
from whimbrel.stores.database import Database
from whimbrel.stores.transaction import transaction

log = logging.getLogger(__name__)


class People:
    """Signs callers in. `clock` gives POSIX seconds.

    `acts`: where sign-ins that fail are counted for the audit log. `folder`: who asks without a token, where that is
    the folder's. `provider`: whether people sign in with a provider.
    """

    def __init__(
        self,
        database: Database,
        *,
        acts: BoundedActs,
        clock: Callable[[], float],
        folder: Caller | None = None,
        provider: bool = False,
    ) -> None:
        self._database = database
        self._acts = acts
        self._clock = clock
        self._folder, self._provider = folder, provider
        self._failures = FailureLimit()

    def sign_in(self, namespace: str, authorization: str | None, *, address: str) -> Caller:
        """The caller. Raises `NotAllowed`; `TooMany` for an address that failed too often."""
        if authorization is None and self._folder is not None:
            return self._folder
        token, now = bearer(authorization), self._clock()
        if token is None or len(token) > limits.SECRET_BYTES:
            self._count(namespace, address)  # it tries no token, so its address is not refused for it
            raise NotAllowed(
                "the admin API needs a token (Authorization: Bearer ...): init wrote one to admin.token, and "
                "whimbrel login or an admin gives you your own"
            )
        self.check(namespace, token, address=address)
        with transaction(self._database, namespace) as stores:
            record = stores.accounts.signed_in(token, now=now)
        if record is None:
            self.note_failure(namespace, address=address)
            raise NotAllowed(
                "this token is not known here, was revoked, or is over; get a new one (whimbrel login, or ask an admin)"
            )
        self._failures.good(token)
        return self._caller(record)

    def by_token(self, namespace: str, identifier: str) -> Caller | None:
        """The caller whom a session stands for, by the id of its token; None where the token is good no more."""
        now = self._clock()
        with transaction(self._database, namespace) as stores:
            record = stores.accounts.by_id(identifier)
        return self._caller(record) if record is not None and record.live(now=now) else None

    def _caller(self, record: TokenRecord) -> Caller:
        vouched = record.source == "sign-in" or not self._provider
        return Caller(account=record.account, kind=record.kind, roles=record.roles, token=record.id, vouched=vouched)

    def check(self, namespace: str, token: str = "", *, address: str) -> None:
        """Raise `TooMany` for an address that failed too often, unless its token was good lately."""
        try:
            self._failures.check(address, token, now=self._clock())
        except TooMany:
            self._count(namespace, address)
            raise

    def begun(self, address: str) -> None:
        """A sign-in with the provider began: it is a failure of its address until it is done, and no act."""
        self._note(address)

    def note_failure(self, namespace: str, *, address: str) -> None:
        """Count a sign-in that failed."""
        self._count(namespace, address)
        self._note(address)

    def _note(self, address: str) -> None:
        if self._failures.failed(address, now=self._clock()):
            log.warning("%d sign-ins from %s failed within a minute", limits.SIGN_IN_FAILURES, address)

    def _count(self, namespace: str, address: str) -> None:
        self._acts.count(namespace, FAIL_SIGN_IN, by=address)


def folder_caller() -> Caller:
    """Who has the folder: the user of the operating system, who may do everything with it anyway.

    It is the user that the system says, and no variable (USER, LOGNAME), which whoever types could set.
    """
    return Caller(account=_user(), kind="person", roles=(Role.ADMIN,))


def _user() -> str:
    try:
        import pwd
    except ImportError:  # Windows
        return getpass.getuser()
    number = os.getuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:  # a container without that user
        return f"uid-{number}"
