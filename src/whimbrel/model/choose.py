"""Which build of a version fits a device? The first variant, in the publisher's order, whose selector matches."""

from collections.abc import Mapping

import msgspec

from whimbrel.model.release import Release, Variant

_MIB = 2**20


class Capacity(msgspec.Struct, frozen=True):
    """What a device could give to a build: its whole memory, and the room for files. None: not known."""

    memory_mib: int | None = None
    room_bytes: int | None = None

    def holds(self, variant: Variant) -> bool:
        """Whether `variant` may fit. False: it needs more than all there is, so that to fetch it is in vain.

        A build needs the memory that its probe allows it; where that says nothing, the size of its files.
        """
        allowed_mib = variant.probe.memory_mib_max if variant.probe is not None else None
        memory_mib = allowed_mib if allowed_mib is not None else variant.size_bytes / _MIB
        return (self.memory_mib is None or memory_mib <= self.memory_mib) and (
            self.room_bytes is None or variant.size_bytes <= self.room_bytes
        )


def telling_labels(release: Release) -> frozenset[str]:
    """The labels that a variant's name tells of: those that some variants of the release ask for and others do not."""
    asked: list[set[tuple[str, str, tuple[str, ...]]]] = [
        {(key, "In", (value,)) for key, value in each.selector.match_labels.items()}
        | {(term.key, term.operator, term.values) for term in each.selector.match_expressions}
        for each in release.variants
    ]
    return frozenset(key for terms in asked for key, *_ in terms - asked[0].intersection(*asked))


def choose_variant(release: Release, labels: Mapping[str, str]) -> Variant | None:
    """The variant for a device with `labels`. None where no variant fits: such a device is not offered the version.

    The publisher lists the most specific variant first and the fallback (quantized, or without a selector) last.
    """
    return next(iter(fitting_variants(release, labels)), None)


def fitting_variants(release: Release, labels: Mapping[str, str]) -> tuple[Variant, ...]:
    """All variants for a device with `labels`, in the publisher's order.

    A device that finds the first variant too slow or too large takes the next one.
    """
    return tuple(variant for variant in release.variants if variant.selector.matches(labels))
