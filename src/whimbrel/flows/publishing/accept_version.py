"""Accept a version that a publisher signed: the server's part of publishing. (Step 2 of the journey.)

1. The version is of this model, new, and next in order: whoever was second is refused and tries again.
2. It keeps the model's budgets, and all of its artifacts are stored with the size that is signed.
3. Where the model demands a model signature, the caller verified one over every variant; and the versions that it was
   made from are published here.
4. The publisher's role lists it, and is the next version of that role (compare-and-swap).
5. The first version of a model becomes the baseline and the champion at once, unless it is held: then no device gets it
   before a rollout says so, and neither does any later one.

Called by the admin API.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Protocol

import msgspec

from whimbrel.errors import Conflict, NotFound, Refused, UntrustedInput
from whimbrel.flows.audit import audit
from whimbrel.flows.ports import PublishingPort, SignedRolesPort
from whimbrel.flows.publishing.publish import build_hash, check_budgets, check_unpublished
from whimbrel.flows.records import ModelRecord, ModelSettings, VersionRecord
from whimbrel.flows.wording import signer_words
from whimbrel.model.documents import parse
from whimbrel.model.provenance import ModelSigner
from whimbrel.model.release import File, Release
from whimbrel.model.ways import Step
from whimbrel.trust import roles as names


class SealedRecord(msgspec.Struct, frozen=True):
    """What the registry keeps of a sealed release. `release_key`: sealed to the server's sealing key, and opened by it
    once, so that devices can be given it. `steps`: patches, sealed to the release's key.
    """

    release_key: bytes
    steps: tuple[Step, ...] = ()


class SealedVersionsPort(Protocol):
    """Where the keys of sealed releases are kept."""

    def add(self, model: str, serial: int, *, release_key: bytes, steps: Sequence[Step], at: float) -> None: ...


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
    signed_by: ModelSigner | None = None,
    actor: str = "",
    sealed: SealedRecord | None = None,
    sealed_versions: SealedVersionsPort | None = None,
    now: float,
) -> Accepted:
    """Publish the `release` document that the `publisher` role lists. `now`: POSIX seconds.

    `hold`: a first version waits for a rollout; so it does where the model needs a second person. `signed_by`: whose
    model signature over all of its variants the caller verified. `actor`: the account that sent it; the role
    where there are no accounts. `sealed`: what comes with a sealed release, and is kept in `sealed_versions`.

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
    demanded = record.settings.model_signer
    if demanded is not None and demanded != signed_by:
        raise Refused(f"{model} demands a model signature by {signer_words(demanded)}; publish with --model-signature")
    _check_parents(registry, document)
    steps = _check_sealed(registry, document, record.settings, sealed)
    _check_stored(registry, (file for variant in document.variants for file in variant.files))
    _check_kept(registry, document)
    role = names.publisher_role(model)
    path = names.release_path(model, document.serial)
    roles.accept_publication(role, publisher, {path: release}, now=datetime.fromtimestamp(now, UTC))
    first = not earlier and not hold and not _needs_another(record)
    version = _record(registry.namespace, document, good=first, now=now)
    patches = {step.sha256 for step in steps}
    registry.add_version(
        version, release=release, digests={*document.artifacts, *patches, *(each.sha256 for each in document.kept)}
    )
    if sealed is not None and sealed_versions is not None:
        sealed_versions.add(model, document.serial, release_key=sealed.release_key, steps=steps, at=now)
    if first:  # there is no rollout for it
        registry.change_model(model, baseline=document.serial)
        registry.set_alias(model, "champion", document.serial)
    audit(
        registry,
        model=model,
        actor=actor or role,
        action="publish",
        because=f"{document.version} ({document.semantic_version}){', the first: it is the baseline' * first}"
        f"{', sealed' * document.is_sealed}",
        now=now,
        evidence={"serial": document.serial, "build_hash": document.build_hash}
        | ({"sealed": True} if document.is_sealed else {}),
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
        _check_size(registry, file.artifact_sha256, file.artifact_bytes, what=file.name)


def _check_size(registry: PublishingPort, sha256: str, size_bytes: int, *, what: str) -> None:
    stored = registry.artifact_size(sha256)
    if stored is None:
        raise Refused(f"artifact {sha256} is not stored yet; send it first")
    if stored != size_bytes:  # budgets and devices go by the size that is signed
        raise UntrustedInput(f"{what} is said to have {size_bytes} bytes; {stored} are stored")


def _check_sealed(
    registry: PublishingPort, release: Release, settings: ModelSettings, sealed: SealedRecord | None
) -> tuple[Step, ...]:
    """The patches of a sealed release. Raises `Refused` for a plain release of a sealed model."""
    if not release.is_sealed:
        if settings.sealed:
            raise Refused(
                f"{release.model} is sealed, and this release is not: its files would lie open on every server. "
                "Publish with a whimbrel that seals, or end it with: whimbrel model set --no-sealed"
            )
        if sealed is not None:
            raise UntrustedInput("a release key came with a release that is not sealed")
        return ()
    if sealed is None:
        raise UntrustedInput("the release is sealed, and its key did not come with it; no device could open it")
    for step in sealed.steps:
        if not step.sealed or step.target not in release.digests:
            raise UntrustedInput(f"the patch {step.sha256} is not sealed, or leads to no file of this release")
        _check_size(registry, step.sha256, step.size_bytes, what="a patch")
    return sealed.steps


def _check_kept(registry: PublishingPort, release: Release) -> None:
    """The same of the files that people may fetch beside it."""
    for kept in release.kept:
        if registry.artifact_size(kept.sha256) != kept.size_bytes:
            raise Refused(f"the file {kept.sha256} of its provenance is not stored with that size; send it first")


def _check_parents(registry: PublishingPort, release: Release) -> None:
    """Raises `UntrustedInput` where a version that it was made from is not published here."""
    for parent in release.training.parents:
        try:
            version = registry.version(parent.model, parent.serial)
        except NotFound as error:
            raise UntrustedInput(f"its parent {parent.model} {parent.version} is not published here") from error
        if version.version != parent.version:
            raise UntrustedInput(f"serial {parent.serial} of {parent.model} is {version.version}, not {parent.version}")


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
