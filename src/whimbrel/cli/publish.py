"""`whimbrel publish`: files become a signed version. Everything that needs the publisher's key happens on this side.

Pack folders, read what the files say, fill in the identity, send the artifacts that are not stored yet, sign the
release document and the publisher's role, and hand both over. Where somebody was first the server refuses; nothing is
changed then, and the same command goes through again.
"""

import hashlib
import math
import re
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
from whimbrel.cli.earlier_versions import EarlierVersions
from whimbrel.cli.model_checks import Objections, TriedModel, check_files, inspect_model, try_models
from whimbrel.cli.output import Json, print_json, progress_bar, say, size_of, waiting
from whimbrel.errors import Refused, Unavailable, UntrustedInput
from whimbrel.flows.files.card import Card, CardProbe, CardReference, read_card
from whimbrel.flows.files.variant_spec import VariantSpec, leave_out, parse_variant
from whimbrel.flows.publishing.check_golden import golden_objection
from whimbrel.flows.publishing.check_hardware import hardware_is_open, hardware_objection
from whimbrel.flows.publishing.publish import identify, write_release
from whimbrel.model.documents import convert, encode, plain
from whimbrel.model.formats import BY_NAME, TITLES
from whimbrel.model.mistaken_files import HEAD_BYTES, is_pointer, mistaken_for_a_model
from whimbrel.model.release import File, Metric, Probe, Reference, Release, Variant, metric_of
from whimbrel.packing import pack
from whimbrel.server.admin.views.versions import (
    DeltasView,
    DeltaView,
    ListedVersion,
    NewVersion,
    PublishedVersion,
    VersionView,
)
from whimbrel.stores.golden_file import read_golden
from whimbrel.stores.inspection import Inspection
from whimbrel.stores.signer import load_signer
from whimbrel.stores.tuf_repository import publish_documents
from whimbrel.trust import roles

_WHOLE = re.compile(r"[+-]?[0-9]{1,300}")


class _Source(msgspec.Struct, frozen=True):
    """One file to publish: where its bytes are, what it is, and for whom."""

    file: File
    path: Path
    bytes_at: Path
    inspection: Inspection
    spec: VariantSpec


class _Published(msgspec.Struct, frozen=True):
    """A version that the server accepted: the artifacts that were there and were sent, and earlier equal builds.

    `tried`: by variant. `unchecked`: objections that were passed over. `already`: it had been published before.
    """

    version: PublishedVersion
    stored_before: list[str] = []
    sent: list[str] = []
    same_files_as: list[str] = []
    tried: dict[str, list[TriedModel]] = {}
    unchecked: tuple[str, ...] = ()
    already: bool = False

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
    files: Annotated[list[Path], typer.Argument(help=f"{TITLES}.")],
    model: Annotated[str, typer.Option("--model", "-m", help="The model's name.")],
    variant: Annotated[
        list[str] | None,
        typer.Option(
            help="What the nth file is for: platform=android,precision=int8,min_app_version=1.8.0. Repeat it."
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
    unchecked: Annotated[
        bool,
        typer.Option("--unchecked", help="Publish it although it fails the checks; the release says which."),
    ] = False,
    interface_change: Annotated[
        bool,
        typer.Option("--interface-change", help="Its inputs or outputs are meant to differ from the version before."),
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

    The first version of a model becomes its baseline. A version never changes: publish again under a new number.
    Every model is tried first, as devices will try it. The same files and card again change nothing.
    """
    described = _card(card, model)
    objections = Objections(passed_over=unchecked)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="whimbrel-")))
        sources = [
            _source(path, spec, scratch / str(index), objections)
            for index, (path, spec) in enumerate(zip(files, _specs(files, variant or []), strict=True))
        ]
        _check_files(described, sources)
        probe = _probe(described.probe, card)
        _check_probe(probe, sources)
        variants = _variants(described, sources, probe)
        by_digest = {source.file.sha256: source for source in sources}
        built_of = {variant.name: by_digest[variant.files[0].sha256] for variant in variants}
        published = _publish(
            client,
            _Draft(
                model=model,
                card=described,
                variants=variants,
                sources=sources,
                built_of=built_of,
                version=version or described.version,
                semantic_version=semantic_version or described.semantic_version,
                metrics=described.metrics | _metrics(metric or []),
                changelog=[*described.changes, *(changelog or [])],
            ),
            objections,
            interface_change=interface_change,
        )
    patches = _patches(client, model, published.version.version) if deltas and not published.already else None
    if json:
        print_json(published.fields | (patches.fields if patches else {}))
        return
    tried = _by_source(published, built_of)
    hardware_open = hardware_is_open(described.training.target_hardware, variants)
    _tell(published, patches, sources, tried, hardware_open=hardware_open)


class _Draft(msgspec.Struct, frozen=True, kw_only=True):
    """All that a publisher gave. `version`, `semantic_version`: None where the next number is to be taken.

    `built_of`: what a variant was made of, by its name.
    """

    model: str
    card: Card
    variants: list[Variant]
    sources: list[_Source]
    built_of: dict[str, _Source]
    version: str | None
    semantic_version: str | None
    metrics: dict[str, Metric]
    changelog: list[str]

    def release(self, earlier: list[ListedVersion], *, now: datetime) -> Release:
        """The next release after the `earlier` versions. Raises `Refused` where it breaks the card's budgets."""
        identity = identify(
            earlier, variants=self.variants, version=self.version, semantic_version=self.semantic_version, now=now
        )
        release = write_release(
            self.model,
            identity,
            variants=self.variants,
            training=self.card.training,
            metrics=self.metrics,
            changelog=self.changelog,
            requires=self.card.requires,
            reference=_reference(self.card, self.variants, self.sources),
            now=now,
        )
        size = max(each.size_bytes for each in release.variants)
        if broken := self.card.budgets.broken(size_bytes=size, metrics=dict(release.metrics)):
            raise Refused(f"the card's own budgets are not kept: {'; '.join(broken)}. Nothing was published")
        if wrong := hardware_objection(release.training.target_hardware, release.variants):
            raise Refused(f"{wrong}. Nothing was published")
        return release


def _publish(client: Client, draft: _Draft, objections: Objections, *, interface_change: bool) -> _Published:
    model, now = draft.model, datetime.now(UTC)
    earlier = client.get(f"models/{quoted(model)}/versions", as_=list[ListedVersion])
    release = draft.release(earlier, now=now)
    before = EarlierVersions(client, model, earlier)
    same = before.same_as(release, version=draft.version, semantic_version=draft.semantic_version)
    if same is not None:
        fields = {name: getattr(same, name) for name in VersionView.__struct_fields__}
        return _Published(PublishedVersion(**fields, baseline=False), already=True)
    if not interface_change:
        before.check_interface(release)
    inspections = {name: source.inspection for name, source in draft.built_of.items()}
    check_files(release.variants, inspections, objections)
    places = {name: source.path for name, source in draft.built_of.items()}
    tried = try_models(release.variants, places, inspections, objections)
    release = msgspec.structs.replace(release, unchecked=tuple(objections.sentences))
    return _send(client, release, draft.sources, earlier, tried=tried, now=now)


def _send(
    client: Client,
    release: Release,
    sources: list[_Source],
    earlier: list[ListedVersion],
    *,
    tried: dict[str, list[TriedModel]],
    now: datetime,
) -> _Published:
    """Store what is not stored yet, sign, and hand over."""
    model = release.model
    signer = load_signer(client.keys() / f"{roles.publisher_role(model)}.pem")
    stored, sent = [], []
    for source in sources:
        if client.has_artifact(source.file.sha256):
            stored.append(source.file.sha256)
            continue
        client.send_artifact(source.bytes_at, source.file.sha256)
        sent.append(source.file.sha256)
    document = encode(release)
    role = publish_documents(
        client.get_bytes(f"roles/{roles.publisher_role(model)}"),
        {roles.release_path(model, release.serial): document},
        signer=signer,
        now=now,
    )
    body = NewVersion(release=document, publisher=role)
    accepted = client.send("POST", f"models/{quoted(model)}/versions", body, as_=PublishedVersion)
    twins = [v.version for v in earlier if v.build_hash == release.build_hash]
    return _Published(accepted, stored, sent, twins, tried, release.unchecked)


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
    for delta in sorted(patches.deltas, key=lambda each: (str(each.file), each.size_bytes)):
        origin = "whole, compressed" if delta.from_version == "nothing" else f"from {delta.from_version}"
        share = 100 * delta.size_bytes / max(1, delta.target_bytes)
        kept = "" if delta.sha256 else ", not kept: it saves too little"
        say(f"  {delta.file} {origin}: {size_of(delta.size_bytes)}, {share:.1f}% of the file{kept}")
        if delta.advice:
            say(f"    {delta.advice}")


def _tell(
    published: _Published,
    patches: _Patches | None,
    sources: list[_Source],
    tried: dict[str, list[TriedModel]],
    *,
    hardware_open: bool,
) -> None:
    version = published.version
    if published.already:
        say(
            f"already published: {version.model} {version.version} ({version.semantic_version}), serial "
            f"{version.serial}, build {version.build_hash}; these files and this card change nothing"
        )
        return
    say(
        f"published {version.model} {version.version} ({version.semantic_version}), serial {version.serial}, "
        f"build {version.build_hash}"
    )
    for source in sources:
        held = " (the same bytes were stored before; stored once)" * (source.file.sha256 in published.stored_before)
        content = source.inspection
        shape = f", {content.precision}" * bool(content.precision)
        size = size_of(source.file.size_bytes)
        say(f"  {source.spec.name}: {source.file.name}, {content.format}{shape}, {size}{held}")
        for tensor in (*content.signature.inputs, *content.signature.outputs) if content.signature else ():
            dimensions = "x".join("?" if size is None else str(size) for size in tensor.shape)
            say(f"    {tensor.name}: {tensor.dtype} {dimensions}")
        if content.too_old:
            say(f"    not for devices whose {content.too_old.key} is {', '.join(content.too_old.values)}")
        if content.note:
            say(f"    note: {content.note}")
        for model in tried.get(source.spec.name, []):
            say(f"    {model}")
    for objection in published.unchecked:
        say(f"  UNCHECKED: {objection}")
    if hardware_open:
        say("  note: target_hardware chooses no devices; --variant hardware=NAME does, by their label")
    if patches is not None:
        _tell_patches(patches)
    if published.same_files_as:
        say(f"  note: these are the same files as {', '.join(published.same_files_as)}")
    if version.baseline:
        say("  it is the first version, so it is the baseline: devices take it with their next refresh")
    else:
        say("Next: whimbrel rollout start plan.yaml")


def _by_source(published: _Published, built_of: dict[str, _Source]) -> dict[str, list[TriedModel]]:
    """How each source's model was tried: once for each probe, though several variants may be made of one file."""
    by_source: dict[str, list[TriedModel]] = {}
    for variant, models in published.tried.items():
        known = by_source.setdefault(built_of[variant].spec.name, [])
        known += [model for model in models if model not in known]
    return by_source


def _source(path: Path, spec: VariantSpec, scratch: Path, objections: Objections) -> _Source:
    if path.is_symlink() and not path.exists():
        raise UntrustedInput(f"{path} is a link to {path.readlink()}, which is not here; fetch that file first")
    if not path.exists():
        raise UntrustedInput(f"there is no file {path}; name a model file or a Core ML package folder")
    inspection = inspect_model(path, objections)
    bytes_at = path
    if path.is_dir():
        bytes_at = scratch.with_suffix(".tar")
        pack(path, bytes_at)
    size = bytes_at.stat().st_size
    if size > limits.ARTIFACT_BYTES:
        raise UntrustedInput(f"{path} has {size} bytes; an artifact has at most {limits.ARTIFACT_BYTES}")
    file = convert(
        File,
        {
            "name": path.resolve().name,
            "size_bytes": size,
            "sha256": _digest(bytes_at, size),
            "format": inspection.format,
            "packed": path.is_dir(),
        },
        what=f"the file {path.name!r}",
    )
    return _Source(file, path, bytes_at, inspection, spec)


def _digest(path: Path, size: int) -> str:
    digest = hashlib.sha256()
    with progress_bar(f"hashing {path.name}", total=size) as advance, path.open("rb") as file:
        while chunk := file.read(limits.COPY_CHUNK_BYTES):
            digest.update(chunk)
            advance(len(chunk))
    return digest.hexdigest()


def _specs(files: list[Path], given: list[str]) -> list[VariantSpec]:
    """The nth --variant is about the nth file; the last file may go without, as the fallback."""
    if len(given) > len(files):
        raise UntrustedInput(f"{len(given)} --variant for {len(files)} files; give one for each file, in their order")
    if len(given) < len(files) - 1:
        raise UntrustedInput(
            f"{len(files)} files and {len(given)} --variant: give one for each file (the last may go without, as the "
            "fallback), so that a device knows which is its own"
        )
    return [parse_variant(text) for text in given] + [parse_variant("") for _ in files[len(given) :]]


def _variants(card: Card, sources: list[_Source], probe: Probe | None) -> list[Variant]:
    made = []
    for source in sources:
        for meant in card.variants(source.spec):
            spec = leave_out(meant, source.inspection.too_old)
            body = {
                "name": spec.name,
                "files": [msgspec.to_builtins(source.file)],
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
    if is_pointer(head := text[:HEAD_BYTES].encode()):
        raise UntrustedInput(f"the card {path} {mistaken_for_a_model(head)}")
    card = read_card(text, what=path.name)
    if card.model_id is not None and card.model_id != model:
        raise UntrustedInput(f"{path.name} is the card of {card.model_id!r}; you are publishing {model!r}")
    return card


def _check_probe(probe: Probe | None, sources: list[_Source]) -> None:
    for source in sources:
        signature = source.inspection.signature
        if probe and signature and (wrong := golden_objection(probe, signature)):
            raise UntrustedInput(f"{source.file.name}: {wrong}; nothing was published")


def _check_files(card: Card, sources: list[_Source]) -> None:
    listed = {file.name: file for file in card.files}
    for source in sources:
        on_card = listed.get(source.file.name)
        if on_card and (wrong := on_card.differs(size_bytes=source.file.size_bytes, sha256=source.file.sha256)):
            raise UntrustedInput(f"{wrong}; nothing was published")


def _probe(described: CardProbe | None, card: Path | None) -> Probe | None:
    if described is None:
        return None
    if described.golden is None or card is None:
        return described.probe()
    return described.probe(read_golden(card.parent / described.golden))


def _reference(card: Card, variants: list[Variant], sources: list[_Source]) -> Reference | None:
    """What the card says, or what the model itself predicts for the validation samples of its probe."""
    if card.reference is None or isinstance(card.reference, CardReference):
        return card.reference.reference() if card.reference else None
    validation = next((v.probe.validation for v in variants if v.probe and v.probe.validation), None)
    runnable = [each for each in sources if PROBES[each.file.format].counts_classes and not each.file.packed]
    if validation is None or not runnable:
        titles = " or ".join(BY_NAME[kind].title for kind, probe in PROBES.items() if probe.counts_classes)
        raise UntrustedInput(
            f"reference: validation: only an {titles} model with validation samples is run here; give the classes "
            "and their shares instead"
        )
    try:
        from whimbrel.agent.probes.reference import reference_of

        return reference_of(runnable[0].bytes_at, runnable[0].file.format, validation)
    except ModuleNotFoundError as error:
        raise Unavailable(f"the model cannot be run here: {error.name} is not installed") from error


def _metrics(given: list[str]) -> dict[str, Metric]:
    metrics: dict[str, Metric] = {}
    for each in given:
        name, equals, value = each.partition("=")
        try:
            metrics[name] = metric_of(int(value) if _WHOLE.fullmatch(value) else float(value))
        except (ValueError, OverflowError):
            equals = ""
        if not equals or not math.isfinite(metrics[name]):
            raise UntrustedInput(f"--metric {each!r} is not understood; expected NAME=VALUE, as accuracy=0.91")
    return metrics
