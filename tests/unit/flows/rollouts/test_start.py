"""A rollout begins, or is refused with the reason."""

import pytest

from support.values import SALT, T0, Town, devices_in, plan, quarantined, rollout, stage, town, version
from whimbrel.errors import Conflict, NotFound, Refused
from whimbrel.flows.records import RolloutRecord
from whimbrel.flows.rollouts.shares import Devices, over_the_cap, share_for, share_percent
from whimbrel.flows.rollouts.start import start_rollout
from whimbrel.flows.versions import find_version
from whimbrel.plan.governance import BlastRadius
from whimbrel.plan.plan import Plan, VersionName
from whimbrel.plan.rollout_states import State
from whimbrel.policy.bucket import BUCKETS, bucket, device_key
from whimbrel.policy.shadow import ShadowStage


def start(here: Town, said: Plan | None = None, **changes: object) -> RolloutRecord:
    values = {"plan_text": "text", "tag": "abcdef", "hour_s": 3600.0, "actor": "me", "now": T0} | changes
    return start_rollout(here.registry, here.fleet, said or plan(), **values)


def test_a_rollout_runs_its_first_stage_and_is_in_the_audit_log() -> None:
    with town() as here:
        begun = start(here)
        assert here.registry.rollout("wake-2-abcdef") == begun
        assert (begun.state, begun.stage, begun.shares, begun.baseline, begun.target) == (
            State.ADVANCING,
            0,
            (50_000,),
            1,
            2,
        )
        (entry,) = here.registry.audit_log()
        assert (entry.actor, entry.action, entry.rollout) == ("me", "start", begun.id)
        assert entry.evidence == {"shares": [50_000], "salt": SALT, "baseline": 1}


def test_an_ambiguous_version_is_refused_with_the_candidates() -> None:
    with town(versions=1) as here:
        here.publish(2, semantic_version="3.2.0")
        here.publish(3, semantic_version="3.2.1")
        with pytest.raises(Refused, match=r"may be any of 2026.01.01.2 \(3.2.0\), 2026.01.01.3 \(3.2.1\)"):
            start(here, plan(model_version="wake-v3.2"))
        assert start(here, plan(model_version="wake-v3.2.1")).target == 3


def test_a_whole_version_is_no_prefix_of_its_candidates() -> None:
    """3.2.0 and 3.2.0-rc.1 exist: wake-v3.2.0 was ambiguous, and nothing more exact could be said."""
    versions = [version(1, semantic_version="3.2.0-rc.1"), version(2, semantic_version="3.2.0")]
    assert find_version(versions, VersionName.parse("wake-v3.2.0")).serial == 2


def test_two_ten_is_no_two_one() -> None:
    versions = [version(1, semantic_version="2.1.0"), version(2, semantic_version="2.10.0")]
    assert find_version(versions, VersionName.parse("wake-v2.1")).serial == 1
    assert find_version(versions, VersionName.parse("wake-v2.10")).serial == 2


def test_an_unknown_version_is_refused_with_what_there_is() -> None:
    with town() as here, pytest.raises(NotFound, match=r"has no version '9.9'; it has: 2026.01.01.1 \(1.0.0\)"):
        start(here, plan(model_version="wake-v9.9"))


def test_an_unknown_model_is_refused_with_what_there_is() -> None:
    with town() as here, pytest.raises(NotFound, match=r"no model 'sleep' \(models: wake\)"):
        start(here, plan(model_version="sleep-v1"))


def test_a_retired_version_is_refused() -> None:
    with town() as here:
        here.registry.change_version("wake", 2, retired=True)
        with pytest.raises(Refused, match="is retired"):
            start(here)


def test_a_quarantined_version_is_refused_with_the_reason() -> None:
    with town() as here:
        here.registry.quarantine(quarantined(2, because="harm is proven: crash"))
        with pytest.raises(Refused, match=r"taken back before .harm is proven: crash"):
            start(here)


def test_a_person_may_offer_it_again_with_a_reason_that_is_logged() -> None:
    with town() as here:
        here.registry.quarantine(quarantined(2, because="harm is proven: crash"))
        begun = start(here, override="the crash was the camera driver's")
        assert here.registry.quarantines("wake") == []
        assert here.registry.overridden("wake") == [2]
        entry = next(e for e in here.registry.audit_log() if e.action == "override")
        assert (entry.rollout, entry.because) == (begun.id, "the crash was the camera driver's")
        assert entry.evidence["taken_back"] == ["harm is proven: crash"]


def test_an_override_lasts_until_the_version_is_taken_back_again() -> None:
    with town() as here:
        here.registry.quarantine(quarantined(2))
        start(here, override="try")
        here.registry.quarantine(quarantined(2, because="again"))
        assert [entry.because for entry in here.registry.quarantines("wake")] == ["again"]


def test_the_baseline_is_refused() -> None:
    with town() as here, pytest.raises(Refused, match="is the baseline already"):
        start(here, plan(model_version="wake@1.0.0"))


def test_a_first_version_is_rolled_out_like_any_other() -> None:
    with town(versions=1) as here:
        here.registry.change_model("wake", baseline=None)
        begun = start(here, plan(model_version="wake@1.0.0"))
        assert (begun.state, begun.baseline, begun.target, begun.shares) == (State.ADVANCING, None, 1, (50_000,))
        assert here.registry.rollout(begun.id) == begun


def test_no_device_is_held_back_from_a_first_version() -> None:
    """Nine in ten of the devices that a card named got it: the others were kept as a control of nothing."""
    with town(versions=1) as here:
        here.registry.change_model("wake", baseline=None)
        begun = start(here, plan(stage("all", 100), model_version="wake@1.0.0"))
        assert (begun.shares, here.registry.rollout(begun.id).plan.holdback_percent) == ((BUCKETS,), 0.0)


def test_a_first_version_has_nothing_to_be_tried_beside() -> None:
    with town(versions=1) as here:
        here.registry.change_model("wake", baseline=None)
        said = plan(stage("look", 5, shadow=ShadowStage()), stage("all", 100), model_version="wake@1.0.0")
        with pytest.raises(Refused, match="stage look tries the version beside the one that serves, and no version"):
            start(here, said)


def test_a_second_rollout_of_a_model_is_refused() -> None:
    with town(versions=3, running=rollout(state=State.PAUSED)) as here:
        with pytest.raises(Conflict, match="r1 of wake is paused"):
            start(here, plan(model_version="wake@3.0.0"))
        assert len(here.registry.rollouts()) == 1


def test_a_refused_start_leaves_nothing() -> None:
    with town() as here:
        with pytest.raises(Refused):
            start(here, plan(model_version="wake@1.0.0"))
        assert (here.registry.rollouts(), here.registry.audit_log()) == ([], [])


# --- the first share ---


def devices_of(here: Town) -> Devices:
    return Devices(here.fleet, "wake", salt=SALT)


def places(*devices: str) -> list[int]:
    return sorted(bucket(device_key(device), salt=SALT) for device in devices)


def test_a_small_fleets_share_is_raised_until_a_device_falls_in_it() -> None:
    with town() as here:
        devices = devices_in(300_000, BUCKETS, 20)
        here.enrol(*devices)
        assert start(here).shares == (places(*devices)[0] + 1,)


def test_min_devices_are_counted() -> None:
    with town() as here:
        devices = devices_in(0, 800_000, 40)
        here.enrol(*devices)
        assert start(here, plan(min_devices=7)).shares == (places(*devices)[6] + 1,)


def test_a_share_that_holds_enough_stays_as_the_plan_says() -> None:
    with town() as here:
        here.enrol(*devices_in(0, 50_000, 3), *devices_in(50_000, BUCKETS, 10))
        assert start(here, plan(min_devices=3)).shares == (50_000,)


def test_only_devices_that_the_stage_is_about_are_counted() -> None:
    """A large fleet elsewhere was taken for a full canary, also where the stage's region had one device, far off."""
    with town() as here:
        here.enrol(*(f"away-{n}" for n in range(1200)), labels={"region": "AU"})
        (kiwi,) = devices_in(400_000, 500_000, 1)
        here.enrol(kiwi, labels={"region": "NZ"})
        regional = plan(stage("nz", 5, regions=("NZ",)), stage("all", 100))
        assert share_for(devices_of(here), regional, stage=0) == places(kiwi)[0] + 1


def test_the_holdback_is_kept_from_a_large_minimum() -> None:
    with town() as here:
        here.enrol(*devices_in(0, BUCKETS, 40))
        assert start(here, plan(min_devices=40)).shares == (900_000,)


def test_shares_are_of_the_plans_range_and_stay_in_it() -> None:
    with town() as here:
        half = plan(stage("a", 5), stage("b", 100), range_percent=(50, 100))
        assert [share_for(devices_of(here), half, stage=n) for n in (0, 1)] == [525_000, 950_000]
        here.enrol(*devices_in(0, 500_000, 9), *devices_in(700_000, 800_000, 1))
        assert share_for(devices_of(here), half, stage=0) == places(*devices_in(700_000, 800_000, 1))[0] + 1


def test_a_share_is_told_in_percent_of_the_plans_range() -> None:
    half = plan(stage("a", 5), stage("b", 100), range_percent=(50, 100))
    assert [share_percent(half, share) for share in (500_000, 525_000, 1_000_000)] == [0.0, 5.0, 100.0]
    assert share_percent(plan(), 333_333) == 33.3333


def test_the_blast_radius_caps_every_stage_but_the_last() -> None:
    with town() as here:
        devices = devices_in(0, BUCKETS, 40)
        here.enrol(*devices)
        said = plan(stage("a", 30), stage("b", 60), stage("c", 100), blast_radius=BlastRadius(devices=3, percent=50))
        shares: list[int] = []
        for number in range(3):
            shares.append(share_for(devices_of(here), said, stage=number, shares=shares))
        assert [sum(place < share for place in places(*devices)) for share in shares[:2]] == [3, 3]
        assert shares[2] == 900_000
        assert over_the_cap(devices_of(here), said, shares=shares[:2]) is None


def test_a_blast_radius_in_percent_holds_for_an_empty_fleet_too() -> None:
    with town() as here:
        said = plan(stage("a", 30), stage("b", 60), stage("c", 100), blast_radius=BlastRadius(percent=10))
        assert [share_for(devices_of(here), said, stage=n) for n in range(3)] == [
            100_000,
            100_000,
            900_000,
        ]


def test_a_wider_selector_would_put_more_devices_at_stake_than_the_cap() -> None:
    with town() as here:
        near = devices_in(0, 400_000, 5)
        here.enrol(*near[:2], labels={"region": "NZ"})
        here.enrol(*near[2:], labels={"region": "AU"})
        said = plan(
            stage("nz", 40, regions=("NZ",)), stage("all", 50), stage("rest", 100), blast_radius=BlastRadius(devices=2)
        )
        first = share_for(devices_of(here), said, stage=0)
        second = share_for(devices_of(here), said, stage=1, shares=(first,))
        assert second == first == 400_000
        refused = over_the_cap(devices_of(here), said, shares=(first, second))
        assert refused == "5 devices would be on the new version, and the plan's blast radius is 2"


def test_boards_of_another_model_are_no_canary() -> None:
    """Every enrolled board was counted: a canary of 5% fell on none that has the model."""
    with town() as here:
        here.enrol(*devices_in(0, 50_000, 20), models=("sleep",))
        mine = devices_in(910_000, BUCKETS, 4)
        here.enrol(*mine, models=("wake",))
        assert start(here).shares == (places(*mine)[0] + 1,)


def test_a_large_fleet_of_another_model_does_not_hide_an_empty_canary() -> None:
    with town() as here:
        here.enrol(*(f"away-{n}" for n in range(1200)), models=("sleep",))
        here.enrol(*devices_in(400_000, BUCKETS, 2), models=("wake",))
        assert start(here).shares == (places(*devices_in(400_000, BUCKETS, 2))[0] + 1,)


def test_a_blast_radius_in_devices_is_of_the_models_own() -> None:
    with town() as here:
        mine = devices_in(0, 300_000, 5)
        here.enrol(*devices_in(0, 300_000, 45)[5:], models=("sleep",))
        here.enrol(*mine, models=("wake", "sleep"))
        said = plan(stage("a", 30), stage("b", 100), blast_radius=BlastRadius(devices=3))
        share = share_for(devices_of(here), said, stage=0)
        assert sum(place < share for place in places(*mine)) == 3


def test_the_one_device_on_a_desk_is_in_the_canary_wherever_its_bucket_is() -> None:
    """One device in ten falls in the holdback: its rollouts had an empty canary and held for ever."""
    with town() as here:
        (only,) = devices_in(900_000, BUCKETS, 1)
        here.enrol(only)
        assert start(here).shares == (places(only)[0] + 1,)


def test_an_empty_fleet_takes_the_plans_share() -> None:
    with town() as here:
        assert start(here).shares == (50_000,)


def test_a_version_that_is_larger_than_the_plan_allows_is_not_offered() -> None:
    with town() as here:
        here.publish(3, size_bytes=600_000)
        limited = plan(stage(), stage("all", 100, size_bytes_max=500_000), model_version="wake@3.0.0")
        with pytest.raises(Refused, match="600000 bytes, and the plan's size_bytes_max is 500000"):
            start(here, limited)
        assert start(here, plan(stage(size_bytes_max=600_000), model_version="wake@3.0.0")).live


def test_a_version_without_a_reference_is_not_offered_by_a_plan_that_watches_drift() -> None:
    with town() as here, pytest.raises(Refused, match="published without a reference"):
        start(here, plan(stage(drift_psi_max=0.25)))
