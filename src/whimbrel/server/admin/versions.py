"""The admin API's routes for versions: publications, the line of those that may run, and the patches between them."""

import msgspec
from litestar import get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from litestar.status_codes import HTTP_200_OK, HTTP_201_CREATED, HTTP_204_NO_CONTENT

from whimbrel import limits
from whimbrel.flows.accounts.permissions import Caller, Permission
from whimbrel.flows.audit import audit
from whimbrel.flows.devices.release_key import entitled_recipient
from whimbrel.flows.publishing.accept_version import SealedRecord, accept_version
from whimbrel.flows.publishing.retire import retire
from whimbrel.flows.publishing.set_line import line_of, set_line
from whimbrel.flows.rollouts.lift_quarantine import lift_quarantine
from whimbrel.flows.version_fit import VariantsToFit, VersionFit, fit_of, fit_of_version
from whimbrel.flows.versions import find_named_version
from whimbrel.flows.wording import selector_words
from whimbrel.model.documents import parse
from whimbrel.model.release import Line, Release
from whimbrel.model.ways import NOTHING
from whimbrel.server.admin.operations import Operations
from whimbrel.server.admin.views.reason import Reason
from whimbrel.server.admin.views.versions import (
    DeltasView,
    DeltaView,
    ListedVersion,
    NewKeyHandout,
    NewLine,
    NewVersion,
    PublishedVersion,
    QuarantineView,
    SealedParts,
    VersionDetail,
    VersionView,
)
from whimbrel.server.model_signatures import check_signed
from whimbrel.stores.transaction import Stores
from whimbrel.trust.sealing import BundledKeys, SealedReleaseKey, seal_key


@get("/models/{model:str}/versions", permission=Permission.READ, summary="Versions in order")
async def list_versions(
    operations: NamedDependency[Operations], namespace: FromPath[str], model: FromPath[str]
) -> list[ListedVersion]:
    """A model's versions, by serial."""
    return await operations.do(namespace, lambda stores: listed_versions(stores, model))


@get(
    "/models/{model:str}/versions/{version:str}",
    permission=Permission.READ,
    summary="One version, with its release document",
)
async def show_version(
    operations: NamedDependency[Operations], namespace: FromPath[str], model: FromPath[str], version: FromPath[str]
) -> VersionDetail:
    """One version, by its alias, serial, calendar or semantic version."""
    return await operations.do(namespace, lambda stores: version_detail(stores, model, name=version))


@get(
    "/models/{model:str}/versions/{version:str}/devices",
    permission=Permission.READ,
    summary="Which devices can run it, and why others cannot",
)
async def show_fit(
    operations: NamedDependency[Operations], namespace: FromPath[str], model: FromPath[str], version: FromPath[str]
) -> VersionFit:
    """How many devices of the model's fleet take each variant of a version."""

    def work(stores: Stores) -> VersionFit:
        serial = find_named_version(stores.registry, model, name=version).serial
        return fit_of_version(stores.registry, stores.fleet, model, serial)

    return await operations.do(namespace, work)


@post(
    "/models/{model:str}/fit",
    permission=Permission.READ,
    status_code=HTTP_200_OK,
    summary="The same, before a version is published",
    request_max_body_size=limits.ADMIN_FILE_BYTES,
)
async def fit_variants(
    operations: NamedDependency[Operations],
    namespace: FromPath[str],
    model: FromPath[str],
    data: JSONBody[VariantsToFit],
) -> VersionFit:
    """How many devices of the model's fleet would take each of some variants."""
    return await operations.do(
        namespace, lambda stores: fit_of(stores.fleet, stores.registry.model(model), data.variants)
    )


@post(
    "/models/{model:str}/versions",
    permission=Permission.PUBLISH,
    status_code=HTTP_201_CREATED,
    summary="Publish (signed by the publisher)",
    request_max_body_size=limits.ADMIN_DOCUMENT_BYTES,
)
async def publish_version(
    operations: NamedDependency[Operations],
    caller: NamedDependency[Caller],
    namespace: FromPath[str],
    model: FromPath[str],
    data: JSONBody[NewVersion],
) -> PublishedVersion:
    """Publish a version."""
    release = parse(Release, data.release, what="the release")
    signer = await operations.do(namespace, lambda stores: stores.registry.model(model).settings.model_signer)
    if signer is not None:
        await check_signed(operations.context.blobs, namespace, release, signer, now=operations.now())

    def publish(stores: Stores) -> PublishedVersion:
        accepted = accept_version(
            stores.registry,
            stores.roles,
            model,
            release=data.release,
            publisher=data.publisher,
            signed_by=signer,
            sealed=_sealed_parts(operations, stores, data.sealed, model=model, release=data.release),
            hold=data.hold or not caller.may(Permission.RELEASE),  # a first version is everybody's at once
            actor=caller.account,
            now=operations.now(),
            sealed_versions=stores.sealed,
        )
        # Again, behind the lock of its row: the sealing key may have been replaced since.
        _sealed_parts(operations, stores, data.sealed, model=model, release=data.release)
        return PublishedVersion(**msgspec.structs.asdict(accepted.version), baseline=accepted.baseline)

    return await operations.change(namespace, publish)


@post(
    "/models/{model:str}/versions/{version:str}/retire",
    permission=Permission.RELEASE,
    status_code=HTTP_200_OK,
    summary="Offer it no more",
)
async def retire_version(
    operations: NamedDependency[Operations],
    caller: NamedDependency[Caller],
    *,
    namespace: FromPath[str],
    model: FromPath[str],
    version: FromPath[str],
    data: JSONBody[Reason],
) -> VersionView:
    """Offer a version no more."""

    def change(stores: Stores) -> VersionView:
        record = retire(
            stores.registry,
            stores.experiments,
            model,
            name=version,
            because=data.because,
            actor=caller.account,
            now=operations.now(),
        )
        return VersionView(**msgspec.structs.asdict(record))

    return await operations.change(namespace, change)


@post(
    "/models/{model:str}/versions/{version:str}/unquarantine",
    permission=Permission.RELEASE,
    status_code=HTTP_200_OK,
    summary="Let devices run it again that was taken back",
)
async def unquarantine_version(
    operations: NamedDependency[Operations],
    caller: NamedDependency[Caller],
    *,
    namespace: FromPath[str],
    model: FromPath[str],
    version: FromPath[str],
    data: JSONBody[Reason],
) -> VersionView:
    """Lift the quarantine of a version."""

    def change(stores: Stores) -> VersionView:
        record = find_named_version(stores.registry, model, name=version)
        lift_quarantine(stores.registry, record, because=data.because, actor=caller.account, now=operations.now())
        return VersionView(**msgspec.structs.asdict(record))

    return await operations.change(namespace, change)


@get("/models/{model:str}/line", permission=Permission.READ, summary="Which serials may run")
async def show_line(operations: NamedDependency[Operations], namespace: FromPath[str], model: FromPath[str]) -> Line:
    """The line of a model, as its publisher signed it last."""
    return await operations.do(namespace, lambda stores: line_of(stores.registry, stores.roles, model))


@put(
    "/models/{model:str}/line",
    permission=Permission.REVOKE,
    status_code=HTTP_200_OK,
    summary="Revoke versions or raise the floor (signed)",
    request_max_body_size=limits.ADMIN_DOCUMENT_BYTES,
)
async def put_line(
    operations: NamedDependency[Operations],
    caller: NamedDependency[Caller],
    namespace: FromPath[str],
    model: FromPath[str],
    data: JSONBody[NewLine],
) -> Line:
    """Set the line of a model."""

    def change(stores: Stores) -> Line:
        return set_line(
            stores.registry,
            stores.roles,
            model,
            line=data.line,
            publisher=data.publisher,
            because=data.because,
            actor=caller.account,
            now=operations.now(),
        )

    return await operations.change(namespace, change)


@get("/models/{model:str}/versions/{version:str}/deltas", permission=Permission.READ, summary="Patches that lead to it")
async def list_deltas(
    operations: NamedDependency[Operations], namespace: FromPath[str], model: FromPath[str], version: FromPath[str]
) -> DeltasView:
    """The patches that lead to a version."""
    return await operations.do(namespace, lambda stores: deltas_view(stores, model, name=version))


@post(
    "/models/{model:str}/deltas",
    permission=Permission.PUBLISH,
    status_code=HTTP_204_NO_CONTENT,
    summary="Make missing patches now",
)
async def build_deltas(
    operations: NamedDependency[Operations],
    caller: NamedDependency[Caller],
    namespace: FromPath[str],
    model: FromPath[str],
) -> None:
    """Make the patches of a model that are missing, and list them."""
    controllers = operations.context.controllers
    tried = await controllers.build_deltas(namespace, model=model)

    def note(stores: Stores) -> None:
        because = f"{tried:,} patch{'' if tried == 1 else 'es'} tried"
        audit(
            stores.registry,
            model=model,
            actor=caller.account,
            action="make_deltas",
            because=because,
            now=operations.now(),
        )

    if tried:
        await operations.do(namespace, note)
    await controllers.settle()


@post(
    "/models/{model:str}/release-keys",
    permission=Permission.RELEASE,
    status_code=HTTP_200_OK,
    summary="Have the keys of sealed versions sealed to devices, for a bundle",
)
async def hand_out_release_keys(
    operations: NamedDependency[Operations],
    caller: NamedDependency[Caller],
    namespace: FromPath[str],
    model: FromPath[str],
    data: JSONBody[NewKeyHandout],
) -> BundledKeys:
    """The keys of sealed versions, each sealed to one device that is entitled; all of them, or none."""

    def work(stores: Stores) -> BundledKeys:
        settings, sealing_key = stores.registry.model(model).settings, operations.context.sealing_key
        identities = {
            serial: sealing_key.open(
                stores.sealed.release_key(model, serial), namespace=namespace, model=model, serial=serial
            )
            for serial in data.serials
        }
        keys: dict[str, tuple[SealedReleaseKey, ...]] = {}
        for device_id in data.devices:
            device = stores.inventory.device(device_id)
            recipient = entitled_recipient(
                stores.enrolments.known(device_id),
                is_blocked=device.is_blocked,
                operator_labels=device.operator_labels,
                settings=settings,
            )
            named = {"namespace": namespace, "model": model, "device_id": device_id}
            keys[device_id] = tuple(
                SealedReleaseKey(
                    model=model, serial=serial, sealed=seal_key(identity, recipient, serial=serial, **named)
                )
                for serial, identity in identities.items()
            )
        audit(
            stores.registry,
            model=model,
            actor=caller.account,
            action="hand_out_release_keys",
            because=data.because or f"for a bundle, to {len(data.devices):,} device{'s' * (len(data.devices) > 1)}",
            now=operations.now(),
            evidence={"serials": list(data.serials), "devices": list(data.devices)},
        )
        return BundledKeys(model=model, keys=keys)

    return await operations.do(namespace, work)


def _sealed_parts(
    operations: Operations, stores: Stores, parts: SealedParts | None, *, model: str, release: bytes
) -> SealedRecord | None:
    """What comes with a sealed release. Raises where this server could not open its key for devices."""
    if parts is None:
        return None
    serial = parse(Release, release, what="the release").serial
    key = operations.context.sealing_key
    key.open(parts.release_key, namespace=stores.namespace, model=model, serial=serial)
    return SealedRecord(release_key=parts.release_key, steps=parts.steps)


def listed_versions(stores: Stores, model: str) -> list[ListedVersion]:
    """A model's versions, by serial, with their names, their devices and what keeps devices from them."""
    record = stores.registry.model(model)
    line = line_of(stores.registry, stores.roles, model)
    quarantined: dict[int, list[QuarantineView]] = {}
    for entry in stores.registry.quarantines(model):
        view = QuarantineView(devices=selector_words(entry.selector), because=entry.because, at=entry.at)
        quarantined.setdefault(entry.serial, []).append(view)
    aliases: dict[int, list[str]] = {}
    for alias, serial in stores.registry.aliases(model).items():
        aliases.setdefault(serial, []).append(alias)
    devices = stores.fleet.inventory(model)
    return [
        ListedVersion(
            **msgspec.structs.asdict(version),
            aliases=aliases.get(version.serial, []),
            devices=devices.get(version.serial, 0),
            baseline=version.serial == record.baseline,
            revoked=version.serial in line.revoked or version.serial < line.minimum_serial,
            quarantined=quarantined.get(version.serial, []),
        )
        for version in stores.registry.versions(model)
    ]


def version_detail(stores: Stores, model: str, *, name: str) -> VersionDetail:
    """One version with its release: the document key by key as it was signed, also where a value is a default."""
    version = find_named_version(stores.registry, model, name=name)
    document = stores.registry.release_bytes(model, version.serial)
    return VersionDetail(**msgspec.structs.asdict(version), release=msgspec.Raw(document))


def deltas_view(stores: Stores, model: str, *, name: str) -> DeltasView:
    """The patches that lead to a version, with the versions and files that their digests stand for."""
    version = find_named_version(stores.registry, model, name=name)
    release = parse(Release, stores.registry.release_bytes(model, version.serial), what="a stored release")
    bases: dict[str, str | None] = {
        digest: record.version for record, document in stores.registry.published(model) for digest in document.digests
    }
    bases[NOTHING] = "nothing"
    files = {file.sha256: f"{variant.name}/{file.name}" for variant in release.variants for file in variant.files}
    if release.is_sealed:
        return DeltasView(
            model=model,
            version=version.version,
            deltas=[
                DeltaView(
                    model=model,
                    base=step.base,
                    target=step.target,
                    target_bytes=step.target_bytes,
                    sha256=step.sha256,
                    size_bytes=step.size_bytes,
                    advice="",
                    listed=True,
                    from_version=bases.get(step.base),
                    file=files.get(step.target),
                )
                for step in stores.sealed.steps(model).get(version.serial, ())
            ],
        )
    return DeltasView(
        model=model,
        version=version.version,
        deltas=[
            DeltaView(**msgspec.structs.asdict(delta), from_version=bases.get(delta.base), file=files.get(delta.target))
            for delta in stores.deltas.of(model)
            if delta.target in release.digests
        ],
    )


VERSION_ROUTES = (
    list_versions,
    show_version,
    show_fit,
    fit_variants,
    publish_version,
    retire_version,
    unquarantine_version,
    show_line,
    put_line,
    list_deltas,
    build_deltas,
    hand_out_release_keys,
)
