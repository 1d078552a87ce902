"""The admin API's routes for devices: the inventory, labels of operators, blocks and removals."""

from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import msgspec
from litestar import get, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from litestar.status_codes import HTTP_200_OK

from whimbrel import limits
from whimbrel.errors import NotFound, UntrustedInput
from whimbrel.flows.accounts.permissions import Caller, Permission
from whimbrel.flows.devices.admit import admit_device
from whimbrel.flows.devices.allow_again import allow_again
from whimbrel.flows.devices.block import block_device, unblock_device
from whimbrel.flows.devices.find import find_devices, with_models
from whimbrel.flows.devices.label import label_device
from whimbrel.flows.devices.records import DeviceFilter, DeviceRecord, ModelOnDevice
from whimbrel.flows.devices.remove import remove_device
from whimbrel.flows.versions import find_named_version
from whimbrel.model.selector_text import read_selector
from whimbrel.server.admin.operations import Operations
from whimbrel.server.admin.problems import problems
from whimbrel.server.admin.views.devices import (
    AllowAgain,
    BlockView,
    CohortView,
    DeviceDetail,
    DeviceModelView,
    DevicePageView,
    DeviceView,
    DuplicateView,
    NewDeviceLabels,
    RemovedDevice,
)
from whimbrel.server.admin.views.reason import Reason
from whimbrel.stores.transaction import Stores
from whimbrel.trust.run_history_proof import ProofBranch, RunHistoryProof

_NO_VERSION = "none"  # as the models' lists of devices call it


class _Act(TypedDict):
    """Who changes a device, why, and when: POSIX seconds."""

    actor: str
    because: str
    now: float


def _act(operations: Operations, caller: Caller, because: str) -> _Act:
    return _Act(actor=caller.account, because=because, now=operations.now())


async def _changed(
    operations: Operations, namespace: str, device: str, change: Callable[[Stores], object]
) -> DeviceDetail:
    """Change a device in one transaction, and tell of it as it is then."""

    def work(stores: Stores) -> DeviceDetail:
        change(stores)
        return device_detail(stores, device)

    return await operations.do(namespace, work)


@get(
    "/devices",
    permission=Permission.READ,
    summary="Enrolled devices by id, a page at a time",
    responses=problems(NotFound),
)
async def list_devices(
    operations: NamedDependency[Operations],
    namespace: FromPath[str],
    *,
    selector: Annotated[str, QueryParameter(max_length=4096)] = "",
    model: FromQuery[str | None] = None,
    version: FromQuery[str | None] = None,
    silent_for_s: Annotated[float | None, QueryParameter(ge=0)] = None,
    blocked: FromQuery[bool] = False,
    duplicate: FromQuery[bool] = False,
    after: Annotated[str, QueryParameter(max_length=limits.DEVICE_ID_BYTES)] = "",
    limit: Annotated[int, QueryParameter(ge=1, le=limits.DEVICES_A_PAGE)] = 100,
) -> DevicePageView:
    """The devices for which all conditions hold. `version`: of `model`; "none" for devices without one."""

    def work(stores: Stores) -> DevicePageView:
        asked = DeviceFilter(
            selector=read_selector(selector),
            model=model and stores.registry.model(model).name,
            runs=asked_serials(stores, model=model, version=version),
            heard_before=None if silent_for_s is None else operations.now() - silent_for_s,
            blocked=blocked,
            duplicate=duplicate,
        )
        page = find_devices(stores.inventory, asked, after=after, limit=limit)
        names = versions_of(stores, page.devices)
        return DevicePageView(
            devices=[device_view(device, models, names) for device, models in page.devices], after=page.after
        )

    return await operations.do(namespace, work)


@get(
    "/devices/{device:str}",
    permission=Permission.READ,
    summary="One device: what it runs, what it waits for, where it is counted",
)
async def show_device(
    operations: NamedDependency[Operations], namespace: FromPath[str], device: FromPath[str]
) -> DeviceDetail:
    """One enrolled device."""
    return await operations.do(namespace, lambda stores: device_detail(stores, device))


@get(
    "/devices/{device:str}/history",
    permission=Permission.READ,
    summary="Which versions were active on a device, as it signed it",
    responses=problems(NotFound),
)
async def show_run_history(
    operations: NamedDependency[Operations], namespace: FromPath[str], device: FromPath[str]
) -> RunHistoryProof:
    """The proof of a device's run history: also of one that was removed, or enrolled again with another key."""
    return await operations.do(namespace, lambda stores: run_history_proof(stores, device, now=operations.now()))


@post(
    "/devices/{device:str}/labels",
    permission=Permission.DEVICES,
    status_code=HTTP_200_OK,
    summary="Give a device labels of an operator",
)
async def post_labels(
    operations: NamedDependency[Operations],
    caller: NamedDependency[Caller],
    namespace: FromPath[str],
    device: FromPath[str],
    data: JSONBody[NewDeviceLabels],
) -> DeviceDetail:
    """Set and take away the operator's labels of a device. Those that it tells itself stay as they are."""

    act = _act(operations, caller, data.because)
    return await _changed(
        operations,
        namespace,
        device,
        lambda stores: label_device(
            stores.inventory, stores.registry, device, labels=data.labels, without=data.without, **act
        ),
    )


def _acting(
    verb: str, summary: str, *, described: str, change: Callable[[Stores, str, _Act], object]
) -> HTTPRouteHandler:
    """A route that changes a device, for a reason: POST /devices/{device}/VERB."""

    async def act_on_device(
        operations: NamedDependency[Operations],
        caller: NamedDependency[Caller],
        namespace: FromPath[str],
        device: FromPath[str],
        data: JSONBody[Reason],
    ) -> DeviceDetail:
        act = _act(operations, caller, data.because)
        return await _changed(operations, namespace, device, lambda stores: change(stores, device, act))

    act_on_device.__doc__ = described
    route = post(
        f"/devices/{{device:str}}/{verb}", permission=Permission.DEVICES, status_code=HTTP_200_OK, summary=summary
    )
    return route(act_on_device)


post_admit = _acting(
    "admit",
    "Let a device count in every rollout",
    described="Vouch for a device that a shared token let in: it is evidence from its next window on.",
    change=lambda stores, device, act: admit_device(stores.inventory, stores.registry, device, **act),
)
post_block = _acting(
    "block",
    "Refuse what a device sends, until unblocked",
    described="Block a device: it gets no token, and its messages are refused, also with one that is still good.",
    change=lambda stores, device, act: block_device(
        stores.inventory, stores.registry, device, unended=unended(stores), **act
    ),
)
post_unblock = _acting(
    "unblock",
    "Let a blocked device speak again",
    described="Unblock a device.",
    change=lambda stores, device, act: unblock_device(stores.inventory, stores.registry, device, **act),
)


@post(
    "/devices/{device:str}/allow-again",
    permission=Permission.DEVICES,
    status_code=HTTP_200_OK,
    summary="Let an id enrol with another key",
)
async def post_allow_again(
    operations: NamedDependency[Operations],
    caller: NamedDependency[Caller],
    namespace: FromPath[str],
    device: FromPath[str],
    data: JSONBody[AllowAgain],
) -> DeviceDetail:
    """Allow an enrolled id to come back once with another key, with an enrolment token, within a time."""

    act = _act(operations, caller, data.because)
    return await _changed(
        operations,
        namespace,
        device,
        lambda stores: allow_again(
            stores.enrolments,
            stores.registry,
            stores.inventory.device(device),
            for_s=data.for_s,
            public_key=data.public_key,
            **act,
        ),
    )


@post(
    "/devices/{device:str}/remove",
    permission=Permission.DEVICES,
    status_code=HTTP_200_OK,
    summary="Forget a device; its id may enrol again",
)
async def post_remove(
    operations: NamedDependency[Operations],
    caller: NamedDependency[Caller],
    namespace: FromPath[str],
    device: FromPath[str],
    data: JSONBody[Reason],
) -> RemovedDevice:
    """Remove a device: it leaves the inventory and the cohorts, and its credential and tokens are over."""

    act = _act(operations, caller, data.because)

    def change(stores: Stores) -> RemovedDevice:
        cohorts = remove_device(stores.inventory, stores.registry, device, unended=unended(stores), **act)
        return RemovedDevice(device_id=device, cohorts=cohorts)

    return await operations.do(namespace, change)


def device_detail(stores: Stores, device_id: str) -> DeviceDetail:
    """One device, with its places in cohorts. Raises `NotFound`."""
    ((device, models),) = with_models(stores.inventory, [stores.inventory.device(device_id)])
    view = device_view(device, models, versions_of(stores, [(device, models)]))
    places = stores.fleet.participations(unended(stores), [device_id])
    cohorts = [CohortView(**{name: getattr(each, name) for name in CohortView.__struct_fields__}) for each in places]
    return DeviceDetail(**msgspec.structs.asdict(view), cohorts=cohorts)


def run_history_proof(stores: Stores, device_id: str, *, now: float) -> RunHistoryProof:
    """All that is kept of a device's run history. Raises `NotFound` for an id that never was here."""
    branches = stores.run_histories.branches(device_id)
    if not branches:
        stores.inventory.device(device_id)
    texts: dict[int, list[str]] = {each.branch: [] for each in branches}
    for row in stores.run_histories.rows(device_id, first=1, last=limits.SEQUENCE_MAX):
        texts[row.branch].append(row.entry)
    return RunHistoryProof(
        device_id=device_id,
        made_at=now,
        public_key=stores.run_histories.public_key(device_id),
        branches=tuple(
            ProofBranch(
                branch=each.branch,
                origin=each.origin,
                parent=each.parent,
                after=each.after,
                head=each.head,
                signature=each.signature,
                entries=tuple(texts[each.branch]),
                received_at=each.received_at,
            )
            for each in branches
        ),
    )


def device_view(
    device: DeviceRecord, models: list[ModelOnDevice], names: dict[tuple[str, int | None], str]
) -> DeviceView:
    """A device as people see it. `names`: calendar versions by model and serial."""
    access, duplicate = device.access, device.duplicate
    blocked = None
    if access is not None and access.state == "blocked":
        blocked = BlockView(since=access.since, actor=access.actor, because=access.because)
    return DeviceView(
        device_id=device.device_id,
        labels=device.labels,
        operator_labels=device.operator_labels,
        enrolled_at=device.enrolled_at,
        heard_at=device.heard_at,
        blocked=blocked,
        granted_labels=device.granted_labels,
        admission=device.admission,
        admitted_at=device.admitted_at,
        enrol_token_name=device.enrol_token_name,
        has_key=device.has_key,
        credential_epoch=device.credential_epoch,
        allowed_again_until=device.allowed_again_until,
        duplicate=None if duplicate is None else DuplicateView(**_fields(duplicate, DuplicateView)),
        models=[
            DeviceModelView(
                model=each.model,
                serial=each.serial,
                version=names.get((each.model, each.serial)),
                since=each.since,
                heard_at=each.at,
                waits_for=each.waits_for or None,
                waits_told_at=each.waits_told_at,
                build=each.build,
            )
            for each in models
        ],
    )


def _fields(value: msgspec.Struct, kind: type[msgspec.Struct]) -> dict[str, Any]:
    return {name: getattr(value, name) for name in kind.__struct_fields__}


def asked_serials(stores: Stores, *, model: str | None, version: str | None) -> tuple[int | None, ...] | None:
    """The serials that a filter means: of a version, or of none ("none"); None: any. Raises `UntrustedInput`."""
    if version is None:
        return None
    if model is None:
        raise UntrustedInput(f"version {version!r} was given without a model; name the model that it is a version of")
    if version == _NO_VERSION:
        return (None,)
    return (find_named_version(stores.registry, model, name=version).serial,)


def versions_of(
    stores: Stores, devices: list[tuple[DeviceRecord, list[ModelOnDevice]]]
) -> dict[tuple[str, int | None], str]:
    """How the versions of the models that these devices hold are called, by model and serial."""
    models = {each.model for _, held in devices for each in held}
    return {(model, v.serial): v.version for model in sorted(models) for v in stores.registry.versions(model)}


def unended(stores: Stores) -> list[str]:
    """The rollouts and experiments that count devices now."""
    rollouts = [rollout.id for rollout in stores.registry.rollouts(unended=True)]
    return rollouts + [experiment.id for experiment in stores.experiments.all(live=True)]


DEVICE_ROUTES = (
    list_devices,
    show_device,
    show_run_history,
    post_labels,
    post_admit,
    post_block,
    post_unblock,
    post_allow_again,
    post_remove,
)
