"""Who may do what? The permissions that routes of the admin API need, and the roles that have them. One table.

1. A route declares the permission that it needs (`server/admin/app.py` refuses to start with one that does not).
2. A token has roles, and may do what any of them may. What its account may do with another token does not matter.
3. An account is a person or a machine. A machine approves nothing, whatever its roles are.
4. Where people sign in with a provider, a token that somebody made (`admin.token`, or one from before) is no person's
   word either: who holds it may have signed in as well, and would be two.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Literal

import msgspec

from whimbrel.errors import Refused

AccountKind = Literal["person", "machine"]


class Permission(StrEnum):
    """Something that a route of the admin API does."""

    READ = "read"  # look at everything but tokens
    PUBLISH = "publish"  # send artifacts and versions that a publisher's key signed, and make patches
    DRAFT = "draft"  # write a rollout down, which begins when a person approves it
    RELEASE = "release"  # start and resume rollouts and experiments, finish and ship; name, retire, offer again
    STOP = "stop"  # pause, abort and take back; stop an experiment; say no
    APPROVE = "approve"  # agree that a rollout begins, or that its next stage does
    REVOKE = "revoke"  # set a model's line, which its publisher signed
    CONFIGURE = "configure"  # change a model's settings, and test receivers of alerts
    GOVERN = "govern"  # change which shares need a second person
    FEEDBACK = "feedback"  # hand on tickets of users
    DEVICES = "devices"  # label, block, unblock and remove devices
    ENROL = "enrol"  # make enrolment tokens
    KEYS = "keys"  # change who signs: models are delegated, and keys changed
    TOKENS = "tokens"  # list and revoke tokens, and make those of machines
    PEOPLE = "people"  # make tokens of other people
    COLLECT = "collect"  # delete artifacts that nothing refers to


class Role(StrEnum):
    """What a token is for."""

    VIEWER = "viewer"
    PIPELINE = "pipeline"
    PUBLISHER = "publisher"
    RELEASER = "releaser"
    SECURITY = "security"
    ADMIN = "admin"


_P = Permission
PERMISSIONS: dict[Role, frozenset[Permission]] = {
    Role.VIEWER: frozenset({_P.READ}),
    Role.PIPELINE: frozenset({_P.READ, _P.PUBLISH, _P.DRAFT}),
    Role.PUBLISHER: frozenset({_P.READ, _P.PUBLISH, _P.DRAFT, _P.REVOKE, _P.FEEDBACK}),
    Role.RELEASER: frozenset(
        {_P.READ, _P.DRAFT, _P.RELEASE, _P.STOP, _P.APPROVE, _P.REVOKE, _P.CONFIGURE, _P.FEEDBACK, _P.DEVICES}
    ),
    Role.SECURITY: frozenset(
        {_P.READ, _P.STOP, _P.APPROVE, _P.REVOKE, _P.GOVERN, _P.DEVICES, _P.ENROL, _P.KEYS, _P.TOKENS}
    ),
    Role.ADMIN: frozenset(Permission),
}


def permissions_of(roles: Iterable[Role]) -> frozenset[Permission]:
    """What a token with these roles may do."""
    return frozenset().union(*(PERMISSIONS[role] for role in roles))


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks: the account that signed in, and what its token may do. `token`: its id; "" for who has the folder.

    `vouched`: False where people sign in with a provider, and this token is none that it vouches for.
    """

    account: str
    kind: AccountKind
    roles: tuple[Role, ...]
    token: str = ""
    vouched: bool = True

    @property
    def counts_as_person(self) -> bool:
        """Whether its word is a person's, where two people must agree."""
        return self.kind == "person" and self.vouched

    def may(self, permission: Permission) -> bool:
        """Whether its token has the permission."""
        return permission in permissions_of(self.roles) and (
            self.counts_as_person or permission is not Permission.APPROVE
        )

    def check(self, permission: Permission) -> None:
        """Raise `Refused` where its token has not the permission."""
        if self.may(permission):
            return
        if permission is Permission.APPROVE and self.kind == "machine":
            raise Refused(f"{self.account} is a machine's account, and only people approve; sign in as yourself")
        if permission is Permission.APPROVE and not self.vouched and permission in permissions_of(self.roles):
            raise Refused(
                f"people sign in here with a provider, and {self.account} shows a token that somebody made: only who "
                "signed in approves (whimbrel login)"
            )
        able = ", ".join(role for role in Role if permission in PERMISSIONS[role])
        own = " and ".join(self.roles) or "no role"
        raise Refused(
            f"the token of {self.account} is a {own}'s, and this needs the permission {permission.value!r}, which "
            f"these roles have: {able}; ask an admin for a token with one of them"
        )
