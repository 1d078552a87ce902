"""The admin API's routes for a whole namespace: its state and its signed roles."""

import importlib.metadata

import msgspec
from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery

from whimbrel.flows.accounts.permissions import Permission
from whimbrel.server.admin.operations import Operations
from whimbrel.server.admin.views.repository import NextExpiryView, SentView, StatusView
from whimbrel.stores.transaction import Stores


@get("/status", permission=Permission.READ, summary="Whether it works, and how much there is")
async def show_status(operations: NamedDependency[Operations], namespace: FromPath[str]) -> StatusView:
    """The state of a namespace."""
    sent = SentView(**msgspec.structs.asdict(operations.context.sent))
    return await operations.do(namespace, lambda stores: status_view(stores, sent=sent))


@get(
    "/roles/{role:str}",
    permission=Permission.READ,
    summary="The signed metadata of a role: the newest, or one version",
    media_type="application/json",
)
async def show_role(
    operations: NamedDependency[Operations],
    namespace: FromPath[str],
    role: FromPath[str],
    version: FromQuery[int | None] = None,
) -> Response[bytes]:
    """A role's metadata, byte for byte as it was signed."""
    content = await operations.do(namespace, lambda stores: stores.roles.role_bytes(role, version))
    return Response(content, media_type="application/json")


def status_view(stores: Stores, *, sent: SentView) -> StatusView:
    """The state of a namespace in numbers."""
    first = stores.role_expiries.first()
    return StatusView(
        version=importlib.metadata.version("whimbrel"),
        namespace=stores.namespace,
        models=len(stores.registry.models()),
        devices=stores.fleet.count_enrolled(),
        live_rollouts=len(stores.registry.rollouts(live=True)),
        live_experiments=len(stores.experiments.all(live=True)),
        timestamp_version=stores.roles.published_timestamp(),
        sent=sent,
        next_expiry=None if first is None else NextExpiryView(role=first.role, expires=first.expires),
    )


STATUS_ROUTES = (show_status, show_role)
