"""Give a version of a model a name, such as champion or stable. Called by the admin API."""

from whimbrel.flows.audit import audit
from whimbrel.flows.ports import PublishingPort
from whimbrel.flows.records import VersionRecord
from whimbrel.flows.versions import find_named_version
from whimbrel.model.documents import convert
from whimbrel.model.ids import Name


def set_alias(registry: PublishingPort, model: str, *, alias: str, name: str, actor: str, now: float) -> VersionRecord:
    """Point `alias` at the version `name`; a name that pointed elsewhere moves. Returns the version.

    Raises `NotFound` for a version that is not there, `UntrustedInput` for an alias that is no name.
    """
    version = find_named_version(registry, model, name=name)
    before = registry.aliases(model).get(alias)
    registry.set_alias(model, convert(Name, alias, what="an alias"), version.serial)
    audit(
        registry,
        model=model,
        actor=actor,
        action="set_alias",
        because=f"{alias} is {version.version} ({version.semantic_version})",
        now=now,
        evidence={"alias": alias, "serial": version.serial, "before": before},
    )
    return version
