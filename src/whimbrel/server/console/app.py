"""The console as an application: its routes, the guard before them, and every error as a page.

1. Pages lie at `/{namespace}/...`, beside the admin API at `/{namespace}/admin/v1/`. What is of no namespace lies at
   `/-/`, which no namespace can be named: the style sheet, the theme, the way back from a provider.
2. Every answer has the policy of `_HEADERS`: nothing from another place is loaded, and no inline script or style runs.
3. An error is a page with its status, that says what was found and where to go on. A bug says nothing of itself but
   where it is logged.
"""

import logging
from typing import Any
from urllib.parse import quote

from litestar import Litestar, Request, Response, Router, get
from litestar.connection import ASGIConnection
from litestar.datastructures import MutableScopeHeaders
from litestar.di import NamedDependency, Provide
from litestar.exceptions import HTTPException, MethodNotAllowedException
from litestar.handlers import BaseRouteHandler
from litestar.params import FromPath
from litestar.response import Redirect
from litestar.status_codes import HTTP_303_SEE_OTHER
from litestar.types import Message, Scope

from whimbrel import limits
from whimbrel.console.static_parts import BY_URL, PREFIX
from whimbrel.errors import DiskFull, NotAllowed, NotFound, Unavailable, WhimbrelError
from whimbrel.server.admin.app import permission_needed
from whimbrel.server.console.devices import DEVICE_PAGES
from whimbrel.server.console.fleet import FLEET_ROUTES
from whimbrel.server.console.live import LIVE_ROUTES
from whimbrel.server.console.models import MODEL_PAGES
from whimbrel.server.console.records import RECORD_PAGES
from whimbrel.server.console.rollout_moves import MOVE_ROUTES
from whimbrel.server.console.rollouts import ROLLOUT_PAGES
from whimbrel.server.console.sign_in import SIGN_IN_ROUTES, inside, sign_in_page, sign_out
from whimbrel.server.console.visit import (
    AnyRequest,
    Console,
    SignInNeeded,
    check_same_site,
    console_of,
    form_of,
    frame_for,
    keep_visit,
    page,
)
from whimbrel.server.http import RETRY_AFTER_S, unforeseen

log = logging.getLogger(__name__)

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
_METHODS = {"GET", "HEAD", "POST"}
_NOT_KEPT = "no-store"
_KEPT = "public, max-age=31536000, immutable"
_PAGES = (
    *FLEET_ROUTES,
    *ROLLOUT_PAGES,
    *MOVE_ROUTES,
    *LIVE_ROUTES,
    *MODEL_PAGES,
    *DEVICE_PAGES,
    *RECORD_PAGES,
    sign_out,
)


@get("/")
async def show_first(request: AnyRequest, console: NamedDependency[Console]) -> Response[Any]:
    """The only namespace, or a list of them."""
    names = await console.namespaces()
    if len(names) == 1:
        return Redirect(f"/{names[0]}/", status_code=HTTP_303_SEE_OTHER)
    return page("namespaces", frame_for(request, "Namespaces", now=console.operations.now()), names=names)


@get(PREFIX + "{name:str}")
async def show_part(name: FromPath[str]) -> Response[bytes]:
    """The style sheet, the script or the mark."""
    part = BY_URL.get(PREFIX + name)
    if part is None:
        raise NotFound("there is no such file of the console; load the page again")
    return Response(part.content, media_type=part.media_type, headers={"cache-control": _KEPT})


def console_app() -> Litestar:
    """The console as an ASGI application. What its routes are given is `console` of its state."""
    for handler in _PAGES:
        permission_needed(handler, {})
    pages = Router("/", guards=[_guard], route_handlers=_PAGES)
    return Litestar(
        [pages, show_first, show_part, *SIGN_IN_ROUTES],
        dependencies={"console": Provide(_console, sync_to_thread=False)},
        before_send=[_add_headers],
        exception_handlers={
            SignInNeeded: _sign_in_first,
            WhimbrelError: _ours,
            HTTPException: _theirs,
            Exception: _bug,
        },
        openapi_config=None,
        request_max_body_size=limits.CONSOLE_FORM_BYTES,
        logging_config=None,
    )


def _console(request: AnyRequest) -> Console:
    return console_of(request)


async def _guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Let in whoever has a session, and the permission that the route needs."""
    console = console_of(connection)
    if connection.scope.get("method") not in _METHODS:
        raise MethodNotAllowedException
    visit = await console.visit(connection)
    asks = isinstance(connection, Request) and connection.method == "POST"
    if visit is None:
        await console.check_namespace(connection.path_params["namespace"])
        raise SignInNeeded(await _kept(connection) if isinstance(connection, Request) and asks else None)
    keep_visit(connection, visit)
    if asks:
        check_same_site(connection)
    visit.caller.check(permission_needed(handler, connection.path_params))


async def _kept(request: AnyRequest) -> dict[str, str]:
    """The form that was sent without a session, to be carried on; not what another site sent."""
    check_same_site(request)
    form = await form_of(request)
    return {name: value for name, value in form.items() if name.isidentifier() and name != "csrf"}


def _sign_in_first(request: AnyRequest, error: SignInNeeded) -> Response[Any]:
    namespace = str(request.path_params["namespace"])
    if error.kept is not None:
        leads_to = inside(request.url.path, namespace)
        return sign_in_page(console_of(request), request, next_=leads_to, kept=error.kept, status=NotAllowed.status)
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    back = "" if path.rstrip("/") == f"/{namespace}" else f"?next={quote(path, safe='')}"
    return Redirect(f"/{namespace}/sign-in{back}", status_code=HTTP_303_SEE_OTHER)


def _ours(request: AnyRequest, error: WhimbrelError) -> Response[bytes]:
    if isinstance(error, DiskFull):
        log.warning("a page was answered with 507: %s", error)
    answer = _trouble(request, error.title, str(error), status=error.status)
    if isinstance(error, Unavailable):
        answer.headers["retry-after"] = str(RETRY_AFTER_S)
    return answer


def _theirs(request: AnyRequest, error: HTTPException) -> Response[bytes]:
    path = request.url.path[:200]
    title, detail = "That cannot be done", "the address or the form is none of this console"
    match error.status_code:
        case 404:
            title, detail = "There is no such page", f"nothing is at {path}"
        case 405:
            detail = f"{request.method} is not possible at {path}"
        case 413:
            detail = f"the form is over {limits.CONSOLE_FORM_BYTES} bytes"
    return _trouble(request, title, detail, status=error.status_code)


def _bug(request: AnyRequest, error: Exception) -> Response[bytes]:
    return _ours(request, unforeseen(error))


async def _add_headers(message: Message, scope: Scope) -> None:  # noqa: ARG001 (the seam of the framework)
    if message["type"] == "http.response.start":
        headers = MutableScopeHeaders.from_message(message)
        for name, value in _HEADERS.items():
            headers[name] = value
        headers.setdefault("cache-control", _NOT_KEPT)


def _trouble(request: AnyRequest, title: str, detail: str, *, status: int) -> Response[bytes]:
    """The page of an error."""
    namespace = str(request.path_params.get("namespace", ""))
    back, words = (f"/{namespace}/", "To the fleet") if namespace else ("/", "To the first page")
    if status == NotAllowed.status:
        back, words = (f"/{namespace}/sign-in" if namespace else "/"), "Sign in"
    frame = frame_for(request, title, now=console_of(request).operations.now())
    return page("trouble", frame, status=status, title=title, detail=detail, back=back, back_words=words)
