"""Where does a version come from, and who let it out? All that is known, and nothing that is not.

1. Its release says what it was made of; the publisher signed that.
2. The audit log says who published it, and who started and approved each of its rollouts.
3. What nobody recorded is None or empty, and is worded as unknown. It is never guessed.

Called by the admin API.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import msgspec

from whimbrel import limits
from whimbrel.flows.audit_chain import ChainedEntry
from whimbrel.flows.ports import PublishingPort, RegistryPort
from whimbrel.flows.records import VersionRecord
from whimbrel.model.documents import digest_of, parse
from whimbrel.model.provenance import Dataset, Kept, ModelSignature, Parent, SourceCode
from whimbrel.model.release import Release


class AuditEntries(Protocol):
    """The audit log, newest entries first."""

    def newest(
        self, *, model: str | None = None, action: str | None = None, limit: int = 100
    ) -> Iterable[ChainedEntry]: ...


class RolloutProvenance(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout of the version. `started_by` None: it is older than accounts. `approved_by`: people, by stage."""

    id: str
    state: str
    started_at: float  # POSIX seconds
    started_by: str | None
    approved_by: dict[str, list[str]]


class ProvenanceFile(msgspec.Struct, frozen=True, kw_only=True):
    """A published file."""

    variant: str
    name: str
    format: str
    sha256: str
    size_bytes: int
    packed: bool


class ProvenanceView(msgspec.Struct, frozen=True, kw_only=True):
    """Where a version comes from. None, "" and empty lists stand for what is not known.

    `dataset`, `parent` and `run`: words of a card that nothing checks. `release_signed_by`: the ids of the keys that
    signed the publisher's role when it listed the release first; `release_sha256`: of the document.
    """

    namespace: str
    model: str
    version: str
    semantic_version: str
    serial: int
    build_hash: str
    created: str
    release_sha256: str
    files: list[ProvenanceFile]
    trained_at: str
    datasets: list[Dataset]
    dataset: str
    code: SourceCode | None
    framework: str
    architecture: str
    parents: list[Parent]
    parent: str
    run: str
    recipe: Kept | None
    metrics: dict[str, int | float]
    model_signatures: list[ModelSignature]
    publisher_role: str
    release_signed_by: list[str]
    published_at: float  # POSIX seconds
    published_by: str | None
    rollouts: list[RolloutProvenance]


class ProvenancePort(PublishingPort, RegistryPort, Protocol):
    """The registry, with publications and rollouts."""


def provenance_view(
    registry: ProvenancePort,
    audit: AuditEntries,
    version: VersionRecord,
    *,
    role: str,
    signed_by: Sequence[str],
) -> ProvenanceView:
    """All that is known of a version. `role`: the publisher's; `signed_by`: the ids of the keys that signed it."""
    content = registry.release_bytes(version.model, version.serial)
    return ProvenanceView(
        namespace=version.namespace,
        **signed_facts(parse(Release, content, what="a stored release"), content),
        publisher_role=role,
        release_signed_by=list(signed_by),
        published_at=version.created_at,
        published_by=_published_by(audit, version),
        rollouts=_rollouts(registry, version),
    )


def contradiction(view: ProvenanceView, release: Release, content: bytes) -> str | None:
    """Which field of a view is not what the publisher signed in `release` (`content`: its bytes); None for none.

    The server answers with the view, and may say anything; what is signed is the release.
    """
    signed = signed_facts(release, content)
    return next((name for name, value in signed.items() if getattr(view, name) != value), None)


def signed_facts(release: Release, content: bytes) -> dict[str, Any]:
    """The fields of a view that a release says."""
    training = release.training
    return {
        "model": release.model,
        "version": release.version,
        "semantic_version": release.semantic_version,
        "serial": release.serial,
        "build_hash": release.build_hash,
        "created": release.created,
        "release_sha256": digest_of(content),
        "files": [
            ProvenanceFile(
                variant=variant.name,
                name=file.name,
                format=file.format,
                sha256=file.sha256,
                size_bytes=file.size_bytes,
                packed=file.packed,
            )
            for variant in release.variants
            for file in variant.files
        ],
        "trained_at": training.date,
        "datasets": list(training.datasets),
        "dataset": training.dataset,
        "code": training.code,
        "framework": training.framework,
        "architecture": training.architecture,
        "parents": list(training.parents),
        "parent": training.parent,
        "run": training.run,
        "recipe": training.recipe,
        "metrics": dict(release.metrics),
        "model_signatures": list(release.model_signatures),
    }


def _published_by(audit: AuditEntries, version: VersionRecord) -> str | None:
    entries = audit.newest(model=version.model, action="publish", limit=limits.AUDITED_OF_A_VERSION)
    return next((entry.actor for entry in entries if entry.evidence.get("serial") == version.serial), None)


def _rollouts(registry: RegistryPort, version: VersionRecord) -> list[RolloutProvenance]:
    rollouts = [each for each in registry.rollouts(model=version.model) if each.target == version.serial]
    told = []
    for rollout in sorted(rollouts, key=lambda each: each.created_at)[-limits.ROLLOUTS_OF_A_VERSION :]:
        lead = registry.rollout(rollout.lead) if rollout.lead else rollout  # people approve a set by its lead
        approved: dict[str, list[str]] = {}
        for approval in registry.approvals(lead.id):
            stages = lead.plan.stages
            stage = stages[approval.stage].name if approval.stage < len(stages) else str(approval.stage)
            approved.setdefault(stage, []).append(approval.by)
        told.append(
            RolloutProvenance(
                id=rollout.id,
                state=rollout.state,
                started_at=rollout.created_at,
                started_by=lead.started_by or None,
                approved_by=approved,
            )
        )
    return told
