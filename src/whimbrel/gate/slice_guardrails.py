"""Does an arm harm a guardrail of the app's own, and in a few slices alone?

1. An arm is harmed where the interval of all its devices, or of one slice, lies beyond the margin.
2. The slices of one label that are harmed are named alone where they are few (less than half of the label's slices and
   of its devices) and the others show nothing: their own estimate keeps the margin. Else the whole arm is named.

Called by the gate of experiments. How the budget is shared: gate/experiment_ledger.py.
"""

import functools

import msgspec

from whimbrel.gate.differences import difference
from whimbrel.gate.experiment_ledger import ExperimentLedger, Look
from whimbrel.health.panel import Panel
from whimbrel.plan.experiment import GuardrailMetric


class GuardrailHarm(msgspec.Struct, frozen=True):
    """What is harmed and by how much, in words; `slices`: in these alone."""

    because: str
    slices: tuple[str, ...] = ()


def guardrail_harm(ledger: ExperimentLedger, place: int, guard: GuardrailMetric) -> GuardrailHarm | None:
    """The proven harm of the arm at `place`; None where nothing is proven."""
    looks = {name: look for (metric, name), look in ledger.slice_guards[place].items() if metric == guard.name}
    bad = {name: look for name, look in looks.items() if _worse(guard, look)}
    whole = ledger.guards[place].get(guard.name)
    worse = f"{guard.name} is worse than {ledger.plan.control_id}'s by more than {guard.margin:g}"
    for names in ledger.judged_slices(place).values():
        of_label = tuple(name for name in names if name in bad)
        rest = [name for name in names if name not in bad]
        if of_label and len(of_label) < len(rest) and _is_clean(ledger, place, guard, of_label, rest):
            figures = "; ".join(f"{name}: {_figures(bad[name])}" for name in of_label)
            return GuardrailHarm(f"{worse} there ({figures}), and the others keep the margin", of_label)
    if whole is not None and _worse(guard, whole):
        return GuardrailHarm(f"{worse} ({_figures(whole)})")
    if bad:
        figures = "; ".join(f"{name}: {_figures(look)}" for name, look in bad.items())
        return GuardrailHarm(f"{worse} in some slices ({figures}), and the others are not clean")
    return None


def _is_clean(
    ledger: ExperimentLedger, place: int, guard: GuardrailMetric, bad: tuple[str, ...], rest: list[str]
) -> bool:
    """Whether the bad slices have less than half of the devices, and the others keep the margin by their estimate."""

    def panel(names: tuple[str, ...] | list[str], role: str) -> Panel:
        panels = (ledger.slice_panel(place, name, role, guard.name) for name in names)
        return functools.reduce(Panel.plus, panels, Panel())

    others = difference(panel(rest, "treated"), panel(rest, "control"))
    if others is None or panel(bad, "treated").n >= panel(rest, "treated").n:
        return False
    return others.estimate >= -guard.margin if guard.rises else others.estimate <= guard.margin


def _worse(guard: GuardrailMetric, look: Look) -> bool:
    return look.high < -guard.margin if guard.rises else look.low > guard.margin


def _figures(look: Look) -> str:
    return f"difference {look.estimate:+.4g}, interval {look.low:+.4g} to {look.high:+.4g}"
