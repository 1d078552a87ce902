"""What rollouts and experiments say of themselves: who may be counted where, and on which version."""

from typing import Any

import pytest
from msgspec.structs import asdict

from support.experiments import written
from support.values import T0, plan, rollout, shadow_plan, stage
from whimbrel.errors import UntrustedInput
from whimbrel.flows.records import ExperimentRecord, ModelSettings, NewSettings
from whimbrel.model.documents import convert
from whimbrel.model.selector import Selector
from whimbrel.plan.experiment_states import Phase
from whimbrel.plan.ranges import Range
from whimbrel.plan.rollout_states import State
from whimbrel.policy.bucket import BUCKETS
from whimbrel.policy.policy import Conditions


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


@pytest.mark.parametrize(
    ("bucket", "at", "role", "believed"),
    [
        (499_999, 0, "treated", False),
        (500_000, 0, "treated", True),
        (549_999, 0, "treated", True),
        (550_000, 0, "treated", False),
        (550_000, 0, "control", True),
        (749_999, 0, "control", True),
        (750_000, 0, "control", False),
    ],
)
def test_a_device_beyond_the_rollouts_range_is_in_neither_arm(bucket: int, at: int, role: str, believed: bool) -> None:
    part = plan(stage("a", 20), stage("b", 100), range_percent=(50, 75))
    assert rollout(plan=part, shares=(550_000,)).holds(bucket, stage=at, role=role) is believed


def test_nobody_is_a_control_of_a_first_version_or_of_a_stage_that_has_not_begun() -> None:
    assert not rollout(baseline=None).holds(60_000, stage=0, role="control")
    assert not rollout().holds(60_000, stage=1, role="control")
    assert [rollout().has_arm(at) for at in (0, 1)] == [True, False]
    assert [experiment().has_arm(at) for at in (0, 1)] == [True, False]


def test_of_several_stages_the_largest_earlier_share_bounds_a_later_one() -> None:
    three = rollout(plan=plan(stage("a"), stage("b"), stage("c")), shares=(60_000, 50_000, 100_000), stage=2)
    assert [three.holds(bucket, stage=2, role="treated") for bucket in (59_999, 60_000)] == [False, True]


def test_where_a_rollout_divides_devices_by_its_leads_salt_it_takes_all_buckets_of_its_model() -> None:
    part = plan(stage("a", 20), range_percent=(50, 75))
    assert (rollout(plan=part).range, rollout(plan=part, salt=7).range) == (Range(500_000, 750_000), Range())


def test_what_each_says_of_itself() -> None:
    one, other = rollout(stage=2), experiment(delays=(3.0,))
    assert (one.bucket_label, one.compared_metrics, one.control_stage, one.learns_delays, one.guard_plans) == (
        None,
        (),
        2,
        True,
        (one.plan,),
    )
    assert (other.bucket_label, other.salt, other.learns_delays, experiment().learns_delays) == (
        None,
        None,
        True,
        False,
    )
    assert other.shadow_serial(0) is None
    assert other.range == Range(0, 500_000)


def test_the_arms_of_an_experiment_keep_their_places_when_one_is_stopped() -> None:
    three = written(
        variants=[{"id": name, "model_version": "wake@1.0.0"} for name in ("control", "a", "b")],
        allocation={"control": 0.4, "a": 0.3, "b": 0.3},
    )
    whole = experiment(plan=three, serials={"control": 1, "a": 2, "b": 3})
    rest = experiment(plan=three, serials=whole.serials, stopped={"a": "harm"})
    none = experiment(plan=three, serials=whole.serials, stopped={"a": "harm", "b": "harm"})
    assert [(place, arm.id) for place, arm in whole.arms] == [(0, "a"), (1, "b")]
    assert [(place, arm.id) for place, arm in rest.arms] == [(1, "b")]
    assert [each.control_stage for each in (whole, rest, none)] == [0, 1, 0]
    assert [whole.serial_of("treated", at) for at in (0, 1)] == [2, 3]
    assert whole.holds(700_000, stage=1, role="treated")
    assert not whole.holds(699_999, stage=1, role="treated")
    assert whole.holds(699_999, stage=0, role="treated")


@pytest.mark.parametrize(
    ("state", "live", "ended"),
    [
        (State.DRAFT, False, False),
        (State.QUEUED, False, False),
        (State.SCHEDULED, False, False),
        (State.ADVANCING, True, False),
        (State.RUNNING, True, False),
        (State.SOAKING, True, False),
        (State.HOLDING, True, False),
        (State.PAUSED, True, False),
        (State.WAITING_FOR_APPROVAL, True, False),
        (State.ROLLING_BACK, False, False),
        (State.ROLLED_BACK, False, True),
        (State.COMPLETED, False, True),
        (State.ABORTED, False, True),
    ],
)
def test_in_which_states_a_rollout_has_a_say_and_in_which_it_has_ended(state: State, live: bool, ended: bool) -> None:
    assert (rollout(state=state).live, rollout(state=state).ended) == (live, ended)


@pytest.mark.parametrize(("at", "window"), [(T0 - 500, 0), (T0, 0), (T0 + 299.9, 0), (T0 + 300, 1), (T0 + 900, 3)])
def test_windows_are_counted_from_the_beginning_and_none_is_before_it(at: float, window: int) -> None:
    assert (rollout().window_at(at), experiment().window_at(at)) == (window, window)


def test_the_settings_of_a_model_that_nobody_set() -> None:
    """Golden: they travel in the signed policy, so a default is part of what is signed."""
    assert asdict(ModelSettings()) == {
        "refresh_s": 300.0,
        "rollout_refresh_s": 30.0,
        "report_s": 300.0,
        "activate_max_age_s": 3600.0,
        "conditions": Conditions(),
        "report_labels": (),
        "hardware_label": "hardware",
        "slice_labels": (),
        "on_revoked": "keep",
        "size_bytes_max": None,
        "delta_bases": 2,
        "metrics_min": {},
        "local_limits": None,
        "objectives": (),
        "anomalies": "alert",
        "second_person_above_percent": None,
        "model_signer": None,
        "sealed": False,
        "sealed_for": Selector(),
    }


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("activate_max_age_s", [1, 1e9], [0.99, 0]),
        ("second_person_above_percent", [0, 100, None], [-0.1, 100.1]),
        ("size_bytes_max", [1, None], [0]),
        ("delta_bases", [0, 64], [-1, 65]),
    ],
)
def test_settings_have_bounds_which_a_change_has_too(field: str, good: list[Any], bad: list[Any]) -> None:
    for kind in (ModelSettings, NewSettings):
        for value in good:
            assert getattr(convert(kind, {field: value}, what="it"), field) == value
        for value in bad:
            with pytest.raises(UntrustedInput, match=field):
                convert(kind, {field: value}, what="it")
