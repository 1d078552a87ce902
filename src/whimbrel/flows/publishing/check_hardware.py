"""Check that a version's variants are for the hardware that its pipeline built it for. Called at publication."""

from collections.abc import Sequence

from whimbrel.model.release import Variant

HARDWARE = "hardware"  # the label that agents give themselves, and that slices go by


def hardware_objection(target_hardware: Sequence[str], variants: Sequence[Variant]) -> str:
    """A sentence, where a variant asks for hardware that the card does not name; else ""."""
    if not target_hardware:
        return ""
    for variant in variants:
        if others := sorted(_asked(variant) - set(target_hardware)):
            return (
                f"the variant {variant.name!r} is for {HARDWARE}={', '.join(others)}, and the card's target_hardware "
                f"is {', '.join(target_hardware)}"
            )
    return ""


def hardware_is_open(target_hardware: Sequence[str], variants: Sequence[Variant]) -> bool:
    """Whether a version for some hardware is offered to devices with any other, too."""
    return bool(target_hardware) and not all(HARDWARE in variant.selector.labels for variant in variants)


def _asked(variant: Variant) -> set[str]:
    selector = variant.selector
    asked = {selector.match_labels[HARDWARE]} if HARDWARE in selector.match_labels else set()
    for term in selector.match_expressions:
        if term.key == HARDWARE and term.operator == "In":
            asked |= set(term.values)
    return asked
