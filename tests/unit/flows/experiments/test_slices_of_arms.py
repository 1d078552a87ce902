"""Harm in one slice of an arm, from the reports to what devices run, and to what is written down."""

from support.experiments import Devices, Village, village, written
from support.values import T0, devices_in, line
from whimbrel.flows.alerts import event_of
from whimbrel.flows.render_policy import render_policy
from whimbrel.model.selector import Expression, Selector
from whimbrel.plan.experiment_states import Phase
from whimbrel.policy.bucket import BUCKETS
from whimbrel.policy.decide import Profile, decide

CLASSES = ("pi3", "pi4", "pi5", "jetson")
OF_PI3 = Selector(match_expressions=(Expression(key="hardware", operator="In", values=("pi3",)),))
ARM = {"start": 500_000, "end": BUCKETS}  # of `large`, and the control has the rest


def runs(here: Village, device: str, hardware: str) -> int | None:
    registry = here.town.registry
    policy = render_policy(
        registry.model("wake"),
        versions=registry.versions("wake"),
        rollouts=(),
        quarantine=registry.quarantines("wake"),
        sequence=1,
        experiments=here.experiments.all(live=True),
    )
    return decide(policy, line(), Profile(device, {"hardware": hardware})).serial


def stopped_in_pi3(here: Village, devices: Devices) -> None:
    for _ in range(4):
        devices.report(crash=0.7, only="pi3")
    verdict = here.look(now=T0 + 1300)
    assert (verdict.move, verdict.arm, verdict.slices) == ("stop_slice", "large", ("pi3",)), verdict.because


def test_devices_of_the_slice_return_and_the_others_go_on() -> None:
    with village() as here:
        stopped_in_pi3(here, Devices(here, 240, classes=CLASSES))
        record = here.record
        assert (record.phase, record.stopped, record.without) == (Phase.RUNNING, {}, {"large": ("pi3",)})
        treated = devices_in(ARM["start"], ARM["end"], 10)
        assert {runs(here, device, "pi3") for device in treated} == {1}
        assert {runs(here, device, "pi4") for device in treated} == {2}
        (quarantined,) = here.town.registry.quarantines("wake")
        assert (quarantined.serial, quarantined.selector) == (2, OF_PI3)


def test_the_audit_and_the_alert_say_which_slice() -> None:
    with village() as here:
        stopped_in_pi3(here, Devices(here, 240, classes=CLASSES))
        (entry, _) = here.town.registry.audit_log(rollout="e1")
        assert (entry.actor, entry.action) == ("gate", "experiment stop slice")
        assert (entry.evidence["arm"], entry.evidence["stopped_slices"]) == ("large", ["pi3"])
        assert entry.because.startswith("large is stopped in pi3 alone: harm is proven in pi3 (crash rate")
        assert event_of(entry) == "arm_stopped_in_slice"


def test_the_rest_is_decided_without_the_slice_and_replays_to_the_last_figure() -> None:
    with village() as here:
        devices = Devices(here, 240, classes=CLASSES)
        stopped_in_pi3(here, devices)
        reported = here.town.fleet.counts("e1")[0]
        verdict = devices.run(20, gain=2.0)
        assert (verdict.move, here.record.winner) == ("ship", "large")
        arm = verdict.evidence["arms"]["large"]
        assert arm["devices"] + arm["devices_control"] == 180
        assert arm["devices"] < reported.reported_t
        verdicts = here.replay()
        assert next(each.move for each in verdicts) == "stop_slice"
        assert all(each.same for each in verdicts)


def test_a_slice_is_stopped_once_and_what_it_tells_later_stops_nothing() -> None:
    with village() as here:
        devices = Devices(here, 240, classes=CLASSES)
        stopped_in_pi3(here, devices)
        for _ in range(4):
            devices.report(crash=0.7, only="pi3")
            assert here.look(now=T0 + 300.0 * devices.window + 1).move in {"wait", "hold"}
        assert len(here.town.registry.quarantines("wake")) == 1


def test_every_arm_with_the_version_is_stopped_in_the_slice() -> None:
    """The quarantine holds for the version: the other arm's devices of the slice run the baseline from then on, too."""
    three = {
        "variants": [
            {"id": "control", "model_version": "wake@1.0.0"},
            {"id": "large", "model_version": "wake@2.0.0"},
            {"id": "again", "model_version": "wake@2.0.0"},
        ],
        "allocation": {"control": 0.5, "large": 0.25, "again": 0.25},
    }
    with village(plan=written(**three)) as here:
        devices = Devices(here, 320, classes=CLASSES)
        for _ in range(5):
            devices.report(crash=0.7, only="pi3")
        assert here.look(now=T0 + 1600).slices == ("pi3",)
        assert here.record.without == {"large": ("pi3",), "again": ("pi3",)}


def test_a_version_that_the_control_runs_too_is_not_quarantined_in_a_slice() -> None:
    same = [{"id": "control", "model_version": "wake@1.0.0"}, {"id": "large", "model_version": "wake@1.0.0"}]
    with village(plan=written(variants=same)) as here:
        stopped_in_pi3(here, Devices(here, 240, classes=CLASSES))
        assert here.town.registry.quarantines("wake") == []
        assert here.record.without == {"large": ("pi3",)}


def test_a_shipped_arm_becomes_the_baseline_but_not_of_the_slice() -> None:
    with village(plan=written(on_decision="baseline")) as here:
        devices = Devices(here, 240, classes=CLASSES)
        stopped_in_pi3(here, devices)
        devices.run(20, gain=2.0)
        assert here.town.registry.model("wake").baseline == 2
        assert (runs(here, "dev-1", "pi4"), runs(here, "dev-1", "pi3")) == (2, 1)
