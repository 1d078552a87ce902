"""The one document that a rollout is."""

import msgspec
import pytest

from support.values import (
    SALT,
    T0,
    devices_in,
    line,
    model,
    plan,
    quarantined,
    rollout,
    selector,
    shadow_plan,
    stage,
    town,
    version,
)
from whimbrel import limits
from whimbrel.flows.records import ModelSettings, RolloutRecord
from whimbrel.flows.render_policy import render_policy
from whimbrel.model.documents import encode, parse
from whimbrel.model.local_limits import LocalLimits
from whimbrel.model.selector import EVERYONE
from whimbrel.plan.rollout_states import State
from whimbrel.policy.bucket import BUCKETS
from whimbrel.policy.decide import Profile, decide
from whimbrel.policy.policy import Arm, Conditions, Entry, Policy, SetLead


def render(*rollouts: RolloutRecord, **changes: object) -> Policy:
    values = {"versions": [version(1), version(2)], "quarantine": [], "sequence": 1} | changes
    return render_policy(values.pop("model", model()), rollouts=rollouts, **values)


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


def test_lists_of_a_policy_have_bounds_and_keep_the_newest() -> None:
    many = [version(serial, good=True) for serial in range(1, 18)]
    assert render(versions=many).known_good == tuple(range(17, 1, -1))
    overrides = tuple(range(1, 1002))
    assert render(overrides=overrides).overrides == overrides[1:]
    leads = tuple(SetLead(serial=1, model="lead", lead_serial=serial) for serial in range(1, limits.SET_LEADS + 2))
    assert render(set_leads=leads).set_leads == leads[1:]


def test_a_version_that_came_in_a_set_names_its_lead_while_devices_may_run_it() -> None:
    versions = [version(serial, good=serial == 2) for serial in range(1, 6)]
    leads = tuple(SetLead(serial=serial, model="lead", lead_serial=9) for serial in range(1, 6))
    named = render(rollout(target=4), versions=versions, set_leads=leads).set_leads
    assert [each.serial for each in named] == [1, 2, 4]  # the baseline, a good one, the target of what is live
    ended = render(rollout(target=4, state=State.COMPLETED, ended_at=T0), versions=versions, set_leads=leads)
    assert [each.serial for each in ended.set_leads] == [1, 2]


def test_what_a_rollout_says_to_devices_is_whole() -> None:
    """Golden: each field of an entry is something that devices do."""
    conditions = Conditions(charging=True)
    asked = plan(
        stage("a", 10, only=selector(ring="x"), conditions=conditions), stage("b", 100), range_percent=(50, 100)
    )
    one = rollout(plan=asked, shares=(550_000, 950_000), stage=1, delays=(60.0, 90.0), delays_by_class={"pi4": (5.0,)})
    (layer,) = render(one).layers
    assert layer.salt == SALT
    ring = selector(ring="x")
    assert layer.entries == (
        Entry(
            rollout="r1",
            arms=(
                Arm(
                    role="treated",
                    name="a",
                    stage=0,
                    serial=2,
                    start=500_000,
                    end=550_000,
                    selector=ring,
                    conditions=conditions,
                ),
                Arm(role="treated", name="b", stage=1, serial=2, start=500_000, end=950_000),
                Arm(
                    role="control",
                    name="control",
                    stage=0,
                    serial=1,
                    start=950_000,
                    end=BUCKETS,
                    selector=ring,
                    conditions=conditions,
                ),
                Arm(role="control", name="control", stage=1, serial=1, start=950_000, end=BUCKETS),
            ),
            start=500_000,
            end=BUCKETS,
            delays_s=(60.0, 90.0),
            delays_by_class={"pi4": (5.0,)},
        ),
    )


def test_a_shadow_stage_has_arms_of_its_own_alone() -> None:
    shadowed = shadow_plan()
    (entry,) = render(rollout(plan=shadowed, shares=(500_000,))).layers[0].entries
    assert [(arm.role, arm.stage, arm.serial, arm.start, arm.end, arm.shadow is not None) for arm in entry.arms] == [
        ("treated", 0, 2, 0, 500_000, True),
        ("control", 0, 1, 500_000, BUCKETS, False),
    ]
    (entry,) = render(rollout(plan=shadowed, shares=(500_000, 50_000), stage=1)).layers[0].entries
    assert [(arm.role, arm.stage, arm.start, arm.end) for arm in entry.arms] == [
        ("treated", 1, 0, 50_000),
        ("control", 1, 50_000, BUCKETS),
    ]


def test_a_carried_rollout_has_a_layer_before_the_models_with_its_leads_salt() -> None:
    carried = rollout(id="r2", target=3, salt=7, lead="other", shares=(10_000,))
    own = rollout(plan=plan(stage("a", 10), range_percent=(50, 100)), shares=(510_000,))
    policy = render(own, carried, versions=[version(n) for n in (1, 2, 3)])
    assert [(layer.salt, [entry.rollout for entry in layer.entries]) for layer in policy.layers] == [
        (7, ["r2"]),
        (SALT, ["r1"]),
    ]


def test_all_settings_travel() -> None:
    settings = ModelSettings(
        conditions=Conditions(charging=True), activate_max_age_s=60.0, slice_labels=("os",), report_s=40.0
    )
    policy = render(model=model(settings=settings))
    assert (policy.conditions, policy.activate_max_age_s, policy.slice_labels, policy.report_s) == (
        Conditions(charging=True),
        60.0,
        ("os",),
        40.0,
    )
    boards = selector(hardware="pi3")
    refused = render(quarantine=[quarantined(2, selector=boards), quarantined(2)]).quarantine
    assert [(each.serial, each.selector) for each in refused] == [(2, boards), (2, EVERYONE)]
    good = [version(1, good=True), version(2, good=True)]
    assert render(versions=good, quarantine=[quarantined(2, selector=boards)]).known_good == (2, 1)
