"""The page of a whole namespace: what needs attention, and which versions run where."""

import msgspec

from whimbrel.console.graphics import AreaChart, Bar


class ConcernLine(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to look at, and where. `tone`: urgent, waits or note."""

    tone: str
    title: str
    sentence: str
    href: str
    since: float | None


class VersionLine(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a model, and how many devices run it. `colour`: a class of the style sheet."""

    name: str
    colour: str
    devices: int
    percent: float
    state: str  # what it is: newest, baseline, quarantined; "" for nothing of these
    href: str = ""


class ClassLine(msgspec.Struct, frozen=True, kw_only=True):
    """Devices of one hardware class, and which versions they run."""

    name: str
    devices: int
    percent: float


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """A model of the fleet."""

    name: str
    headline: str
    devices: int
    now: tuple[Bar, ...]
    versions: tuple[VersionLine, ...]
    classes: tuple[ClassLine, ...]
    history: AreaChart | None
    rollout: str  # the id of the live one; "" for none
    rollout_words: str


class FleetPage(msgspec.Struct, frozen=True, kw_only=True):
    """A namespace. `counted_at`: when its devices were counted, POSIX seconds."""

    headline: str
    concerns: tuple[ConcernLine, ...]
    models: tuple[ModelCard, ...]
    counted_at: float
