"""Which build of a version fits a device? The first variant, in the publisher's order, whose selector matches."""

from collections.abc import Mapping

from whimbrel.model.release import Release, Variant


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
