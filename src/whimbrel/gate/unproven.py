"""What do devices do to a rollout that somebody may have invented for its sake? They hold it, at most.

1. They have a ledger of their own, of both arms: invented devices beside honest ones would be compared with these.
2. Where they show harm, by the same tests as all others, nothing goes on, and people are told. A rollout that goes back
   for what other devices told goes back.
3. Harm among them takes nothing back, and their health lets nothing go on.
4. The sentence always says how many devices are not counted, and why.

Called by the gate of a rollout (flows/rollouts/judge), where there are such devices. Pure.
"""

from collections.abc import Sequence

import msgspec

from whimbrel.gate.gate import judge
from whimbrel.gate.kill_switch import kill_switch
from whimbrel.gate.ledger import Ledger
from whimbrel.gate.verdict import Counts, GateInput, Unproven, Verdict
from whimbrel.health.tally import Cell
from whimbrel.plan.plan import Plan

_GOES_BACK = frozenset({"roll_back", "slice_back"})


def weigh_unproven(plan: Plan, now: GateInput, verdict: Verdict, ledger: Ledger, cells: Sequence[Cell]) -> Verdict:
    """The verdict, with what unproven devices make of it. `ledger`: their own; `cells`: theirs, not yet folded."""
    unproven = now.unproven
    if unproven is None or not unproven.devices:
        return verdict
    evidence = {**verdict.evidence, "unproven": {"devices": unproven.devices}}
    words = _words(unproven.devices)
    harm = _harm(plan, now, unproven, ledger, cells)
    if harm is None or verdict.move in _GOES_BACK:
        return msgspec.structs.replace(verdict, because=f"{verdict.because}; {words}", evidence=evidence)
    evidence["unproven"]["harm"] = harm
    sentence = f"{words}, and they show harm: {harm}. Such devices take nothing back, so a person decides"
    return Verdict("hold", f"{sentence} (of the others: {verdict.because})", evidence)


def _harm(plan: Plan, now: GateInput, unproven: Unproven, ledger: Ledger, cells: Sequence[Cell]) -> str | None:
    """The harm that they show, in words; None where they show none."""
    # The arms of invented devices are split as whoever invented them likes: their ratio says nothing.
    own = msgspec.structs.replace(
        now, cells=cells, counts=unproven.counts, shares=(), cohort=None, devices=None, past=None, unproven=None
    )
    verdict = judge(plan, own, ledger)
    total = Counts()
    for counts in unproven.counts.values():
        total = total.plus(counts)
    stopped = kill_switch(total, natural=now.natural_go_back)
    if verdict.move in _GOES_BACK or "severity" in verdict.evidence:
        return verdict.because
    return stopped  # where auto_rollback is off, a verdict that would go back holds


def _words(devices: int) -> str:
    whom = "1 device is" if devices == 1 else f"{devices:,} devices are"
    which = "it" if devices == 1 else "them"
    return (
        f"{whom} not counted, since a shared token let {which} in after this began "
        "(whimbrel device admit makes them count)"
    )
