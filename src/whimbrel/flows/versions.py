"""The versions of a model, as rollouts and experiments ask for them: by name, and with what they were released with."""

from whimbrel.errors import NotFound, Refused
from whimbrel.flows.ports import ModelsPort
from whimbrel.flows.records import VersionRecord
from whimbrel.model.documents import parse
from whimbrel.model.release import Reference, Release
from whimbrel.plan.plan import VersionName


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


def reference_of(registry: ModelsPort, model: str, serial: int) -> Reference | None:
    """The reference predictions that a version was released with; None where it has none."""
    return parse(Release, registry.release_bytes(model, serial), what="a stored release").reference
