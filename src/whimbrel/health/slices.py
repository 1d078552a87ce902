"""The names of slices: groups of devices in which harm is looked for, and which can go back apart from the rest.

1. A slice is the devices with one value of one label: of the model's hardware label, or of its further `slice_labels`
   (an operating system, a region).
2. A hardware class is named by its value alone, any other slice `label=value`. No two slices share a name: a value
   of the hardware label that holds a `=` is written with one before it.
3. A device without a value belongs to no slice of that label, as it cannot be selected by it.

Called by the tally, the ledger, and whoever turns a slice that goes back into a selector.
"""

from collections.abc import Mapping

HARDWARE = ""  # stands for the model's hardware label, whatever it is called


def slice_name(label: str, value: str) -> str:
    """The name of the devices whose `label` (or `HARDWARE`) is `value`."""
    return value if label == HARDWARE and "=" not in value else f"{label}={value}"


def slice_of(name: str) -> tuple[str, str]:
    """(label, value) of a slice's name; the label is `HARDWARE` for a hardware class."""
    label, sign, value = name.partition("=")
    return (label, value) if sign else (HARDWARE, name)


def slices_of(hardware_class: str, others: Mapping[str, str]) -> dict[str, str]:
    """The slices a device belongs to: the name by label, hardware first."""
    values = {HARDWARE: hardware_class, **dict(sorted(others.items()))}
    return {label: slice_name(label, value) for label, value in values.items() if value}
