"""The list of models, and the page of one: its versions side by side, what they run on, and what happened."""

from collections.abc import Mapping, Sequence

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from whimbrel import limits
from whimbrel.console.views.models import EpisodeLine, ModelLine, ModelPage, ReleasedVersion
from whimbrel.console.words import figure
from whimbrel.flows.accounts.permissions import Permission
from whimbrel.flows.monitors.records import HOUR_S
from whimbrel.flows.records import ModelRecord
from whimbrel.flows.wording import condition_words, duration_words
from whimbrel.gate.monitor import Figures, figures_of, summed
from whimbrel.health.device_hour import HOURS_A_DAY
from whimbrel.model.release import Release
from whimbrel.server.admin.versions import listed_versions
from whimbrel.server.admin.views.versions import ListedVersion
from whimbrel.server.console.events import event_line
from whimbrel.server.console.rollouts import rollout_lines
from whimbrel.server.console.versions import headline_of, history_of, quarantined_everywhere, version_colours
from whimbrel.server.console.visit import AnyRequest, Console, frame_for, page, visit_of
from whimbrel.stores.transaction import Stores

_FLEET = "every device"


@get("/{namespace:str}/models", permission=Permission.READ)
async def list_models(request: AnyRequest, console: NamedDependency[Console]) -> Response[bytes]:
    """All models."""
    visit, now = visit_of(request), console.operations.now()
    lines = await console.operations.do(visit.namespace, lambda stores: _lines(console, stores, now=now))
    return page("models", frame_for(request, "Models", now=now, section="models"), lines=lines)


@get("/{namespace:str}/models/{model:str}", permission=Permission.READ)
async def show_model(request: AnyRequest, console: NamedDependency[Console], model: FromPath[str]) -> Response[bytes]:
    """One model."""
    visit, now = visit_of(request), console.operations.now()
    view = await console.operations.do(visit.namespace, lambda stores: model_page(console, stores, model, now=now))
    frame = frame_for(request, model, now=now, section="models", live=f"/{visit.namespace}/live")
    return page("model", frame, page=view)


MODEL_PAGES = (list_models, show_model)


def _lines(console: Console, stores: Stores, *, now: float) -> list[ModelLine]:
    lines = []
    for model in stores.registry.models():
        versions = stores.registry.versions(model.name)
        names = {each.serial: each.semantic_version for each in versions}
        counts = _devices(console, stores, model.name, now=now)
        lines.append(
            ModelLine(
                name=model.name,
                newest=versions[-1].semantic_version if versions else "",
                baseline=names.get(model.baseline or 0, ""),
                versions=len(versions),
                devices=sum(counts.values()),
            )
        )
    return sorted(lines, key=lambda each: (-each.devices, each.name))


def _devices(console: Console, stores: Stores, model: str, *, now: float) -> Mapping[int | None, int]:
    subject = ("model", stores.namespace, model)
    counted = console.counts.of(subject, lambda: stores.fleet.inventory(model), now=now)
    return counted.value


def model_page(console: Console, stores: Stores, name: str, *, now: float) -> ModelPage:
    """What the page shows. Raises `NotFound`."""
    model = stores.registry.model(name)
    versions = stores.registry.versions(name)
    counts = _devices(console, stores, name, now=now)
    releases = {record.serial: release for record, release in stores.registry.published(name)}
    told = console.counts.of(
        ("figures", stores.namespace, name), lambda: _figures(stores, name, now=now), now=now
    ).value
    listed = list(reversed(listed_versions(stores, name)))[: limits.CONSOLE_ROWS]
    names = {each.serial: each.semantic_version for each in versions}
    bad = quarantined_everywhere(stores, name)
    hours = console.hours(stores.namespace).of(stores.health, name, now=now)
    newest = listed[0].serial if listed else 0
    lines = [_version(each, releases.get(each.serial), told.get(each.serial), newest=newest) for each in listed]
    colours = version_colours([each.serial for each in reversed(versions)], bad=bad)
    episodes = [each for each in stores.health.episodes(name, since=now) if each.ended_at is None]
    return ModelPage(
        name=name,
        headline=headline_of(versions, counts, bad=bad, now=now),
        versions=tuple(lines),
        metrics=tuple(sorted({metric for each in lines for metric in each.metrics})[:6]),
        history=history_of(hours, names, colours, now=now),
        rollouts=tuple(rollout_lines(stores, stores.registry.rollouts(model=name)[-10:])),
        episodes=tuple(
            EpisodeLine(
                version=names.get(each.serial, str(each.serial)),
                monitor=each.monitor,
                since=each.since,
                because=each.because,
            )
            for each in episodes
        ),
        settings=tuple(_settings(model)),
        events=tuple(event_line(each) for each in stores.audit.newest(model=name, limit=12)),
    )


def _figures(stores: Stores, model: str, *, now: float) -> dict[int, Figures]:
    """What devices told of each version within a day."""
    hour = int(now // HOUR_S)
    rows = stores.health.hours(model, since=hour - HOURS_A_DAY + 1, before=hour + 1)
    serials = {row.serial for row in rows}
    return {serial: figures_of(summed([row.sums for row in rows if row.serial == serial])) for serial in serials}


def _version(
    listed: ListedVersion, release: Release | None, figures: Figures | None, *, newest: int
) -> ReleasedVersion:
    everywhere = [each for each in listed.quarantined if each.devices == _FLEET]
    states = [
        *([("newest", "busy")] if listed.serial == newest else []),
        *([("baseline", "good")] if listed.baseline else []),
        *([("revoked", "bad")] if listed.revoked else []),
        *([("quarantined", "bad")] if everywhere else []),
        *([("refused by some", "waits")] if listed.quarantined and not everywhere else []),
        *([("retired", "")] if listed.retired else []),
    ]
    return ReleasedVersion(
        semantic_version=listed.semantic_version,
        version=listed.version,
        serial=listed.serial,
        published_at=listed.created_at,
        size_bytes=listed.size_bytes,
        variants=() if release is None else tuple(variant.name for variant in release.variants),
        devices=listed.devices,
        states=tuple(states),
        aliases=tuple(listed.aliases),
        metrics={} if release is None else dict(release.metrics),
        crashes="" if figures is None or figures.crash_rate is None else figure(figures.crash_rate, "percent"),
        errors="" if figures is None or figures.error_rate is None else figure(figures.error_rate, "percent"),
        p95="" if figures is None or figures.latency_p95_ms is None else figure(figures.latency_p95_ms, "milliseconds"),
        quarantined=tuple(f"{each.devices}: {each.because}" for each in listed.quarantined),
    )


def _settings(model: ModelRecord) -> Sequence[tuple[str, str]]:
    settings = model.settings
    conditions = condition_words(settings.conditions)
    lines = [
        ("Devices look for news every", duration_words(settings.refresh_s / 3600)),
        ("and report every", duration_words(settings.report_s / 3600)),
        ("They update", "; ".join(conditions) or "at any time"),
        ("Objectives", "; ".join(each.words for each in settings.objectives) or "none"),
    ]
    if settings.second_person_above_percent is not None:
        lines.append(("A second person must agree above", f"{settings.second_person_above_percent:g}%"))
    if settings.sealed:
        lines.append(("Sealed", "its artifacts are encrypted"))
    return lines
