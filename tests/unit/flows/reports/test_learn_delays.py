"""Controls take as long to their placebo as treated devices to their activation: ages of both arms agree."""

import random

import msgspec
import pytest

from support.experiments import Devices, village, written
from support.values import T0, Town, announce, devices_in, model, quarantined, rollout, town, version
from whimbrel.device.cohorts import permitted, placebo_wait, stand_in
from whimbrel.device.journal import Journal, Membership
from whimbrel.errors import Conflict
from whimbrel.flows.records import RolloutRecord
from whimbrel.flows.render_policy import render_policy
from whimbrel.flows.reports.ingest import ingest
from whimbrel.flows.reports.learn_delays import learn_delays
from whimbrel.policy.bucket import BUCKETS
from whimbrel.policy.delays import longest_wait_s

FIRST = (longest_wait_s(3600.0),)
WINDOW_S, REFRESH_S = 300.0, 300.0


def running() -> RolloutRecord:
    return rollout(delays=FIRST)


def look(here: Town, at: float) -> RolloutRecord:
    return learn_delays(here.fleet, here.registry.rollout("r1"), save=here.registry.save_rollout, now=at)


def say(here: Town, *said: tuple[float, str, str]) -> None:
    for at, device, name in sorted(said):
        ingest(here.registry, here.fleet, [announce(device, name, at=T0 + at)], now=T0 + at)


def told(here: Town) -> tuple[float, ...]:
    live = here.registry.rollouts(live=True)
    policy = render_policy(model(), versions=[version(1)], rollouts=live, quarantine=[quarantined(9)], sequence=1)
    return policy.layers[0].entries[0].delays_s


def test_what_is_learned_is_told_to_the_controls() -> None:
    with town(running=running()) as here:
        assert told(here) == FIRST
        for device in devices_in(0, 50_000, 3):
            say(here, (10, device, "begun"), (700, device, "activating"))
        look(here, T0 + 900)
        assert told(here) == (690.0,) * 16


def test_controls_of_a_class_are_told_the_delays_of_their_class() -> None:
    with town(running=running()) as here:
        for n, device in enumerate(devices_in(0, 50_000, 20)):
            of_class, took = ("fast", 300) if n % 2 else ("slow", 9000)
            said = [
                announce(device, name, at=T0 + 10 + after, hardware_class=of_class)
                for name, after in (("begun", 0), ("activating", took))
            ]
            ingest(here.registry, here.fleet, said, now=T0 + 9999)
        learned = look(here, T0 + 9999)
        policy = render_policy(
            model(), versions=[version(1)], rollouts=[learned], quarantine=[quarantined(9)], sequence=1
        )
        (entry,) = policy.layers[0].entries
        assert (entry.delays_of("fast"), entry.delays_of("slow")) == ((300.0,) * 16, (9000.0,) * 16)
        assert entry.delays_of("") == entry.delays_s == (300.0,) * 8 + (9000.0,) * 8
        assert here.registry.rollout("r1") == learned


def test_a_look_at_nothing_new_writes_nothing() -> None:
    with town(running=running()) as here:
        (device,) = devices_in(0, 50_000, 1)
        say(here, (10, device, "begun"), (700, device, "activating"))
        before = look(here, T0 + 900)
        assert look(here, T0 + 1200) is not before
        assert look(here, T0 + 1200) == before == here.registry.rollout("r1")


def test_a_move_that_a_person_makes_meanwhile_is_not_undone() -> None:
    with town(running=running()) as here:
        (device,) = devices_in(0, 50_000, 1)
        say(here, (10, device, "begun"), (700, device, "activating"))
        stale = here.registry.rollout("r1")
        here.registry.save_rollout(msgspec.structs.replace(stale, stage_since=T0 + 1), before=stale)
        with pytest.raises(Conflict):
            learn_delays(
                here.fleet,
                msgspec.structs.replace(stale, stage=1),
                save=here.registry.save_rollout,
                now=T0 + 900,
            )


def test_start_ages_of_both_arms_agree() -> None:
    """Downloads of ten minutes and more, in windows and refreshes of five: without a delay no age would agree."""
    chance = random.Random(11)
    treated, controls = devices_in(0, 50_000, 300), devices_in(50_000, BUCKETS, 900)
    said, took = [], []
    for device in treated:
        begins = chance.uniform(0, 1800)
        took.append(min(chance.lognormvariate(6.7, 0.7), 3 * 3600.0))
        said += [(begins, device, "begun"), (begins + took[-1], device, "activating")]
    said.sort()
    first_look = {device: chance.uniform(0, 1800) for device in controls}
    journals: dict[str, Journal] = {}
    waited: dict[str, float] = {}
    documents = 0
    with town(running=running()) as here:
        now = 0.0
        while len(waited) < len(controls) and now < 8 * 3600:
            now += WINDOW_S
            while said and said[0][0] <= now:
                say(here, said.pop(0))
            before = told(here)
            look(here, T0 + now)
            documents += told(here) != before
            for device in controls:
                if device not in waited and (took_s := placebo(device, journals, first_look[device], now, told(here))):
                    waited[device] = took_s
    assert distance(took, list(waited.values())) < 0.08
    assert distance(took, [0.0] * len(controls)) > 0.99
    assert documents <= 16  # in 27 windows: what does not matter is not written


def placebo(
    device: str, journals: dict[str, Journal], first_look: float, now: float, delays_s: tuple[float, ...]
) -> float | None:
    """Seconds from its permission to its placebo, by the device's own rules; None: it is not over yet."""
    if device not in journals:
        if now < first_look:
            return None
        member = Membership(rollout="r1", stage=0, role="control", assigned_at=first_look)
        journals[device] = permitted(Journal(model="wake", memberships=(member,)), member, at=first_look)
    (member,) = journals[device].memberships
    wait_s = placebo_wait(member, delays_s, model="wake", device_id=device)
    assert member.permitted_at is not None
    if now < member.permitted_at + wait_s:
        return None
    (taken,) = stand_in(journals[device], member, serial=1, at=member.permitted_at + wait_s).memberships
    assert taken.since is not None
    return taken.since - first_look


def distance(one: list[float], other: list[float]) -> float:
    """Kolmogorov and Smirnov's: how far the two distributions are apart at most."""
    return max(
        abs(sum(each <= at for each in one) / len(one) - sum(each <= at for each in other) / len(other)) for at in one
    )


def test_an_experiment_in_which_no_device_fetches_anything_learns_no_delays() -> None:
    same = [{"id": "control", "model_version": "wake@1.0.0"}, {"id": "large", "model_version": "wake@1.0.0"}]
    with village(plan=written(variants=same)) as here:
        devices = Devices(here, 40)
        devices.run(3)
        learned = learn_delays(here.town.fleet, here.record, save=here.experiments.save, now=T0 + 900)
        assert learned.delays == here.record.delays == ()


def test_the_arms_of_an_experiment_share_one_table_of_delays() -> None:
    with village() as here:
        before = here.record
        for index, device in enumerate(devices_in(500_000, BUCKETS, 40)):
            arm = {"rollout": "e1", "stage": 0, "role": "treated"}
            said = [
                announce(device, "begun", at=T0 + 10, **arm),
                announce(device, "activated", at=T0 + 20 + index, **arm),
            ]
            ingest(here.town.registry, here.town.fleet, said, now=T0 + 100, experiments=[before])
        learned = learn_delays(here.town.fleet, before, save=here.experiments.save, now=T0 + 900)
        assert learned == here.record
        assert learned.delays != before.delays
        assert max(learned.delays) < 60
