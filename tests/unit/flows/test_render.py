"""The one document that a rollout is."""

import msgspec

from build import SALT, T0, devices_in, line, model, plan, quarantined, rollout, stage, town, version
from whimbrel.flows.records import ModelSettings, RolloutRecord
from whimbrel.flows.render import render_policy
from whimbrel.model.documents import encode, parse
from whimbrel.rollout.bucket import BUCKETS
from whimbrel.rollout.decide import Profile, decide
from whimbrel.rollout.policy import Policy
from whimbrel.rollout.states import State


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


def test_every_bucket_is_treated_or_a_control() -> None:
    policy = render(rollout(stage=1, shares=(50_000, 250_000)))
    for start, end, expected in ((0, 50_000, {(0, "treated")}), (50_000, 250_000, {(1, "treated")}),
                                 (250_000, BUCKETS, {(0, "control"), (1, "control")})):  # fmt: skip
        for device in devices_in(start, end, 20):
            decision = decide(policy, line(), Profile(device))
            assert {(a.stage, a.role) for a in decision.assignments} == expected
            assert decision.serial == (1 if start == 250_000 else 2)


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


def test_settings_travel_in_the_policy() -> None:
    settings = ModelSettings(refresh_s=60, report_labels=("region",), on_revoked="stop", hardware_label="chip")
    policy = render(model=model(settings=settings))
    assert (policy.refresh_s, policy.report_labels, policy.on_revoked, policy.hardware_label) == (
        60, ("region",), "stop", "chip",
    )  # fmt: skip
