"""What the admin API takes and answers about models."""

from typing import Annotated

import msgspec
from msgspec import Meta

from whimbrel.flows.records import ModelSettings
from whimbrel.model.documents import Document
from whimbrel.model.ids import Name


class NewModel(Document, frozen=True):
    """POST models: the name, and what the targets and publisher keys signed for it."""

    name: Name
    targets: bytes  # the next top-level targets, with the model's delegations
    publisher: bytes  # publisher-<name>, version 1
    line: bytes  # models/<name>/line.json
    salt: Annotated[int, Meta(ge=0, le=2**53 - 1)]
    settings: ModelSettings = msgspec.field(default_factory=ModelSettings)


class NewAlias(Document, frozen=True):
    """PUT alias: the version it names."""

    version: Annotated[str, Meta(max_length=256)]


class AddedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model as it was added."""

    namespace: str
    name: str
    created_at: float  # POSIX seconds
    salt: int
    settings: ModelSettings
    baseline: int | None


class ModelView(AddedModel, frozen=True, kw_only=True):
    """A model, with how many versions it has and what its devices run.

    `baseline`: its serial. `aliases`: serials by name. `devices`: how many by calendar version; "none" has none yet.
    """

    baseline_version: str | None
    versions: int
    aliases: dict[str, int]
    devices: dict[str, int]


class AliasView(msgspec.Struct, frozen=True, kw_only=True):
    """A name that a person gave to a version."""

    model: str
    alias: str
    version: str
    serial: int
