"""What may people and their scripts ask? The admin API as an application: its routes, its guard and its errors.

1. Each resource is a file beside this one: routes that parse, open one transaction, call a flow and answer a view.
2. Whoever asks shows a token. Each route declares the permission that it needs (flows/accounts/permissions), and the
   account of the token is the actor of what it does. OpenAPI 3.1 at `/schema`, and signing in, are open.
3. Every route has a limit on its body: the one of all, or its own.
4. Every error is a problem document (RFC 9457) that says what was found, what was expected and what to do next.
5. Offline keys never come here: `model add`, `publish` and `version revoke` sign on the caller's side and send what
   they signed; the server verifies it against the delegation and stores it by compare-and-swap.
"""

import logging
from collections.abc import Mapping
from typing import Any

import msgspec
from litestar import Litestar, Request, Response, Router
from litestar.connection import ASGIConnection
from litestar.datastructures import MutableScopeHeaders, State
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.handlers import BaseRouteHandler
from litestar.types import Message, Scope
from litestar.utils.scope.state import ScopeState

from whimbrel import limits
from whimbrel.errors import DiskFull, InvariantBroken, WhimbrelError
from whimbrel.flows.accounts.permissions import Caller, Permission
from whimbrel.model.document_errors import no_json, sentence, split_path
from whimbrel.model.documents import encode
from whimbrel.model.release import Release
from whimbrel.server.admin.accounts import SIGN_IN_ROUTES, TOKEN_ROUTES
from whimbrel.server.admin.alerts import ALERT_ROUTES
from whimbrel.server.admin.artifacts import ARTIFACT_ROUTES
from whimbrel.server.admin.audit import AUDIT_ROUTES
from whimbrel.server.admin.devices import DEVICE_ROUTES
from whimbrel.server.admin.enrol_tokens import ENROL_TOKEN_ROUTES
from whimbrel.server.admin.experiments import EXPERIMENT_ROUTES
from whimbrel.server.admin.floors import FLOOR_ROUTES
from whimbrel.server.admin.key_proposals import KEY_PROPOSAL_ROUTES
from whimbrel.server.admin.keys import KEY_ROUTES
from whimbrel.server.admin.models import MODEL_ROUTES
from whimbrel.server.admin.moves import PermissionByPath
from whimbrel.server.admin.openapi import SECURITY_SCHEME, StructNames, openapi_config
from whimbrel.server.admin.operations import AdminContext, Operations
from whimbrel.server.admin.policies import POLICY_ROUTES
from whimbrel.server.admin.problems import ProblemResponses
from whimbrel.server.admin.provenance import PROVENANCE_ROUTES
from whimbrel.server.admin.rollouts import ROLLOUT_ROUTES
from whimbrel.server.admin.status import STATUS_ROUTES
from whimbrel.server.admin.tickets import TICKET_ROUTES
from whimbrel.server.admin.versions import VERSION_ROUTES
from whimbrel.server.admin.views.problem import Problem
from whimbrel.server.admin.views.repository import NOTICE
from whimbrel.server.http import TooLarge, problem, unforeseen

log = logging.getLogger(__name__)

_ROUTES = (
    *STATUS_ROUTES,
    *KEY_ROUTES,
    *KEY_PROPOSAL_ROUTES,
    *MODEL_ROUTES,
    *VERSION_ROUTES,
    *PROVENANCE_ROUTES,
    *FLOOR_ROUTES,
    *POLICY_ROUTES,
    *ARTIFACT_ROUTES,
    *ROLLOUT_ROUTES,
    *EXPERIMENT_ROUTES,
    *DEVICE_ROUTES,
    *TICKET_ROUTES,
    *ALERT_ROUTES,
    *AUDIT_ROUTES,
    *ENROL_TOKEN_ROUTES,
    *TOKEN_ROUTES,
)
_PREFIX = "/{namespace:str}/admin/v1"


def admin_app(context: AdminContext) -> Litestar:
    """The admin API as an ASGI application. What its routes are given is `operations` of its state."""
    for handler in _ROUTES:
        permission_needed(handler, {})
    operations = Provide(_operations, sync_to_thread=False)
    guarded = Router(
        _PREFIX,
        guards=[_guard],
        security=[{SECURITY_SCHEME: []}],
        dependencies={"operations": operations, "caller": Provide(_caller, sync_to_thread=False)},
        route_handlers=_ROUTES,
    )
    everybody = Router(_PREFIX, dependencies={"operations": operations}, route_handlers=SIGN_IN_ROUTES)
    names = StructNames(Release)
    return Litestar(
        [guarded, everybody],
        before_send=[_add_notice],
        openapi_config=openapi_config(names),
        plugins=[names, ProblemResponses()],
        exception_handlers={WhimbrelError: _ours, HTTPException: _theirs, Exception: _bug},
        request_max_body_size=limits.ADMIN_BODY_BYTES,  # a route that takes more says so itself
        logging_config=None,
        state=State({"operations": Operations(context)}),
    )


def permission_needed(handler: BaseRouteHandler, path: Mapping[str, Any]) -> Permission:
    """The permission that a route declares. Raises `InvariantBroken` for one that declares none.

    A route that does several things, by the last part of its path, declares a permission for each, and one for whatever
    else stands there.
    """
    declared = handler.opt.get("permission")
    if isinstance(declared, PermissionByPath):
        return declared.of(path)
    if not isinstance(declared, Permission):
        raise InvariantBroken(f"the route {handler} declares no permission, so nobody may ask it")
    return declared


async def _guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    operations: Operations = connection.app.state["operations"]
    caller = await operations.sign_in(connection)
    caller.check(permission_needed(handler, connection.path_params))
    connection.scope["user"] = caller
    connection.state["notice"] = await operations.notice(connection.path_params["namespace"])


def _operations(request: Request[Any, Any, Any]) -> Operations:
    operations: Operations = request.app.state["operations"]
    return operations


def _caller(request: Request[Any, Any, Any]) -> Caller:
    caller = request.scope["user"]
    if not isinstance(caller, Caller):
        raise InvariantBroken("nobody signed in")
    return caller


async def _add_notice(message: Message, scope: Scope) -> None:
    """Say what the operator should know in a header of every answer to somebody who was let in."""
    notice = scope.get("state", {}).get("notice")
    if notice and message["type"] == "http.response.start":
        MutableScopeHeaders.from_message(message)[NOTICE] = notice


def _ours(_: Request[Any, Any, Any], error: WhimbrelError) -> Response[bytes]:
    if isinstance(error, DiskFull):
        log.warning("a request was answered with 507: %s", error)
    status, body, headers = problem(error)
    more = {key.decode(): value.decode() for key, value in headers if key != b"content-type"}
    return Response(body, status_code=status, media_type="application/problem+json", headers=more)


def _theirs(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    detail = error.detail
    if isinstance(error.__cause__, msgspec.ValidationError):
        detail = _misfit(request, str(error.__cause__))
    elif (ill := no_json(detail)) is not None:
        detail = f"the body cannot be read: {ill}"
    elif error.status_code == TooLarge.status:
        detail = f"the body is over the {request.route_handler.resolve_request_max_body_size()} bytes of this route"
    elif error.status_code in {404, 405}:
        detail = f"there is no {request.method} {request.url.path}; see /schema"
    body = encode(Problem(title="The request cannot be accepted", status=error.status_code, detail=detail))
    return Response(body, status_code=error.status_code, media_type="application/problem+json")


def _misfit(request: Request[Any, Any, Any], error: str) -> str:
    """What is wrong with a body, or a parameter of the path or query. A body is the parameter `data` of a route."""
    message, path = split_path(error)
    if not path.startswith("$.data"):
        if message == "Object missing required field `data`":
            return "the body is empty; expected a JSON document"
        parameter = request.route_handler.parsed_fn_signature.parameters.get(path.removeprefix("$."))
        alias = getattr(parameter.kwarg_definition, "name", None) if parameter is not None else None
        if alias:  # what it is called in the query, where the route's own name is another
            error = error.replace(f"`{path}`", f"`$.{alias}`")
        return sentence(error, {**request.path_params, **request.query_params}, whole="the request")
    kind = request.route_handler.parsed_fn_signature.parameters["data"].annotation
    detail = sentence(
        error.replace("`$.data", "`$", 1), ScopeState.from_scope(request.scope).json, kind=kind, whole="the body"
    )
    if "has no field 'actor'" in detail:
        return f"{detail.partition(';')[0]}: who does something is the account of the token that asks; leave actor out"
    return detail


def _bug(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    return _ours(request, unforeseen(error))
