"""Who looks at a page, and how it is answered: the session, the form, and the frame around what a route shows.

1. A route declares the permission that it needs, as those of the admin API do; a guard looks at the session first. Who
   has none is sent to sign in, and comes back to the page. A form that was sent without a session is carried on.
2. A form is taken where its token is that of the session, and where the browser does not say that another site sent it.
3. An answer is never kept by a browser or a proxy, and may show and run nothing that does not come from here.
"""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from litestar import Request, Response
from litestar.connection import ASGIConnection

from whimbrel import limits
from whimbrel.console.pages import THEMES, Frame, Theme, render
from whimbrel.errors import InvariantBroken, NotFound, Refused, UntrustedInput
from whimbrel.flows.accounts.permissions import Caller
from whimbrel.flows.overview.versions_over_time import VersionHours
from whimbrel.server.admin.operations import Operations
from whimbrel.server.console.kept import KeptAnswers, KeptCounts
from whimbrel.server.console.sessions import Session, Sessions, is_csrf, session_cookie
from whimbrel.server.console.streams import Streams
from whimbrel.server.http import TooLarge
from whimbrel.stores.transaction import all_namespaces

T = TypeVar("T")
AnyRequest = Request[Any, Any, Any]
THEME = "whimbrel-theme"
_VISIT, _FORM = "visit", "form"


class SignInNeeded(Exception):
    """Nobody is signed in. `kept`: the form that was sent, "csrf" left out."""

    def __init__(self, kept: dict[str, str] | None = None) -> None:
        super().__init__("nobody is signed in")
        self.kept = kept


class Visit(msgspec.Struct, frozen=True):
    """A request of a person who is signed in."""

    namespace: str
    caller: Caller
    session: Session


class Console:
    """What the routes of the console work on. `operations`: those of the admin API, of which it is another face."""

    def __init__(self, operations: Operations, *, streams: Streams) -> None:
        self.operations, self.streams = operations, streams
        self.sessions = Sessions(clock=operations.now)
        self.counts = KeptCounts()
        self.effects = KeptAnswers(most=limits.CONSOLE_MODELS)
        self._hours: dict[str, VersionHours] = {}

    def hours(self, namespace: str) -> VersionHours:
        """The hours of a namespace's versions, as far as they were read."""
        return self._hours.setdefault(namespace, VersionHours(hours=limits.CONSOLE_HOURS, models=limits.CONSOLE_MODELS))

    @staticmethod
    async def in_thread(work: Callable[[], T]) -> T:
        """Work off the event loop."""
        return await asyncio.to_thread(work)

    async def namespaces(self) -> list[str]:
        """All that are here."""
        return await asyncio.to_thread(lambda: sorted(all_namespaces(self.operations.context.database)))

    async def visit(self, connection: ASGIConnection[Any, Any, Any, Any]) -> Visit | None:
        """Who asks, by the cookie that is shown; None: nobody whose session is good."""
        namespace = connection.path_params["namespace"]
        secret = connection.cookies.get(session_cookie(namespace, secure=is_secure(connection)))
        session = self.sessions.find(namespace, secret)
        if session is None:
            return None
        caller = await asyncio.to_thread(lambda: self.operations.people.by_token(namespace, session.token))
        if caller is None:
            self.sessions.end(secret)
            return None
        return Visit(namespace, caller, session)

    async def check_namespace(self, namespace: str) -> None:
        """Raises `NotFound` for one that is not here."""
        if namespace not in await self.namespaces():
            raise NotFound(f"there is no namespace {namespace!r} here")


def console_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Console:
    """The console that a request came to."""
    console = connection.app.state["console"]
    if not isinstance(console, Console):
        raise InvariantBroken("this application is no console's")
    return console


def visit_of(request: AnyRequest) -> Visit:
    """The visit that the guard let in."""
    visit = request.state.get(_VISIT)
    if not isinstance(visit, Visit):
        raise InvariantBroken("nobody signed in")
    return visit


def keep_visit(connection: ASGIConnection[Any, Any, Any, Any], visit: Visit) -> None:
    """Note who was let in."""
    connection.state[_VISIT] = visit


async def form_of(request: AnyRequest) -> dict[str, str]:
    """The fields of a form. Raises `UntrustedInput` for what is none, and for one that is too large."""
    kept = request.state.get(_FORM)
    if isinstance(kept, dict):
        return kept
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise UntrustedInput(f"a form was expected, and {kind or 'nothing'} came")
    body = await request.body()
    if len(body) > limits.CONSOLE_FORM_BYTES:
        raise TooLarge(f"the form is over {limits.CONSOLE_FORM_BYTES} bytes")
    try:
        text = body.decode()
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=limits.CONSOLE_FORM_FIELDS, errors="strict")
    except ValueError as error:
        raise UntrustedInput("the form cannot be read: it has too many fields, or is no UTF-8") from error
    form = dict(pairs)
    request.state[_FORM] = form
    return form


def because_of(form: dict[str, str]) -> str:
    """The reason that a person gave. Raises `UntrustedInput` for one that is too long to be kept."""
    because = form.get("because", "").strip()
    if len(because) > limits.BECAUSE_CHARS:
        raise UntrustedInput(f"the reason has {len(because)} characters; at most {limits.BECAUSE_CHARS} are kept")
    return because


def check_form(session: Session, form: dict[str, str]) -> None:
    """Raises `Refused` for a form of another session or another site."""
    if not is_csrf(session, form.get("csrf")):
        raise Refused("this form is not of your session; go back, load the page again, and repeat it")


def check_same_site(connection: ASGIConnection[Any, Any, Any, Any]) -> None:
    """Raises `Refused` for a form that another site sent, as far as the browser says so."""
    site = connection.headers.get("sec-fetch-site", "same-origin")
    if site not in {"same-origin", "none"}:
        raise Refused("another site sent this form; open the console itself, and repeat it there")


def is_secure(connection: ASGIConnection[Any, Any, Any, Any]) -> bool:
    """Whether the browser came over TLS, as far as a trusted proxy or this server knows."""
    return connection.url.scheme == "https"


def theme_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Theme:
    """The theme that a browser chose."""
    chosen = connection.cookies.get(THEME, "")
    return next((theme for theme in THEMES if theme == chosen), "")


def frame_for(
    request: AnyRequest, title: str, *, now: float, section: str = "", live: str = "", notice: str = ""
) -> Frame:
    """The frame of a page, for whoever looks at it."""
    visit = request.state.get(_VISIT)
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return Frame(
        title=title,
        now=now,
        path=path if request.method == "GET" else request.url.path,
        namespace=str(request.path_params.get("namespace", "")),
        section=section,
        caller=visit.caller if isinstance(visit, Visit) else None,
        csrf=visit.session.csrf if isinstance(visit, Visit) else "",
        theme=theme_of(request),
        live=live,
        notice=notice,
    )


def page(template: str, frame: Frame, *, status: int = 200, **views: Any) -> Response[bytes]:
    """An answer that is a page."""
    return Response(render(template, frame, **views), status_code=status, media_type="text/html")


async def shown(
    console: Console,
    request: AnyRequest,
    work: Callable[..., Any],
    template: str,
    title: Callable[[Any], str],
    **frame: Any,
) -> Response[bytes]:
    """The page of what `work` reads in one transaction."""
    visit, now = visit_of(request), console.operations.now()
    view = await console.operations.do(visit.namespace, work)
    notice = await console.operations.notice(visit.namespace) or ""
    return page(template, frame_for(request, title(view), now=now, notice=notice, **frame), page=view)
