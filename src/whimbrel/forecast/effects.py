"""What may be wrong with a new version: effects in their written form, `crash=2x`, `accuracy=-0.04`, `pi4:crash=5x`."""

import re
from typing import Literal

import msgspec

from whimbrel.errors import UntrustedInput
from whimbrel.model.ids import END

Kind = Literal["ratio", "difference", "share"]
METRICS: dict[str, tuple[Kind, str]] = {  # the kind of its size, and an example
    "crash": ("ratio", "crash=2x"),
    "error": ("ratio", "error=3x"),
    "latency": ("ratio", "latency=1.5x"),
    "accuracy": ("difference", "accuracy=-0.04"),
    "bricked": ("share", "bricked=2%"),
    "install_failed": ("share", "install_failed=5%"),
    "went_back": ("share", "went_back=5%"),
}
_FORMS = {
    "ratio": re.compile(r"^([0-9]{1,4}(?:\.[0-9]{1,6})?)x?" + END),
    "difference": re.compile(r"^(-?[01]?(?:\.[0-9]{1,6})?)" + END),
    "share": re.compile(r"^([0-9]{1,3}(?:\.[0-9]{1,6})?)%" + END),
}


class Effect(msgspec.Struct, frozen=True):
    """One change for the worse. `value`: a ratio to the old version's rate, a difference of means, or a share."""

    metric: str
    value: float
    hardware: str | None = None  # only in this class
    text: str = ""

    def on(self, metric: str, *, plain: float) -> float:
        """The value of `metric` with this effect. `plain`: its value without."""
        if metric != self.metric:
            return plain
        if METRICS[metric][0] == "ratio":
            return plain * self.value if metric == "latency" else min(1.0, plain * self.value)
        if METRICS[metric][0] == "difference":
            return min(1.0, max(0.0, plain + self.value))
        return self.value


NOTHING_WRONG = Effect("", 0.0, text="nothing wrong")


def parse_effect(text: str) -> Effect:
    """Read `metric=size`. Raises `UntrustedInput`, with the form that is expected."""
    metric, sign, size = text.partition("=")
    if not sign or metric not in METRICS:
        raise UntrustedInput(
            f"{text!r} is no effect; expected one of {', '.join(example for _, example in METRICS.values())}"
        )
    kind, example = METRICS[metric]
    parsed = _FORMS[kind].match(size)
    if not parsed or not parsed[1].strip("-"):
        raise UntrustedInput(f"{text!r}: the size of {metric} is a {kind}, as in {example}")
    value = float(parsed[1]) / (100 if kind == "share" else 1)
    if kind == "share" and not 0 < value <= 1:
        raise UntrustedInput(f"{text!r}: a share is over 0% and at most 100%")
    if kind == "ratio" and not 0 < value <= 1000:
        raise UntrustedInput(f"{text!r}: a ratio is over 0 and at most 1000")
    if kind == "difference" and not -1 <= value <= 1:
        raise UntrustedInput(f"{text!r}: a difference of accuracy lies between -1 and 1")
    return Effect(metric, value, text=text)


def parse_class_effect(text: str, *, classes: list[str]) -> Effect:
    """Read `class:metric=size`. `classes`: the hardware classes of the fleet. Raises `UntrustedInput`."""
    name, sign, rest = text.rpartition(":")
    if not sign or name not in classes:
        raise UntrustedInput(
            f"{text!r}: expected CLASS:METRIC=SIZE with a hardware class of the fleet, which are "
            f"{', '.join(map(repr, classes))}"
        )
    return msgspec.structs.replace(parse_effect(rest), hardware=name, text=text)
