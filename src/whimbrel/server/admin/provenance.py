"""The admin API's routes for where a version comes from: all that is known, and the files that are kept beside it.

The files are small (a recipe, a model signature, what verifies it), and are read whole.
"""

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from whimbrel.errors import NotFound
from whimbrel.flows.accounts.permissions import Permission
from whimbrel.flows.publishing.provenance import ProvenanceView, provenance_view
from whimbrel.flows.versions import find_named_version
from whimbrel.model.documents import parse
from whimbrel.model.release import Release
from whimbrel.server.admin.operations import Operations
from whimbrel.stores.signed_metadata import read_metadata
from whimbrel.stores.transaction import Stores
from whimbrel.trust import roles


@get(
    "/models/{model:str}/versions/{version:str}/provenance",
    permission=Permission.READ,
    summary="Where it comes from, who signed it, and who let it out",
)
async def show_provenance(
    operations: NamedDependency[Operations], namespace: FromPath[str], model: FromPath[str], version: FromPath[str]
) -> ProvenanceView:
    """All that is known of a version; what is not known is null or empty."""

    def work(stores: Stores) -> ProvenanceView:
        record = find_named_version(stores.registry, model, name=version)
        return provenance_view(
            stores.registry,
            stores.audit,
            record,
            role=roles.publisher_role(model),
            signed_by=release_signers(stores, model, record.serial),
        )

    return await operations.do(namespace, work)


@get(
    "/models/{model:str}/versions/{version:str}/provenance/{sha256:str}",
    permission=Permission.READ,
    summary="A file that is kept beside it: its recipe, a model signature, or what verifies one",
    media_type="application/octet-stream",
)
async def show_kept_file(
    operations: NamedDependency[Operations],
    namespace: FromPath[str],
    *,
    model: FromPath[str],
    version: FromPath[str],
    sha256: FromPath[str],
) -> Response[bytes]:
    """The bytes of a file that the release names as kept."""

    def work(stores: Stores) -> bool:
        serial = find_named_version(stores.registry, model, name=version).serial
        release = parse(Release, stores.registry.release_bytes(model, serial), what="a stored release")
        return any(kept.sha256 == sha256 for kept in release.kept)

    if not await operations.do(namespace, work):
        raise NotFound("no such file is kept beside that version")
    content = await operations.context.blobs.get(f"{namespace}/artifacts/{sha256}")
    return Response(content, media_type="application/octet-stream")


def release_signers(stores: Stores, model: str, serial: int) -> list[str]:
    """The ids of the keys that signed the publisher's role when it listed the release first.

    A release is never taken off the list again, so the role's first version with it is found by halving.
    """
    role, path = roles.publisher_role(model), roles.release_path(model, serial)
    low, high = 1, stores.roles.newest().get(role, 0)
    signers: list[str] = []
    while low <= high:
        middle = (low + high) // 2
        metadata = read_metadata(stores.roles.role_bytes(role, middle), what=role)
        if path in metadata.signed.targets:
            signers, high = list(metadata.signatures), middle - 1
        else:
            low = middle + 1
    return signers


PROVENANCE_ROUTES = (show_provenance, show_kept_file)
