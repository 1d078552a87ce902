"""How a person signs in to the console: with a token, or with the provider of `whimbrel.toml`; and out again.

1. A token is looked up as the admin API does, with the same bound on failures of an address. The browser never keeps
   it: it gets a cookie of a session, which ends with the token.
2. With a provider: authorization code with PKCE, state and nonce (RFC 9700). What must come back the same is in a
   cookie of this browser alone, for ten minutes. The redirect URI is `/-/signed-in` on the address that was used.
3. Whoever comes from a form that was sent without a session finds it again, and sends it by a click of his own.
4. Signing out ends the session, and with it the token where that was made by a sign-in.
"""

import base64
import hashlib
import hmac
import secrets
from typing import Annotated, Any
from urllib.parse import urlencode

import msgspec
from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter
from litestar.response import Redirect
from litestar.status_codes import HTTP_303_SEE_OTHER

from whimbrel import limits
from whimbrel.console.pages import THEMES, Frame
from whimbrel.errors import NotAllowed, NotFound, Refused, TooMany, UntrustedInput, WhimbrelError
from whimbrel.flows.accounts.permissions import Permission
from whimbrel.flows.accounts.tokens import revoke_token
from whimbrel.model.document_errors import sentence
from whimbrel.server.admin.accounts import begin_nonce, session_of
from whimbrel.server.admin.operations import address_of
from whimbrel.server.console.sessions import cookie, session_cookie
from whimbrel.server.console.visit import (
    THEME,
    AnyRequest,
    Console,
    check_form,
    check_same_site,
    form_of,
    frame_for,
    is_secure,
    page,
    visit_of,
)
from whimbrel.stores.transaction import Stores

_KEPT = "kept-"
_BEGUN = "whimbrel-sign-in"
_FORM = "whimbrel-form"


class _Begun(msgspec.Struct, frozen=True):
    """A sign-in with the provider that began in this browser."""

    namespace: str
    state: str
    nonce: str
    verifier: str
    next: str


@get("/{namespace:str}/sign-in")
async def show_sign_in(
    request: AnyRequest,
    console: NamedDependency[Console],
    namespace: FromPath[str],
    next_: Annotated[str, QueryParameter(name="next", max_length=2048)] = "",
) -> Response[bytes]:
    """The form."""
    await console.check_namespace(namespace)
    return sign_in_page(console, request, next_=inside(next_, namespace))


@post("/{namespace:str}/sign-in", status_code=HTTP_303_SEE_OTHER)
async def sign_in(request: AnyRequest, console: NamedDependency[Console], namespace: FromPath[str]) -> Response[Any]:
    """Begin a session by a token. It leads on to the page that was asked for, or to the form that was sent."""
    check_same_site(request)
    await console.check_namespace(namespace)
    form = await form_of(request)
    _check_first_form(request, form)
    kept = {name.removeprefix(_KEPT): value for name, value in form.items() if name.startswith(_KEPT)}
    leads_to = inside(form.get("next", ""), namespace)
    token, people = form.get("token", "").strip(), console.operations.people
    address = address_of(request)
    try:
        if not token:
            raise UntrustedInput("the token is missing: paste it into the field")
        authorization = f"Bearer {token}"
        caller = await console.in_thread(lambda: people.sign_in(namespace, authorization, address=address))
    except (NotAllowed, UntrustedInput, TooMany) as error:
        trouble = str(error) if isinstance(error, TooMany | UntrustedInput) else _WRONG
        return sign_in_page(
            console,
            request,
            next_=leads_to,
            kept=kept,
            trouble=trouble,
            status=429 if isinstance(error, TooMany) else 401,
        )
    return _begin(
        console, request, namespace, token=caller.token, life_s=limits.CONSOLE_SESSION_S, next_=leads_to, kept=kept
    )


_WRONG = "this token is not known here, was revoked, or is over; look for a blank that was copied with it"


@get("/{namespace:str}/sign-in/provider", status_code=HTTP_303_SEE_OTHER)
async def begin_with_provider(
    request: AnyRequest,
    console: NamedDependency[Console],
    namespace: FromPath[str],
    next_: Annotated[str, QueryParameter(name="next", max_length=2048)] = "",
) -> Response[Any]:
    """Send the browser to the provider."""
    await console.check_namespace(namespace)
    begun = await begin_nonce(console.operations, namespace, address=address_of(request))
    verifier = secrets.token_urlsafe(48)
    kept = _Begun(namespace, secrets.token_urlsafe(24), begun.nonce, verifier, inside(next_, namespace))
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    query = urlencode(
        {
            "response_type": "code",
            "client_id": begun.client_id,
            "redirect_uri": _redirect_uri(request),
            "scope": " ".join(begun.scopes),
            "state": kept.state,
            "nonce": begun.nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
    )
    joint = "&" if "?" in begun.authorization_endpoint else "?"
    value = base64.urlsafe_b64encode(msgspec.json.encode(kept)).rstrip(b"=").decode()
    secure = is_secure(request)
    return Redirect(
        f"{begun.authorization_endpoint}{joint}{query}",
        status_code=HTTP_303_SEE_OTHER,
        cookies=[cookie(_host(_BEGUN, secure=secure), value, secure=secure, max_age_s=limits.CONSOLE_SIGN_IN_S)],
    )


@get("/-/signed-in", status_code=HTTP_303_SEE_OTHER)
async def finish_with_provider(
    request: AnyRequest,
    console: NamedDependency[Console],
    *,
    code: Annotated[str, QueryParameter(max_length=4096)] = "",
    came: Annotated[str, QueryParameter(name="state", max_length=512)] = "",
    iss: Annotated[str, QueryParameter(max_length=2048)] = "",
    error: Annotated[str, QueryParameter(max_length=512)] = "",
) -> Response[Any]:
    """What the provider sends the browser back with."""
    secure = is_secure(request)
    begun = _begun(request.cookies.get(_host(_BEGUN, secure=secure), ""))
    if begun is None or not hmac.compare_digest(begun.state.encode(), came.encode()):
        raise NotAllowed("this sign-in did not begin in this browser, or is over; begin it again")
    provider = console.operations.context.oidc
    if provider is None:
        raise NotFound("nobody signs in here with a provider: whimbrel.toml has no [oidc]")
    if iss not in {"", provider.settings.issuer}:  # RFC 9207
        raise NotAllowed("the answer is of another provider; begin the sign-in again")
    if error or not code:
        raise NotAllowed(f"the provider did not sign you in ({error or 'no code came'}); begin again")
    namespace, address = begun.namespace, address_of(request)
    console.operations.people.check(namespace, address=address)
    try:
        id_token = await provider.exchange(code, verifier=begun.verifier, redirect_uri=_redirect_uri(request))
        token, _ = await session_of(console.operations, namespace, id_token, nonce=begun.nonce)
    except WhimbrelError:
        console.operations.people.note_failure(namespace, address=address)
        raise
    life_s = (token.expires_at or 0.0) - console.operations.now()
    answer = _begin(console, request, namespace, token=token.id, life_s=life_s, next_=begun.next, kept={})
    answer.set_cookie(cookie(_host(_BEGUN, secure=secure), "", secure=secure, max_age_s=0))
    return answer


@post("/{namespace:str}/sign-out", status_code=HTTP_303_SEE_OTHER, permission=Permission.READ)
async def sign_out(request: AnyRequest, console: NamedDependency[Console], namespace: FromPath[str]) -> Response[Any]:
    """End the session."""
    visit = visit_of(request)
    check_form(visit.session, await form_of(request))
    name = session_cookie(namespace, secure=is_secure(request))
    console.sessions.end(request.cookies.get(name))

    def work(stores: Stores) -> None:
        if stores.accounts.token(visit.caller.token, now=console.operations.now()).source == "sign-in":
            revoke_token(
                stores.accounts,
                stores.registry,
                visit.caller.token,
                caller=visit.caller,
                because="signed out",
                although_last=True,
                admins_sign_in=True,
                now=console.operations.now(),
            )

    await console.operations.do(namespace, work)
    return Redirect(
        f"/{namespace}/sign-in",
        status_code=HTTP_303_SEE_OTHER,
        cookies=[cookie(name, "", secure=is_secure(request), max_age_s=0)],
    )


@post("/-/theme", status_code=HTTP_303_SEE_OTHER)
async def choose_theme(request: AnyRequest) -> Response[Any]:
    """Keep the theme that a browser chose."""
    check_same_site(request)
    form = await form_of(request)
    theme = form.get("theme", "")
    if theme not in THEMES:
        raise UntrustedInput(f"{sentence(repr(theme)[:64])} is no theme; expected light, dark, or nothing")
    back = form.get("back", "/")
    chosen = cookie(THEME, theme, secure=is_secure(request), max_age_s=365 * 86400 if theme else 0)
    return Redirect(back if is_own_path(back) else "/", status_code=HTTP_303_SEE_OTHER, cookies=[chosen])


SIGN_IN_ROUTES = (show_sign_in, sign_in, begin_with_provider, finish_with_provider, choose_theme)


def sign_in_page(
    console: Console,
    request: AnyRequest,
    *,
    next_: str,
    kept: dict[str, str] | None = None,
    trouble: str = "",
    status: int = 200,
) -> Response[bytes]:
    """The form, with what it carries on. Its own token is in a cookie: there is no session yet."""
    provider, secure = console.operations.context.oidc, is_secure(request)
    name = _host(_FORM, secure=secure)
    own = request.cookies.get(name, "") or secrets.token_urlsafe(24)
    frame = msgspec.structs.replace(
        frame_for(request, "Sign in", now=console.operations.now()), csrf=own, caller=None, path=request.url.path
    )
    issuer = "" if provider is None else provider.settings.issuer.partition("://")[2]
    answer = page(
        "sign_in", frame, status=status, provider=issuer, next=next_, kept=list((kept or {}).items()), trouble=trouble
    )
    answer.set_cookie(cookie(name, own, secure=secure, max_age_s=None))
    return answer


def inside(path: str, namespace: str) -> str:
    """The path, where it is a page of the namespace; else its first page."""
    return path if is_own_path(path) and path.startswith(f"/{namespace}/") else f"/{namespace}/"


def is_own_path(path: str) -> bool:
    """Whether it is a path of this server: no other host, and nothing that a browser reads as one."""
    return path.startswith("/") and not path.startswith("//") and "\\" not in path and path.isprintable()


def _check_first_form(request: AnyRequest, form: dict[str, str]) -> None:
    """Raises `Refused` for a form that did not come from the page that this browser was shown."""
    own = request.cookies.get(_host(_FORM, secure=is_secure(request)), "")
    if not own or not hmac.compare_digest(own.encode(), form.get("csrf", "").encode("utf-8", "surrogateescape")):
        raise Refused("this form was not shown to this browser, or it keeps no cookies; load the page again")


def _begin(
    console: Console,
    request: AnyRequest,
    namespace: str,
    *,
    token: str,
    life_s: float,
    next_: str,
    kept: dict[str, str],
) -> Response[Any]:
    """Begin the session, and lead on."""
    secret, session = console.sessions.begin(namespace, token=token, life_s=life_s)
    secure = is_secure(request)
    made = cookie(session_cookie(namespace, secure=secure), secret, secure=secure, max_age_s=None)
    if not kept:
        return Redirect(next_, status_code=HTTP_303_SEE_OTHER, cookies=[made])
    frame = Frame(
        title="Go on", now=console.operations.now(), path=f"/{namespace}/", namespace=namespace, csrf=session.csrf
    )
    answer = page("go_on", frame, target=next_, kept=[(name, kept[name]) for name in kept if name.isidentifier()])
    answer.set_cookie(made)
    return answer


def _begun(value: str) -> _Begun | None:
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)), type=_Begun)
    except (ValueError, msgspec.DecodeError):
        return None


def _redirect_uri(request: AnyRequest) -> str:
    return f"{request.url.scheme}://{request.url.netloc}/-/signed-in"


def _host(name: str, *, secure: bool) -> str:
    return f"__Host-{name}" if secure else name
