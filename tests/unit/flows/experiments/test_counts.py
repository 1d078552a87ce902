"""The devices of each arm, by how far they came."""

import msgspec

from support.experiments import village, written
from whimbrel.flows.experiments.counts import ArmCounts, counts_by_arm
from whimbrel.gate.verdict import Counts

THREE = {
    "variants": [
        {"id": "control", "model_version": "wake@1.0.0"},
        {"id": "large", "model_version": "wake@2.0.0"},
        {"id": "small", "model_version": "wake@3.0.0"},
    ],
    "allocation": {"control": 0.4, "large": 0.3, "small": 0.3},
}
COUNTS = {
    0: Counts(assigned_t=9, assigned_c=8, activated_t=7, placebo_c=6, reported_t=5, reported_c=4, failed_t=2),
    1: Counts(assigned_t=3, assigned_c=80, activated_t=2, placebo_c=60, reported_t=1, reported_c=40, went_back_t=1),
}


def test_each_arm_has_its_own_devices_and_what_went_back_has_failed() -> None:
    with village(plan=written(**THREE)) as here:
        assert counts_by_arm(here.record, COUNTS) == {
            "control": ArmCounts(assigned=8, active=6, reported=4, failed=0),
            "large": ArmCounts(assigned=9, active=7, reported=5, failed=2),
            "small": ArmCounts(assigned=3, active=2, reported=1, failed=1),
        }


def test_controls_are_counted_in_an_arm_that_still_lives() -> None:
    with village(plan=written(**THREE)) as here:
        record = msgspec.structs.replace(here.record, stopped={"large": "harm"})
        assert counts_by_arm(record, COUNTS)["control"] == ArmCounts(assigned=80, active=60, reported=40, failed=0)
        assert counts_by_arm(record, COUNTS)["large"].assigned == 9


def test_nobody_yet_is_zero_devices() -> None:
    with village() as here:
        nobody = ArmCounts(assigned=0, active=0, reported=0, failed=0)
        assert counts_by_arm(here.record, {}) == {"control": nobody, "large": nobody}
