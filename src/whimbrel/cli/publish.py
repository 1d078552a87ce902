"""`whimbrel publish`: files become a signed version. Everything that needs the publisher's key happens on this side.

Pack folders, read what the files say, fill in the identity, send the artifacts that are not stored yet, sign the
release document and the publisher's role, and hand both over. Where somebody was first the server refuses; nothing is
changed then, and the same command goes through again.
"""

import math
import re
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from whimbrel import limits
from whimbrel.agent.probes.formats import PROBES
from whimbrel.cli.connect import Client, connected, quoted
from whimbrel.cli.earlier_versions import EarlierVersions
from whimbrel.cli.first_rollout import begin_first_rollout, is_held
from whimbrel.cli.fit import tell_fit_of_variants
from whimbrel.cli.model_checks import Objections, TriedModel, check_files, try_models
from whimbrel.cli.options import ModelName
from whimbrel.cli.output import Json, print_json, waiting
from whimbrel.cli.publish_provenance import GivenProvenance, Provenance, provenance_of, with_provenance
from whimbrel.cli.publish_report import Patches, Published, tell_published
from whimbrel.cli.role_signers import check_next_serial, proven_roles, role_signers
from whimbrel.cli.sealing import Sealing, sealing_of
from whimbrel.cli.sources import Source, read_sources
from whimbrel.errors import Refused, Unavailable, UntrustedInput, reason_of
from whimbrel.flows.files.card import Card, CardProbe, CardReference, read_card
from whimbrel.flows.files.variant_spec import leave_out
from whimbrel.flows.publishing.check_golden import golden_objection
from whimbrel.flows.publishing.check_hardware import hardware_is_open, hardware_objection
from whimbrel.flows.publishing.publish import identify, write_release
from whimbrel.flows.version_fit import VersionFit
from whimbrel.model.documents import convert, encode, plain
from whimbrel.model.formats import BY_NAME, TITLES
from whimbrel.model.mistaken_files import HEAD_BYTES, is_pointer, mistaken_for_a_model
from whimbrel.model.release import Metric, Probe, Reference, Release, Variant, metric_of
from whimbrel.server.admin.views.versions import (
    DeltasView,
    ListedVersion,
    NewVersion,
    PublishedVersion,
    VersionView,
)
from whimbrel.stores.golden_file import read_golden
from whimbrel.stores.tuf_repository import publish_documents
from whimbrel.trust import roles

Hold = Annotated[
    bool, typer.Option("--hold", help="A first version waits: no device gets it before rollout start says so.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Read the files and say which devices could run them; publish nothing.")
]
VariantFor = Annotated[
    list[str] | None,
    typer.Option(help="What the nth model is for: platform=android,precision=int8,min_app_version=1.8.0. Repeat it."),
]
SemanticVersion = Annotated[str | None, typer.Option(help="As 2.4.1; otherwise the patch number is raised.")]
Unchecked = Annotated[
    bool, typer.Option("--unchecked", help="Publish it although it fails the checks; the release says which.")
]
InterfaceChange = Annotated[
    bool, typer.Option("--interface-change", help="Its inputs or outputs are meant to differ from the version before.")
]
Deltas = Annotated[
    bool,
    typer.Option("--deltas/--no-deltas", help="Make patches now and say what they save; or leave it to the server."),
]
DeltaFrom = Annotated[
    list[Path] | None,
    typer.Option(
        help="Of a sealed model: a file, or a folder, of an earlier version, to make patches from. Repeat it."
    ),
]
FollowLinks = Annotated[
    bool, typer.Option("--follow-links", help="Links in the model that lead out of its folder are meant.")
]
_WHOLE = re.compile(r"[+-]?[0-9]{1,300}")


@connected
@with_provenance
def publish(
    client: Client,
    files: Annotated[
        list[Path],
        typer.Argument(help=f"{TITLES}. A folder, or files that belong together, are one model with several files."),
    ],
    *,
    model: ModelName,
    variant: VariantFor = None,
    card: Annotated[
        Path | None, typer.Option(help="Model card: versions, training, metrics, compatibility, probe.")
    ] = None,
    semantic_version: SemanticVersion = None,
    version: Annotated[
        str | None, typer.Option(help="Calendar version as 2026.03.05.1; otherwise the next of today.")
    ] = None,
    metric: Annotated[list[str] | None, typer.Option(help="NAME=VALUE, as accuracy=0.91. Repeat it.")] = None,
    changelog: Annotated[list[str] | None, typer.Option(help="One line of the changelog. Repeat it.")] = None,
    hold: Hold = False,
    dry_run: DryRun = False,
    unchecked: Unchecked = False,
    interface_change: InterfaceChange = False,
    deltas: Deltas = True,
    delta_from: DeltaFrom = None,
    follow_links: FollowLinks = False,
    given: GivenProvenance,
    json: Json = False,
) -> None:
    """Publish a version: sign it, store it, and say what it is. Devices get it by a rollout.

    The first version of a model becomes its baseline, unless it is held or its card has a rollout for some devices:
    these get it then, and no others. A version never changes: publish again under a new number.
    Every model is tried first, as devices will try it. The same files and card again change nothing.
    The files of a sealed model (whimbrel model set --sealed) are encrypted here, and leave it in no other form.
    """
    described = _card(card, model)
    objections = Objections(passed_over=unchecked)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="whimbrel-")))
        sources = read_sources(files, variant or [], scratch, objections, follow_links=follow_links)
        described.check_variants([source.spec.name for source in sources])
        _check_files(described, sources)
        variants, built_of = _built(described, card, sources)
        if dry_run:
            tell_fit_of_variants(client, model, variants, json=json)
            return
        provenance = provenance_of(client, model, given, described.training, built_of, variants, scratch)
        sealing = sealing_of(client, model, scratch, delta_from=delta_from or [])
        published = _publish(
            client,
            _Draft(
                model=model,
                card=described,
                variants=variants,
                sources=sources,
                built_of=built_of,
                provenance=provenance,
                version=version or described.version,
                semantic_version=semantic_version or described.semantic_version,
                metrics=described.metrics | _metrics(metric or []),
                changelog=[*described.changes, *(changelog or [])],
                hold=hold,
                sealing=sealing,
            ),
            objections,
            interface_change=interface_change,
        )
    fit = client.get(f"models/{quoted(model)}/versions/{published.version.serial}/devices", as_=VersionFit)
    patches = None
    if published.sealed_patches is not None:
        patches = Patches(published.sealed_patches)
    elif deltas and not published.already and sealing is None:
        patches = _patches(client, model, published.version.version)
    if json:
        print_json(published.fields | {"fit": plain(fit)} | (patches.fields if patches else {}))
        return
    hardware_open = hardware_is_open(described.training.target_hardware, variants)
    tell_published(published, fit, patches, sources, built_of, hardware_open=hardware_open)


def _built(described: Card, card: Path | None, sources: list[Source]) -> tuple[list[Variant], dict[str, Source]]:
    """The variants, and what each was made of, by its name."""
    built_of: dict[str, Source] = {}
    variants: list[Variant] = []
    for source in sources:
        probe = _probe(described.probe_of(source.spec.name), card)
        _check_probe(probe, source)
        made = _variants(described, source, probe)
        variants += made
        built_of |= {each.name: source for each in made}
    return variants, built_of


class _Draft(msgspec.Struct, frozen=True, kw_only=True):
    """All that a publisher gave. `version`, `semantic_version`: None where the next number is to be taken.

    `built_of`: what a variant was made of, by its name.
    """

    model: str
    card: Card
    variants: list[Variant]
    sources: list[Source]
    built_of: dict[str, Source]
    provenance: Provenance
    version: str | None
    semantic_version: str | None
    metrics: dict[str, Metric]
    changelog: list[str]
    hold: bool
    sealing: Sealing | None = None

    def release(self, earlier: list[ListedVersion], *, now: datetime) -> Release:
        """The next release after the `earlier` versions. Raises `Refused` where it breaks the card's budgets."""
        identity = identify(
            earlier, variants=self.variants, version=self.version, semantic_version=self.semantic_version, now=now
        )
        release = write_release(
            self.model,
            identity,
            variants=self.variants,
            training=self.provenance.training,
            metrics=self.metrics,
            changelog=self.changelog,
            requires=self.card.requires,
            reference=_reference(self.card, self.sources, self.variants),
            local_limits=self.card.local_limits,
            model_signatures=self.provenance.signatures,
            now=now,
        )
        sizes = {source.spec.name: sum(each.file.size_bytes for each in source.artifacts) for source in self.sources}
        if broken := self.card.broken_budgets(sizes, dict(release.metrics)):
            raise Refused(f"the card's own budgets are not kept: {'; '.join(broken)}. Nothing was published")
        if wrong := hardware_objection(release.training.target_hardware, release.variants):
            raise Refused(f"{wrong}. Nothing was published")
        return release


def _publish(client: Client, draft: _Draft, objections: Objections, *, interface_change: bool) -> Published:
    model, now = draft.model, datetime.now(UTC)
    earlier = client.get(f"models/{quoted(model)}/versions", as_=list[ListedVersion])
    release = draft.release(earlier, now=now)
    before = EarlierVersions(client, model, earlier)
    same = before.same_as(
        release,
        version=draft.version,
        semantic_version=draft.semantic_version,
        sealed=draft.sealing is not None,
    )
    if same is not None:
        fields = {name: getattr(same, name) for name in VersionView.__struct_fields__}
        taken_back = "; ".join(f"from {each.devices}: {each.because}" for each in same.quarantined)
        return Published(PublishedVersion(**fields, baseline=False), already=True, taken_back=taken_back)
    before.check_taken_back(release)
    if not interface_change:
        before.check_interface(release)
    inspections = {name: source.inspection for name, source in draft.built_of.items()}
    check_files(release.variants, inspections, objections)
    places = {name: source.entry for name, source in draft.built_of.items()}
    tried = try_models(release.variants, places, inspections, objections)
    release = msgspec.structs.replace(release, unchecked=tuple(objections.sentences))
    return _send(client, release, draft, earlier, tried=tried, now=now)


def _send(
    client: Client,
    release: Release,
    draft: _Draft,
    earlier: list[ListedVersion],
    *,
    tried: dict[str, list[TriedModel]],
    now: datetime,
) -> Published:
    """Store what is not stored yet, sign, and hand over."""
    model = release.model
    proven, publisher = proven_roles(client), roles.publisher_role(model)
    signer, *others = role_signers(client, proven, publisher)
    check_next_serial(proven, release)
    stored, sent = [], []
    artifacts = {each.file.sha256: each.bytes_at for source in draft.sources for each in source.artifacts}
    sealed = draft.sealing.seal(release, artifacts, earlier) if draft.sealing is not None else None
    if sealed is not None:
        release, artifacts = sealed.release, sealed.artifacts
    artifacts |= draft.provenance.kept  # open, also of a sealed model: people ask for it, who have no key
    for sha256, bytes_at in artifacts.items():
        if client.has_artifact(sha256):
            stored.append(sha256)
            continue
        client.send_artifact(bytes_at, sha256)
        sent.append(sha256)
    document = encode(release)
    role = publish_documents(
        proven.role(publisher),
        {roles.release_path(model, release.serial): document},
        signer=signer,
        others=others,
        now=now,
    )
    held = is_held(draft.card.rollout, hold=draft.hold)
    parts = sealed.parts if sealed is not None else None
    body = NewVersion(release=document, publisher=role, hold=held, sealed=parts)
    accepted = client.send("POST", f"models/{quoted(model)}/versions", body, as_=PublishedVersion)
    proven.remember({publisher: role})
    twins = [v.version for v in earlier if v.build_hash == release.build_hash]
    signers = [each.signer for each in draft.provenance.signatures]
    rollout, begun = draft.card.rollout, None
    if rollout is not None and held and not draft.hold and not earlier:
        begun = begin_first_rollout(client, rollout, accepted).id
    return Published(
        accepted,
        stored,
        sent,
        twins,
        tried,
        release.unchecked,
        rollout=begun,
        sealed_patches=sealed.patches if sealed is not None else None,
        signers=signers,
        lies_open=sealed.lies_open if sealed is not None else [],
    )


def _patches(client: Client, model: str, version: str) -> Patches:
    """Have the patches made, and say what there is; a server that cannot make them is no failure of publishing."""
    try:
        with waiting("making patches from the versions that devices have"):
            client.send("POST", f"models/{model}/deltas", wait_s=limits.DELTA_BUILD_S)
        return Patches(client.get(f"models/{model}/versions/{version}/deltas", as_=DeltasView).deltas)
    except Unavailable as error:
        return Patches([], note=str(error))


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
        raise UntrustedInput(f"the card {path} cannot be read: {reason_of(error)}") from error
    except UnicodeDecodeError as error:
        raise UntrustedInput(f"the card {path} cannot be read: {reason_of(error)}") from error
    if is_pointer(head := text[:HEAD_BYTES].encode()):
        raise UntrustedInput(f"the card {path} {mistaken_for_a_model(head)}")
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
