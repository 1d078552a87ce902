"""The description of a fleet: how often its models run, its hardware classes, and when its devices are online.

1. Every number that a forecast rests on is here, and is printed with the forecast. The numbers are defaults, or come
   from a file or from the history of a real fleet.
2. Rates are shares of the device-windows in which the model ran. The shares of groups add up to 1.
3. A device that is assigned a new version activates it after an exponential delay with the mean of its presence group.
   A control takes its placebo after the same delay.
"""

import math
from typing import Annotated

import msgspec
from msgspec import Meta

from whimbrel import limits
from whimbrel.health.report import WayName
from whimbrel.model.documents import Document
from whimbrel.model.ids import LabelValue

Share = Annotated[float, Meta(ge=0, le=1)]
Shares = Annotated[dict[LabelValue, Share], Meta(min_length=1, max_length=limits.FORECAST_CLASSES)]
# Around its mean, which it passes at eight in the morning: as in bench/harm.py.
_DAY = tuple(round(1 + 0.6 * math.sin(2 * math.pi * (hour - 8) / 24), 3) for hour in range(24))


class PresenceGroup(Document, frozen=True):
    """Devices with one habit. `online`: the chance that a window's report comes. `delay_h`: mean hours to an update."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    share: Share
    online: Share
    delay_h: Annotated[float, Meta(gt=0, le=24 * 365)] | None = None  # None: it never updates


class BaseGroup(Document, frozen=True):
    """Devices that run one earlier version (or none), and the way by which they fetch the bytes of the new version."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    share: Share
    way: WayName


class FleetDescription(Document, frozen=True):
    """A fleet. `by_hour`: relative use of the model in the 24 hours UTC. `source`: where the numbers come from."""

    source: str = "defaults"
    start_hour: Annotated[float, Meta(ge=0, lt=24)] = 9.0  # UTC, of the rollout's start
    sessions_a_day: Annotated[float, Meta(gt=0, le=100_000)] = 12.0  # a device
    by_hour: Annotated[tuple[Annotated[float, Meta(ge=0)], ...], Meta(min_length=24, max_length=24)] = _DAY
    crash: Share = 0.002
    error: Share = 0.0005
    accuracy: Share = 0.9
    labelled: Share = 0.1  # of device-windows in which the model ran: those that know whether its answer was right
    install_failed: Share = 0.0005
    latency_ms: Annotated[float, Meta(gt=0, le=1e9)] = 10.0  # median
    latency_spread: Annotated[float, Meta(gt=0, le=3)] = 0.6  # of its logarithm
    hardware: Shares = msgspec.field(default_factory=lambda: {"a": 0.5, "b": 0.3, "c": 0.15, "d": 0.05})
    regions: Shares = msgspec.field(default_factory=lambda: {"": 1.0})
    user_segments: Shares = msgspec.field(default_factory=lambda: {"": 1.0})
    presence: Annotated[tuple[PresenceGroup, ...], Meta(min_length=1, max_length=limits.FORECAST_GROUPS)] = (
        PresenceGroup(name="steady", share=0.7, online=0.98, delay_h=2.0),
        PresenceGroup(name="evenings", share=0.22, online=0.4, delay_h=12.0),
        PresenceGroup(name="seldom", share=0.06, online=0.05, delay_h=72.0),
        PresenceGroup(name="gone", share=0.02, online=0.0),
    )
    versions: Annotated[tuple[BaseGroup, ...], Meta(min_length=1, max_length=limits.FORECAST_GROUPS)] = (
        BaseGroup(name="the version before", share=0.8, way="delta"),
        BaseGroup(name="two versions before", share=0.15, way="chain"),
        BaseGroup(name="older or none", share=0.05, way="compressed"),
    )
    refresh_s: Annotated[float, Meta(ge=1, le=86400)] = 300.0
    refresh_bytes: Annotated[float, Meta(ge=0, le=1e6)] = (
        300.0  # of one refresh that finds nothing new (304), with headers
    )

    def __post_init__(self) -> None:
        shares = {
            "hardware": self.hardware.values(),
            "regions": self.regions.values(),
            "user_segments": self.user_segments.values(),
            "presence": [each.share for each in self.presence],
            "versions": [each.share for each in self.versions],
        }
        for field, values in shares.items():
            if abs(sum(values) - 1) > 0.001:
                raise ValueError(f"the shares of {field} add up to {sum(values):.4g}; they must add up to 1")
        if not sum(self.by_hour):
            raise ValueError("by_hour has no traffic in any hour")
        for field in ("presence", "versions"):
            names = [each.name for each in getattr(self, field)]
            if len(set(names)) < len(names):
                raise ValueError(f"two groups of {field} have the same name")

    def sessions(self, hour: float, *, window_s: float) -> float:
        """The chance that a device that is online runs the model in a window at this hour of the day (UTC)."""
        mean = self.sessions_a_day * window_s / 86400
        now = self.by_hour[int(hour) % 24] * 24 / sum(self.by_hour)
        return 1 - math.exp(-mean * now)
