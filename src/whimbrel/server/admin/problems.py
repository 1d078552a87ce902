"""Which problems may a route of the admin API answer? What the OpenAPI document says about errors.

1. Every route asks for a token, and for what the token may do, and works on the database: 400, 401, 403, 429 after too
   many wrong tokens, 503, and 507 where its disk is full.
2. A route that is given a name in its path, or a body, may not find what is named: 404.
3. A route that changes what is named may come too late: 409.
4. A route that takes a body limits it: 413.
5. A route that can answer a further problem says so itself: `responses=problems(NotFound)`.
"""

from collections.abc import Iterator

from litestar.enums import HttpMethod
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.plugins import ReceiveRoutePlugin
from litestar.routes import BaseRoute, HTTPRoute

from whimbrel.errors import (
    Conflict,
    DiskFull,
    NotAllowed,
    NotFound,
    Refused,
    TooMany,
    Unavailable,
    UntrustedInput,
    WhimbrelError,
)
from whimbrel.server.admin.views.problem import Problem
from whimbrel.server.http import TooLarge

_READING = {HttpMethod.GET.value, HttpMethod.HEAD.value}
_BODIES = {"data", "request"}  # the parameters by which a route takes its body: whole, or as a stream


def problems(*errors: type[WhimbrelError], bodiless: bool = False) -> dict[int, ResponseSpec]:
    """The responses for `errors`, by status. `bodiless`: those of a HEAD."""
    return {
        error.status: ResponseSpec(
            data_container=None if bodiless else Problem,
            generate_examples=False,
            description=error.title,
            media_type="application/problem+json",
        )
        for error in errors
    }


class ProblemResponses(ReceiveRoutePlugin):
    """Gives each route of a namespace the problems that it may answer."""

    def receive_route(self, route: BaseRoute) -> None:
        """Add the rules' problems to those that the route itself names."""
        if not isinstance(route, HTTPRoute) or "namespace" not in route.path_parameters:
            return
        names = len(route.path_parameters) > 1
        for handler in route.route_handlers:
            bodiless = HttpMethod.HEAD.value in handler.http_methods
            by_rule = problems(*_errors_of(handler, names=names), bodiless=bodiless)
            handler.responses = by_rule | dict(handler.responses or {})


def _errors_of(handler: HTTPRouteHandler, *, names: bool) -> Iterator[type[WhimbrelError]]:
    takes_body = bool(_BODIES & handler.parsed_fn_signature.parameters.keys())
    yield from (UntrustedInput, NotAllowed, Refused, TooMany, Unavailable, DiskFull)
    if names or takes_body:
        yield NotFound
        if not handler.http_methods <= _READING:
            yield Conflict
    if takes_body:
        yield TooLarge
