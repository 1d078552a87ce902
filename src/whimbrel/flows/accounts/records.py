"""Accounts and their tokens as frozen values, and what the rules ask of the store. Times are POSIX seconds."""

from typing import Literal, Protocol

import msgspec

from whimbrel.flows.accounts.permissions import AccountKind, Role

TokenSource = Literal["init", "made", "sign-in"]


class AccountRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Who may be asked: a person or a machine. `issuer`, `subject`: how a provider names a person, once it did."""

    name: str
    kind: AccountKind
    created_at: float
    issuer: str = ""
    subject: str = ""


class TokenRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A token of an account: what it is for, and until when. Of its text only the SHA-256 is kept.

    `source`: written by `init`, made by somebody, or the session of a person who signed in. `expires_at` None: never.
    """

    id: str
    name: str
    account: str
    kind: AccountKind
    roles: tuple[Role, ...]
    source: TokenSource
    created_at: float
    created_by: str
    expires_at: float | None = None
    revoked_at: float | None = None
    used_at: float | None = None

    def live(self, *, now: float) -> bool:
        """Whether it is good."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class AccountsPort(Protocol):
    """The accounts and tokens of a namespace, within one transaction."""

    def account(self, name: str) -> AccountRecord | None: ...
    def account_of(self, *, issuer: str, subject: str) -> AccountRecord | None: ...
    def add_account(self, account: AccountRecord) -> None: ...
    def bind(self, name: str, *, issuer: str, subject: str) -> None: ...
    def add_token(self, token: TokenRecord, *, secret: str) -> None: ...
    def token(self, name_or_id: str, *, now: float) -> TokenRecord: ...
    def tokens(self) -> list[TokenRecord]: ...
    def count_live(self, *, now: float) -> int: ...
    def revoke(self, identifier: str, *, at: float) -> None: ...
    def take_nonce(self, nonce: str, *, made_after: float) -> bool: ...
