"""Does the candidate give the active version's answer? A share in [0, 1] for one call.

1. Of several outputs the one that agrees least is the call's.
2. By class: the share of places (rows, pixels, tokens) at which the greatest value lies at the same place along the
   last axis. By values: the share within the tolerance. What is not there, or has another shape, agrees nowhere.
3. `auto`: by class for floating-point outputs whose last axis is longer than one, by values for other floats; whole
   numbers, booleans and texts must be equal.
4. The tolerance is the plan's share of the active version's value, or what the candidate's own probe allows.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from whimbrel.policy.shadow import Compare


class Tolerance(msgspec.Struct, frozen=True):
    """|candidate - active| <= absolute + relative |active|."""

    compare: Compare = "auto"
    absolute: float = 0.0
    relative: float = 0.0


def agreement(active: Mapping[str, Any] | Sequence[Any], candidate: Mapping[str, Any], tolerance: Tolerance) -> float:
    """The share of one call's answers that agree. `active` by name, or in the order of the candidate's outputs."""
    if not isinstance(active, Mapping):
        names = list(candidate)
        if len(active) > len(names):
            return 0.0
        active = dict(zip(names, active, strict=False))
    shares = [
        _share(np.asarray(value), np.asarray(candidate[name]), tolerance) if name in candidate else 0.0
        for name, value in active.items()
    ]
    return min(shares, default=0.0)


def not_a_number(active: Mapping[str, Any], candidate: Mapping[str, Any]) -> str:
    """The candidate's output that has values which are not finite, where the active version's are; "" for none."""
    for name, value in candidate.items():
        array = np.asarray(value)
        if array.dtype.kind != "f" or np.isfinite(array).all():
            continue
        other = np.asarray(active[name]) if name in active else np.zeros(())
        if other.dtype.kind != "f" or np.isfinite(other).all():
            return name
    return ""


def _share(active: Any, candidate: Any, tolerance: Tolerance) -> float:
    if active.shape != candidate.shape:
        return 0.0
    if not active.size:
        return 1.0
    numbers = active.dtype.kind in "iufb" and candidate.dtype.kind in "iufb"
    classes = active.ndim > 0 and active.shape[-1] > 1 and numbers
    if classes and (tolerance.compare == "class" or (tolerance.compare == "auto" and active.dtype.kind == "f")):
        return float(np.mean(np.argmax(active, axis=-1) == np.argmax(candidate, axis=-1)))
    if not numbers or (tolerance.compare != "values" and active.dtype.kind != "f"):
        return float(np.mean(active == candidate))
    before, after = active.astype(np.float64), candidate.astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinity less infinity: equal, or not at all
        near = np.abs(after - before) <= tolerance.absolute + tolerance.relative * np.abs(before)
    return float(np.mean(near | (before == after) | (np.isnan(before) & np.isnan(after))))
