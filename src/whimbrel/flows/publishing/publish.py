"""A version is published: identity is filled in, the release document is written, budgets are kept. (Steps 1 and 2.)

Used by the command line before a publisher signs, and by the server when it checks what was signed.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

import msgspec

from whimbrel.errors import Conflict, Refused, UntrustedInput
from whimbrel.flows.records import ModelSettings, VersionRecord
from whimbrel.model.document_errors import sentence
from whimbrel.model.ids import CalendarVersion, semantic_key
from whimbrel.model.local_limits import LocalLimits
from whimbrel.model.provenance import ModelSignature
from whimbrel.model.release import Metric, Reference, Release, Requirement, Sealed, Training, Variant


class Numbered(Protocol):
    """A version that was published, as far as the next one's numbers depend on it."""

    @property
    def serial(self) -> int: ...
    @property
    def version(self) -> str: ...
    @property
    def semantic_version(self) -> str: ...


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """How a version is named: all that a publication needs that its files do not tell."""

    serial: int
    version: str
    semantic_version: str
    build_hash: str


def identify(
    versions: Sequence[Numbered],
    *,
    variants: Iterable[Variant],
    version: str | None,
    semantic_version: str | None,
    now: datetime,
) -> Identity:
    """The next identity: serial and calendar version counted on, the semantic version's patch raised unless given.

    Raises `UntrustedInput` for a version that is none.
    """
    serial = max((v.serial for v in versions), default=0) + 1
    try:
        if version is None:
            today = CalendarVersion.of(now, iteration=1)
            same_day = [
                parsed.iteration
                for parsed in (CalendarVersion.parse(v.version) for v in versions)
                if (parsed.year, parsed.month, parsed.day) == (today.year, today.month, today.day)
            ]
            version = str(CalendarVersion.of(now, iteration=max(same_day, default=0) + 1))
        else:
            CalendarVersion.parse(version)
        if semantic_version is None:
            newest = max((semantic_key(v.semantic_version) for v in versions), default=None)
            semantic_version = "1.0.0" if newest is None else f"{newest[0]}.{newest[1]}.{newest[2] + 1}"
        else:
            semantic_key(semantic_version)
    except ValueError as error:
        raise UntrustedInput(sentence(str(error))) from error
    return Identity(serial=serial, version=version, semantic_version=semantic_version, build_hash=build_hash(variants))


def build_hash(variants: Iterable[Variant]) -> str:
    """12 hexadecimal digits over the names and digests of all files: equal builds have equal hashes."""
    lines = sorted(f"{v.name} {file.name} {file.sha256}\n" for v in variants for file in v.files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:12]


def write_release(
    model: str,
    identity: Identity,
    *,
    variants: Sequence[Variant],
    training: Training,
    metrics: Mapping[str, Metric],
    changelog: Sequence[str],
    requires: Sequence[Requirement] = (),
    reference: Reference | None = None,
    local_limits: LocalLimits | None = None,
    model_signatures: Sequence[ModelSignature] = (),
    now: datetime,
) -> Release:
    """The document that the publisher signs."""
    try:
        return Release(
            model=model,
            serial=identity.serial,
            version=identity.version,
            semantic_version=identity.semantic_version,
            build_hash=identity.build_hash,
            created=now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            variants=tuple(variants),
            training=training,
            metrics=dict(metrics),
            changelog=tuple(changelog),
            requires=tuple(requires),
            reference=reference,
            local_limits=local_limits,
            model_signatures=tuple(model_signatures),
        )
    except ValueError as error:
        raise UntrustedInput(f"the release cannot be written: {sentence(str(error))}") from error


def check_budgets(release: Release, settings: ModelSettings) -> None:
    """Raises `Refused` where a variant is too large or a metric below its floor (or not given)."""
    largest = max(release.variants, key=lambda variant: variant.size_bytes)
    if settings.size_bytes_max is not None and largest.size_bytes > settings.size_bytes_max:
        raise Refused(
            f"variant {largest.name} has {largest.size_bytes} bytes; the budget of {release.model} is "
            f"{settings.size_bytes_max}. Make it smaller, or change the budget with: whimbrel model set"
        )
    for name, floor in settings.metrics_min.items():
        value = release.metrics.get(name)
        if value is None:
            raise Refused(f"{release.model} asks for the metric {name} (at least {floor:g}), and the card names none")
        if not value >= floor:  # not a number reaches no floor
            raise Refused(f"{name} is {value:g}; the budget of {release.model} asks for at least {floor:g}")


def check_unpublished(release: Release, published: Sequence[tuple[VersionRecord, Release]]) -> None:
    """Raises `Conflict`, with the difference, where the release's number was published before."""
    for version, before in published:
        if release.version in {version.version} or release.semantic_version == version.semantic_version:
            raise Conflict(
                f"{version.model} {version.version} ({version.semantic_version}) is published and never changes. "
                f"{difference(before, release)} Publish it under a new number"
            )


_NUMBERED = {"serial", "version", "semantic_version", "created", "unchecked"}  # what the same publication has anew


def is_same(before: Release, after: Release, *, sealed: bool = False) -> bool:
    """Whether both say the same of the same files, under whatever numbers. `sealed`: `after` is yet to be sealed."""
    if before.is_sealed != (sealed or after.is_sealed):
        return False
    before = without_sealed(before) if sealed else before  # each release has a key of its own
    fields = (field for field in Release.__struct_fields__ if field not in _NUMBERED)
    return all(getattr(before, field) == getattr(after, field) for field in fields)


def without_sealed(release: Release) -> Release:
    """The release as it would be where its files travelled open."""
    return with_sealed(release, {})


def with_sealed(release: Release, sealed: Mapping[str, Sealed]) -> Release:
    """The release with what travels instead of its files, by their digests."""
    replace = msgspec.structs.replace
    variants = tuple(
        replace(variant, files=tuple(replace(file, sealed=sealed.get(file.sha256)) for file in variant.files))
        for variant in release.variants
    )
    return replace(release, variants=variants)


def difference(before: Release, after: Release) -> str:
    """One sentence on how two releases differ."""
    parts = []
    if before.build_hash == after.build_hash:
        parts.append("the files are the same")
    else:
        held = {file.sha256 for variant in before.variants for file in variant.files}
        new = [f"{v.name}/{f.name}" for v in after.variants for f in v.files if f.sha256 not in held]
        parts.append(f"build {before.build_hash} became {after.build_hash} (changed: {', '.join(new[:5]) or 'names'})")
    for name in ("semantic_version", "training", "metrics", "changelog"):
        if getattr(before, name) != getattr(after, name):
            parts.append(f"{name} differs")
    return f"Difference: {'; '.join(parts)}."
