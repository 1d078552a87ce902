"""Choose among the variants that fit this device: the first, in the publisher's order, that keeps its budget here.

1. What a probe measured is kept, by the variant's name and its budgets: the next version's build for the same class of
   devices is as fast, as a rule, so a variant that was too slow or too large is not fetched again for a month.
2. A variant that needs more memory or room than this device has is not fetched to find that out.
3. Where all that fit were over their budgets, or too large, the last one, the smallest, is tried: its probe decides.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec

from whimbrel import limits
from whimbrel.agent.disk import Disk
from whimbrel.device.ports import ProbeResult
from whimbrel.errors import UntrustedInput
from whimbrel.model import documents
from whimbrel.model.choose import Capacity, fitting_variants
from whimbrel.model.documents import Document
from whimbrel.model.release import Release, Variant


class Measurement(Document, frozen=True):
    """What a probe of a variant found here. `over_budget`: why it is not taken; "" where it keeps its budgets."""

    at: float
    latency_ms: float | None = None
    memory_mib: float | None = None
    over_budget: str = ""


class Kept(Document, frozen=True, tag_field="format", tag="whimbrel-benchmarks-1"):
    """The file."""

    measured: Annotated[dict[str, Measurement], msgspec.Meta(max_length=limits.BENCHMARKS)] = {}


class Benchmarks:
    """Of one model."""

    def __init__(self, path: Path, *, disk: Disk) -> None:
        self._path = path
        self._disk = disk

    def choose(
        self, release: Release, labels: dict[str, str], *, now: float, capacity: Callable[[], Capacity] = Capacity
    ) -> Variant | None:
        """The variant to take; None where none fits. `capacity`: asked only where there is a choice."""
        fitting = fitting_variants(release, labels)
        if len(fitting) < 2:
            return next(iter(fitting), None)
        measured, has = self._read(), capacity()
        for variant in filter(has.holds, fitting):
            earlier = measured.get(_key(variant))
            if earlier is None or not earlier.over_budget or not 0 <= now - earlier.at < limits.BENCHMARK_AGE_S:
                return variant
        return fitting[-1]

    def measured(self, variant: Variant) -> Measurement | None:
        """What the newest probe of such a variant found here."""
        return self._read().get(_key(variant))

    def keep(self, variant: Variant, result: ProbeResult, *, now: float) -> None:
        """Remember what a probe measured."""
        if not result.passed and not result.over_budget:
            return
        measured = {key: each for key, each in self._read().items() if key != _key(variant)}
        while len(measured) >= limits.BENCHMARKS:
            measured.pop(min(measured, key=lambda key: measured[key].at))
        measured[_key(variant)] = Measurement(
            at=now,
            latency_ms=result.latency_ms,
            memory_mib=result.memory_mib,
            over_budget=result.reason if result.over_budget else "",
        )
        self._disk.write(self._path, documents.encode(Kept(measured=measured)))

    def _read(self) -> dict[str, Measurement]:
        content = self._disk.read(self._path)
        try:
            return dict(documents.parse(Kept, content, what=str(self._path)).measured) if content else {}
        except UntrustedInput:
            return {}


def _key(variant: Variant) -> str:
    probe = variant.probe
    return f"{variant.name} {probe.latency_ms_max if probe else None} {probe.memory_mib_max if probe else None}"
