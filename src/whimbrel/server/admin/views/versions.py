"""What the admin API takes and answers about versions, their line and the patches between them."""

from typing import Annotated

import msgspec
from msgspec import Meta

from whimbrel import limits
from whimbrel.model.documents import Document
from whimbrel.model.ids import DeviceId, Serial
from whimbrel.model.ways import Step
from whimbrel.server.admin.views.reason import Because

SignedRelease = Annotated[msgspec.Raw, Meta(extra_json_schema={"$ref": "#/components/schemas/Release"})]


class SealedParts(Document, frozen=True):
    """What goes with a sealed release. `release_key`: its age identity, sealed to the server's sealing key.

    `steps`: the patches that the publisher made, sealed to the release's key; their artifacts are stored.
    """

    release_key: Annotated[bytes, Meta(max_length=limits.SEALED_KEY_BYTES)]
    steps: Annotated[tuple[Step, ...], Meta(max_length=limits.SEALED_PATCHES)] = ()


class NewVersion(Document, frozen=True):
    """POST versions: the release document and the publisher's role that lists it.

    `hold`: where it is the model's first version, no device gets it before a rollout says so. `sealed`: of a sealed
    release, its key and its patches.
    """

    release: bytes
    publisher: bytes
    hold: bool = False
    sealed: SealedParts | None = None


class NewKeyHandout(Document, frozen=True):
    """POST release-keys: for which devices, and for which sealed versions (serials), keys are to be sealed."""

    devices: Annotated[tuple[DeviceId, ...], Meta(min_length=1, max_length=limits.BUNDLE_DEVICES)]
    serials: Annotated[tuple[Serial, ...], Meta(min_length=1, max_length=limits.BUNDLE_KEYS)]
    because: Because = ""


class NewLine(Document, frozen=True):
    """PUT line: the line document and the publisher's role that lists it."""

    line: bytes
    publisher: bytes
    because: Because = ""


class VersionView(msgspec.Struct, frozen=True, kw_only=True):
    """A publication. `good`: it has been a baseline, so devices may go back to it."""

    namespace: str
    model: str
    serial: int
    version: str
    semantic_version: str
    build_hash: str
    created_at: float  # POSIX seconds
    size_bytes: int  # of its largest variant
    retired: bool
    good: bool


class QuarantineView(msgspec.Struct, frozen=True, kw_only=True):
    """Devices that refuse a version since it was taken back. `devices`: "every device", or labels in words."""

    devices: str
    because: str
    at: float  # POSIX seconds


class ListedVersion(VersionView, frozen=True, kw_only=True):
    """A publication in the list of its model, with its names and the number of devices that run it.

    `revoked`: its publisher forbade it. `quarantined`: who refuses it, and why; "every device" is the fleet.
    """

    aliases: list[str]
    devices: int
    baseline: bool = False
    revoked: bool = False
    quarantined: list[QuarantineView] = []


class VersionDetail(VersionView, frozen=True, kw_only=True):
    """A publication, with the document that its publisher signed.

    `release`: a `Release` as JSON, key by key as it was signed, also where a value is a default. Read it with `parse`.
    """

    release: SignedRelease


class PublishedVersion(VersionView, frozen=True, kw_only=True):
    """A publication that was accepted. `baseline`: it is the model's first, so devices take it at once."""

    baseline: bool


class DeltaView(msgspec.Struct, frozen=True, kw_only=True):
    """A patch that was tried. `sha256` None: it was not worth keeping.

    `from_version`: the version that holds the base; "nothing" for the whole file, compressed; None for a base that no
    version holds any more. `file`: the variant and name of the file it leads to.
    """

    model: str
    base: str
    target: str
    target_bytes: int
    sha256: str | None
    size_bytes: int
    advice: Annotated[str, Meta(max_length=limits.TEXT_CHARS)]
    listed: bool
    from_version: str | None = msgspec.field(name="from")
    file: str | None


class DeltasView(msgspec.Struct, frozen=True, kw_only=True):
    """The patches that lead to a version."""

    model: str
    version: str
    deltas: list[DeltaView]
