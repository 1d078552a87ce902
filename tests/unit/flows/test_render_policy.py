"""The one document that a rollout is."""

import msgspec
import pytest

from support.values import SALT, T0, devices_in, line, model, plan, quarantined, rollout, stage, town, version
from whimbrel.flows.records import ModelSettings, RolloutRecord
from whimbrel.flows.render_policy import render_policy
from whimbrel.model.documents import encode, parse
from whimbrel.model.local_limits import LocalLimits
from whimbrel.plan.rollout_states import State
from whimbrel.policy.bucket import BUCKETS
from whimbrel.policy.decide import Profile, decide
from whimbrel.policy.policy import Conditions, Policy


def render(*rollouts: RolloutRecord, **changes: object) -> Policy:
    values = {"versions": [version(1), version(2)], "quarantine": [], "sequence": 1} | changes
    return render_policy(values.pop("model", model()), rollouts=rollouts, **values)  # type: ignore[arg-type]


def test_the_same_rows_give_the_same_bytes() -> None:
    assert encode(render(rollout())) == encode(render(rollout()))


def test_a_rollout_for_ten_devices_and_for_ten_thousand_is_the_same_document() -> None:
    documents = []
    for count in (10, 10_000):
        with town(running=rollout()) as here:
            here.enrol(*(f"device-{n}" for n in range(count)))
            live = here.registry.rollouts(live=True)
            documents.append(encode(render(*live, versions=here.registry.versions("wake"))))
    assert documents[0] == documents[1]
    assert len(documents[0]) < 1000


def test_a_stage_is_some_bytes_longer_and_no_device_is_named() -> None:
    two = encode(render(rollout(stage=1, shares=(50_000, 250_000))))
    assert len(two) < len(encode(render(rollout()))) + 200
    assert b"dev-" not in two


def test_a_rendered_policy_is_read_back() -> None:
    one = render(rollout(stage=1, shares=(50_000, 250_000)), quarantine=[quarantined(3)])
    assert parse(Policy, encode(one), what="it") == one


def test_a_models_local_limits_are_in_its_policy_and_old_policies_are_read_without() -> None:
    settings = ModelSettings(local_limits=LocalLimits(crash_loop=5))
    assert render(model=model(settings=settings)).local_limits == LocalLimits(crash_loop=5)
    assert render().local_limits is None
    assert b"local_limits" not in encode(render())


def test_every_bucket_is_treated_or_a_control() -> None:
    policy = render(rollout(stage=1, shares=(50_000, 250_000)))
    for start, end, expected in (
        (0, 50_000, {(0, "treated")}),
        (50_000, 250_000, {(1, "treated")}),
        (250_000, BUCKETS, {(0, "control"), (1, "control")}),
    ):
        for device in devices_in(start, end, 20):
            decision = decide(policy, line(), Profile(device))
            assert {(a.stage, a.role) for a in decision.assignments} == expected
            assert decision.serial == (1 if start == 250_000 else 2)


def test_a_first_version_has_no_control_and_who_is_not_treated_runs_nothing() -> None:
    policy = render(rollout(baseline=None, target=1), model=model(baseline=None), versions=[version(1)])
    (entry,) = policy.layers[0].entries
    assert [(arm.role, arm.serial) for arm in entry.arms] == [("treated", 1)]
    treated, other = devices_in(0, 50_000, 1)[0], devices_in(50_000, BUCKETS, 1)[0]
    assert decide(policy, line(), Profile(treated)).serial == 1
    decision = decide(policy, line(), Profile(other))
    assert (decision.serial, decision.offer, decision.assignments) == (None, "stop", ())


def test_raising_the_share_only_adds_devices() -> None:
    before, after = render(rollout()), render(rollout(stage=1, shares=(50_000, 250_000)))
    for device in devices_in(0, BUCKETS, 400):
        first, then = decide(before, line(), Profile(device)), decide(after, line(), Profile(device))
        assert first.serial != 2 or (then.serial, then.assignments) == (first.serial, first.assignments)


def test_a_rollout_that_ended_leaves_nothing_behind() -> None:
    for state in (State.COMPLETED, State.ROLLED_BACK, State.ABORTED):
        assert render(rollout(state=state, ended_at=T0)).layers[0].entries == ()


def test_paused_and_holding_rollouts_stay_in_force() -> None:
    for state in (State.PAUSED, State.HOLDING):
        assert render(rollout(state=state)).layers == render(rollout()).layers


def test_the_salt_is_the_models() -> None:
    assert render().layers[0].salt == SALT


def test_known_good_versions_are_newest_first_without_the_retired_and_quarantined() -> None:
    versions = [version(n, good=True, retired=n == 3) for n in (1, 2, 3, 4)] + [version(5)]
    assert render(versions=versions, quarantine=[quarantined(4)]).known_good == (2, 1)


def test_evidence_comes_as_fast_as_the_plan_wants_to_look() -> None:
    quick = plan(stage(), rollback={"health_check_interval_sec": 10})
    quick = msgspec.convert(msgspec.to_builtins(quick), type(quick))
    assert render(rollout(plan=quick)).report_s == 10
    assert render().report_s == 300


def test_in_a_rehearsal_devices_look_and_report_as_often_as_its_hours_are_short() -> None:
    """With `--hour-s 1` windows lasted 300 s, and devices looked every 300 s: a day of the plan is 24 s."""
    assert (render(rollout(hour_s=360)).refresh_s, render(rollout(hour_s=360)).report_s) == (5, 30)
    assert (render(rollout(hour_s=1)).refresh_s, render(rollout(hour_s=1)).report_s) == (5, 5)
    quick = model(settings=ModelSettings(refresh_s=2, report_s=2))
    assert (render(rollout(hour_s=1), model=quick).refresh_s, render(rollout(hour_s=1), model=quick).report_s) == (2, 2)
    assert (render().refresh_s, render().report_s) == (300, 300)
    back = rollout(hour_s=1, state=State.ROLLING_BACK)  # it is known soon which devices are off it
    assert (render(back).refresh_s, render(back).report_s) == (5, 5)
    assert render(rollout(state=State.ROLLING_BACK), model=model(settings=ModelSettings(report_s=900))).report_s == 300
    ended = rollout(hour_s=1, state=State.COMPLETED, ended_at=T0)  # less than a day of its hours ago
    assert (render(ended).refresh_s, render(ended).report_s) == (5, 300)


@pytest.mark.parametrize("state", [State.RUNNING, State.PAUSED, State.ROLLING_BACK, State.ROLLED_BACK, State.COMPLETED])
def test_while_something_rolls_out_and_for_a_day_after_it_devices_refresh_more_often(state: State) -> None:
    assert (render().refresh_s, render(rollout(state=state)).refresh_s) == (300, 30)


def test_a_model_says_how_often_that_is_and_is_never_asked_less_often_for_it() -> None:
    seldom = model(settings=ModelSettings(rollout_refresh_s=120))
    assert render(rollout(), model=seldom).refresh_s == 120
    often = model(settings=ModelSettings(refresh_s=10))
    assert render(rollout(), model=often).refresh_s == 10
    off = model(settings=ModelSettings(rollout_refresh_s=300))
    assert render(rollout(), model=off).refresh_s == 300


def test_what_has_not_begun_asks_nobody_to_look_more_often() -> None:
    for state in (State.DRAFT, State.QUEUED, State.SCHEDULED, State.ABORTED):
        assert render(rollout(state=state, shares=())).refresh_s == 300


def test_settings_travel_in_the_policy() -> None:
    settings = ModelSettings(refresh_s=60, report_labels=("region",), on_revoked="stop", hardware_label="chip")
    policy = render(model=model(settings=settings))
    assert (policy.refresh_s, policy.report_labels, policy.on_revoked, policy.hardware_label) == (
        60,
        ("region",),
        "stop",
        "chip",
    )


def test_two_rollouts_of_one_model_share_a_layer_by_their_ranges() -> None:
    low = rollout(plan=plan(stage("a", 20), stage("b", 100), range_percent=(0, 50)), shares=(100_000,))
    high = rollout(
        id="r2", target=3, plan=plan(stage("a", 20), stage("b", 100), range_percent=(50, 100)), shares=(600_000,)
    )
    policy = render(low, high, versions=[version(1), version(2), version(3)])
    for start, end, serial, mine in (
        (0, 100_000, 2, "r1"),
        (100_000, 500_000, 1, "r1"),
        (500_000, 600_000, 3, "r2"),
        (600_000, BUCKETS, 1, "r2"),
    ):
        (device,) = devices_in(start, end, 1)
        decision = decide(policy, line(), Profile(device))
        assert (decision.serial, {each.rollout for each in decision.assignments}) == (serial, {mine})


def test_a_stages_conditions_are_its_devices_own_and_its_controls() -> None:
    charging = Conditions(charging=True)
    one = rollout(plan=plan(stage("a", 5, conditions=charging), stage("b", 100)), stage=1, shares=(50_000, 900_000))
    policy = render(one, model=model(settings=ModelSettings(conditions=Conditions(unmetered=True))))
    assert policy.conditions_of("r1", role="treated", stage=0) == charging
    assert policy.conditions_of("r1", role="control", stage=0) == charging
    assert policy.conditions_of("r1", role="treated", stage=1) == Conditions(unmetered=True)
    assert policy.conditions_of(None, role="treated", stage=0) == Conditions(unmetered=True)
