"""A person whom a provider (OpenID Connect) named gets a session: a token of the same kind, which is soon over.

1. A nonce is the server's, is good once, and for ten minutes: an identity that was told before signs nobody in again.
2. An account belongs to the first subject that signed in with its name. Another subject with that name is refused, and
   a subject that changed its name keeps its account.
3. Roles come from claims, at each sign-in anew. Who has none is refused.
4. A name is ASCII before its letters become small: some others turn into ASCII by that, and into somebody else's name.
5. A person has a few sessions. One more ends the oldest, so that nobody fills the namespace's tokens by signing in.
"""

import msgspec

from whimbrel import limits
from whimbrel.errors import NotAllowed, Refused, UntrustedInput
from whimbrel.flows.accounts.permissions import Role
from whimbrel.flows.accounts.records import AccountRecord, AccountsPort, TokenRecord
from whimbrel.flows.accounts.tokens import BOOTSTRAP, account_for, check_account_name
from whimbrel.flows.audit import audit
from whimbrel.flows.ports import AuditPort

NONCE_LIFE_S = 600.0  # a person signs in within it; the command line waits half of it


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider said of a person, verified. `roles`: those that its claims give here."""

    issuer: str
    subject: str
    name: str
    nonce: str
    roles: tuple[Role, ...]


def sign_in(
    accounts: AccountsPort,
    registry: AuditPort,
    identity: Identity,
    *,
    identifier: str,
    secret: str,
    life_s: float,
    now: float,
) -> TokenRecord:
    """Give a session of `life_s` seconds. Raises `NotAllowed` for a nonce that is over, `Refused` for no role."""
    if not accounts.take_nonce(identity.nonce, made_after=now - NONCE_LIFE_S):
        raise NotAllowed("this sign-in was used already, or is over; sign in again: whimbrel login")
    if not identity.roles:
        raise Refused(
            f"the provider knows {identity.name}, and its claims give no role here; ask who runs the server to name "
            "one of your groups in whimbrel.toml ([[oidc.roles]])"
        )
    account = _account(accounts, identity, now=now)
    _end_oldest(accounts, account, now=now)
    token = TokenRecord(
        id=identifier,
        name=f"session-{identifier}",
        account=account.name,
        kind="person",
        roles=identity.roles,
        source="sign-in",
        created_at=now,
        created_by=account.name,
        expires_at=now + life_s,
    )
    accounts.add_token(token, secret=secret)
    audit(
        registry,
        actor=account.name,
        action="sign in",
        because=f"as {', '.join(token.roles)}, by {identity.issuer}",
        now=now,
        evidence={"token": token.id, "subject": identity.subject, "expires_at": token.expires_at},
    )
    return token


def _end_oldest(accounts: AccountsPort, account: AccountRecord, *, now: float) -> None:
    sessions = [
        each
        for each in accounts.tokens()
        if each.account == account.name and each.source == "sign-in" and each.live(now=now)
    ]
    for each in sessions[: max(0, len(sessions) + 1 - limits.SESSIONS)]:
        accounts.revoke(each.id, at=now)


def _account(accounts: AccountsPort, identity: Identity, *, now: float) -> AccountRecord:
    """Raises `Refused` where the name is another's."""
    if (known := accounts.account_of(issuer=identity.issuer, subject=identity.subject)) is not None:
        return known
    name = identity.name.lower() if identity.name.isascii() else identity.name
    try:
        check_account_name(name)
    except UntrustedInput as error:
        raise Refused(f"{error}; let name_claim in whimbrel.toml name another claim") from error
    if name == BOOTSTRAP:
        raise Refused(f"{BOOTSTRAP!r} is the account of the token that init wrote, and no provider's")
    account = account_for(accounts, name, kind="person", now=now)
    if account.subject:
        raise Refused(f"{name} is the account of another person of the provider; ask who runs the server")
    accounts.bind(name, issuer=identity.issuer, subject=identity.subject)
    return account
