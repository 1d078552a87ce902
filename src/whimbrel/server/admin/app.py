"""What may people and their scripts ask? The admin API as an application: its routes, its guard and its errors.

1. Each resource is a file beside this one: routes that parse, open one transaction, call a flow and answer a view.
2. Whoever asks shows an admin token; OpenAPI 3.1 at `/schema` is open.
3. Every route has a limit on its body: the one of all, or its own.
4. Every error is a problem document (RFC 9457) that says what was found, what was expected and what to do next.
5. Offline keys never come here: `model add`, `publish` and `version revoke` sign on the caller's side and send what
   they signed; the server verifies it against the delegation and stores it by compare-and-swap.
"""

import logging
from typing import Any

from litestar import Litestar, Request, Response, Router
from litestar.connection import ASGIConnection
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.handlers import BaseRouteHandler

from whimbrel import limits
from whimbrel.errors import DiskFull, WhimbrelError
from whimbrel.model.documents import encode
from whimbrel.model.release import Release
from whimbrel.server.admin.alerts import ALERT_ROUTES
from whimbrel.server.admin.artifacts import ARTIFACT_ROUTES
from whimbrel.server.admin.audit import AUDIT_ROUTES
from whimbrel.server.admin.devices import DEVICE_ROUTES
from whimbrel.server.admin.enrol_tokens import ENROL_TOKEN_ROUTES
from whimbrel.server.admin.experiments import EXPERIMENT_ROUTES
from whimbrel.server.admin.models import MODEL_ROUTES
from whimbrel.server.admin.openapi import SECURITY_SCHEME, StructNames, openapi_config
from whimbrel.server.admin.operations import AdminContext, Operations
from whimbrel.server.admin.problems import ProblemResponses
from whimbrel.server.admin.rollouts import ROLLOUT_ROUTES
from whimbrel.server.admin.status import STATUS_ROUTES
from whimbrel.server.admin.tickets import TICKET_ROUTES
from whimbrel.server.admin.versions import VERSION_ROUTES
from whimbrel.server.admin.views.problem import Problem
from whimbrel.server.http import TooLarge, problem, unforeseen

log = logging.getLogger(__name__)

_ROUTES = (
    *STATUS_ROUTES,
    *MODEL_ROUTES,
    *VERSION_ROUTES,
    *ARTIFACT_ROUTES,
    *ROLLOUT_ROUTES,
    *EXPERIMENT_ROUTES,
    *DEVICE_ROUTES,
    *TICKET_ROUTES,
    *ALERT_ROUTES,
    *AUDIT_ROUTES,
    *ENROL_TOKEN_ROUTES,
)


def admin_app(context: AdminContext) -> Litestar:
    """The admin API as an ASGI application."""
    operations = Operations(context)

    async def guard(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        await operations.admit(connection.path_params["namespace"], connection.headers.get("authorization"))

    guarded = Router(
        "/{namespace:str}/admin/v1",
        guards=[guard],
        security=[{SECURITY_SCHEME: []}],
        dependencies={"operations": Provide(lambda: operations, sync_to_thread=False)},
        route_handlers=_ROUTES,
    )
    names = StructNames(Release)
    return Litestar(
        [guarded],
        openapi_config=openapi_config(names),
        plugins=[names, ProblemResponses()],
        exception_handlers={WhimbrelError: _ours, HTTPException: _theirs, Exception: _bug},
        request_max_body_size=limits.ADMIN_BODY_BYTES,  # a route that takes more says so itself
        logging_config=None,
    )


def _ours(_: Request[Any, Any, Any], error: WhimbrelError) -> Response[bytes]:
    if isinstance(error, DiskFull):
        log.warning("a request was answered with 507: %s", error)
    status, body, headers = problem(error)
    more = {key.decode(): value.decode() for key, value in headers if key != b"content-type"}
    return Response(body, status_code=status, media_type="application/problem+json", headers=more)


def _theirs(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    detail = error.detail
    if isinstance(error.extra, list):
        wrong = [each for each in error.extra if isinstance(each, dict)]
        detail += ": " + "; ".join(f"{each.get('key', '')} {each.get('message', each)}".strip() for each in wrong)
    elif error.status_code == TooLarge.status:
        detail = f"the body is over the {request.route_handler.resolve_request_max_body_size()} bytes of this route"
    elif error.status_code in {404, 405}:
        detail = f"there is no {request.method} {request.url.path}; see /schema"
    body = encode(Problem(title="The request cannot be accepted", status=error.status_code, detail=detail))
    return Response(body, status_code=error.status_code, media_type="application/problem+json")


def _bug(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    return _ours(request, unforeseen(error))
