"""How many devices does a person's selector name, as far as the server knows? What is counted before a slice goes back.

1. Devices are counted by the labels that they told. Where a selector asks about the hardware class alone, they are
   counted by the class in their reports too: a device that told no labels has that.
2. A selector that names no known device is refused, with the values that are known: it is a typing error more often
   than a wish. A person may insist, for devices that were never heard of, or that keep this label to themselves.

Called by the admin API when a model goes back.
"""

from collections import Counter

from whimbrel.errors import Refused
from whimbrel.flows.ports import FleetPort
from whimbrel.flows.records import ModelSettings
from whimbrel.flows.wording import selector_words
from whimbrel.model.selector import Selector

_SHOWN = 10  # known values of a label in one sentence; the most frequent ones


def count_selected(fleet: FleetPort, model: str, selector: Selector, *, hardware_label: str) -> int:
    """The devices of the fleet of `model` that are known to be in the set."""
    by_labels = sum(count for labels, count in fleet.label_sets(model) if selector.matches(labels))
    if selector.labels != {hardware_label}:
        return by_labels
    by_class = sum(
        count for name, count in fleet.classes(model).items() if name and selector.matches({hardware_label: name})
    )
    return max(by_labels, by_class)


def told_labels(settings: ModelSettings) -> frozenset[str]:
    """The labels that devices may tell the server."""
    return frozenset({*settings.report_labels, *settings.slice_labels, settings.hardware_label})


def refuse_unknown(fleet: FleetPort, model: str, selector: Selector, *, settings: ModelSettings) -> None:
    """Raises `Refused` where no known device of `model` is in the set, with what is known of its labels."""
    if selector.everyone or count_selected(fleet, model, selector, hardware_label=settings.hardware_label):
        return
    untold = sorted(selector.labels - told_labels(settings))
    if untold:
        reason = (
            f"devices do not tell the server their {' and '.join(untold)}, so it cannot say which devices these are"
        )
    else:
        reason = _known_words(fleet, model, selector, settings.hardware_label)
    raise Refused(
        f"no device with {selector_words(selector)} is known of {model}: {reason}. Mend the selector, or give "
        "--although-unknown for devices that the server does not know"
    )


def _known_words(fleet: FleetPort, model: str, selector: Selector, hardware_label: str) -> str:
    values: dict[str, Counter[str]] = {label: Counter() for label in sorted(selector.labels)}
    for labels, count in fleet.label_sets(model):
        for label in values.keys() & labels.keys():
            values[label][labels[label]] += count
    if hardware_label in values:
        for name, count in fleet.classes(model).items():
            if name:
                values[hardware_label][name] = max(values[hardware_label][name], count)
    told = [
        f"{label} is {', '.join(f'{value} ({count})' for value, count in counts.most_common(_SHOWN))}"
        for label, counts in values.items()
        if counts
    ]
    return f"what is known: {'; '.join(told)}" if told else "no device told any of these labels yet"
