"""The list of models, and the page of one."""

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
