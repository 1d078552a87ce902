"""Which slices is the harm in? e-BH names them, label by label, and says what evidence the others leave.

Where e-BH names none, one slice that is proven by itself is named if no other shows anything at all.

Called by the gate, once harm is proven.
"""

import math

import msgspec

from whimbrel.gate.evidence import e_bh, log_mean_exp
from whimbrel.gate.guardrails import by_class, cohort_share
from whimbrel.gate.ledger import Ledger

_NOTHING = 0.01  # ln E: of slices without a single event, after rounding


class HarmedSlices(msgspec.Struct, frozen=True, kw_only=True):
    """The slices of one label that e-BH calls `bad`, ln E of each slice, and ln E of all the others together."""

    bad: list[str]
    logs: dict[str, float]
    rest: float  # inf where no other is left
    devices: float  # device-windows of the bad slices on the new version
    of: float  # device-windows of all slices of the label on the new version
    leads: dict[str, tuple[str, int]]  # by slice: the guardrail and the stage with the most evidence

    def clean(self, *, needed: float) -> bool:
        """Whether the bad ones are few and the others show nothing: then they may go back alone."""
        few = 2 * len(self.bad) < len(self.logs) and 2 * self.devices < self.of
        return bool(self.bad) and few and self.rest < needed / 2


def harmed_slices(ledger: Ledger) -> dict[str, HarmedSlices]:
    """By label: its bad slices, by e-BH among the label's own."""
    sliced = (row.name for row in by_class(ledger.plan))
    severe = [name for name in sliced if ledger.severities[name] == "rollback"]
    if not severe:
        return {}
    stages = len(ledger.plan.stages)
    shares = [(name, n, ledger.weights[name] * cohort_share(stages, n)) for name in severe for n in range(stages)]
    total = sum(share for _, _, share in shares)
    by_label = {}
    for label, slices in (ledger.slices or {}).items():
        logs, leads = {}, {}
        for each in slices:
            of_tests = [_class_log_e(ledger, each, name, stage) for name, stage, _ in shares]
            leads[each] = shares[of_tests.index(max(of_tests))][:2]
            logs[each] = log_mean_exp(of_tests, [share / total for _, _, share in shares])
        bad = [slices[index] for index in e_bh(list(logs.values()), alpha=ledger.plan.alpha)]
        bad = bad or _alone(logs, needed=math.log(1 / ledger.plan.alpha))
        rest = [logs[each] for each in slices if each not in bad]
        by_label[label] = HarmedSlices(
            bad=bad,
            logs=logs,
            rest=log_mean_exp(rest, [1 / len(rest)] * len(rest)) if rest else math.inf,
            devices=sum(_at_risk(ledger, each) for each in bad),
            of=sum(_at_risk(ledger, each) for each in slices),
            leads=leads,
        )
    return by_label


def _alone(logs: dict[str, float], *, needed: float) -> list[str]:
    """The one slice that is proven by itself while no other shows anything; empty where there is none.

    Harm is proven already, and the question is only where it is. Were e-BH's price for many slices the only way, the
    proof of the whole fleet could come a window before that of its one bad slice, and take the version from all.
    """
    lead = max(logs, key=lambda each: (logs[each], each), default="")
    others = [log for each, log in logs.items() if each != lead]
    return [lead] if others and logs[lead] >= needed and max(others) <= _NOTHING else []


def _at_risk(ledger: Ledger, name: str) -> float:
    return sum(cohort.class_totals[name, "treated"]["at_risk"] for cohort in ledger.cohorts.values())


def _class_log_e(ledger: Ledger, name: str, guard: str, stage: int) -> float:
    cohort = ledger.cohorts.get(stage)
    tests = cohort.classes.get(name) if cohort else None
    return tests.log_e(guard) / ledger.cluster if tests else 0.0
