"""What rollouts and experiments say of themselves: who may be counted where, and on which version."""

import pytest

from support.experiments import written
from support.values import T0, plan, rollout, shadow_plan, stage
from whimbrel.flows.records import ExperimentRecord
from whimbrel.plan.experiment_states import Phase
from whimbrel.policy.bucket import BUCKETS


def experiment(**changes) -> ExperimentRecord:
    values = {
        "namespace": "default",
        "id": "e1",
        "model": "wake",
        "plan": written(range_percent=[0, 50]),  # control: 0 to 25%, large: 25% to 50%
        "phase": Phase.RUNNING,
        "serials": {"control": 1, "large": 2},
        "hour_s": 3600.0,
        "created_at": T0,
        "because": "started",
    }
    return ExperimentRecord(**values | changes)


@pytest.mark.parametrize(
    ("bucket", "at", "role", "believed"),
    [
        (0, 0, "treated", True),
        (49_999, 0, "treated", True),
        (50_000, 0, "treated", False),
        (50_000, 0, "control", True),
        (49_999, 0, "control", False),
        (49_999, 1, "treated", False),  # the first stage is for everyone: it leaves these buckets to no later one
        (50_000, 1, "treated", True),
        (100_000, 1, "treated", False),
        (0, 2, "treated", False),  # a stage that was not entered
    ],
)
def test_a_device_of_a_rollout_is_believed_where_its_bucket_lies(
    bucket: int, at: int, role: str, believed: bool
) -> None:
    assert rollout(shares=(50_000, 100_000), stage=1).holds(bucket, stage=at, role=role) is believed


def test_a_stage_for_some_devices_leaves_its_buckets_to_the_next() -> None:
    inside = plan(stage(user_segments=("internal",)), stage("all", 100, hours=0))
    assert rollout(plan=inside, shares=(50_000, BUCKETS), stage=1).holds(10_000, stage=1, role="treated")


def test_devices_of_a_shadow_stage_may_be_served_by_the_next() -> None:
    shadowed = rollout(plan=shadow_plan(), shares=(500_000, 50_000), stage=1)
    assert shadowed.holds(10_000, stage=0, role="treated")
    assert shadowed.holds(10_000, stage=1, role="treated")
    assert [shadowed.shadow_serial(at) for at in range(3)] == [2, None, None]


@pytest.mark.parametrize(
    ("bucket", "role", "believed"),
    [
        (0, "control", True),
        (250_000, "control", False),
        (250_000, "treated", True),
        (500_000, "treated", False),
    ],
)
def test_a_device_of_an_experiment_is_believed_where_its_bucket_lies(bucket: int, role: str, believed: bool) -> None:
    assert experiment().holds(bucket, stage=0, role=role) is believed
    assert not experiment().holds(bucket, stage=1, role=role)


def test_an_arm_that_was_stopped_is_watched_no_more() -> None:
    running, stopped = experiment(), experiment(stopped={"large": "harm"})
    assert (len(running.guard_plans), len(stopped.guard_plans)) == (1, 0)
    assert running.compared_metrics == ("watch_time",)


def test_each_says_what_its_roles_run() -> None:
    assert [rollout().serial_of(role, 0) for role in ("treated", "control")] == [2, 1]
    assert [experiment().serial_of(role, 0) for role in ("treated", "control")] == [2, 1]
    assert (rollout().title, experiment().title) == ("rollout r1", "experiment e1")


def test_the_windows_of_a_rehearsal_are_as_short_as_its_hours() -> None:
    """With `--hour-s 1` the first verdict took 300 s, and a day of the plan 24."""
    assert (rollout(hour_s=360.0).window_s, experiment(hour_s=360.0).window_s) == (30, 30)
    assert rollout(hour_s=360.0).window_at(T0 + 61) == 2
    assert rollout().window_at(T0 + 601) == 2
