"""An experiment from its start to its decision, over reports: what is refused, what is compared, what follows."""

import pytest

from support.experiments import Devices, guarded, village, written
from support.values import T0, devices_in, plan, quarantined, reports, rollout, stage, window
from whimbrel.errors import Conflict, IllegalTransition, NotFound, Refused
from whimbrel.flows.experiments.check import check_experiment
from whimbrel.flows.experiments.judge import experiment_verdict_for
from whimbrel.flows.render_policy import render_policy
from whimbrel.flows.reports.ingest import ingest
from whimbrel.flows.rollouts.start import start_rollout
from whimbrel.gate.experiment_ledger import ExperimentLedger
from whimbrel.health.report import Cohort, Summary
from whimbrel.plan.experiment_states import Phase
from whimbrel.plan.rollout_states import State
from whimbrel.policy.bucket import BUCKETS
from whimbrel.policy.decide import Profile, decide
from whimbrel.policy.policy import Policy

THREE = {
    "variants": [
        {"id": "control", "model_version": "wake@1.0.0"},
        {"id": "large", "model_version": "wake@2.0.0"},
        {"id": "small", "model_version": "wake@3.0.0"},
    ],
    "allocation": {"control": 0.4, "large": 0.3, "small": 0.3},
}


def policy_of(here) -> Policy:
    registry = here.town.registry
    return render_policy(
        registry.model("wake"),
        versions=registry.versions("wake"),
        rollouts=registry.rollouts(live=True),
        quarantine=registry.quarantines("wake"),
        sequence=1,
        experiments=here.experiments.all(live=True),
    )


def runs(here, device: str) -> int | None:
    from support.values import line

    return decide(policy_of(here), line(), Profile(device)).serial


# --- it begins ---


def test_devices_run_the_version_of_the_arm_that_their_bucket_falls_in() -> None:
    with village(plan=written(**THREE)) as here:
        for (start, end), serial in {(0, 400_000): 1, (400_000, 700_000): 2, (700_000, BUCKETS): 3}.items():
            assert {runs(here, device) for device in devices_in(start, end, 20)} == {serial}
        (entry,) = policy_of(here).layers[0].entries
        assert entry.before == ("watch_time",)
        assert [(arm.role, arm.name, arm.stage) for arm in entry.arms] == [
            ("treated", "large", 0),
            ("control", "control", 0),
            ("treated", "small", 1),
            ("control", "control", 1),
        ]


def test_devices_outside_of_its_range_run_the_baseline_and_are_counted_nowhere() -> None:
    with village(plan=written(range_percent=[20, 60])) as here:
        outside = devices_in(0, 200_000, 5) + devices_in(600_000, BUCKETS, 5)
        assert {runs(here, device) for device in outside} == {1}
        assert {runs(here, device) for device in devices_in(400_000, 600_000, 5)} == {2}


def test_an_experiment_and_a_rollout_of_one_model_never_have_the_same_devices() -> None:
    with village() as here:
        with pytest.raises(Conflict, match=r"experiment e1 of wake has devices .* one version at a time"):
            here.start(written(id="e2"))
        with pytest.raises(Conflict, match="experiment e1"):
            start_rollout(
                here.town.registry,
                here.town.fleet,
                plan(),
                plan_text="",
                tag="x",
                hour_s=3600.0,
                actor="ana",
                now=T0,
            )
    with village(begun=False) as here:
        here.town.registry.add_rollout(rollout(), plan_text="")
        with pytest.raises(Conflict, match="rollout r1 of wake has devices"):
            here.start()


def test_two_experiments_share_a_layer_by_disjoint_ranges() -> None:
    with village(plan=written(range_percent=[0, 50])) as here:
        here.start(written(id="e2", range_percent=[50, 100]))
        assert [entry.rollout for entry in policy_of(here).layers[0].entries] == ["e1", "e2"]
        assert {runs(here, device) for device in devices_in(0, 250_000, 5)} == {1}
        assert {runs(here, device) for device in devices_in(750_000, BUCKETS, 5)} == {2}


def test_the_salt_changes_only_while_nothing_lives_in_the_layer() -> None:
    with village(plan=written(reshuffle=True, range_percent=[0, 50])) as here:
        assert here.town.registry.model("wake").salt == 7
    with village(plan=written(range_percent=[0, 50])) as here:
        here.start(written(id="e2", reshuffle=True, range_percent=[50, 100]))
        assert here.town.registry.model("wake").salt == 42


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"control": "large"}, "the control large is .* and the baseline of wake is"),
        ({"id": "r1"}, "is the id of a rollout"),
    ],
)
def test_a_start_that_cannot_be_right_is_refused(changes: dict, words: str) -> None:
    with village(begun=False) as here:
        here.town.registry.add_rollout(rollout(state=State.ABORTED), plan_text="")
        with pytest.raises((Refused, Conflict), match=words):
            here.start(written(**changes))


def test_a_version_that_was_taken_back_or_retired_is_no_variant() -> None:
    with village(begun=False) as here:
        here.town.registry.quarantine(quarantined(2))
        with pytest.raises(Refused, match="was taken back before"):
            here.start()
    with village(begun=False) as here:
        here.town.registry.change_version("wake", 2, retired=True)
        with pytest.raises(Refused, match="retired"):
            here.start()


# --- it is compared and decided ---


def test_an_arm_that_is_better_is_shipped_and_the_past_of_devices_makes_it_surer() -> None:
    with village() as here:
        said = Devices(here, 90).run(20, gain=2.0)
        assert (said.move, said.arm, here.record.phase, here.record.winner) == ("ship", "large", Phase.SHIPPED, "large")
        arm = said.evidence["arms"]["large"]
        assert arm["deciding"]["low"] > 0
        assert arm["deciding"]["low"] < 2.0 < arm["deciding"]["high"]
        assert arm["explained"] > 0.8
        narrow, wide = (arm[name]["high"] - arm[name]["low"] for name in ("deciding", "plain"))
        assert narrow < 0.6 * wide
        (entry, _) = here.town.registry.audit_log(rollout="e1")
        assert (entry.actor, entry.action, entry.evidence["arm"]) == ("gate", "experiment ship", "large")


def test_without_a_past_the_plain_interval_decides() -> None:
    with village() as here:
        said = Devices(here, 90, known=False).run(4)
        arm = said.evidence["arms"]["large"]
        assert arm["with_before"] == 0
        assert arm["deciding"]["estimate"] == arm["plain"]["estimate"]


def test_an_arm_that_harms_is_stopped_at_once_and_its_devices_return() -> None:
    with village(plan=written(**THREE)) as here:
        devices = Devices(here, 100)
        for _ in range(4):
            devices.report(crash=0.7)
        said = here.look(now=T0 + 1300)
        assert (said.move, said.arm) == ("stop_arm", "large")
        assert "harm is proven: crash" in here.record.stopped["large"]
        assert here.record.live
        assert {runs(here, device) for device in devices_in(400_000, 700_000, 10)} == {1}
        assert [each.serial for each in here.town.registry.quarantines("wake")] == [2]
        said = here.look(now=T0 + 1300)  # the other arm crashed as much
        assert (said.arm, here.record.live) == ("small", True)
        assert here.look(now=T0 + 1300).move == "keep"
        assert here.record.phase is Phase.KEPT
        assert "every arm was stopped" in here.record.because


def test_an_arm_whose_version_was_taken_back_elsewhere_is_stopped() -> None:
    with village() as here:
        here.town.registry.quarantine(quarantined(2, because="a rollout found it"))
        assert "its version was taken back (a rollout found it)" in here.look(now=T0 + 301).because
        assert len(here.town.registry.quarantines("wake")) == 1


def test_the_same_version_in_both_arms_is_never_quarantined() -> None:
    """A false alarm of an A/A experiment must not take the baseline from everybody."""
    same = [{"id": "control", "model_version": "wake@1.0.0"}, {"id": "large", "model_version": "wake@1.0.0"}]
    with village(plan=written(variants=same)) as here:
        devices = Devices(here, 60)
        for _ in range(4):
            devices.report(crash=0.7)
        assert here.look(now=T0 + 1300).move == "stop_arm"
        assert here.town.registry.quarantines("wake") == []


def test_an_arm_that_loses_devices_blocks_the_decision_whatever_the_metric_says() -> None:
    with village(plan=written(minimum_sample_size=50)) as here:
        devices = Devices(here, 240)
        gone = [name for name in devices.names if (devices.arm_of(name) or ("",))[0] == "treated"][::2]
        devices.names = [name for name in devices.names if name not in gone]
        for _ in range(4):
            devices.report(gain=3.0)
        said = here.look(now=T0 + 1300)
        assert said.move == "hold"
        assert "are not split as their buckets say" in said.because
        assert here.record.live
        late = here.look(now=T0 + 13 * 3600)
        assert (late.move, here.record.phase) == ("end", Phase.INCONCLUSIVE)


def test_below_the_minimum_sample_nothing_is_decided_and_the_time_ends_it() -> None:
    with village(plan=written(minimum_sample_size=5000)) as here:
        devices = Devices(here, 80)
        assert devices.run(4, gain=5.0).move == "wait"
        assert "80 of the 5000 devices" in here.record.because
        assert here.look(now=T0 + 12 * 3600 + 1).move == "end"
        assert here.record.phase is Phase.INCONCLUSIVE


def test_no_arm_is_better_by_the_minimum_effect_keeps_the_control() -> None:
    metric = {"name": "watch_time", "minimum_effect": 2.0}
    with village(plan=written(primary_metric=metric)) as here:
        said = Devices(here, 120).run(20)
        assert (said.move, here.record.phase) == ("keep", Phase.KEPT)
        assert "by 2 or more" in said.because


def test_a_guardrail_of_the_apps_own_stops_an_arm() -> None:
    guard = {"name": "skips", "direction": "decrease", "margin": 0.5}
    with village(plan=written(guardrail_metrics=[guard])) as here:
        Devices(here, 90, known=False).run(20, gain=6.0, metric="skips")
        assert "skips is worse than control's by more than 0.5" in here.record.stopped["large"]


@pytest.mark.parametrize("metric", ["false_positive_rate", "inference_latency", "memory_mb"])
def test_an_arm_that_is_better_by_a_plain_guardrail_is_not_stopped(metric: str) -> None:
    """More of every plain name was taken to be better: the arm with fewer false positives went to quarantine."""
    with village(plan=guarded(metric)) as here:
        Devices(here, 90, known=False).run(20, gain=-6.0, metric=metric)
        assert here.record.stopped == {}
        assert here.town.registry.quarantines("wake") == []


def test_an_arm_that_is_worse_by_a_plain_guardrail_is_stopped() -> None:
    with village(plan=guarded("false_positive_rate")) as here:
        Devices(here, 90, known=False).run(20, gain=6.0, metric="false_positive_rate")
        assert "false_positive_rate is worse than control's by more than 0.005" in here.record.stopped["large"]
    with village(plan=guarded("recall")) as here:
        Devices(here, 90, known=False).run(20, gain=-6.0, metric="recall")
        assert "recall is worse than control's by more than 0.005" in here.record.stopped["large"]


def test_a_metric_that_moves_with_the_hour_is_no_effect_where_one_arm_joined_first() -> None:
    """Controls need no download. Without the control's level taken off, its early hours "proved" a difference."""
    with village() as here:
        devices = Devices(here, 90, known=False)
        everyone = devices.names
        devices.names = [name for name in everyone if devices.arm_of(name) == ("control", 0)]
        for hour in range(12):
            devices.level = 0.8 * hour
            devices.report()
        devices.names = everyone
        said = devices.run(14)
        look = said.evidence["arms"]["large"]["plain"]
        assert look["low"] < 0 < look["high"]


def test_every_verdict_is_given_again_byte_for_byte() -> None:
    with village() as here:
        Devices(here, 90).run(20, gain=2.0)
        verdicts = here.replay()
        assert len(verdicts) >= 3
        assert verdicts[-1].move == "ship"
        assert all(each.same for each in verdicts)


def test_reports_that_are_forged_late_or_twice_ship_nothing() -> None:
    """Devices of the control that say they are treated, values beyond all reason, and every report sent again."""
    with village() as here:
        devices = Devices(here, 80, known=False)
        control = [name for name in devices.names if devices.arm_of(name) == ("control", 0)]
        for turn in range(1, 7):
            devices.report()
            at = T0 + 300.0 * turn
            lie = {"metrics": {"watch_time": Summary.of(1e6)}}
            claims = [
                reports(
                    name,
                    window(turn, cohorts=(Cohort(rollout="e1", stage=0, role="treated", age_s=9.0),), **lie),
                    at=at,
                    epoch="f" * 16,
                )
                for name in control
            ]
            mad = devices.names[0]
            role = (devices.arm_of(mad) or ("",))[0]
            own = Cohort(rollout="e1", stage=0, role=role, age_s=9.0)
            claims += 3 * [reports(mad, window(turn, cohorts=(own,), **lie), at=at, epoch="e" * 16)]
            done = ingest(
                here.town.registry, here.town.fleet, claims, now=at, experiments=here.experiments.all(live=True)
            )
            assert (done.contradictions, done.duplicates) == (len(control), 2)
            said = here.look(now=at + 1)
        assert said.move == "wait"
        assert here.town.fleet.counts("e1")[0].reported_t == 80 - len(control)


def test_a_late_joiner_counts_from_its_first_window_and_its_past_is_taken_once() -> None:
    with village() as here:
        devices = Devices(here, 80)
        for _ in range(3):
            devices.report()
        panel = ExperimentLedger(here.record.plan)
        panel.fold(here.town.fleet.cells("e1", before_window=99))
        one = panel.panel(0, "treated", "watch_time").plus(panel.panel(0, "control", "watch_time"))
        assert (one.n, one.both) == (80, 80)
        assert one.x == pytest.approx(sum(devices.before.values()))


# --- what follows ---


def test_what_is_shipped_becomes_the_baseline_where_that_was_asked_for() -> None:
    with village(plan=written(on_decision="baseline")) as here:
        Devices(here, 90).run(20, gain=2.0)
        assert here.town.registry.model("wake").baseline == 2
        assert here.town.registry.aliases("wake") == {"champion": 2}
        assert "is the baseline now" in here.record.because


def test_a_rollout_of_what_is_shipped_begins_where_that_was_asked_for() -> None:
    stages = {"stages": [{"name": "half", "target_percent": 50}, {"name": "all", "target_percent": 100}]}
    with village(plan=written(on_decision="rollout", rollout=stages)) as here:
        Devices(here, 90).run(20, gain=2.0)
        (begun,) = here.town.registry.rollouts(live=True)
        assert (begun.target, begun.plan.stages[0].name) == (2, "half")
        assert f"rollout {begun.id} began" in here.record.because


def test_a_decision_stands_where_its_rollout_cannot_begin() -> None:
    with village(plan=written(on_decision="baseline")) as here:
        here.town.registry.add_rollout(rollout(plan=plan(stage(percent=5))), plan_text="")
        Devices(here, 90).run(20, gain=2.0)
        assert here.record.phase is Phase.SHIPPED
        assert here.town.registry.model("wake").baseline == 1
        assert "did not become the baseline, since rollout r1 runs" in here.record.because


def test_a_person_decides_and_it_is_logged_as_theirs() -> None:
    with village() as here:
        Devices(here, 10).run(2)
        with pytest.raises(NotFound, match="its variants are control, large"):
            here.act("ship", arm="huge", because="", now=T0 + 700)
        here.act("ship", arm="large", because="we are sure", now=T0 + 700)
        assert (here.record.phase, here.record.winner, here.record.ended_at) == (Phase.SHIPPED, "large", T0 + 700)
        assert here.town.registry.audit_log(rollout="e1")[0].actor == "ana"
        with pytest.raises(IllegalTransition, match="is over"):
            here.act("stop", arm=None, because="", now=T0 + 800)


def test_a_person_who_gives_no_reason_is_the_reason() -> None:
    with village() as here:
        assert here.act("stop", arm=None, because="", now=T0 + 700).because == "stop by ana"


def test_an_experiment_that_is_over_is_told_of_as_at_its_end() -> None:
    with village() as here:
        Devices(here, 40).run(3)
        here.act("stop", arm=None, because="enough", now=T0 + 1000)
        ports = {"registry": here.town.registry, "fleet": here.town.fleet}
        at_its_end, later = (experiment_verdict_for(here.record, **ports, now=T0 + at) for at in (1000, 10**6))
        assert later == at_its_end
        assert "days are over" not in later.because


def test_two_who_act_at_once_are_told() -> None:
    with village() as here:
        before = here.record
        here.act("stop", arm=None, because="enough", now=T0 + 700)
        with pytest.raises(Conflict, match="somebody else"):
            here.experiments.save(before, before=before)


# --- what it would do ---


def test_check_counts_devices_by_arm_and_says_what_can_be_found() -> None:
    with village(begun=False) as here:
        here.town.enrol(*(f"dev-{n}" for n in range(1, 401)))
        told = check_experiment(
            here.town.registry,
            here.town.fleet,
            here.experiments,
            written(primary_metric={"name": "watch_time", "spread": 2.0, "minimum_effect": 0.2}),
        )
        assert sum(told.devices.values()) + told.elsewhere == 400
        assert told.effect == pytest.approx(0.95, abs=0.25)
        text = " ".join(told.sentences)
        assert "control, serial 1" in text
        assert "more than the minimum effect 0.2" in text
        here.start()
        again = check_experiment(here.town.registry, here.town.fleet, here.experiments, written())
        assert "it could not start now: experiment e1" in again.sentences[-1]


def test_check_says_what_each_guardrail_means() -> None:
    with village(begun=False) as here:
        asked = guarded("false_positive_rate", "inference_latency", "crash")
        told = check_experiment(here.town.registry, here.town.fleet, here.experiments, asked)
        text = "\n".join(told.sentences)
        assert "watch_time decides, and more of it is better" in text
        assert "guardrail inference_latency: it is watched as in a rollout, by latency_p50, latency_p95" in text
        assert "guardrail false_positive_rate: an arm is stopped when its mean rises by more than 0.005" in text
        assert "guardrail crash" not in text


def test_check_says_when_the_fleet_is_too_small() -> None:
    with village(begun=False) as here:
        here.town.enrol(*(f"dev-{n}" for n in range(1, 41)))
        told = check_experiment(
            here.town.registry, here.town.fleet, here.experiments, written(minimum_sample_size=10_000)
        )
        assert told.effect is None
        assert "nothing is decided unless about 10,000 devices are enrolled" in " ".join(told.sentences)
