"""What the admin API takes and answers about accounts, tokens and sign-ins. Times are POSIX seconds."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from whimbrel import limits
from whimbrel.flows.accounts.permissions import AccountKind, Permission, Role
from whimbrel.flows.accounts.records import TokenRecord, TokenSource
from whimbrel.model.documents import Document
from whimbrel.model.ids import Name
from whimbrel.server.admin.views.reason import Because

Days = Annotated[float, Meta(gt=0, le=limits.TOKEN_DAYS)]
Roles = Annotated[tuple[Role, ...], Meta(min_length=1, max_length=len(Role))]


class NewApiToken(Document, frozen=True):
    """POST tokens: a token of the machine `name`, or of the `person` that is named. `days`: how long it is good."""

    name: Name
    roles: Roles
    person: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    days: Days = 90.0


class TokenRotation(Document, frozen=True):
    """POST rotate: how long the new token is good; as long as the old one, unless `days` says otherwise."""

    days: Days | None = None


class TokenRevocation(Document, frozen=True):
    """POST revoke: why; and whether it is meant although it is the last token of an admin."""

    because: Because = ""
    although_last: bool = False


class TokenView(msgspec.Struct, frozen=True, kw_only=True):
    """A token, without its text. `expires_at` None: never. `used_at`: to some five minutes; None: not yet."""

    id: str
    name: str
    account: str
    kind: AccountKind
    roles: list[Role]
    source: TokenSource
    created_at: float
    created_by: str
    expires_at: float | None
    revoked_at: float | None
    used_at: float | None
    good: bool


class MadeToken(TokenView, frozen=True, kw_only=True):
    """A token that was made just now: its text is told once, and kept as a hash."""

    token: str


class CallerView(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks: the account of the token, and what it may do. `token` None: who has the folder shows none."""

    account: str
    kind: AccountKind
    roles: list[Role]
    permissions: list[Permission]
    token: str | None


class SignInView(msgspec.Struct, frozen=True, kw_only=True):
    """What a command needs to have a person sign in with the provider. `nonce`: good once, for ten minutes."""

    issuer: str
    client_id: str
    scopes: list[str]
    authorization_endpoint: str
    token_endpoint: str
    nonce: str


class NewSession(Document, frozen=True):
    """POST sign-in: the ID token that the provider gave, made with the nonce of this sign-in."""

    id_token: Annotated[str, Meta(min_length=1, max_length=limits.OIDC_BYTES)]


def token_view(token: TokenRecord, *, now: float) -> TokenView:
    """A token as people see it."""
    return TokenView(**token_fields(token, now=now))


def token_fields(token: TokenRecord, *, now: float) -> dict[str, Any]:
    """Its fields."""
    return msgspec.structs.asdict(token) | {"roles": list(token.roles), "good": token.live(now=now)}
