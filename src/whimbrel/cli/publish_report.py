"""What `whimbrel publish` says of a version that it published, and of the patches to it.

Called by `publish`.
"""

from typing import Any

import msgspec

from whimbrel import limits
from whimbrel.cli.fit import tell_fit_shortly
from whimbrel.cli.model_checks import TriedModel
from whimbrel.cli.output import say, size_of
from whimbrel.cli.sources import Source
from whimbrel.flows.version_fit import VersionFit
from whimbrel.model.documents import plain
from whimbrel.model.release import File
from whimbrel.server.admin.views.versions import DeltaView, PublishedVersion

_FILES_TOLD = 20  # further files of a build that are listed by name
_TOLD_FROM_BYTES = 4 * limits.KIB  # no patch of a smaller file pays, and nobody needs to hear it of each


class Published(msgspec.Struct, frozen=True):
    """A version that the server accepted: the artifacts that were there and were sent, and earlier equal builds.

    `tried`: by variant. `unchecked`: objections that were passed over. `already`: it had been published before.
    `taken_back`: from which devices it was taken back since, and why. `rollout`: of a first version, which began by its
    card. `sealed_patches`: of a sealed version, the patches that were made here; None: it is not sealed. `signers`:
    whose model signatures were verified. `lies_open`: files of a sealed version that lie unsealed on the server, too.
    """

    version: PublishedVersion
    stored_before: list[str] = []
    sent: list[str] = []
    same_files_as: list[str] = []
    tried: dict[str, list[TriedModel]] = {}
    unchecked: tuple[str, ...] = ()
    already: bool = False
    taken_back: str = ""
    rollout: str | None = None
    sealed_patches: list[DeltaView] | None = None
    signers: list[str] = []
    lies_open: list[str] = []

    @property
    def fields(self) -> dict[str, Any]:
        """What --json prints of it."""
        return plain(self.version) | {
            "artifacts_stored_before": self.stored_before,
            "artifacts_sent": self.sent,
            "same_files_as": self.same_files_as,
            "tried": self.tried,
            "unchecked": self.unchecked,
            "already_published": self.already,
            "taken_back": self.taken_back,
            "rollout": self.rollout,
            "sealed": self.sealed_patches is not None,
            "lies_open": self.lies_open,
            "model_signed_by": self.signers,
        }


class Patches(msgspec.Struct, frozen=True):
    """The patches to a version. `note`: why the server makes none."""

    deltas: list[DeltaView]
    note: str | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """What --json prints of them."""
        return {"deltas": self.deltas} | ({} if self.note is None else {"deltas_note": self.note})


def tell_published(
    published: Published,
    fit: VersionFit,
    patches: Patches | None,
    sources: list[Source],
    built_of: dict[str, Source],
    *,
    hardware_open: bool,
) -> None:
    version = published.version
    if published.already:
        say(
            f"already published: {version.model} {version.version} ({version.semantic_version}), serial "
            f"{version.serial}, build {version.build_hash}; these files and this card change nothing"
        )
        if published.taken_back:
            say(f"  it was taken back {published.taken_back}")
            say(
                "  devices get it again by: whimbrel rollout start PLAN --override WHY, or whimbrel version "
                f"unquarantine {version.version} --model {version.model} --because WHY"
            )
        return
    say(
        f"published {version.model} {version.version} ({version.semantic_version}), serial {version.serial}, "
        f"build {version.build_hash}"
    )
    tried = _by_source(published, built_of)
    for source in sources:
        _tell_source(source, set(published.stored_before))
        for model in tried.get(source.spec.name, []):
            say(f"    {model}")
    if published.sealed_patches is not None:
        say("  sealed: only encrypted files were sent; entitled devices get the key from the server")
    if published.lies_open:
        say(
            f"  WARNING: {', '.join(published.lies_open)} lies open on the server, from a version that was not sealed: "
            "whoever has that release can fetch it"
        )
    for signer in published.signers:
        say(f"  the model signature by {signer} is over these files")
    for objection in published.unchecked:
        say(f"  UNCHECKED: {objection}")
    if hardware_open:
        say("  note: target_hardware chooses no devices; --variant hardware=NAME does, by their label")
    tell_fit_shortly(fit)
    if patches is not None:
        _tell_patches(patches)
    if published.same_files_as:
        say(f"  note: these are the same files as {', '.join(published.same_files_as)}")
    if version.baseline and published.unchecked:
        say("  it is the first version, so devices take it with their next refresh, unchecked; --hold would wait")
    elif version.baseline:
        say("  it is the first version, so it is the baseline: devices take it with their next refresh")
    elif published.rollout is not None:
        say("  it is the first version, and reaches the devices of its card's rollout; the others have no version")
        say(f"Next: whimbrel rollout watch {published.rollout}")
    else:
        say(f"Next: whimbrel rollout plan new -m {version.model} -o plan.yaml; whimbrel rollout start plan.yaml")


def _tell_patches(patches: Patches) -> None:
    if patches.note is not None:
        say(f"  no patches: {patches.note}")
    told = [delta for delta in patches.deltas if delta.sha256 or delta.target_bytes >= _TOLD_FROM_BYTES]
    for delta in sorted(told, key=lambda each: (str(each.file), each.size_bytes)):
        origin = "whole, compressed" if delta.from_version == "nothing" else f"from {delta.from_version}"
        share = 100 * delta.size_bytes / max(1, delta.target_bytes)
        kept = "" if delta.sha256 else ", not kept: it saves too little"
        say(f"  {delta.file} {origin}: {size_of(delta.size_bytes)}, {share:.1f}% of the file{kept}")
        if delta.advice:
            say(f"    {delta.advice}")


def _by_source(published: Published, built_of: dict[str, Source]) -> dict[str, list[TriedModel]]:
    """How each source's model was tried: once for each probe, though several variants may be made of one file."""
    by_source: dict[str, list[TriedModel]] = {}
    for variant, models in published.tried.items():
        known = by_source.setdefault(built_of[variant].spec.name, [])
        known += [model for model in models if model not in known]
    return by_source


def _tell_source(source: Source, stored_before: set[str]) -> None:
    content = source.inspection
    shape = f", {content.precision}" * bool(content.precision)
    say(f"  {source.spec.name}: {source.file.name}, {content.format}{shape}, {_size(source.file, stored_before)}")
    for tensor in (*content.signature.inputs, *content.signature.outputs) if content.signature else ():
        dimensions = "x".join("?" if size is None else str(size) for size in tensor.shape)
        say(f"    {tensor.name}: {tensor.dtype} {dimensions}")
    for artifact in source.artifacts[1:][:_FILES_TOLD]:
        say(f"    with {artifact.file.name}, {_size(artifact.file, stored_before)}")
    if len(source.artifacts) > _FILES_TOLD + 1:
        say(f"    with {len(source.artifacts) - _FILES_TOLD - 1} files more")
    if source.links_to:
        say(f"    links were followed to {', '.join(source.links_to[:3])}")
    if content.too_old:
        say(f"    not for devices whose {content.too_old.key} is {', '.join(content.too_old.values)}")
    if content.note:
        say(f"    note: {content.note}")


def _size(file: File, stored_before: set[str]) -> str:
    held = " (the same bytes were stored before; stored once)" * (file.sha256 in stored_before)
    return f"{size_of(file.size_bytes)}{held}"
