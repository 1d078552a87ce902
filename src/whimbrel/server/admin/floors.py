"""The admin API's routes for what waits for an offline key: floors of models, and drafts of revocations."""

from litestar import get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from litestar.status_codes import HTTP_200_OK

from whimbrel import limits
from whimbrel.flows.accounts.permissions import Caller, Permission
from whimbrel.flows.publishing.draft_revocations import DraftRevocation, draft_revocations
from whimbrel.flows.publishing.set_floor import FloorState, floor_of, lift_floor, set_floor
from whimbrel.flows.publishing.set_line import line_of
from whimbrel.server.admin.key_proposals import change_or_propose
from whimbrel.server.admin.operations import Operations
from whimbrel.server.admin.views.floors import LiftedFloor, NewFloor
from whimbrel.server.admin.views.repository import KeyChangeView
from whimbrel.stores.transaction import Stores
from whimbrel.trust import roles


@get("/floors", permission=Permission.READ, summary="Until when the lines of models are signed to be the newest")
async def list_floors(operations: NamedDependency[Operations], namespace: FromPath[str]) -> list[FloorState]:
    """The floors of the models that have one, by model."""

    def work(stores: Stores) -> list[FloorState]:
        models = sorted(model for role in stores.roles.newest() if (model := roles.model_of_floor(role)) is not None)
        floors = (floor_of(stores.registry, stores.roles, model) for model in models)
        return [floor for floor in floors if floor is not None]

    return await operations.do(namespace, work)


@put(
    "/models/{model:str}/floor",
    permission=Permission.PUBLISH,
    status_code=HTTP_200_OK,
    summary="Sign its newest line to be so, for some days",
    request_max_body_size=limits.ADMIN_DOCUMENT_BYTES,
)
async def put_floor(
    operations: NamedDependency[Operations],
    caller: NamedDependency[Caller],
    namespace: FromPath[str],
    model: FromPath[str],
    data: JSONBody[NewFloor],
) -> FloorState:
    """Require a floor of a model's devices, or renew it. To require one changes who signs: it needs `keys` as well."""
    if data.targets is not None:
        caller.check(Permission.KEYS)

    def change(stores: Stores) -> FloorState:
        return set_floor(
            stores.registry,
            stores.roles,
            model,
            floor=data.floor,
            role=data.role,
            targets=data.targets,
            actor=caller.account,
            now=operations.now(),
        )

    return await operations.change(namespace, change)


@post(
    "/models/{model:str}/floor/lift",
    permission=Permission.KEYS,
    status_code=HTTP_200_OK,
    summary="Ask for no floor any more (signed)",
    request_max_body_size=limits.ADMIN_DOCUMENT_BYTES,
)
async def post_lifted_floor(
    operations: NamedDependency[Operations],
    caller: NamedDependency[Caller],
    namespace: FromPath[str],
    model: FromPath[str],
    data: JSONBody[LiftedFloor],
) -> KeyChangeView:
    """Lift the floor of a model; or keep that for a second person, where changes of keys ask for one."""

    def change(stores: Stores) -> KeyChangeView:
        if operations.needs_second_person(caller):
            documents = {roles.TARGETS: data.targets}
            return change_or_propose(
                stores,
                documents,
                operations=operations,
                caller=caller,
                because=data.because or f"lift floor of {model}",
            )
        lift_floor(
            stores.registry,
            stores.roles,
            model,
            targets=data.targets,
            because=data.because,
            actor=caller.account,
            now=operations.now(),
        )
        return KeyChangeView(changes=[f"{roles.floor_role(model)}: is delegated no more"])

    return await operations.change(namespace, change)


@get(
    "/models/{model:str}/revocations/drafts",
    permission=Permission.READ,
    summary="Versions that were taken back and are not revoked",
)
async def list_drafts(
    operations: NamedDependency[Operations], namespace: FromPath[str], model: FromPath[str]
) -> list[DraftRevocation]:
    """The versions of a model that its publisher should revoke, by serial."""

    def work(stores: Stores) -> list[DraftRevocation]:
        line = line_of(stores.registry, stores.roles, model)
        return draft_revocations(stores.registry, model, line=line)

    return await operations.do(namespace, work)


FLOOR_ROUTES = (list_floors, put_floor, post_lifted_floor, list_drafts)
