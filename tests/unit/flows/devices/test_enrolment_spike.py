"""When more devices come in than ever before: the exact bounds, and what people are told."""

import pytest

from support.values import T0, town
from whimbrel.flows.device_records import EnrolmentRates
from whimbrel.flows.devices.enrolment_spike import EnrolmentSpike, enrolment_spike, notice_spike


def rates(last_hour: int, *, busiest: int = 0, before: int = 1) -> EnrolmentRates:
    return EnrolmentRates(last_hour=last_hour, busiest_hour=busiest, enrolled_before=before, newest="dev-9")


@pytest.mark.parametrize(
    ("seen", "is_one"),
    [
        (rates(49), False),
        (rates(50), True),  # a shelf of boards has fewer
        (rates(50, before=0), False),  # a fleet begins
        (rates(100, before=10_000), True),
        (rates(99, before=10_000), False),  # a hundredth of the fleet decides
        (rates(100, before=10_001), False),
        (rates(80, busiest=20), False),
        (rates(81, busiest=20), True),  # four times the busiest hour, and one
    ],
)
def test_what_a_spike_is(seen: EnrolmentRates, is_one: bool) -> None:
    expected = EnrolmentSpike(devices=seen.last_hour, usual=seen.busiest_hour, newest="dev-9") if is_one else None
    assert enrolment_spike(seen) == expected


def test_people_are_told_with_both_figures() -> None:
    spike = EnrolmentSpike(devices=12_345, usual=1_000, newest="dev-9")
    with town() as here:
        notice_spike(here.registry, spike, now=T0 + 1)
        (entry,) = here.registry.audit_log()
    assert (entry.device, entry.actor, entry.action, entry.at) == ("dev-9", "tally", "notice_enrolments", T0 + 1)
    assert entry.because == (
        "12,345 devices enrolled with a shared token within the last hour, and 1,000 at most in an hour of the two "
        "weeks before: somebody may be inventing devices (whimbrel device list shows them)"
    )
    assert entry.evidence == {"devices": 12_345, "usual": 1_000}
