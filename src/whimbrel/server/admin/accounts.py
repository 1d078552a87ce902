"""The admin API's routes for tokens, and by which people sign in.

Two routes are open to everybody (`SIGN_IN_ROUTES`): who asks them has no token yet. What they cost is bounded by the
failures of an address, as which each counts until the sign-in is done.
"""

import hmac
import secrets
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

from litestar import Request, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter
from litestar.status_codes import HTTP_200_OK, HTTP_201_CREATED

from whimbrel.errors import NotAllowed, NotFound, WhimbrelError
from whimbrel.flows.accounts.permissions import Caller, Permission, Role
from whimbrel.flows.accounts.records import TokenRecord
from whimbrel.flows.accounts.sign_in import NONCE_LIFE_S, sign_in
from whimbrel.flows.accounts.tokens import NewToken, make_token, revoke_token, rotate_token, token_for
from whimbrel.server.admin.operations import Operations, address_of
from whimbrel.server.admin.problems import problems
from whimbrel.server.admin.views.accounts import (
    CallerView,
    MadeToken,
    NewApiToken,
    NewSession,
    SignInView,
    TokenRevocation,
    TokenRotation,
    TokenView,
    token_fields,
    token_view,
)
from whimbrel.server.oidc import OidcProvider
from whimbrel.stores.transaction import Stores

_PREFIX = "whimbrel_"  # so that a scanner of repositories and logs knows what it found
_TOKEN_BYTES = 32
_SELF = "self"


@get("/caller", permission=Permission.READ, summary="Who asks, and what the token may do")
async def show_caller(caller: NamedDependency[Caller]) -> CallerView:
    """The account of the token that asks."""
    return CallerView(
        account=caller.account,
        kind=caller.kind,
        roles=list(caller.roles),
        permissions=[each for each in Permission if caller.may(each)],
        token=caller.token or None,
    )


@get("/tokens", permission=Permission.TOKENS, summary="Tokens of people and machines, without their text")
async def list_tokens(
    operations: NamedDependency[Operations],
    namespace: FromPath[str],
    everyone: Annotated[bool, QueryParameter(name="all")] = False,
) -> list[TokenView]:
    """The tokens that are good, oldest first; with `all` those that are over, too."""
    now = operations.now()
    tokens = await operations.do(namespace, lambda stores: stores.accounts.tokens())
    return [token_view(token, now=now) for token in tokens if everyone or token.live(now=now)]


@post("/tokens", permission=Permission.TOKENS, status_code=HTTP_201_CREATED, summary="Make a token")
async def create_token(
    operations: NamedDependency[Operations],
    caller: NamedDependency[Caller],
    namespace: FromPath[str],
    data: JSONBody[NewApiToken],
) -> MadeToken:
    """Make a token of a machine, or of a person. It is told once, and kept as a hash."""
    asked = NewToken(
        name=data.name,
        account=data.name if data.person is None else data.person,
        kind="machine" if data.person is None else "person",
        roles=data.roles,
        days=data.days,
    )

    return await _made_by(
        operations,
        namespace,
        lambda stores, fresh: make_token(stores.accounts, stores.registry, asked, caller=caller, **fresh),
    )


@post(
    "/tokens/{token:str}/rotate",
    permission=Permission.READ,  # one's own; another's takes more, which the flow checks
    status_code=HTTP_200_OK,
    summary="Change a token for a new one: one's own, or (tokens) another's",
)
async def rotate(
    operations: NamedDependency[Operations],
    caller: NamedDependency[Caller],
    namespace: FromPath[str],
    token: FromPath[str],
    data: JSONBody[TokenRotation],
) -> MadeToken:
    """The old one is over at once. `self` is the token that asks."""
    named = _named(token, caller)
    return await _made_by(
        operations,
        namespace,
        lambda stores, fresh: rotate_token(
            stores.accounts, stores.registry, named, caller=caller, days=data.days, **fresh
        ),
    )


@get(
    "/tokens/{token:str}",
    permission=Permission.READ,  # one's own; another's takes more, which the flow checks
    summary="One token, without its text: one's own, or (tokens) another's",
)
async def show_token(
    operations: NamedDependency[Operations],
    caller: NamedDependency[Caller],
    namespace: FromPath[str],
    token: FromPath[str],
) -> TokenView:
    """A token by its name or id. `self` is the token that asks."""
    now, named = operations.now(), _named(token, caller)
    record = await operations.do(namespace, lambda stores: token_for(stores.accounts, named, caller=caller, now=now))
    return token_view(record, now=now)


@post(
    "/tokens/{token:str}/revoke",
    permission=Permission.READ,  # one's own; another's takes more, which the flow checks
    status_code=HTTP_200_OK,
    summary="End a token now: one's own, or (tokens) another's",
)
async def revoke(
    operations: NamedDependency[Operations],
    caller: NamedDependency[Caller],
    namespace: FromPath[str],
    token: FromPath[str],
    data: JSONBody[TokenRevocation],
) -> TokenView:
    """Nothing that shows it is answered any more. `self` is the token that asks. The last admin's takes a word."""
    now, provider = operations.now(), operations.context.oidc

    def work(stores: Stores) -> TokenRecord:
        return revoke_token(
            stores.accounts,
            stores.registry,
            _named(token, caller),
            caller=caller,
            because=data.because,
            although_last=data.although_last,
            admins_sign_in=provider is not None and provider.settings.may_give(Role.ADMIN, namespace=namespace),
            now=now,
        )

    return token_view(await operations.do(namespace, work), now=now)


@post(
    "/sign-in/begin",
    status_code=HTTP_200_OK,
    summary="Begin to sign in with the provider",
    responses=problems(NotFound),
)
async def begin_sign_in(
    operations: NamedDependency[Operations], namespace: FromPath[str], request: Request[Any, Any, Any]
) -> SignInView:
    """Where a person signs in, and with which nonce."""
    return await begin_nonce(operations, namespace, address=address_of(request))


async def begin_nonce(operations: Operations, namespace: str, *, address: str) -> SignInView:
    """Begin a sign-in with the provider, by the command line or a browser. It is a failure until it is done."""
    provider, now = _provider(operations), operations.now()
    operations.people.check(namespace, address=address)
    operations.people.begun(address)
    authorization, token = await provider.endpoints()
    nonce = secrets.token_urlsafe(_TOKEN_BYTES)

    def work(stores: Stores) -> None:
        if not stores.roles.newest():
            raise NotFound(f"there is no namespace {namespace!r} here")
        stores.accounts.add_nonce(nonce, at=now, made_after=now - NONCE_LIFE_S)

    await operations.do(namespace, work)
    settings = provider.settings
    return SignInView(
        issuer=settings.issuer,
        client_id=settings.client_id,
        scopes=list(settings.scopes),
        authorization_endpoint=authorization,
        token_endpoint=token,
        nonce=nonce,
    )


@post("/sign-in", status_code=HTTP_201_CREATED, summary="Sign in with the provider's ID token")
async def finish_sign_in(
    operations: NamedDependency[Operations],
    namespace: FromPath[str],
    request: Request[Any, Any, Any],
    data: JSONBody[NewSession],
) -> MadeToken:
    """A session of the person whom the ID token names: a token for some hours. It is told once, and kept as a hash."""
    now, address = operations.now(), address_of(request)
    _provider(operations)
    operations.people.check(namespace, address=address)
    try:
        token, secret = await session_of(operations, namespace, data.id_token)
    except WhimbrelError:
        operations.people.note_failure(namespace, address=address)
        raise
    return _made(token, secret, now=now)


async def session_of(
    operations: Operations, namespace: str, id_token: str, *, nonce: str | None = None
) -> tuple[TokenRecord, str]:
    """The session of the person whom an ID token names, and its secret. `nonce`: the only one that it may have.

    Raises `NotAllowed` for a token that is not the provider's, not for us, over, or used; `Refused` for no role.
    """
    provider, now, secret = _provider(operations), operations.now(), _secret()
    identity = await provider.verify(id_token, namespace=namespace)
    if nonce is not None and not hmac.compare_digest(identity.nonce.encode(), nonce.encode()):
        raise NotAllowed("the ID token is of another sign-in; sign in again")
    token = await operations.do(
        namespace,
        lambda stores: sign_in(
            stores.accounts,
            stores.registry,
            identity,
            identifier=secrets.token_hex(6),
            secret=secret,
            life_s=provider.settings.session_hours * 3600.0,
            now=now,
        ),
    )
    return token, secret


TOKEN_ROUTES = (show_caller, list_tokens, create_token, show_token, rotate, revoke)
SIGN_IN_ROUTES = (begin_sign_in, finish_sign_in)


class _Fresh(TypedDict):
    """What a new token is made of, besides what was asked for."""

    identifier: str
    secret: str
    provider: bool
    now: float


async def _made_by(operations: Operations, namespace: str, make: Callable[[Stores, _Fresh], TokenRecord]) -> MadeToken:
    """Have a token made of fresh chance. It is told once, and kept as a hash."""
    fresh = _Fresh(
        identifier=secrets.token_hex(6),
        secret=_secret(),
        provider=operations.context.oidc is not None,
        now=operations.now(),
    )
    made = await operations.do(namespace, lambda stores: make(stores, fresh))
    return _made(made, fresh["secret"], now=fresh["now"])


def _provider(operations: Operations) -> OidcProvider:
    provider = operations.context.oidc
    if provider is None:
        raise NotFound("nobody signs in here with a provider: whimbrel.toml has no [oidc]; ask an admin for a token")
    return provider


def _named(token: str, caller: Caller) -> str:
    return caller.token if token == _SELF and caller.token else token


def _secret() -> str:
    return _PREFIX + secrets.token_urlsafe(_TOKEN_BYTES)


def _made(token: TokenRecord, secret: str, *, now: float) -> MadeToken:
    return MadeToken(**token_fields(token, now=now), token=secret)
