"""The versions of a model, as people, plans and experiments name them, and what they were released with."""

from whimbrel.errors import NotFound, Refused
from whimbrel.flows.ports import ModelsPort, PublishingPort
from whimbrel.flows.records import VersionRecord
from whimbrel.model.documents import parse
from whimbrel.model.release import Reference, Release, Requirement
from whimbrel.plan.plan import VersionName

_SERIAL_DIGITS = 16  # a longer number is no serial: they fit into 53 bits


def find_version(versions: list[VersionRecord], name: VersionName) -> VersionRecord:
    """The one version that is meant. Raises `NotFound`, or `Refused` with the candidates."""
    matching = [v for v in versions if name.matches(calendar=v.version, semantic=v.semantic_version)]
    exact = [v for v in matching if v.semantic_version == name.text]  # 3.2.0 is also how 3.2.0-rc.1 begins
    if len(matching) == 1 or len(exact) == 1:
        return (exact or matching)[0]
    candidates = ", ".join(f"{v.version} ({v.semantic_version})" for v in (matching or versions)[-10:])
    if matching:
        raise Refused(f"{name.text!r} of {name.model} may be any of {candidates}; name one of them")
    raise NotFound(f"{name.model} has no version {name.text!r}; it has: {candidates or 'none yet'}")


def find_named_version(registry: PublishingPort, model: str, *, name: str) -> VersionRecord:
    """A version by its alias, serial, calendar version or semantic version. Raises `NotFound`, or `Refused`."""
    registry.model(model)
    versions = registry.versions(model)
    serial = registry.aliases(model).get(name)
    if serial is None and name.isdigit() and len(name) < _SERIAL_DIGITS:
        serial = int(name)
    if serial is not None:
        return registry.version(model, serial)
    return find_version(versions, VersionName(model, name, prefix=False))


def find_planned_version(versions: list[VersionRecord], text: str, *, model: str) -> VersionRecord:
    """The version of `model` that a plan writes as `text`. Raises `Refused` where it names another model or none."""
    try:
        name = VersionName.parse(text)
    except ValueError as error:
        raise Refused(str(error)) from error
    if name.model != model:
        raise Refused(f"{text!r} is no version of {model!r}; ask about the model that it is a version of")
    return find_version(versions, name)


def reference_of(registry: ModelsPort, model: str, serial: int) -> Reference | None:
    """The reference predictions that a version was released with; None where it has none."""
    return parse(Release, registry.release_bytes(model, serial), what="a stored release").reference


def required_by(registry: ModelsPort, model: str, serial: int) -> tuple[Requirement, ...]:
    """The versions of other models that a version must run with."""
    return parse(Release, registry.release_bytes(model, serial), what="a stored release").requires
