"""The accounts of a namespace, their tokens, and the sign-ins that are under way, within one transaction.

Of a token and of a nonce only the SHA-256 is stored, and looked up: what somebody guesses is compared with nothing that
tells him how near he was.
"""

import hmac
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, func, insert, or_, select, update

from whimbrel import limits
from whimbrel.errors import Conflict, NotFound
from whimbrel.flows.accounts.permissions import Role
from whimbrel.flows.accounts.records import AccountRecord, TokenRecord
from whimbrel.model.documents import parse
from whimbrel.stores import account_tables
from whimbrel.stores.registry import hashed
from whimbrel.stores.rows import packed, upsert

_accounts, _tokens, _sign_ins = account_tables.accounts, account_tables.api_tokens, account_tables.sign_ins
_USED_EVERY_S = 300.0  # when a token was used last is known to this: a request need not write
_KEPT_S = 30 * 86400.0  # sessions are forgotten so long after their end; who signed in is in the audit log


class Accounts:
    """The accounts and tokens of one namespace."""

    def __init__(self, connection: Connection, namespace: str) -> None:
        self.connection = connection
        self.namespace = namespace

    # --- accounts ---

    def account(self, name: str) -> AccountRecord | None:
        """The account of that name; None where there is none."""
        query = select(_accounts).where(_accounts.c.namespace == self.namespace, _accounts.c.name == name)
        row = self.connection.execute(query).one_or_none()
        return None if row is None else _account(row)

    def account_of(self, *, issuer: str, subject: str) -> AccountRecord | None:
        """The account of a person as a provider names it; None where there is none."""
        query = select(_accounts).where(
            _accounts.c.namespace == self.namespace, _accounts.c.issuer == issuer, _accounts.c.subject == subject
        )
        row = self.connection.execute(query).one_or_none()
        return None if row is None else _account(row)

    def add_account(self, account: AccountRecord) -> None:
        """Store a new account. Raises `Conflict` where somebody else did meanwhile."""
        values = msgspec.structs.asdict(account) | {"namespace": self.namespace}
        if not upsert(self.connection, _accounts, values):
            raise Conflict(f"there is an account {account.name!r} already; look again")

    def bind(self, name: str, *, issuer: str, subject: str) -> None:
        """Note how a provider names the person of an account. Raises `Conflict` where it names another one so."""
        done = self.connection.execute(
            update(_accounts)
            .where(_accounts.c.namespace == self.namespace, _accounts.c.name == name, _accounts.c.subject == "")
            .values(issuer=issuer, subject=subject)
        )
        if done.rowcount != 1:
            raise Conflict(f"{name} is the account of another person of the provider; ask who runs the server")

    # --- tokens ---

    def add_token(self, token: TokenRecord, *, secret: str) -> None:
        """Store a token as its hash. Sessions that were over long ago are forgotten with that."""
        values = {name: getattr(token, name) for name in TokenRecord.__struct_fields__ if name != "kind"}
        values |= {"roles": packed(token.roles), "sha256": hashed(secret)}
        self.connection.execute(
            delete(_tokens).where(
                _tokens.c.namespace == self.namespace,
                _tokens.c.source == "sign-in",
                _tokens.c.expires_at < token.created_at - _KEPT_S,
            )
        )
        self.connection.execute(insert(_tokens).values(namespace=self.namespace, **values))

    def signed_in(self, secret: str, *, now: float) -> TokenRecord | None:
        """The token that this is, where it is good now; None otherwise."""
        digest = hashed(secret)
        row = self.connection.execute(self._tokens().where(_tokens.c.sha256 == digest)).one_or_none()
        if row is None or not hmac.compare_digest(row.sha256, digest):
            return None
        token = _token(row)
        if not token.live(now=now):
            return None
        if token.used_at is None or token.used_at < now - _USED_EVERY_S:
            self._set(token.id, used_at=now)
        return token

    def token(self, name_or_id: str, *, now: float) -> TokenRecord:
        """A token by its id, or one that is good by its name. Raises `NotFound`."""
        rows = self.connection.execute(
            self._tokens().where(or_(_tokens.c.id == name_or_id, _tokens.c.name == name_or_id))
        )
        tokens = [_token(row) for row in rows]
        named = [each for each in tokens if each.id == name_or_id or each.live(now=now)]
        if not named:
            raise NotFound(f"there is no token {name_or_id!r} that is good; see: whimbrel token list")
        return min(named, key=lambda each: each.id != name_or_id)

    def by_id(self, identifier: str) -> TokenRecord | None:
        """A token by its id, whether it is good or over; None where there is none."""
        row = self.connection.execute(self._tokens().where(_tokens.c.id == identifier)).one_or_none()
        return None if row is None else _token(row)

    def tokens(self) -> list[TokenRecord]:
        """All tokens, oldest first."""
        return [_token(row) for row in self.connection.execute(self._tokens().order_by(_tokens.c.created_at))]

    def count_live(self, *, now: float) -> int:
        """How many tokens are good."""
        query = select(func.count()).where(
            _tokens.c.namespace == self.namespace,
            _tokens.c.revoked_at.is_(None),
            or_(_tokens.c.expires_at.is_(None), _tokens.c.expires_at > now),
        )
        return int(self.connection.execute(query).scalar_one())

    def revoke(self, identifier: str, *, at: float) -> None:
        """Note that a token is over."""
        self._set(identifier, revoked_at=at)

    # --- sign-ins ---

    def add_nonce(self, nonce: str, *, at: float, made_after: float) -> None:
        """Store a nonce as its hash. Those from before `made_after`, and the oldest of too many, are forgotten."""
        mine = _sign_ins.c.namespace == self.namespace
        self.connection.execute(delete(_sign_ins).where(mine, _sign_ins.c.at < made_after))
        newest = select(_sign_ins.c.sha256).where(mine).order_by(_sign_ins.c.at.desc())
        kept = self.connection.execute(newest.limit(limits.SIGN_INS_PENDING)).scalars().all()
        if len(kept) == limits.SIGN_INS_PENDING:
            self.connection.execute(delete(_sign_ins).where(mine, _sign_ins.c.sha256 == kept[-1]))
        self.connection.execute(insert(_sign_ins).values(namespace=self.namespace, sha256=hashed(nonce), at=at))

    def take_nonce(self, nonce: str, *, made_after: float) -> bool:
        """Whether it was given after `made_after` and not used yet; it is used now."""
        done = self.connection.execute(
            delete(_sign_ins).where(
                _sign_ins.c.namespace == self.namespace,
                _sign_ins.c.sha256 == hashed(nonce),
                _sign_ins.c.at >= made_after,
            )
        )
        return done.rowcount == 1

    def _tokens(self) -> Any:
        same = (_accounts.c.namespace == _tokens.c.namespace) & (_accounts.c.name == _tokens.c.account)
        return select(_tokens, _accounts.c.kind).join(_accounts, same).where(_tokens.c.namespace == self.namespace)

    def _set(self, identifier: str, **values: Any) -> None:
        self.connection.execute(
            update(_tokens).where(_tokens.c.namespace == self.namespace, _tokens.c.id == identifier).values(**values)
        )


def _account(row: Row[Any]) -> AccountRecord:
    return AccountRecord(**{name: getattr(row, name) for name in AccountRecord.__struct_fields__})


def _token(row: Row[Any]) -> TokenRecord:
    values = {name: getattr(row, name) for name in TokenRecord.__struct_fields__}
    return TokenRecord(**values | {"roles": parse(tuple[Role, ...], bytes(row.roles), what="the roles of a token")})
