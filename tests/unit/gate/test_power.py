"""What a stage is said to see, it sees: the forecast is asked of the real gate."""

import pytest

from support.values import HOUR, cell, gate_input, plan, stage
from whimbrel.gate.gate import judge
from whimbrel.gate.power import Usage, detectable_harm
from whimbrel.gate.verdict import Counts
from whimbrel.plan.plan import Plan

PLAN = plan(stage("a", 5), stage("b", 100))
USAGE = Usage(active_an_hour=1, crash_rate=0.02, accuracy_sd=0.3)


def goes_back(said: Plan, *, ratio: float, hours: float, treated: int, control: int) -> bool:
    """Whether the gate takes it back when exactly what is expected happens, in windows of an hour."""
    rate = USAGE.crash_rate
    cells = []
    for window in range(round(hours)):
        so_far, before = (window + 1) * rate, window * rate
        cells += [
            cell(
                "treated", window, n=treated, crashed=round(treated * ratio * so_far) - round(treated * ratio * before)
            ),
            cell("control", window, n=control, crashed=round(control * so_far) - round(control * before)),
        ]
    counts = Counts(assigned_t=treated, assigned_c=control, activated_t=treated, placebo_c=control, reported_t=treated)
    return judge(said, gate_input(*cells, soaked_s=hours * HOUR, counts={0: counts})).move == "roll_back"


@pytest.mark.parametrize("ratio", [2.0, 3.0])
def test_harm_is_proven_in_about_the_hours_that_were_said(ratio: float) -> None:
    treated, control = 200, 3800
    harm = detectable_harm(PLAN, stage=0, treated=treated, control=control, hours=24, usage=USAGE)
    hours = harm.hours_to_see[f"{ratio:g}"]
    assert hours is not None
    assert goes_back(PLAN, ratio=ratio, hours=1.5 * hours, treated=treated, control=control)
    assert not goes_back(PLAN, ratio=ratio, hours=0.5 * hours, treated=treated, control=control)


def test_more_devices_and_more_time_see_less_harm() -> None:
    harms = [
        detectable_harm(PLAN, stage=0, treated=treated, control=19 * treated, hours=hours, usage=USAGE)
        for treated, hours in ((10, 24), (100, 24), (100, 240))
    ]
    ratios = [harm.crash_ratio for harm in harms]
    assert None not in ratios
    assert ratios == sorted(ratios, reverse=True)  # type: ignore[type-var]
    waits = [harm.hours_to_see["2"] for harm in harms]
    assert waits[0] > waits[1] == waits[2]  # type: ignore[operator]
    drops = [harm.hours_to_see_drop for harm in harms]
    assert drops[0] > drops[1]  # type: ignore[operator]


def test_an_arm_that_is_empty_sees_nothing() -> None:
    for treated, control in ((0, 100), (100, 0)):
        harm = detectable_harm(PLAN, stage=0, treated=treated, control=control, hours=24, usage=USAGE)
        assert (harm.crash_ratio, harm.hours_to_see_drop, set(harm.hours_to_see.values())) == (None, None, {None})
