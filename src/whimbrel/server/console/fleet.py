"""The page of a whole namespace: what needs attention first, then each model with its versions now and over time."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec
from litestar import Response, get
from litestar.di import NamedDependency

from whimbrel import limits
from whimbrel.console.graphics import bars
from whimbrel.console.views.fleet import ClassLine, ConcernLine, FleetPage, ModelCard, VersionLine
from whimbrel.console.words import counted, plain_name
from whimbrel.flows.accounts.permissions import Permission
from whimbrel.flows.overview.concerns import (
    Concern,
    Named,
    in_order,
    of_devices,
    of_keys,
    of_monitors,
    of_rollouts,
    of_timestamp,
)
from whimbrel.flows.records import ModelRecord, RolloutRecord, VersionRecord
from whimbrel.flows.rollouts.approvals import approvals_missing
from whimbrel.model.documents import parse
from whimbrel.plan.rollout_states import State
from whimbrel.server.console.versions import headline_of, history_of, quarantined_everywhere, version_colours
from whimbrel.server.console.visit import AnyRequest, Console, frame_for, page, visit_of
from whimbrel.stores.transaction import Stores


@get("/{namespace:str}", permission=Permission.READ)
async def show_fleet(request: AnyRequest, console: NamedDependency[Console]) -> Response[bytes]:
    """The namespace at a glance."""
    visit, now = visit_of(request), console.operations.now()
    view = await console.operations.do(visit.namespace, lambda stores: fleet_page(console, stores, now=now))
    live = f"/{visit.namespace}/live"
    return page("fleet", frame_for(request, "Fleet", now=now, section="fleet", live=live), page=view)


FLEET_ROUTES = (show_fleet,)


def fleet_page(console: Console, stores: Stores, *, now: float) -> FleetPage:
    """What the page shows."""
    models = stores.registry.models()
    rollouts = stores.registry.rollouts()
    counts = console.counts.of(
        ("fleet", stores.namespace), lambda: _count(stores, [each.name for each in models], now=now), now=now
    )
    versions = {each.name: stores.registry.versions(each.name) for each in models}
    concerns = in_order(_concerns(stores, counts.value, versions, rollouts, now=now))
    cards = [
        _card(
            console,
            stores,
            each,
            versions[each.name],
            counts=counts.value,
            rollout=_live(rollouts, each.name),
            now=now,
        )
        for each in models
    ]
    headline = f"{counted(counts.value.enrolled, 'device')}, {counted(len(models), 'model')}. {_needs(concerns)}"
    return FleetPage(
        headline=headline,
        concerns=tuple(_line(each, stores.namespace) for each in concerns),
        models=tuple(sorted(cards, key=lambda card: -card.devices)),
        counted_at=counts.at,
    )


def _needs(concerns: Sequence[Concern]) -> str:
    """How much needs a person, in words; notes do not."""
    urgent = sum(each.urgency == "urgent" for each in concerns)
    waiting = sum(each.urgency == "waits" for each in concerns)
    if urgent:
        return f"{counted(urgent, 'thing needs', 'things need')} you now" + (
            f", and {waiting} can wait." if waiting else "."
        )
    return f"{counted(waiting, 'thing waits', 'things wait')} for you." if waiting else "Nothing needs you now."


class _Counts(msgspec.Struct, frozen=True):
    """The devices of a namespace: in all, not heard of, used twice, and by model, version and class."""

    enrolled: int
    silent: int
    duplicates: int
    versions: dict[str, dict[int | None, int]]
    classes: dict[str, dict[str, int]]


def _count(stores: Stores, models: Sequence[str], *, now: float) -> _Counts:
    return _Counts(
        enrolled=stores.fleet.count_enrolled(),
        silent=stores.inventory.count_heard_before(now - limits.CONSOLE_SILENT_S),
        duplicates=stores.inventory.count_duplicates(),
        versions={each: stores.fleet.inventory(each) for each in models},
        classes={each: stores.fleet.classes(each) for each in models},
    )


def _concerns(
    stores: Stores,
    counts: _Counts,
    versions: Mapping[str, Sequence[VersionRecord]],
    rollouts: Sequence[RolloutRecord],
    *,
    now: float,
) -> list[Concern]:
    registry = stores.registry
    names = {(model, each.serial): each.semantic_version for model, known in versions.items() for each in known}
    lately = [each for each in rollouts if not each.ended or (each.ended_at or 0.0) > now - 2 * limits.CONSOLE_SILENT_S]
    waiting = {State.DRAFT, State.WAITING_FOR_APPROVAL}
    missing = {each.id: approvals_missing(registry, each) for each in lately if each.state in waiting}
    named = [Named(each, names.get((each.model, each.target), "")) for each in lately]
    episodes = [each for model in versions for each in stores.health.episodes(model, since=now)]
    timestamp = parse(_SignedRole, stores.roles.role_bytes("timestamp"), what="the timestamp")
    return [
        *of_rollouts(named, missing=missing, now=now),
        *of_monitors(episodes, names=names),
        *of_devices(
            enrolled=counts.enrolled,
            silent=counts.silent,
            silent_for_s=limits.CONSOLE_SILENT_S,
            duplicates=counts.duplicates,
        ),
        *of_keys(stores.role_expiries.all(), now=now),
        *of_timestamp(timestamp.signed.expires.timestamp(), now=now),
    ]


class _Signed(msgspec.Struct, frozen=True):
    expires: datetime


class _SignedRole(msgspec.Struct, frozen=True):
    """Of a signed role, when it expires."""

    signed: _Signed


def _line(concern: Concern, namespace: str) -> ConcernLine:
    paths = {
        "rollout": f"rollouts/{concern.name}",
        "model": f"models/{concern.name}",
        "devices": f"devices?show={concern.name}",
        "keys": "access",
        "server": "access",
    }
    return ConcernLine(
        tone=concern.urgency,
        title=concern.title,
        sentence=concern.sentence,
        href=f"/{namespace}/{paths[concern.subject]}",
        since=concern.since,
    )


def _live(rollouts: Sequence[RolloutRecord], model: str) -> RolloutRecord | None:
    return next((each for each in reversed(rollouts) if each.model == model and not each.ended), None)


def _card(
    console: Console,
    stores: Stores,
    model: ModelRecord,
    versions: Sequence[VersionRecord],
    *,
    counts: _Counts,
    rollout: RolloutRecord | None,
    now: float,
) -> ModelCard:
    by_serial, classes = counts.versions.get(model.name, {}), counts.classes.get(model.name, {})
    hours = console.hours(stores.namespace).of(stores.health, model.name, now=now)
    bad = quarantined_everywhere(stores, model.name)
    told = {serial for devices in hours.values() for serial in devices}
    shown = [each for each in reversed(versions) if by_serial.get(each.serial) or each.serial in told]
    colours = version_colours([each.serial for each in shown], bad=bad)
    names = {each.serial: each.semantic_version for each in versions}
    total = sum(by_serial.values())
    newest = versions[-1].serial if versions else None
    ordered = [
        (
            each.semantic_version,
            colours[each.serial],
            by_serial.get(each.serial, 0),
            _state(each.serial, newest=newest, baseline=model.baseline, bad=bad),
        )
        for each in shown
    ]
    if nothing := by_serial.get(None, 0):
        ordered.append(("no version yet", "none", nothing, ""))
    lines = [
        VersionLine(
            name=name,
            colour=colour,
            devices=devices,
            percent=100 * devices / total if total else 0.0,
            state=state,
        )
        for name, colour, devices, state in ordered
        if devices
    ]
    known = sum(classes.values())
    return ModelCard(
        name=model.name,
        headline=headline_of(versions, by_serial, bad=bad, now=now),
        devices=total,
        now=bars([each[:3] for each in ordered]),
        versions=tuple(lines),
        classes=tuple(
            ClassLine(name=name or "(none told)", devices=devices, percent=100 * devices / known)
            for name, devices in sorted(classes.items(), key=lambda each: (-each[1], each[0]))[:8]
        ),
        history=history_of(hours, names, colours, now=now),
        rollout="" if rollout is None else rollout.id,
        rollout_words=""
        if rollout is None
        else f"rollout of {names.get(rollout.target, '')}: {plain_name(rollout.state.value)}",
    )


def _state(serial: int, *, newest: int | None, baseline: int | None, bad: set[int]) -> str:
    return (
        "quarantined" if serial in bad else "newest" if serial == newest else "baseline" if serial == baseline else ""
    )
