"""What a rollout sends, and what that costs: bytes by way, requests, and a price table from a file.

1. A device fetches a version once. Going back costs nothing, because the version before is still on the device.
2. Prices come from a file, never from here, because prices change. Gigabytes are 10^9 bytes, as CDNs count.
3. Where the size of a way is not known, the size of the next dearer way is used, and the forecast says so.

Called by the command line and by summary.py.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from whimbrel import limits
from whimbrel.errors import UntrustedInput
from whimbrel.health.report import WayName
from whimbrel.model.documents import Document
from whimbrel.model.ids import END

WAYS: tuple[WayName, ...] = ("delta", "chain", "compressed", "whole")  # the cheapest first
_SIZE = re.compile(r"^([0-9]{1,15}(?:\.[0-9]{1,6})?) ?(B|kB|MB|GB)?" + END)
_UNITS = {None: 1.0, "B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9}
_Price = Annotated[float, Meta(ge=0, le=1e6)]


class Tier(Document, frozen=True):
    """The price of a gigabyte, up to `up_to_gb` gigabytes in all. The last tier has no end."""

    per_gb: _Price
    up_to_gb: Annotated[float, Meta(gt=0)] | None = None


class Prices(Document, frozen=True):
    """The prices of a CDN. `source`: where and when somebody read these prices."""

    currency: Annotated[str, Meta(min_length=1, max_length=16)]
    tiers: Annotated[tuple[Tier, ...], Meta(min_length=1, max_length=32)]
    per_10000_requests: _Price = 0.0
    source: Annotated[str, Meta(max_length=2000)] = ""

    def __post_init__(self) -> None:
        ends = [tier.up_to_gb for tier in self.tiers]
        if ends[-1] is not None or None in ends[:-1]:
            raise ValueError("every tier but the last has an up_to_gb, and the last has none")
        bounds = [end for end in ends if end is not None]
        if bounds != sorted(set(bounds)):
            raise ValueError("the tiers' up_to_gb must grow from tier to tier")

    def cost(self, size_bytes: float, *, requests: float) -> float:
        """The price of these bytes and requests, where none were sent before."""
        total, begun, left = 0.0, 0.0, size_bytes / 1e9
        for tier in self.tiers:
            room = left if tier.up_to_gb is None else min(left, tier.up_to_gb - begun)
            total, left, begun = total + room * tier.per_gb, left - room, begun + room
        return total + requests / 10_000 * self.per_10000_requests


class DownloadSizes(msgspec.Struct, frozen=True):
    """The way and bytes of one device's download, by the name of the version that the device comes from."""

    by_version: dict[str, tuple[WayName, float]]
    assumptions: tuple[str, ...] = ()  # which way's size stands for which other way's


def parse_sizes(texts: Sequence[str]) -> dict[WayName, float]:
    """Read `delta=2.5MB`, `whole=200MB`, ... Raises `UntrustedInput`."""
    sizes: dict[WayName, float] = {}
    for text in texts:
        way, sign, size = text.partition("=")
        parsed = _SIZE.match(size)
        if not sign or way not in WAYS or not parsed:
            raise UntrustedInput(f"{text!r} is no size; expected WAY=SIZE with a way of {', '.join(WAYS)}: delta=2.5MB")
        value = float(parsed[1]) * _UNITS[parsed[2]]
        if value > limits.ARTIFACT_BYTES:
            raise UntrustedInput(f"{text!r}: a version has at most {limits.ARTIFACT_BYTES} bytes")
        sizes[way] = value
    return sizes


def sizes_for(versions: Sequence[tuple[str, WayName]], known: Mapping[WayName, float]) -> DownloadSizes | None:
    """The bytes of each version's way. None where no size is known at all."""
    if not known:
        return None
    by_version: dict[str, tuple[WayName, float]] = {}
    assumptions = []
    for name, way in versions:
        dearer = [each for each in WAYS[WAYS.index(way) :] if each in known]
        taken = dearer[0] if dearer else max(known, key=lambda each: known[each])
        if taken != way:
            assumptions.append(f"no size of {way} was given, so {name} is counted as {taken}")
        by_version[name] = taken, known[taken]
    return DownloadSizes(by_version, tuple(assumptions))
