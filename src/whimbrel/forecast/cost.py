"""What does a rollout send, and what does that cost? Bytes by way, requests, and a price table that somebody wrote.

1. A device fetches a version once; going back costs nothing, because the version before is still there.
2. Prices come from a file, never from here: nobody's prices stay true. Gigabytes are 10^9 bytes, as CDNs count.
3. Where the size of a way is not known, the next dearer way that is known stands for it, and this is said.
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
    """A price a gigabyte, for the gigabytes up to `up_to_gb` in all; the last tier has no end."""

    per_gb: _Price
    up_to_gb: Annotated[float, Meta(gt=0)] | None = None


class Prices(Document, frozen=True):
    """What a CDN asks. `source`: where and when these prices were read."""

    currency: Annotated[str, Meta(min_length=1, max_length=16)]
    tiers: Annotated[tuple[Tier, ...], Meta(min_length=1, max_length=32)]
    per_10000_requests: _Price = 0.0
    source: Annotated[str, Meta(max_length=2000)] = ""

    def __post_init__(self) -> None:
        ends = [tier.up_to_gb for tier in self.tiers]
        if ends[-1] is not None or None in ends[:-1]:
            raise ValueError("every tier but the last has an up_to_gb, and the last has none")
        known = [end for end in ends if end is not None]
        if known != sorted(set(known)):
            raise ValueError("the tiers' up_to_gb must grow from tier to tier")

    def cost(self, size_bytes: float, *, requests: float) -> float:
        """Of so many bytes and requests, counted from nothing."""
        total, begun, left = 0.0, 0.0, size_bytes / 1e9
        for tier in self.tiers:
            room = left if tier.up_to_gb is None else min(left, tier.up_to_gb - begun)
            total, left, begun = total + room * tier.per_gb, left - room, begun + room
        return total + requests / 10_000 * self.per_10000_requests


class Sizes(msgspec.Struct, frozen=True):
    """Bytes of one device's download, by the name of the version it comes from, and by the way that is taken."""

    by_version: dict[str, tuple[WayName, float]]
    said: tuple[str, ...] = ()  # what stands for what


def parse_sizes(texts: Sequence[str]) -> dict[WayName, float]:
    """Read `delta=2.5MB`, `whole=200MB`, ... Raises `UntrustedInput`."""
    found: dict[WayName, float] = {}
    for text in texts:
        way, sign, size = text.partition("=")
        read = _SIZE.match(size)
        if not sign or way not in WAYS or not read:
            raise UntrustedInput(f"{text!r} is no size; expected WAY=SIZE with a way of {', '.join(WAYS)}: delta=2.5MB")
        value = float(read[1]) * _UNITS[read[2]]
        if value > limits.ARTIFACT_BYTES:
            raise UntrustedInput(f"{text!r}: a version has at most {limits.ARTIFACT_BYTES} bytes")
        found[way] = value
    return found


def sizes_for(versions: Sequence[tuple[str, WayName]], known: Mapping[WayName, float]) -> Sizes | None:
    """The bytes of each version's way; None where no size is known at all."""
    if not known:
        return None
    made: dict[str, tuple[WayName, float]] = {}
    said = []
    for name, way in versions:
        dearer = [each for each in WAYS[WAYS.index(way) :] if each in known]
        taken = dearer[0] if dearer else max(known, key=lambda each: known[each])
        if taken != way:
            said.append(f"no size of {way} was given, so {name} is counted as {taken}")
        made[name] = taken, known[taken]
    return Sizes(made, tuple(said))
