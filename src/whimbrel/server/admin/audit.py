"""The admin API's route for the audit log."""

from typing import Annotated

import msgspec
from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter

from whimbrel.flows.accounts.permissions import Permission
from whimbrel.server.admin.operations import Operations
from whimbrel.server.admin.views.repository import AuditEntry
from whimbrel.stores.transaction import Stores


@get("/audit", permission=Permission.READ, summary="Every move and decision, newest first")
async def list_audit(
    operations: NamedDependency[Operations],
    namespace: FromPath[str],
    *,
    rollout: FromQuery[str | None] = None,
    model: FromQuery[str | None] = None,
    device: FromQuery[str | None] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 100,
) -> list[AuditEntry]:
    """The newest entries of the audit log."""

    def entries(stores: Stores) -> list[AuditEntry]:
        records = stores.registry.audit_log(rollout=rollout, model=model, device=device, limit=limit)
        return [AuditEntry(**msgspec.structs.asdict(record)) for record in records]

    return await operations.do(namespace, entries)


AUDIT_ROUTES = (list_audit,)
