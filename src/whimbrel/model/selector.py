"""Selectors name a set of devices by labels: Kubernetes' shape, with `Version` and `NotVersion`. No code is evaluated.

1. All labels of `match_labels` and all terms of `match_expressions` must hold; an empty selector means everyone.
2. An absent label fails `In`, `Gt`, `Lt` and `Version`, and satisfies `NotIn`, `NotVersion` and
   `DoesNotExist` (as Kubernetes).
3. A value that cannot be read as the number or version that a term asks for does not match: fail closed.
"""

import operator
from collections.abc import Callable, Mapping
from typing import Annotated, Literal

from msgspec import Meta

from whimbrel import limits
from whimbrel.model.documents import Document
from whimbrel.model.ids import Label, LabelValue, dotted_key

Operator = Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt", "Version", "NotVersion"]

# Longest first: ">=" before ">".
_COMPARE: tuple[tuple[str, Callable[[tuple[int, ...], tuple[int, ...]], bool]], ...] = (
    (">=", operator.ge),
    ("<=", operator.le),
    ("!=", operator.ne),
    ("==", operator.eq),
    (">", operator.gt),
    ("<", operator.lt),
    ("=", operator.eq),
)


class Expression(Document, frozen=True):
    """One term: a key, an operator, and values. `Version` takes bounds, which must all hold: [">=1", "<3"].

    `NotVersion` takes the bounds of versions that are left out; whoever has no version is not.
    """

    key: Label
    operator: Operator
    values: Annotated[tuple[LabelValue, ...], Meta(max_length=limits.EXPRESSION_VALUES)] = ()

    def __post_init__(self) -> None:
        if self.operator in {"Exists", "DoesNotExist"} and self.values:
            raise ValueError(f"{self.operator} on {self.key!r} takes no values")
        if self.operator in {"In", "NotIn", "Version", "NotVersion"} and not self.values:
            raise ValueError(f"{self.operator} on {self.key!r} needs at least one value")
        if self.operator in {"Gt", "Lt"} and (len(self.values) != 1 or _number(self.values[0]) is None):
            raise ValueError(f"{self.operator} on {self.key!r} needs exactly one whole number")
        if self.operator in {"Version", "NotVersion"}:
            for bound in self.values:
                _split_bound(bound)

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether this term holds for a device with `labels`."""
        value = labels.get(self.key)
        match self.operator:
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None
            case "NotIn":
                return value not in self.values
            case "In":
                return value in self.values
            case "Version":
                return value is not None and _within(value, self.values) is True
            case "NotVersion":
                return value is None or _within(value, self.values) is False
            case "Gt" | "Lt":
                number, limit = _number(value), _number(self.values[0])
                if number is None or limit is None:
                    return False
                return number > limit if self.operator == "Gt" else number < limit


class Selector(Document, frozen=True):
    """A set of devices, by their labels."""

    match_labels: Annotated[dict[Label, LabelValue], Meta(max_length=limits.LABELS)] = {}
    match_expressions: Annotated[tuple[Expression, ...], Meta(max_length=limits.EXPRESSIONS)] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether a device with `labels` is in the set."""
        return all(labels.get(key) == value for key, value in self.match_labels.items()) and all(
            term.matches(labels) for term in self.match_expressions
        )

    @property
    def labels(self) -> frozenset[str]:
        """The labels that are asked about."""
        return frozenset(self.match_labels) | {term.key for term in self.match_expressions}

    @property
    def everyone(self) -> bool:
        """Whether this selector contains every device."""
        return not self.match_labels and not self.match_expressions


EVERYONE = Selector()


def _number(text: str | None) -> int | None:
    try:
        return int(text) if text is not None and len(text) <= 18 else None
    except ValueError:
        return None


def _split_bound(bound: str) -> tuple[Callable[[tuple[int, ...], tuple[int, ...]], bool], tuple[int, ...]]:
    for sign, compare in _COMPARE:
        if bound.startswith(sign):
            return compare, dotted_key(bound[len(sign) :].strip())
    raise ValueError(f"{bound!r} is not a version bound; expected one like >=1.8 or <3")


def _within(value: str, bounds: tuple[str, ...]) -> bool | None:
    """Whether a version keeps all bounds; None where the value is no version."""
    try:
        version = dotted_key(value)
    except ValueError:
        return None
    return all(compare(version, limit) for compare, limit in map(_split_bound, bounds))
