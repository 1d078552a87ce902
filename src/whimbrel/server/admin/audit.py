"""The admin API's routes for the audit log: the newest entries, the chain to be exported and checked, and anchors."""

from typing import Annotated

import msgspec
from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter

from whimbrel import limits
from whimbrel.flows.accounts.permissions import Permission
from whimbrel.flows.audit_chain import Anchor, ChainedEntry
from whimbrel.server.admin.operations import Operations
from whimbrel.server.admin.views.repository import AuditEntry
from whimbrel.stores.anchors import newest_anchor
from whimbrel.stores.transaction import Stores


@get("/audit", permission=Permission.READ, summary="Every move and decision, newest first")
async def list_audit(
    operations: NamedDependency[Operations],
    namespace: FromPath[str],
    *,
    rollout: FromQuery[str | None] = None,
    model: FromQuery[str | None] = None,
    device: FromQuery[str | None] = None,
    action: FromQuery[str | None] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 100,
) -> list[AuditEntry]:
    """The newest entries of the audit log."""

    def entries(stores: Stores) -> list[AuditEntry]:
        records = stores.audit.newest(rollout=rollout, model=model, device=device, action=action, limit=limit)
        return [AuditEntry(**msgspec.structs.asdict(record)) for record in records]

    return await operations.do(namespace, entries)


@get(
    "/audit/chain",
    permission=Permission.READ,
    summary="Entries after a sequence number, oldest first: to be exported and checked",
)
async def list_chain(
    operations: NamedDependency[Operations],
    namespace: FromPath[str],
    *,
    after: Annotated[int, QueryParameter(ge=0, le=limits.ROW_MAX)] = 0,
    limit: Annotated[int, QueryParameter(ge=1, le=limits.AUDIT_PAGE)] = limits.AUDIT_PAGE,
) -> list[ChainedEntry]:
    """A page of the chain, with every field that the hashes are over. An empty page: there is no more."""
    return await operations.do(namespace, lambda stores: stores.audit.after(after, limit=limit))


@get(
    "/audit/anchor",
    permission=Permission.READ,
    summary="Number, hash and time of the newest entry, signed: to be stored elsewhere",
)
async def show_anchor(operations: NamedDependency[Operations], namespace: FromPath[str]) -> Anchor:
    """An anchor of the audit log as it is now, signed by the timestamp key."""

    signers = operations.context.signers

    def work(stores: Stores) -> Anchor:
        return newest_anchor(stores.audit, stores.roles, signers, namespace=namespace, now=operations.now())

    return await operations.do(namespace, work)


AUDIT_ROUTES = (list_audit, list_chain, show_anchor)
