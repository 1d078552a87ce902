"""The pages of models and devices, of the audit log, and of who may do what."""

import msgspec

from whimbrel.console.graphics import AreaChart
from whimbrel.console.views.rollout import EventLine, RolloutLine


class ModelLine(msgspec.Struct, frozen=True, kw_only=True):
    """A model in the list."""

    name: str
    newest: str
    baseline: str
    versions: int
    devices: int


class ReleasedVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A version on the page of its model. `states`: words and tones. `metrics`: what its publisher said of it."""

    semantic_version: str
    version: str
    serial: int
    published_at: float
    size_bytes: int
    variants: tuple[str, ...]
    devices: int
    states: tuple[tuple[str, str], ...]
    aliases: tuple[str, ...]
    metrics: dict[str, float]
    crashes: str
    errors: str
    p95: str
    quarantined: tuple[str, ...]


class EpisodeLine(msgspec.Struct, frozen=True, kw_only=True):
    """A monitor that fires."""

    version: str
    monitor: str
    since: float
    because: str


class ModelPage(msgspec.Struct, frozen=True, kw_only=True):
    """One model. `metrics`: the names of those that any version was published with."""

    name: str
    headline: str
    versions: tuple[ReleasedVersion, ...]
    metrics: tuple[str, ...]
    history: AreaChart | None
    rollouts: tuple[RolloutLine, ...]
    episodes: tuple[EpisodeLine, ...]
    settings: tuple[tuple[str, str], ...]
    events: tuple[EventLine, ...]


class DeviceLine(msgspec.Struct, frozen=True, kw_only=True):
    """A device in the list. `runs`: model and version."""

    device_id: str
    labels: tuple[str, ...]
    runs: tuple[str, ...]
    heard_at: float
    state: str
    tone: str


class DevicesPage(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the inventory. `after`: where the next part begins; "" for none."""

    devices: tuple[DeviceLine, ...]
    selector: str
    model: str
    version: str
    show: str
    models: tuple[str, ...]
    after: str
    query: str


class ModelOnDeviceLine(msgspec.Struct, frozen=True, kw_only=True):
    """What a device runs of a model. `waits_for`: what holds up its next version, in its own words."""

    model: str
    version: str
    since: float | None
    heard_at: float
    waits_for: str
    waits_told_at: float | None
    build: str


class PlaceLine(msgspec.Struct, frozen=True, kw_only=True):
    """A place of the device in a rollout or experiment."""

    comparison: str
    place: str
    words: str


class DevicePage(msgspec.Struct, frozen=True, kw_only=True):
    """One device."""

    device_id: str
    state: str
    tone: str
    sentence: str
    enrolled_at: float
    heard_at: float
    admission: str
    has_key: bool
    labels: tuple[tuple[str, str, str], ...]  # name, value, whose word it is
    models: tuple[ModelOnDeviceLine, ...]
    places: tuple[PlaceLine, ...]
    events: tuple[EventLine, ...]
    blocked: bool
    may_change: bool


class DeviceQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """What a person is asked before a device is blocked, let in again or removed."""

    device_id: str
    act: str
    title: str
    then: tuple[str, ...]
    button: str
    danger: bool


class AuditLine(msgspec.Struct, frozen=True, kw_only=True):
    """An entry, and what it is about."""

    event: EventLine
    about: str
    href: str
    sequence: int


class AuditPage(msgspec.Struct, frozen=True, kw_only=True):
    """The newest entries. `sequence`, `head`: of the newest of all."""

    lines: tuple[AuditLine, ...]
    model: str
    models: tuple[str, ...]
    sequence: int
    head: str


class RoleLine(msgspec.Struct, frozen=True, kw_only=True):
    """A signed role: who may sign it, and until when it is valid."""

    role: str
    expires: float | None
    threshold: str
    keys: tuple[str, ...]
    offline: bool
    warning: str


class TokenLine(msgspec.Struct, frozen=True, kw_only=True):
    """A token of a person or a machine, without its text."""

    name: str
    account: str
    kind: str
    roles: str
    until: float | None
    used_at: float | None
    mine: bool


class AccessPage(msgspec.Struct, frozen=True, kw_only=True):
    """Who may do what. `tokens` None: who looks may not see them."""

    account: str
    kind: str
    roles: str
    may: tuple[str, ...]
    signers: tuple[RoleLine, ...]
    tokens: tuple[TokenLine, ...] | None
    receivers: tuple[tuple[str, str, str], ...]
