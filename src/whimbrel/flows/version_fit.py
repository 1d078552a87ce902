"""Which devices of a model's fleet can run a version, and why can the others not?

1. A device takes the first variant whose selector matches its labels (model/choose). Runtime needs are terms of the
   selector, so they are counted too.
2. Only labels that devices tell are known here. Where a variant wants a value of another label, the answer is not
   known: it is counted by itself and never guessed. Where a variant only leaves out some values of it (a runtime that
   is too old), the variant is assumed to fit, as it does where the label is not there. Both labels are named. A device
   decides by all of its labels.
3. Why no variant fits is said of the nearest one: that with the fewest terms which do not hold.

Called by the admin API, before a version is published and after it, and by the explanation of a plan.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Literal, Protocol

import msgspec
from msgspec import Meta

from whimbrel import limits
from whimbrel.flows.ports import FleetPort, ModelsPort
from whimbrel.flows.records import ModelRecord
from whimbrel.model.documents import Document, parse
from whimbrel.model.ids import Name
from whimbrel.model.release import Release
from whimbrel.model.selector import EVERYONE, Expression, Selector

_REASONS = 8  # the most frequent ones
_VALUES = 3  # of a label, in a reason


class VariantNeeds(Document, frozen=True):
    """A variant, as far as it is decided which devices it is for."""

    name: Name
    selector: Selector = EVERYONE


class VariantsToFit(Document, frozen=True):
    """POST fit: the variants of a version that is not published yet, in their order."""

    variants: Annotated[tuple[VariantNeeds, ...], Meta(min_length=1, max_length=limits.VARIANTS)]


class VariantFit(msgspec.Struct, frozen=True):
    """A variant, and how many devices take it."""

    name: str
    devices: int


class NoFit(msgspec.Struct, frozen=True):
    """Devices that no variant fits, for one reason. `variant`: the nearest. `has`: how many have what instead."""

    devices: int
    variant: str
    needs: str
    has: dict[str, int]


class VersionFit(msgspec.Struct, frozen=True, kw_only=True):
    """How many devices of `fleet` each variant fits, and how many none.

    `some`: a variant fits, and which one is not known. `unknown`: whether any fits is not known. `untold`: the labels
    that both depend on, and that these devices do not tell. `assumed`: of all that a variant fits, those that could be
    left out by a label that they do not tell; `assumed_for`: these labels. `told`: labels that devices are asked for.
    `running`: how many devices say that they run each variant; it may be another than the first that fits, where a
    probe found that one too slow or too large.
    """

    model: str
    fleet: int
    variants: tuple[VariantFit, ...]
    some: int
    unknown: int
    none: int
    untold: tuple[str, ...]
    assumed: int
    assumed_for: tuple[str, ...]
    told: tuple[str, ...]
    reasons: tuple[NoFit, ...]
    running: dict[str, int] = {}


class Needing(Protocol):
    """A variant: its name, and which devices it is for."""

    @property
    def name(self) -> str: ...
    @property
    def selector(self) -> Selector: ...


def fit_of(fleet: FleetPort, model: ModelRecord, variants: Sequence[Needing]) -> VersionFit:
    """Count the devices of `model` by the variant that they take."""
    takes = dict.fromkeys((variant.name for variant in variants), 0)
    counts, untold, assumed_for = Counter[str](), set[str](), set[str]()
    no_fits: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    told = frozenset(model.settings.report_labels)
    for labels, devices in fleet.label_sets(model.name):
        place = _place(variants, labels, told=told)
        untold |= place.untold
        assumed_for |= place.assumed
        counts["assumed"] += devices * bool(place.assumed)
        counts[place.kind] += devices
        if place.kind == "takes":
            takes[place.variant] += devices
        elif place.kind == "none":
            needs = " and ".join(_needs(term) for term in place.failing)
            no_fits[place.variant, needs][_has(place.failing, labels)] += devices
    reasons = [
        NoFit(devices=has.total(), variant=variant, needs=needs, has=dict(has.most_common(_VALUES)))
        for (variant, needs), has in no_fits.items()
    ]
    return VersionFit(
        model=model.name,
        fleet=counts.total() - counts["assumed"],
        variants=tuple(VariantFit(name, devices) for name, devices in takes.items()),
        some=counts["some"],
        unknown=counts["unknown"],
        none=counts["none"],
        untold=tuple(sorted(untold)),
        assumed=counts["assumed"],
        assumed_for=tuple(sorted(assumed_for)),
        told=model.settings.report_labels,
        reasons=tuple(sorted(reasons, key=lambda each: (-each.devices, each.variant, each.needs))[:_REASONS]),
    )


def fit_of_version(registry: ModelsPort, fleet: FleetPort, model: str, serial: int) -> VersionFit:
    """The same for a version that is published, with the builds of it that devices run."""
    fit = fit_of(fleet, registry.model(model), release_of(registry, model, serial).variants)
    running: Counter[str] = Counter()
    for (_, variant), devices in fleet.variants_running(model, serial).items():
        running[variant] += devices
    return msgspec.structs.replace(fit, running=dict(running))


def release_of(registry: ModelsPort, model: str, serial: int) -> Release:
    """The release document of a version."""
    return parse(Release, registry.release_bytes(model, serial), what="a stored release")


def runs_where(variants: Sequence[Needing], *, told: Iterable[str]) -> Callable[[Mapping[str, str]], bool] | None:
    """Whether a variant may fit a device with some labels: it is not certain that none does.

    None where a variant fits every device. `told`: the labels that devices are asked for. The answers are kept, since a
    fleet has few sets of labels.
    """
    if any(variant.selector.everyone for variant in variants):
        return None
    asked, answers = frozenset(told), dict[frozenset[tuple[str, str]], bool]()

    def may_run(labels: Mapping[str, str]) -> bool:
        key = frozenset(labels.items())
        if key not in answers:
            answers[key] = _place(variants, labels, told=asked).kind != "none"
        return answers[key]

    return may_run


class _Place(msgspec.Struct, frozen=True):
    """What is known of one device: "takes" a variant, takes "some" variant, "unknown", or "none" fits."""

    kind: Literal["takes", "some", "unknown", "none"]
    variant: str = ""
    untold: frozenset[str] = frozenset()
    assumed: frozenset[str] = frozenset()
    failing: tuple[Expression, ...] = ()


def _place(variants: Sequence[Needing], labels: Mapping[str, str], *, told: frozenset[str]) -> _Place:
    untold: set[str] = set()
    nearest: _Place | None = None
    for variant in variants:
        terms = _terms(variant.selector)
        failing = tuple(t for t in terms if (t.key in labels or t.key in told) and not t.matches(labels))
        hidden = [t for t in terms if t.key not in labels and t.key not in told]
        if failing:
            if nearest is None or len(failing) < len(nearest.failing):
                nearest = _Place("none", variant.name, failing=failing)
        elif wanted := [t.key for t in hidden if not t.matches(labels)]:
            untold.update(wanted)
        else:
            assumed = frozenset(t.key for t in hidden)
            if untold:
                return _Place("some", untold=frozenset(untold), assumed=assumed)
            return _Place("takes", variant.name, assumed=assumed)
    if untold or nearest is None:
        return _Place("unknown", untold=frozenset(untold))
    return nearest


def _terms(selector: Selector) -> list[Expression]:
    plain = [Expression(key=key, operator="In", values=(value,)) for key, value in selector.match_labels.items()]
    return [*plain, *selector.match_expressions]


def _needs(term: Expression) -> str:
    values = " or ".join(term.values)
    words = {
        "In": f"to be {values}",
        "NotIn": f"not to be {values}",
        "Exists": "to be there",
        "DoesNotExist": "not to be there",
        "Gt": f"over {values}",
        "Lt": f"under {values}",
        "Version": f"to be {', '.join(term.values)}",
        "NotVersion": f"not to be {', '.join(term.values)}",
    }
    return f"{term.key} {words[term.operator]}"


def _has(failing: Iterable[Expression], labels: Mapping[str, str]) -> str:
    return ", ".join(f"{term.key}={labels[term.key]}" if term.key in labels else f"no {term.key}" for term in failing)
