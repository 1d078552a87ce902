"""Tokens are made, changed for new ones, and revoked. Who may give whom what?

1. Nobody gives away what he has not: the roles of a token may do nothing that its maker may not.
2. A token is a machine's, or a person's. Only who may make people (`people`) makes one for another person; where people
   sign in with a provider nobody does, since then nobody could be two.
3. Who holds a token may change it for a new one, with the same roles and the same end. A later end takes `tokens`.
4. Who holds a token may revoke it; so may whoever has `tokens`, everybody's.
5. The last way to be an admin is not closed by a slip: to revoke the last admin's token takes a word of its own. A
   group of the provider counts as a way once somebody signed in as an admin by it; a session by itself is soon over.
"""

import re

import msgspec

from whimbrel import limits
from whimbrel.errors import Conflict, Refused, UntrustedInput
from whimbrel.flows.accounts.permissions import AccountKind, Caller, Permission, Role, permissions_of
from whimbrel.flows.accounts.records import AccountRecord, AccountsPort, TokenRecord
from whimbrel.flows.audit import audit
from whimbrel.flows.ports import AuditPort

BOOTSTRAP = "admin"  # the account of the token that `init` writes
_SERVERS_OWN = frozenset({"gate", "controller", "monitor", "tally"})  # actors of the audit log that are nobody
_NAME = re.compile(r"[a-z0-9][a-z0-9@._+-]{0,127}\Z")
DAY_S = 86400.0


class NewToken(msgspec.Struct, frozen=True, kw_only=True):
    """What a new token is to be. `account`: whose; `days`: how long it is good."""

    name: str
    account: str
    kind: AccountKind
    roles: tuple[Role, ...]
    days: float


def make_token(
    accounts: AccountsPort,
    registry: AuditPort,
    asked: NewToken,
    *,
    caller: Caller,
    identifier: str,
    secret: str,
    provider: bool,
    now: float,
) -> TokenRecord:
    """Make a token. `identifier`, `secret`: random, from the caller. `provider`: people sign in with a provider.

    Raises `Refused` for what the caller may not give, `Conflict` for a name that is taken, `UntrustedInput`.
    """
    caller.check(Permission.TOKENS)
    _check_roles(caller, asked.roles)
    if asked.kind == "person":
        _check_person(caller, asked.account, provider=provider)
    account = account_for(accounts, asked.account, kind=asked.kind, now=now)
    _check_room(accounts, asked.name, now=now)
    token = TokenRecord(
        id=identifier,
        name=asked.name,
        account=account.name,
        kind=account.kind,
        roles=tuple(sorted(set(asked.roles))),
        source="made",
        created_at=now,
        created_by=caller.account,
        expires_at=now + asked.days * DAY_S,
    )
    accounts.add_token(token, secret=secret)
    _audit(registry, token, "create token", actor=caller.account, now=now)
    return token


def rotate_token(
    accounts: AccountsPort,
    registry: AuditPort,
    name_or_id: str,
    *,
    caller: Caller,
    identifier: str,
    secret: str,
    days: float | None,
    provider: bool,
    now: float,
) -> TokenRecord:
    """Change a token for a new one with its name and roles; the old one is over at once.

    `days`: how long the new one is good; None: as long as the old one was. Raises `Refused`, `NotFound`.
    """
    old = accounts.token(name_or_id, now=now)
    if not old.live(now=now):
        raise Refused(f"token {old.name} is over; make a new one: whimbrel token create")
    if old.source == "sign-in":
        raise Refused(f"token {old.name} is a session; sign in again for a new one: whimbrel login")
    if caller.token != old.id or days is not None:
        caller.check(Permission.TOKENS)
        _check_roles(caller, old.roles)
    if caller.token != old.id and old.kind == "person":
        _check_person(caller, old.account, provider=provider)
    expires_at = old.expires_at if days is None else now + days * DAY_S
    new = msgspec.structs.replace(
        old, id=identifier, created_at=now, created_by=caller.account, expires_at=expires_at, used_at=None
    )
    accounts.revoke(old.id, at=now)
    accounts.add_token(new, secret=secret)
    _audit(registry, new, "rotate token", actor=caller.account, now=now)
    return new


def token_for(accounts: AccountsPort, name_or_id: str, *, caller: Caller, now: float) -> TokenRecord:
    """One's own token, or (tokens) another's. Raises `Refused`, `NotFound`."""
    token = accounts.token(name_or_id, now=now)
    if caller.token != token.id:
        caller.check(Permission.TOKENS)
    return token


def revoke_token(
    accounts: AccountsPort,
    registry: AuditPort,
    name_or_id: str,
    *,
    caller: Caller,
    because: str,
    although_last: bool,
    admins_sign_in: bool,
    now: float,
) -> TokenRecord:
    """End a token now. `admins_sign_in`: some claim of the provider's gives the role admin here.

    Raises `Refused` for another's, and for the last admin's unless `although_last`; `NotFound`.
    """
    token = token_for(accounts, name_or_id, caller=caller, now=now)
    if not although_last and is_last_admin(accounts, token, admins_sign_in=admins_sign_in, now=now):
        raise Refused(
            f"token {token.name} is the last with the role admin: nobody could make people or settle roles any more, "
            "except whoever has the repository's folder; make another first (whimbrel token create NAME --person WHO "
            "--role admin), or say --although-last"
        )
    if token.revoked_at is None:
        accounts.revoke(token.id, at=now)
        _audit(registry, token, "revoke token", actor=caller.account, because=because, now=now)
    return msgspec.structs.replace(token, revoked_at=token.revoked_at or now)


def is_last_admin(accounts: AccountsPort, token: TokenRecord, *, admins_sign_in: bool, now: float) -> bool:
    """Whether nobody is an admin without this token. A session is no way in: it ends by itself."""
    if Role.ADMIN not in token.roles or token.source == "sign-in" or not token.live(now=now):
        return False
    admins = [each for each in accounts.tokens() if Role.ADMIN in each.roles and each.id != token.id]
    return not any(admins_sign_in if each.source == "sign-in" else each.live(now=now) for each in admins)


def account_for(accounts: AccountsPort, name: str, *, kind: AccountKind, now: float) -> AccountRecord:
    """The account of that name, made now where there is none. Raises `Conflict` where it is of the other kind."""
    check_account_name(name)
    account = accounts.account(name)
    if account is None:
        account = AccountRecord(name=name, kind=kind, created_at=now)
        accounts.add_account(account)
    if account.kind != kind:
        raise Conflict(f"{name} is the account of a {account.kind}, and a {kind} was asked for; choose another name")
    return account


def check_account_name(name: str) -> None:
    """Raises `UntrustedInput` for a name that no account may have."""
    if _NAME.match(name) is None:
        raise UntrustedInput(
            f"{name!r} is no name of an account; expected lower-case letters, digits and @ . _ + -, at most 128"
        )
    if name in _SERVERS_OWN or name.startswith("publisher-"):
        raise UntrustedInput(f"{name!r} is a name that the server itself acts by; choose another")


def _check_roles(caller: Caller, roles: tuple[Role, ...]) -> None:
    missing = sorted(permissions_of(roles) - permissions_of(caller.roles))
    if missing:
        raise Refused(
            f"a token with the role {' and '.join(roles)} may {', '.join(missing)}, and your own may not: nobody gives "
            "away what he has not; ask an admin"
        )


def _check_person(caller: Caller, account: str, *, provider: bool) -> None:
    """Raises `Refused` where the caller may not make a token of a person."""
    if provider:
        raise Refused(
            f"people sign in here with a provider, so nobody makes a token for {account}: a person who could make "
            "others could approve as two; they get one with: whimbrel login"
        )
    if account != caller.account:
        caller.check(Permission.PEOPLE)


def _check_room(accounts: AccountsPort, name: str, *, now: float) -> None:
    if accounts.count_live(now=now) >= limits.API_TOKENS:
        raise Refused(f"there are {limits.API_TOKENS} tokens that are good; revoke some: whimbrel token list")
    if any(token.name == name and token.live(now=now) for token in accounts.tokens()):
        raise Conflict(f"there is a token {name!r} already; rotate or revoke it, or choose another name")


def _audit(registry: AuditPort, token: TokenRecord, action: str, *, actor: str, because: str = "", now: float) -> None:
    """Tokens are told of by name and id, never by what they are."""
    what = f"{token.name} ({', '.join(token.roles)}) of {token.kind} {token.account}"
    evidence = {"token": token.id, "account": token.account, "roles": [*token.roles], "expires_at": token.expires_at}
    audit(
        registry,
        actor=actor,
        action=action,
        because=f"{what}: {because}" if because else what,
        now=now,
        evidence=evidence,
    )
