"""What the admin API takes and answers about models."""

from typing import Annotated

import msgspec
from msgspec import Meta

from whimbrel.flows.records import ModelSettings
from whimbrel.model.documents import Document
from whimbrel.model.ids import Name
from whimbrel.server.admin.views.floors import NewFloor
from whimbrel.server.admin.views.reason import Because
from whimbrel.server.admin.views.versions import VersionView


class NewModel(Document, frozen=True):
    """POST models: the name, and what the targets and publisher keys signed for it."""

    name: Name
    publisher: bytes  # publisher-<name>, version 1
    line: bytes  # models/<name>/line.json
    salt: Annotated[int, Meta(ge=0, le=2**53 - 1)]
    settings: ModelSettings = msgspec.field(default_factory=ModelSettings)
    floor: NewFloor | None = None  # its role is delegated by `targets` above
    targets: bytes = b""  # the next top-level targets, with the model's delegations; empty: they are signed already


class NewAlias(Document, frozen=True):
    """PUT alias: the version it names."""

    version: Annotated[str, Meta(max_length=256)]


class AddedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model as it was added. `warnings`: what a person should know of the objectives that were set just now."""

    namespace: str
    name: str
    created_at: float  # POSIX seconds
    salt: int
    settings: ModelSettings
    baseline: int | None
    warnings: list[str] = []


class ModelView(AddedModel, frozen=True, kw_only=True):
    """A model, with how many versions it has and what its devices run.

    `baseline`: its serial. `aliases`: serials by name. `devices`: how many by calendar version; "none" has none yet.
    """

    baseline_version: str | None
    versions: int
    aliases: dict[str, int]
    devices: dict[str, int]


class NewWayBack(Document, frozen=True):
    """POST rollback: the version to go back to (else the one before), and the devices (else all).

    `selector`: as people type it, `hardware=pi3`. `leaves`: the serial that the caller saw devices run; where they run
    another one meanwhile, nothing is done. `rollout`: the completed one that is to be taken back, to the baseline
    before it. `although_unknown`: go on where no known device has these labels. `dry_run`: only say what would be done.
    """

    to: Annotated[str, Meta(max_length=256)] = ""
    selector: Annotated[str, Meta(max_length=4096)] = ""
    because: Because = ""
    leaves: int | None = None
    rollout: Annotated[str, Meta(max_length=256)] | None = None
    although_unknown: bool = False
    dry_run: bool = False


class OtherWayBack(msgspec.Struct, frozen=True, kw_only=True):
    """A model that goes back with the one that is asked for, since their versions go together."""

    model: str
    leaves: VersionView
    to: VersionView
    quarantined: list[VersionView]
    rollout: str | None


class WayBackView(msgspec.Struct, frozen=True, kw_only=True):
    """How a model goes back, or would. `done`: false where it was only asked.

    `quarantined`: versions that the devices refuse from then on: what they leave, and what they pass over. `selector`:
    which devices, in words. `devices`: how many run what is left; where labels select them, how many have these.
    `rollout`: the completed one that brought it. `others`: the models that go back with it. `sentences`: what devices
    will do, for people. `refresh_s`: seconds between two looks of a device for news.
    """

    model: str
    done: bool
    leaves: VersionView
    to: VersionView
    quarantined: list[VersionView]
    selector: str
    devices: int
    refresh_s: float
    rollout: str | None
    sentences: list[str]
    others: list[OtherWayBack] = []


class AliasView(msgspec.Struct, frozen=True, kw_only=True):
    """A name that a person gave to a version."""

    model: str
    alias: str
    version: str
    serial: int
