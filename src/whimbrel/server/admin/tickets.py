"""The admin API's routes for tickets of users."""

from typing import Annotated

import msgspec
from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from litestar.status_codes import HTTP_200_OK

from whimbrel import limits
from whimbrel.errors import NotFound
from whimbrel.flows.accounts.permissions import Caller, Permission
from whimbrel.flows.reports.user_reports import FilingResult, file_batch
from whimbrel.health.user_report import UserReports
from whimbrel.server.admin.operations import Operations
from whimbrel.server.admin.problems import problems
from whimbrel.server.admin.views.tickets import TicketView
from whimbrel.stores.transaction import Stores


@post(
    "/user-reports",
    permission=Permission.FEEDBACK,
    status_code=HTTP_200_OK,
    summary="Hand on tickets of users: one, or up to 1,000",
    request_max_body_size=limits.ADMIN_TICKETS_BYTES,
)
async def file_tickets(
    operations: NamedDependency[Operations],
    caller: NamedDependency[Caller],
    namespace: FromPath[str],
    data: JSONBody[UserReports],
) -> FilingResult:
    """Keep tickets, each once, and wake the controllers that count them."""
    result = await operations.do(
        namespace,
        lambda stores: file_batch(
            stores.registry, stores.fleet, stores.tickets, data, actor=caller.account, now=operations.now()
        ),
    )
    operations.context.controllers.wake.set()
    return result


@get(
    "/user-reports",
    permission=Permission.READ,
    summary="Tickets of a model, newest first, and what became of them",
    responses=problems(NotFound),  # the model is a query
)
async def list_tickets(
    operations: NamedDependency[Operations],
    namespace: FromPath[str],
    model: FromQuery[str],
    limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 100,
) -> list[TicketView]:
    """The newest tickets of a model."""
    return await operations.do(namespace, lambda stores: ticket_views(stores, model=model, limit=limit))


TICKET_ROUTES = (file_tickets, list_tickets)


def ticket_views(stores: Stores, *, model: str, limit: int) -> list[TicketView]:
    """The newest tickets of a model, with the version of those that name one. Raises `NotFound` for the model."""
    versions = {v.serial: v.version for v in stores.registry.versions(stores.registry.model(model).name)}
    return [
        TicketView(**msgspec.structs.asdict(ticket), version=versions.get(ticket.serial or 0))
        for ticket in stores.tickets.newest(model=model, limit=limit)
    ]
