"""The admin API's routes for artifacts: bytes that are stored under their SHA-256, and deleted when nothing holds them.

1. An upload is streamed into the blob store, which checks its digest; then its row is written.
2. To collect is to forget a row in a transaction, then to delete the bytes. A process that ends between the two leaves
   bytes that nothing names; the next upload of the same bytes takes them over.
"""

import functools
from typing import Annotated, Any

from litestar import Request, Response, head, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.status_codes import HTTP_200_OK, HTTP_201_CREATED

from whimbrel import limits
from whimbrel.errors import NotFound
from whimbrel.flows.accounts.permissions import Caller, Permission
from whimbrel.flows.audit import audit
from whimbrel.flows.publishing.collect import forget_unheld
from whimbrel.model.documents import convert
from whimbrel.model.ids import Digest
from whimbrel.server.admin.operations import Operations
from whimbrel.server.admin.views.artifacts import ArtifactView, CollectedView
from whimbrel.stores.transaction import Stores

COLLECT_AFTER_S = 86400.0  # an upload whose version is not published yet is safe for a day


@head("/artifacts/{sha256:str}", permission=Permission.READ, summary="Whether an artifact is stored")
async def has_artifact(
    operations: NamedDependency[Operations], namespace: FromPath[str], sha256: FromPath[str]
) -> Response[None]:
    """Whether an artifact is stored, and its size."""
    path = _path(namespace, sha256)
    size = await operations.do(namespace, lambda stores: stores.registry.artifact_size(sha256))
    if size is None or not await operations.context.blobs.exists(path):
        raise NotFound("that artifact is not stored")
    return Response(None, headers={"X-Size-Bytes": str(size)})


@put(
    "/artifacts/{sha256:str}",
    permission=Permission.PUBLISH,
    status_code=HTTP_201_CREATED,
    summary="Store an artifact under its digest",
    request_max_body_size=limits.ARTIFACT_BYTES,
)
async def put_artifact(
    operations: NamedDependency[Operations],
    caller: NamedDependency[Caller],
    namespace: FromPath[str],
    sha256: FromPath[str],
    request: Request[Any, Any, Any],
) -> ArtifactView:
    """Store the body under its digest."""
    path = _path(namespace, sha256)
    size = await operations.context.blobs.receive(path, request.stream(), sha256=sha256)
    now = operations.now()

    def add(stores: Stores) -> None:
        known = stores.registry.artifact_size(sha256) is not None
        stores.registry.add_artifact(sha256, size_bytes=size, at=now)
        if not known:
            audit(
                stores.registry,
                actor=caller.account,
                action="store_artifact",
                because=f"{sha256[:12]}, {size:,} bytes",
                now=now,
                evidence={"sha256": sha256, "size_bytes": size},
            )

    await operations.do(namespace, add)
    return ArtifactView(sha256=sha256, size_bytes=size)


@post(
    "/collect",
    permission=Permission.COLLECT,
    status_code=HTTP_200_OK,
    summary="Delete artifacts that nothing refers to",
)
async def collect(
    operations: NamedDependency[Operations],
    caller: NamedDependency[Caller],
    namespace: FromPath[str],
    older_than_s: Annotated[float, QueryParameter(ge=0)] = COLLECT_AFTER_S,
    dry_run: FromQuery[bool] = False,
) -> CollectedView:
    """Delete artifacts that nothing refers to and that were uploaded more than `older_than_s` ago.

    `dry_run`: delete none, and answer which would be deleted now.
    """
    before = operations.now() - older_than_s
    collected: list[str] = []
    size_bytes = 0
    unheld = await operations.do(namespace, lambda stores: stores.registry.collectable(older_than=before))
    for digest, size in unheld:
        if dry_run:
            collected.append(digest)
            size_bytes += size
            continue
        forget = functools.partial(
            _forget, digest=digest, older_than=before, actor=caller.account, now=operations.now()
        )
        if await operations.do(namespace, forget):
            await operations.context.blobs.delete(_path(namespace, digest))
            collected.append(digest)
            size_bytes += size
    return CollectedView(collected=collected, size_bytes=size_bytes, dry_run=dry_run)


def _forget(stores: Stores, *, digest: str, older_than: float, actor: str, now: float) -> bool:
    return forget_unheld(stores.registry, stores.deltas, digest, older_than=older_than, actor=actor, now=now)


def _path(namespace: str, sha256: str) -> str:
    return f"{namespace}/artifacts/{convert(Digest, sha256, what='a digest')}"


ARTIFACT_ROUTES = (has_artifact, put_artifact, collect)
