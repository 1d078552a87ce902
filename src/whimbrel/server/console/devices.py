"""The inventory, and the page of one device: what it runs, why it did not update, where it is counted; and its block.

A device is blocked, unblocked or removed by the flows of the admin API, after a question, as a rollout is moved.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any
from urllib.parse import urlencode

from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter
from litestar.response import Redirect
from litestar.status_codes import HTTP_303_SEE_OTHER

from whimbrel import limits
from whimbrel.console.views.devices import (
    DeviceLine,
    DevicePage,
    DeviceQuestion,
    DevicesPage,
    ModelOnDeviceLine,
    PlaceLine,
)
from whimbrel.console.words import ago, plain_name
from whimbrel.errors import NotFound, UntrustedInput
from whimbrel.flows.accounts.permissions import Caller, Permission
from whimbrel.flows.devices.block import block_device, unblock_device
from whimbrel.flows.devices.find import find_devices
from whimbrel.flows.devices.records import DeviceFilter
from whimbrel.flows.devices.remove import remove_device
from whimbrel.model.selector_text import read_selector
from whimbrel.server.admin.devices import asked_serials, device_detail, device_view, unended, versions_of
from whimbrel.server.admin.views.devices import CohortView, DeviceDetail, DeviceModelView, DeviceView
from whimbrel.server.console.events import event_line
from whimbrel.server.console.visit import (
    AnyRequest,
    Console,
    because_of,
    check_form,
    form_of,
    frame_for,
    page,
    visit_of,
)
from whimbrel.stores.transaction import Stores

_SHOWN = ("", "silent", "blocked", "duplicate")
_ADMISSIONS = {
    "shared": "by a token that many devices share",
    "single_use": "by a token of its own",
    "attested": "by a proof that the operator's roots vouch for",
    "person": "since a person let it in again",
}
_LABELS_SHOWN = 3


@get("/{namespace:str}/devices", permission=Permission.READ)
async def list_devices(
    request: AnyRequest,
    console: NamedDependency[Console],
    *,
    selector: Annotated[str, QueryParameter(max_length=4096)] = "",
    model: Annotated[str, QueryParameter(max_length=128)] = "",
    version: Annotated[str, QueryParameter(max_length=128)] = "",
    show: Annotated[str, QueryParameter(max_length=32)] = "",
    after: Annotated[str, QueryParameter(max_length=limits.DEVICE_ID_BYTES)] = "",
) -> Response[bytes]:
    """The devices for which all conditions hold, by id."""
    visit, now = visit_of(request), console.operations.now()
    if show not in _SHOWN:
        raise UntrustedInput(f"devices cannot be shown as {show!r}; expected silent, blocked or duplicate")

    def work(stores: Stores) -> DevicesPage:
        asked = DeviceFilter(
            selector=read_selector(selector),
            model=stores.registry.model(model).name if model else None,
            runs=asked_serials(stores, model=model or None, version=version or None),
            heard_before=now - limits.CONSOLE_SILENT_S if show == "silent" else None,
            blocked=show == "blocked",
            duplicate=show == "duplicate",
        )
        found = find_devices(stores.inventory, asked, after=after, limit=limits.CONSOLE_ROWS)
        names = versions_of(stores, found.devices)
        views = [device_view(device, models, names) for device, models in found.devices]
        given = {"selector": selector, "model": model, "version": version, "show": show}
        return DevicesPage(
            devices=tuple(_line(each, now=now) for each in views),
            selector=selector,
            model=model,
            version=version,
            show=show,
            models=tuple(each.name for each in stores.registry.models()),
            after=found.after or "",
            query=urlencode({name: value for name, value in given.items() if value}),
        )

    view = await console.operations.do(visit.namespace, work)
    return page("devices", frame_for(request, "Devices", now=now, section="devices"), page=view)


@get("/{namespace:str}/devices/{device:str}", permission=Permission.READ)
async def show_device(request: AnyRequest, console: NamedDependency[Console], device: FromPath[str]) -> Response[bytes]:
    """One device."""
    visit, now = visit_of(request), console.operations.now()
    view = await console.operations.do(
        visit.namespace, lambda stores: device_page(stores, device, caller=visit.caller, now=now)
    )
    return page("device", frame_for(request, device, now=now, section="devices"), page=view)


@get("/{namespace:str}/devices/{device:str}/{act:str}", permission=Permission.DEVICES)
async def ask_of_device(
    request: AnyRequest, console: NamedDependency[Console], device: FromPath[str], act: FromPath[str]
) -> Response[bytes]:
    """The question before a device is blocked, unblocked or removed."""
    visit, now = visit_of(request), console.operations.now()
    question = _question(device, act)
    await console.operations.do(visit.namespace, lambda stores: stores.inventory.device(device))
    return page("device_act", frame_for(request, question.title, now=now, section="devices"), page=question)


@post("/{namespace:str}/devices/{device:str}/{act:str}", permission=Permission.DEVICES, status_code=HTTP_303_SEE_OTHER)
async def change_device(
    request: AnyRequest,
    console: NamedDependency[Console],
    namespace: FromPath[str],
    device: FromPath[str],
    act: FromPath[str],
) -> Response[Any]:
    """Block it, let it in again, or remove it."""
    visit, now = visit_of(request), console.operations.now()
    _question(device, act)
    form = await form_of(request)
    check_form(visit.session, form)
    because = because_of(form)

    def work(stores: Stores) -> None:
        port, registry = stores.inventory, stores.registry
        more: dict[str, Any] = {"actor": visit.caller.account, "because": because, "now": now}
        acts: dict[str, Callable[[], object]] = {
            "block": lambda: block_device(port, registry, device, unended=unended(stores), **more),
            "unblock": lambda: unblock_device(port, registry, device, **more),
            "remove": lambda: remove_device(port, registry, device, unended=unended(stores), **more),
        }
        acts[act]()

    await console.operations.do(namespace, work)
    gone = act == "remove"
    return Redirect(f"/{namespace}/devices{'' if gone else f'/{device}'}", status_code=HTTP_303_SEE_OTHER)


DEVICE_PAGES = (list_devices, show_device, ask_of_device, change_device)


def _line(view: DeviceView, *, now: float) -> DeviceLine:
    labels = [f"{name}={value}" for name, value in sorted({**view.operator_labels, **view.labels}.items())]
    more = len(labels) - _LABELS_SHOWN
    state, tone = _state(view, now=now)
    return DeviceLine(
        device_id=view.device_id,
        labels=(*labels[:_LABELS_SHOWN], *([f"and {more} more"] if more > 0 else [])),
        runs=tuple(f"{each.model} {_version(each)}" for each in view.models),
        heard_at=view.heard_at,
        state=state,
        tone=tone,
    )


def _version(each: DeviceModelView) -> str:
    return each.version or "no version"


def _state(view: DeviceView, *, now: float) -> tuple[str, str]:
    if view.blocked is not None:
        return "blocked", "bad"
    if view.duplicate is not None:
        return "used twice", "bad"
    if view.heard_at < now - limits.CONSOLE_SILENT_S:
        return "silent", "waits"
    return "", ""


def device_page(stores: Stores, device_id: str, *, caller: Caller, now: float) -> DevicePage:
    """What the page shows. Raises `NotFound`."""
    view = device_detail(stores, device_id)
    state, tone = _state(view, now=now)
    return DevicePage(
        device_id=view.device_id,
        state=state or "in reach",
        tone=tone or "good",
        sentence=_sentence(view, now=now),
        enrolled_at=view.enrolled_at,
        heard_at=view.heard_at,
        admission=_ADMISSIONS.get(view.admission, view.admission),
        has_key=view.has_key,
        labels=tuple(_labels(view)),
        models=tuple(_model(each) for each in view.models),
        places=tuple(
            PlaceLine(
                comparison=each.rollout, place=f"{each.role}, stage {each.stage + 1}", words=_place(each, now=now)
            )
            for each in view.cohorts
        ),
        events=tuple(event_line(each) for each in stores.audit.newest(device=device_id, limit=20)),
        blocked=view.blocked is not None,
        may_change=caller.may(Permission.DEVICES),
    )


def _sentence(view: DeviceDetail, *, now: float) -> str:
    """How it is, in a sentence: first what shuts it out, then what it waits for."""
    if view.blocked is not None:
        why = f": {view.blocked.because}" if view.blocked.because else ""
        return f"{view.blocked.actor} blocked it {ago(view.blocked.since, now)}{why}"
    if view.duplicate is not None:
        return f"Two installations use its id since {ago(view.duplicate.first_at, now)}: {view.duplicate.because}"
    waiting = [each for each in view.models if each.waits_for]
    if waiting:
        told = waiting[0].waits_told_at
        since = f" since {ago(told, now)}" if told is not None else ""
        return f"{waiting[0].model} waits{since}: {waiting[0].waits_for}"
    if view.heard_at < now - limits.CONSOLE_SILENT_S:
        return f"It was heard of {ago(view.heard_at, now)} last: off, out of reach, or lost"
    return f"It was heard of {ago(view.heard_at, now)}, and nothing holds it up"


def _labels(view: DeviceDetail) -> Sequence[tuple[str, str, str]]:
    whose = (
        (view.labels, "the device's word"),
        (view.granted_labels, "given by the server"),
        (view.operator_labels, "given by a person"),
    )
    return [(name, value, by) for labels, by in whose for name, value in sorted(labels.items())]


def _model(each: DeviceModelView) -> ModelOnDeviceLine:
    build = each.build
    words = "" if build is None else build.variant
    if build is not None and build.latency_ms is not None:
        words += f", {build.latency_ms:g} ms measured"
    return ModelOnDeviceLine(
        model=each.model,
        version=_version(each),
        since=each.since,
        heard_at=each.heard_at,
        waits_for=each.waits_for or "",
        waits_told_at=each.waits_told_at,
        build=words,
    )


def _place(each: CohortView, *, now: float) -> str:
    if each.outcome:
        return plain_name(each.outcome)
    if each.reported_at is not None:
        return f"reported first {ago(each.reported_at, now)}"
    if each.activated_at is not None:
        return f"activated {ago(each.activated_at, now)}, and did not report since"
    return f"assigned {ago(each.assigned_at, now)}"


def _question(device: str, act: str) -> DeviceQuestion:
    """What is asked before. Raises `NotFound` for no such act."""
    then: tuple[str, ...]
    match act:
        case "block":
            then = ("Nothing that it sends is taken.", "It keeps the version that it runs.", "It may be unblocked.")
            return DeviceQuestion(
                device_id=device, act=act, title=f"Block {device}?", then=then, button="Block 1 device", danger=True
            )
        case "unblock":
            then = ("What it sends is taken again.",)
            return DeviceQuestion(
                device_id=device, act=act, title=f"Unblock {device}?", then=then, button="Unblock", danger=False
            )
        case "remove":
            then = (
                "It is forgotten, and counted in no rollout any more.",
                "Its token is over; it may enrol again as a new device.",
            )
            return DeviceQuestion(
                device_id=device, act=act, title=f"Remove {device}?", then=then, button="Remove 1 device", danger=True
            )
    raise NotFound(f"a device cannot be asked to {act!r}; it can be blocked, unblocked and removed")
