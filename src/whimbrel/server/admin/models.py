"""The admin API's routes for models: their settings, their aliases, and what is known of their fleet."""

from functools import partial
from typing import Annotated, Any

import msgspec
from litestar import Request, get, patch, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from litestar.status_codes import HTTP_200_OK, HTTP_201_CREATED

from whimbrel import limits
from whimbrel.flows.accounts.permissions import Caller, Permission
from whimbrel.flows.experiments.start import check_told_labels
from whimbrel.flows.monitors.objective_warnings import objective_warnings
from whimbrel.flows.monitors.show_health import ModelHealth, model_health, told_metrics
from whimbrel.flows.publishing.add_model import add_model
from whimbrel.flows.publishing.build_deltas import write_index
from whimbrel.flows.publishing.change_settings import change_settings
from whimbrel.flows.publishing.set_alias import set_alias
from whimbrel.flows.publishing.set_floor import set_floor
from whimbrel.flows.publishing.set_line import line_of
from whimbrel.flows.records import ModelRecord, NewSettings, QuarantineRecord
from whimbrel.flows.reports.history import History, history_of, inventory_of
from whimbrel.flows.rollouts.roll_back_model import WayBack, completed_rollout, find_way_back, roll_back_model
from whimbrel.flows.rollouts.selected_devices import count_selected, refuse_unknown, told_labels
from whimbrel.flows.rollouts.way_back_words import way_back_sentences
from whimbrel.flows.versions import find_named_version, find_planned_version
from whimbrel.flows.wording import selector_words
from whimbrel.model.documents import parse
from whimbrel.model.selector_text import read_selector
from whimbrel.policy.policy import PERIOD_S, Policy
from whimbrel.server.admin.operations import Operations
from whimbrel.server.admin.views.models import (
    AddedModel,
    AliasView,
    ModelView,
    NewAlias,
    NewModel,
    NewWayBack,
    OtherWayBack,
    WayBackView,
)
from whimbrel.server.admin.views.versions import VersionView
from whimbrel.stores.transaction import Stores
from whimbrel.trust import roles


@get("/models", permission=Permission.READ, summary="Models with their baseline and devices")
async def list_models(operations: NamedDependency[Operations], namespace: FromPath[str]) -> list[ModelView]:
    """All models, by name."""
    return await operations.do(
        namespace, lambda stores: [model_view(stores, model) for model in stores.registry.models()]
    )


@get("/models/{model:str}", permission=Permission.READ, summary="One model")
async def show_model(
    operations: NamedDependency[Operations], namespace: FromPath[str], model: FromPath[str]
) -> ModelView:
    """One model."""
    return await operations.do(namespace, lambda stores: model_view(stores, stores.registry.model(model)))


@post(
    "/models",
    permission=Permission.KEYS,
    status_code=HTTP_201_CREATED,
    summary="Add a model (signed by the targets key)",
    request_max_body_size=limits.ADMIN_DOCUMENT_BYTES,
)
async def create_model(
    operations: NamedDependency[Operations],
    caller: NamedDependency[Caller],
    namespace: FromPath[str],
    data: JSONBody[NewModel],
) -> AddedModel:
    """Add a model."""

    def add(stores: Stores) -> AddedModel:
        record = add_model(
            stores.registry,
            stores.roles,
            data.name,
            targets=data.targets,
            publisher=data.publisher,
            line=data.line,
            salt=data.salt,
            settings=data.settings,
            actor=caller.account,
            now=operations.now(),
        )
        if data.floor is not None:
            set_floor(
                stores.registry,
                stores.roles,
                data.name,
                floor=data.floor.floor,
                role=data.floor.role,
                targets=data.floor.targets,
                actor=caller.account,
                now=operations.now(),
            )
        warnings = objective_warnings(data.settings.objectives, told=(), devices=0)
        return AddedModel(**msgspec.structs.asdict(record), warnings=warnings)

    return await operations.change(namespace, add)


@patch(
    "/models/{model:str}",
    permission=Permission.CONFIGURE,
    summary="Change a model's settings",
    request_max_body_size=limits.ADMIN_FILE_BYTES,
)
async def patch_model(
    operations: NamedDependency[Operations],
    caller: NamedDependency[Caller],
    *,
    namespace: FromPath[str],
    model: FromPath[str],
    request: Request[Any, Any, Any],
    data: JSONBody[NewSettings],
) -> ModelView:
    """Change the settings that the body names; the others stay."""
    del data  # it is the schema; the framework takes "60" for 60, and a setting that is to last must be what it says
    changes = parse(NewSettings, await request.body(), what="the settings")
    if not isinstance(changes.second_person_above_percent, msgspec.UnsetType) or not isinstance(
        changes.model_signer, msgspec.UnsetType
    ):
        caller.check(Permission.GOVERN)

    def change(stores: Stores) -> ModelView:
        check_told_labels(stores.experiments, changes)
        change_settings(stores.registry, model, changes, actor=caller.account, now=operations.now())
        view = model_view(stores, stores.registry.model(model))
        if isinstance(changes.objectives, msgspec.UnsetType):
            return view
        told = told_metrics(stores.health, model, now=operations.now())
        warnings = objective_warnings(changes.objectives, told=told, devices=sum(view.devices.values()))
        return msgspec.structs.replace(view, warnings=warnings)

    return await operations.change(namespace, change)


@put(
    "/models/{model:str}/aliases/{alias:str}",
    permission=Permission.RELEASE,
    status_code=HTTP_200_OK,
    summary="Name a version",
)
async def put_alias(
    *,
    operations: NamedDependency[Operations],
    caller: NamedDependency[Caller],
    namespace: FromPath[str],
    model: FromPath[str],
    alias: FromPath[str],
    data: JSONBody[NewAlias],
) -> AliasView:
    """Give a version a name."""

    def change(stores: Stores) -> AliasView:
        version = set_alias(
            stores.registry, model, alias=alias, name=data.version, actor=caller.account, now=operations.now()
        )
        return AliasView(model=model, alias=alias, version=version.version, serial=version.serial)

    return await operations.change(namespace, change)


@post(
    "/models/{model:str}/rollback",
    permission=Permission.STOP,
    status_code=HTTP_200_OK,
    summary="Take back what devices run",
)
async def roll_back(
    operations: NamedDependency[Operations],
    caller: NamedDependency[Caller],
    namespace: FromPath[str],
    model: FromPath[str],
    data: JSONBody[NewWayBack],
) -> WayBackView:
    """Go back to an earlier version, at any time."""

    def work(stores: Stores) -> WayBackView:
        return way_back(stores, model, data, actor=caller.account, now=operations.now())

    return await (operations.do if data.dry_run else operations.change)(namespace, work)


@get(
    "/models/{model:str}/history",
    permission=Permission.READ,
    summary="What its devices told in the newest rollouts, in sums: for forecasts",
)
async def show_history(
    operations: NamedDependency[Operations],
    namespace: FromPath[str],
    model: FromPath[str],
    version: FromQuery[str | None] = None,
) -> History:
    """What is known of a model's fleet; with what a device would fetch to reach `version`."""
    return await operations.do(namespace, lambda stores: history_view(stores, model, version=version))


def way_back(stores: Stores, model: str, asked: NewWayBack, *, actor: str, now: float) -> WayBackView:
    """Take a model back, or say how it would go."""
    registry = stores.registry
    registry.model(model)
    selector = read_selector(asked.selector)
    lines = partial(line_of, registry, stores.roles)
    to = find_named_version(registry, model, name=asked.to).serial if asked.to else None
    if asked.rollout is not None and to is None:
        to = completed_rollout(registry, asked.rollout).baseline
    if not asked.although_unknown:
        refuse_unknown(stores.fleet, model, selector, settings=registry.model(model).settings)
    if asked.dry_run:
        return way_back_view(stores, find_way_back(registry, model, lines=lines, to=to, selector=selector), done=False)
    before = registry.quarantines(model)
    way = roll_back_model(
        registry,
        model,
        lines=lines,
        to=to,
        selector=selector,
        because=asked.because or f"rollback by {actor}",
        actor=actor,
        leaves=asked.leaves,
        now=now,
    )
    return way_back_view(stores, way, done=True, quarantines=before)


def way_back_view(
    stores: Stores, way: WayBack, *, done: bool, quarantines: list[QuarantineRecord] | None = None
) -> WayBackView:
    """A way back, with what devices will do. `quarantines`: those before it, where they are others by now."""
    registry, fleet, selector = stores.registry, stores.fleet, way.selector
    settings = registry.model(way.model).settings
    signed = stores.roles.current_target(roles.policy_role(way.model), roles.policy_path(way.model))
    refresh_s = parse(Policy, signed, what="the signed policy").refresh_s if signed else PERIOD_S
    if selector.everyone:
        devices = fleet.inventory(way.model).get(way.leaves.serial, 0)
    else:
        devices = count_selected(fleet, way.model, selector, hardware_label=settings.hardware_label)
    return WayBackView(
        model=way.model,
        done=done,
        leaves=VersionView(**msgspec.structs.asdict(way.leaves)),
        to=VersionView(**msgspec.structs.asdict(way.to)),
        quarantined=[VersionView(**msgspec.structs.asdict(each)) for each in way.quarantined],
        selector=selector_words(selector),
        devices=devices,
        refresh_s=refresh_s,
        rollout=way.rollout,
        others=[
            OtherWayBack(
                model=other.model,
                leaves=VersionView(**msgspec.structs.asdict(other.leaves)),
                to=VersionView(**msgspec.structs.asdict(other.to)),
                quarantined=[VersionView(**msgspec.structs.asdict(each)) for each in other.quarantined],
                rollout=other.rollout,
            )
            for other in way.others
        ],
        sentences=way_back_sentences(
            way,
            devices=devices,
            refresh_s=refresh_s,
            unknown_labels=selector.labels - told_labels(settings),
            quarantines=registry.quarantines(way.model) if quarantines is None else quarantines,
        ),
    )


@get(
    "/models/{model:str}/health",
    permission=Permission.READ,
    summary="Figures by version, class and hour or day, and its standing monitors",
)
async def show_health(
    operations: NamedDependency[Operations],
    namespace: FromPath[str],
    model: FromPath[str],
    version: FromQuery[str | None] = None,
    hours: Annotated[int, QueryParameter(ge=1, le=limits.HEALTH_SHOWN)] = 24,
) -> ModelHealth:
    """What devices told of a model's versions lately; with more than 48 hours, by day."""

    def work(stores: Stores) -> ModelHealth:
        registry, health = stores.registry, stores.health
        serial = None if version is None else find_named_version(registry, model, name=version).serial
        return model_health(registry, health, health, model, hours=hours, now=operations.now(), serial=serial)

    return await operations.do(namespace, work)


def model_view(stores: Stores, model: ModelRecord) -> ModelView:
    """A model as it is now."""
    versions = {v.serial: v.version for v in stores.registry.versions(model.name)}
    inventory = stores.fleet.inventory(model.name)
    return ModelView(
        **msgspec.structs.asdict(model),
        baseline_version=versions.get(model.baseline or 0),
        versions=len(versions),
        aliases=stores.registry.aliases(model.name),
        devices={versions.get(serial or 0, "none"): count for serial, count in inventory.items()},
    )


def history_view(stores: Stores, model: str, *, version: str | None) -> History:
    """What is known of a model's fleet."""
    stores.registry.model(model)
    published = stores.registry.published(model)
    versions = [record for record, _ in published]
    releases = {record.serial: release for record, release in published}
    target = None if version is None else find_planned_version(versions, version, model=model).serial
    steps = (
        ()
        if target is None
        else write_index(
            releases[target], stores.deltas.of(model), sealed=stores.sealed.steps(model).get(target, ())
        ).steps
    )
    inventory = stores.fleet.inventory(model)
    running = inventory_of(inventory, versions, releases=releases, steps=steps, target=target)
    return history_of(stores.registry, stores.fleet, model, running=running)


MODEL_ROUTES = (list_models, show_model, create_model, patch_model, put_alias, roll_back, show_history, show_health)
