"""Which account is asking? The bearer token of a person or a machine, looked up by its hash.

1. Whoever has a repository's folder has its keys and its database: a command that works on the folder itself shows no
   token, and acts as the user of the operating system (`folder_caller`).
2. A token that is unknown, revoked or over is 401, all three with one sentence, and counts as a failed sign-in of its
   address. The first one too many of a minute is in the log and in the audit log.
"""

import getpass
import logging
import os
from collections.abc import Callable

from whimbrel import limits
from whimbrel.errors import NotAllowed
from whimbrel.flows.accounts.permissions import Caller, Role
from whimbrel.flows.audit import audit
from whimbrel.server.auth import bearer
from whimbrel.server.failure_limit import FailureLimit
from whimbrel.stores.database import Database
from whimbrel.stores.transaction import transaction

log = logging.getLogger(__name__)


class People:
    """Signs callers in. `clock` gives POSIX seconds.

    `folder`: who asks without a token, where that is the folder's. `provider`: whether people sign in with a provider.
    """

    def __init__(
        self, database: Database, *, clock: Callable[[], float], folder: Caller | None = None, provider: bool = False
    ) -> None:
        self._database = database
        self._clock = clock
        self._folder, self._provider = folder, provider
        self.failures = FailureLimit()

    def sign_in(self, namespace: str, authorization: str | None, *, address: str) -> Caller:
        """The caller. Raises `NotAllowed`; `TooMany` for an address that failed too often."""
        if authorization is None and self._folder is not None:
            return self._folder
        token, now = bearer(authorization), self._clock()
        if token is None or len(token) > limits.SECRET_BYTES:
            raise NotAllowed(
                "the admin API needs a token (Authorization: Bearer ...): init wrote one to admin.token, and "
                "whimbrel login or an admin gives you your own"
            )
        self.failures.check(address, token, now=now)
        with transaction(self._database, namespace) as stores:
            record = stores.accounts.signed_in(token, now=now)
        if record is None:
            self.note_failure(namespace, address=address)
            raise NotAllowed(
                "this token is not known here, was revoked, or is over; get a new one (whimbrel login, or ask an admin)"
            )
        self.failures.good(token)
        vouched = record.source == "sign-in" or not self._provider
        return Caller(account=record.account, kind=record.kind, roles=record.roles, token=record.id, vouched=vouched)

    def note_failure(self, namespace: str, *, address: str) -> None:
        """Count a sign-in that failed. The one that is one too many is written down."""
        now = self._clock()
        if not self.failures.failed(address, now=now):
            return
        log.warning("%d sign-ins from %s failed within a minute", limits.SIGN_IN_FAILURES, address)
        with transaction(self._database, namespace) as stores:
            because = f"{limits.SIGN_IN_FAILURES} within a minute; its unknown tokens are refused for the rest of it"
            audit(stores.registry, actor=f"address {address}"[:128], action="failed sign-ins", because=because, now=now)


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
