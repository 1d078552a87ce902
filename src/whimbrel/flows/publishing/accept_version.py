"""Accept a version that a publisher signed: the server's part of publishing. (Step 2 of the journey.)

1. The version is of this model, new, and next in order: whoever was second is refused and tries again.
2. It keeps the model's budgets, and all of its artifacts are stored with the size that is signed.
3. The publisher's role lists it, and is the next version of that role (compare-and-swap).
4. The first version of a model becomes the baseline and the champion at once, unless it is held: then no device gets it
   before a rollout says so, and neither does any later one.

Called by the admin API.
"""

from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from whimbrel.errors import Conflict, Refused, UntrustedInput
from whimbrel.flows.audit import audit
from whimbrel.flows.ports import PublishingPort, SignedRolesPort
from whimbrel.flows.publishing.publish import build_hash, check_budgets, check_unpublished
from whimbrel.flows.records import ModelRecord, VersionRecord
from whimbrel.model.documents import parse
from whimbrel.model.release import File, Release
from whimbrel.trust import roles as names


class Accepted(msgspec.Struct, frozen=True):
    """A version that is published now. `baseline`: it is the model's first, and every device is to run it."""

    version: VersionRecord
    baseline: bool


def accept_version(
    registry: PublishingPort,
    roles: SignedRolesPort,
    model: str,
    *,
    release: bytes,
    publisher: bytes,
    hold: bool = False,
    actor: str = "",
    now: float,
) -> Accepted:
    """Publish the `release` document that the `publisher` role lists. `now`: POSIX seconds.

    `hold`: a first version waits for a rollout; so it does where the model needs a second person. `actor`: the account
    that sent it; the publisher's role where there are no accounts.

    Raises `Conflict` where somebody was first, `Refused` for a budget or an artifact that is not stored,
    `UntrustedInput` for documents that contradict each other or a wrong signature.
    """
    record = registry.model(model)
    document = parse(Release, release, what="the release")
    if document.model != model:
        raise UntrustedInput(f"the release is of {document.model!r}; expected {model!r}")
    earlier = registry.published(model)
    _check_next(document, earlier)
    if document.build_hash != build_hash(document.variants):
        raise UntrustedInput(f"build hash {document.build_hash} does not belong to these files")
    check_budgets(document, record.settings)
    _check_stored(registry, (file for variant in document.variants for file in variant.files))
    role = names.publisher_role(model)
    path = names.release_path(model, document.serial)
    roles.accept_publication(role, publisher, {path: release}, now=datetime.fromtimestamp(now, UTC))
    first = not earlier and not hold and not _needs_another(record)
    version = _record(registry.namespace, document, good=first, now=now)
    registry.add_version(version, release=release, digests=document.digests)
    if first:  # there is no rollout for it
        registry.change_model(model, baseline=document.serial)
        registry.set_alias(model, "champion", document.serial)
    audit(
        registry,
        model=model,
        actor=actor or role,
        action="publish",
        because=f"{document.version} ({document.semantic_version}){', the first: it is the baseline' * first}",
        now=now,
        evidence={"serial": document.serial, "build_hash": document.build_hash},
    )
    return Accepted(version, first)


def _needs_another(record: ModelRecord) -> bool:
    """Whether one person's word does not reach everybody, as a first version would."""
    above = record.settings.second_person_above_percent
    return above is not None and above < 100


def _check_next(release: Release, published: list[tuple[VersionRecord, Release]]) -> None:
    """Raises `Conflict` where the version's number was published before, or its serial is not the next."""
    check_unpublished(release, published)
    if release.serial != len(published) + 1:
        raise Conflict(f"serial {release.serial} came, {len(published) + 1} is next: somebody was first; try again")


def _check_stored(registry: PublishingPort, files: Iterable[File]) -> None:
    """Raises `Refused` for an artifact that is not stored, `UntrustedInput` where it has another size."""
    for file in files:
        stored = registry.artifact_size(file.sha256)
        if stored is None:
            raise Refused(f"artifact {file.sha256} is not stored yet; send it first")
        if stored != file.size_bytes:  # budgets and devices go by the size that is signed
            raise UntrustedInput(f"{file.name} is said to have {file.size_bytes} bytes; {stored} are stored")


def _record(namespace: str, release: Release, *, good: bool, now: float) -> VersionRecord:
    return VersionRecord(
        namespace=namespace,
        model=release.model,
        serial=release.serial,
        version=release.version,
        semantic_version=release.semantic_version,
        build_hash=release.build_hash,
        created_at=now,
        size_bytes=max(variant.size_bytes for variant in release.variants),
        good=good,
    )
