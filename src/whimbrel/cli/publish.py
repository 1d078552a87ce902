"""`whimbrel publish`: files become a signed version. Everything that needs the publisher's key happens on this side.

Pack folders, read what the files say, fill in the identity, send the artifacts that are not stored yet, sign the
release document and the publisher's role, and hand both over. Where somebody was first the server refuses; nothing is
changed then, and the same command goes through again.
"""

import math
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from whimbrel import limits
from whimbrel.agent.probes.formats import PROBES
from whimbrel.cli.connect import Client, connected, quoted
from whimbrel.cli.first_rollout import begin_first_rollout, is_held
from whimbrel.cli.fit import tell_fit_of_variants, tell_fit_shortly
from whimbrel.cli.options import ModelName
from whimbrel.cli.output import Json, print_json, say, size_of, waiting
from whimbrel.cli.sources import Source, read_sources
from whimbrel.errors import Refused, Unavailable, UntrustedInput
from whimbrel.flows.files.card import Card, CardProbe, CardReference, read_card
from whimbrel.flows.files.variant_spec import leave_out
from whimbrel.flows.publishing.check_golden import golden_objection
from whimbrel.flows.publishing.publish import identify, write_release
from whimbrel.flows.version_fit import VersionFit
from whimbrel.model.documents import convert, encode, plain
from whimbrel.model.formats import BY_NAME, TITLES
from whimbrel.model.release import File, Probe, Reference, Variant
from whimbrel.server.admin.views.versions import DeltasView, DeltaView, ListedVersion, NewVersion, PublishedVersion
from whimbrel.stores.golden_file import read_golden
from whimbrel.stores.signer import load_signer
from whimbrel.stores.tuf_repository import publish_documents
from whimbrel.trust import roles

_FILES_TOLD = 20  # further files of a build that are listed by name
_TOLD_FROM_BYTES = 4 * limits.KIB  # no patch of a smaller file pays, and nobody needs to hear it of each


class _Published(msgspec.Struct, frozen=True):
    """A version that the server accepted: the artifacts that were there and were sent, and earlier equal builds.

    `rollout`: of the first version, that began by its card.
    """

    version: PublishedVersion
    stored_before: list[str]
    sent: list[str]
    same_files_as: list[str]
    rollout: str | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """What --json prints of it."""
        return plain(self.version) | {
            "artifacts_stored_before": self.stored_before,
            "artifacts_sent": self.sent,
            "same_files_as": self.same_files_as,
            "rollout": self.rollout,
        }


class _Patches(msgspec.Struct, frozen=True):
    """The patches to a version. `note`: why the server makes none."""

    deltas: list[DeltaView]
    note: str | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """What --json prints of them."""
        return {"deltas": self.deltas} | ({} if self.note is None else {"deltas_note": self.note})


@connected
def publish(
    client: Client,
    files: Annotated[
        list[Path],
        typer.Argument(help=f"{TITLES}. A folder, or files that belong together, are one model with several files."),
    ],
    model: ModelName,
    variant: Annotated[
        list[str] | None,
        typer.Option(
            help="What the nth model is for: platform=android,precision=int8,min_app_version=1.8.0. Repeat it."
        ),
    ] = None,
    card: Annotated[
        Path | None, typer.Option(help="Model card: versions, training, metrics, compatibility, probe.")
    ] = None,
    semantic_version: Annotated[
        str | None, typer.Option(help="As 2.4.1; otherwise the patch number is raised.")
    ] = None,
    version: Annotated[
        str | None, typer.Option(help="Calendar version as 2026.03.05.1; otherwise the next of today.")
    ] = None,
    metric: Annotated[list[str] | None, typer.Option(help="NAME=VALUE, as accuracy=0.91. Repeat it.")] = None,
    changelog: Annotated[list[str] | None, typer.Option(help="One line of the changelog. Repeat it.")] = None,
    hold: Annotated[
        bool, typer.Option("--hold", help="A first version waits: no device gets it before rollout start says so.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read the files and say which devices could run them; publish nothing.")
    ] = False,
    deltas: Annotated[
        bool,
        typer.Option(
            "--deltas/--no-deltas", help="Make patches now and say what they save; or leave it to the server."
        ),
    ] = True,
    json: Json = False,
) -> None:
    """Publish a version: sign it, store it, and say what it is. Devices get it by a rollout.

    The first version of a model becomes its baseline, unless it is held or its card has a rollout for some devices:
    these get it then, and no others. A version never changes: publish again under a new number.
    """
    described = _card(card, model)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="whimbrel-")))
        sources = read_sources(files, variant or [], scratch)
        described.check_variants([source.spec.name for source in sources])
        _check_files(described, sources)
        probes = [_probe(described.probe_of(source.spec.name), card) for source in sources]
        for source, probe in zip(sources, probes, strict=True):
            _check_probe(probe, source)
        variants = [
            made for source, probe in zip(sources, probes, strict=True) for made in _variants(described, source, probe)
        ]
        if dry_run:
            tell_fit_of_variants(client, model, variants, json=json)
            return
        published = _publish(
            client,
            model,
            described,
            variants,
            sources,
            semantic_version=semantic_version,
            version=version,
            metric=metric or [],
            changelog=changelog or [],
            hold=hold,
        )
    fit = client.get(f"models/{quoted(model)}/versions/{published.version.serial}/devices", as_=VersionFit)
    patches = _patches(client, model, published.version.version) if deltas else None
    if json:
        print_json(published.fields | {"fit": plain(fit)} | (patches.fields if patches else {}))
        return
    _tell(published, fit, patches, sources)


def _publish(
    client: Client,
    model: str,
    card: Card,
    variants: list[Variant],
    sources: list[Source],
    *,
    semantic_version: str | None,
    version: str | None,
    metric: list[str],
    changelog: list[str],
    hold: bool,
) -> _Published:
    now = datetime.now(UTC)
    earlier = client.get(f"models/{quoted(model)}/versions", as_=list[ListedVersion])
    identity = identify(
        earlier,
        variants=variants,
        version=version or card.version,
        semantic_version=semantic_version or card.semantic_version,
        now=now,
    )
    if card.build_hash is not None and card.build_hash != identity.build_hash:
        raise Refused(f"the card says build {card.build_hash}, and these files are build {identity.build_hash}")
    release = write_release(
        model,
        identity,
        variants=variants,
        training=card.training,
        metrics=card.metrics | _metrics(metric),
        changelog=[*card.changes, *changelog],
        requires=card.requires,
        reference=_reference(card, sources, variants),
        now=now,
    )
    sizes = {source.spec.name: sum(each.file.size_bytes for each in source.artifacts) for source in sources}
    broken = card.broken_budgets(sizes, dict(release.metrics))
    if broken:
        raise Refused(f"the card's own budgets are not kept: {'; '.join(broken)}. Nothing was published")
    stored, sent = [], []
    artifacts = {each.file.sha256: each.bytes_at for source in sources for each in source.artifacts}
    for sha256, bytes_at in artifacts.items():
        if client.has_artifact(sha256):
            stored.append(sha256)
            continue
        client.send_artifact(bytes_at, sha256)
        sent.append(sha256)
    signer = load_signer(client.keys() / f"{roles.publisher_role(model)}.pem")
    document = encode(release)
    role = publish_documents(
        client.get_bytes(f"roles/{roles.publisher_role(model)}"),
        {roles.release_path(model, release.serial): document},
        signer=signer,
        now=now,
    )
    held = is_held(card.rollout, hold=hold)
    body = NewVersion(release=document, publisher=role, hold=held)
    accepted = client.send("POST", f"models/{quoted(model)}/versions", body, as_=PublishedVersion)
    twins = [v.version for v in earlier if v.build_hash == release.build_hash]
    begun = None
    if card.rollout is not None and held and not hold and not earlier:
        begun = begin_first_rollout(client, card.rollout, accepted).id
    return _Published(accepted, stored, sent, twins, begun)


def _patches(client: Client, model: str, version: str) -> _Patches:
    """Have the patches made, and say what there is; a server that cannot make them is no failure of publishing."""
    try:
        with waiting("making patches from the versions that devices have"):
            client.send("POST", f"models/{model}/deltas", wait_s=limits.DELTA_BUILD_S)
        return _Patches(client.get(f"models/{model}/versions/{version}/deltas", as_=DeltasView).deltas)
    except Unavailable as error:
        return _Patches([], note=str(error))


def _tell_patches(patches: _Patches) -> None:
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


def _tell(published: _Published, fit: VersionFit, patches: _Patches | None, sources: list[Source]) -> None:
    version = published.version
    say(
        f"published {version.model} {version.version} ({version.semantic_version}), serial {version.serial}, "
        f"build {version.build_hash}"
    )
    for source in sources:
        _tell_source(source, set(published.stored_before))
    tell_fit_shortly(fit)
    if patches is not None:
        _tell_patches(patches)
    if published.same_files_as:
        say(f"  note: these are the same files as {', '.join(published.same_files_as)}")
    if version.baseline:
        say("  it is the first version, so it is the baseline: devices take it with their next refresh")
    elif published.rollout is not None:
        say("  it is the first version, and reaches the devices of its card's rollout; the others have no version")
        say(f"Next: whimbrel rollout watch {published.rollout}")
    else:
        say("Next: whimbrel rollout start plan.yaml")


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


def _variants(card: Card, source: Source, probe: Probe | None) -> list[Variant]:
    made = []
    for meant in card.restricted(source.spec):
        spec = leave_out(meant, source.inspection.too_old)
        body = {
            "name": spec.name,
            "files": [msgspec.to_builtins(each.file) for each in source.artifacts],
            "selector": msgspec.to_builtins(spec.selector),
            "runtime": spec.runtime,
            "precision": spec.precision or source.inspection.precision,
            "signature": msgspec.to_builtins(source.inspection.signature),
            "probe": msgspec.to_builtins(probe),
        }
        made.append(convert(Variant, body, what=f"variant {spec.name}"))
    return made


def _card(path: Path | None, model: str) -> Card:
    if path is None:
        return Card()
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UntrustedInput(f"the card {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UntrustedInput(f"the card {path} is not UTF-8 text: {error}") from error
    card = read_card(text, what=path.name)
    if card.model_id is not None and card.model_id != model:
        raise UntrustedInput(f"{path.name} is the card of {card.model_id!r}; you are publishing {model!r}")
    return card


def _check_probe(probe: Probe | None, source: Source) -> None:
    signature = source.inspection.signature
    if probe and signature and (wrong := golden_objection(probe, signature)):
        raise UntrustedInput(f"{source.file.name}: {wrong}; nothing was published")


def _check_files(card: Card, sources: list[Source]) -> None:
    listed = {file.name: file for file in card.files}
    for file in (artifact.file for source in sources for artifact in source.artifacts):
        on_card = listed.get(file.name)
        if on_card and (wrong := on_card.differs(size_bytes=file.size_bytes, sha256=file.sha256)):
            raise UntrustedInput(f"{wrong}; nothing was published")


def _probe(described: CardProbe | None, card: Path | None) -> Probe | None:
    if described is None:
        return None
    if described.golden is None or card is None:
        return described.probe()
    return described.probe(read_golden(card.parent / described.golden))


def _reference(card: Card, sources: list[Source], variants: list[Variant]) -> Reference | None:
    """What the card says, or what the model itself predicts for the validation samples of its probe."""
    if card.reference is None or isinstance(card.reference, CardReference):
        return card.reference.reference() if card.reference else None
    validations = {v.files: v.probe.validation for v in variants if v.probe and v.probe.validation}
    runnable = [
        (source, validation)
        for source in sources
        if PROBES[source.file.format].counts_classes and not source.file.packed
        if (validation := validations.get(tuple(each.file for each in source.artifacts))) is not None
    ]
    if not runnable:
        titles = " or ".join(BY_NAME[kind].title for kind, probe in PROBES.items() if probe.counts_classes)
        raise UntrustedInput(
            f"reference: validation: only an {titles} model with validation samples is run here; give the classes "
            "and their shares instead"
        )
    try:
        from whimbrel.agent.probes.reference import reference_of

        source, validation = runnable[0]
        return reference_of(source.entry, source.file.format, validation)
    except ModuleNotFoundError as error:
        raise Unavailable(f"the model cannot be run here: {error.name} is not installed") from error


def _metrics(given: list[str]) -> dict[str, float]:
    metrics = {}
    for each in given:
        name, equals, value = each.partition("=")
        try:
            metrics[name] = float(value)
        except ValueError:
            equals = ""
        if not equals or not math.isfinite(metrics[name]):
            raise UntrustedInput(f"--metric {each!r} is not understood; expected NAME=VALUE, as accuracy=0.91")
    return metrics
