"""Experiments whose arms follow the value of a label: what is refused, what is believed, what can be said before."""

from typing import Any

import msgspec
import pytest

from support.experiments import Village, village, written
from support.values import HOUR, SALT, T0, announce, line, plan, reports, stage, window
from whimbrel.errors import Conflict, Refused
from whimbrel.flows.device_records import DeviceMessage
from whimbrel.flows.experiments.check import check_experiment
from whimbrel.flows.experiments.start import check_told_labels
from whimbrel.flows.records import NewSettings
from whimbrel.flows.render_policy import render_policy
from whimbrel.flows.reports.ingest import IngestCounts, ingest
from whimbrel.flows.rollouts.start import start_rollout
from whimbrel.health.report import Cohort, Role
from whimbrel.plan.experiment import Experiment
from whimbrel.policy.bucket import bucket, label_key
from whimbrel.policy.decide import Profile, decide


def by_person(**changes: object) -> Experiment:
    return written(bucket_by="label:user_id", **changes)


THREE = {
    "variants": [
        {"id": "control", "model_version": "wake@1.0.0"},
        {"id": "large", "model_version": "wake@2.0.0"},
        {"id": "small", "model_version": "wake@3.0.0"},
    ],
    "allocation": {"control": 0.4, "large": 0.3, "small": 0.3},
}


def told(here: Village, *messages: DeviceMessage) -> IngestCounts:
    return ingest(
        here.town.registry,
        here.town.fleet,
        messages,
        now=T0 + 20,
        experiments=here.experiments.all(live=True),
    )


def cohorts(role: Role, *stages: int) -> tuple[Cohort, ...]:
    return tuple(Cohort(rollout="e1", stage=stage, role=role, age_s=60.0) for stage in stages)


# --- it begins ---


def test_the_policy_divides_devices_by_the_label() -> None:
    with village(plan=by_person()) as here:
        registry = here.town.registry
        policy = render_policy(
            registry.model("wake"),
            versions=registry.versions("wake"),
            rollouts=(),
            quarantine=(),
            sequence=1,
            experiments=here.experiments.all(live=True),
        )
        for person in (f"person-{n}" for n in range(40)):
            inside = bucket(label_key(person), salt=SALT) >= 500_000  # the control has the first half
            for device in ("phone", "tablet"):
                decided = decide(policy, line(), Profile(f"{person}-{device}", {"user_id": person}))
                assert decided.serial == (2 if inside else 1)


def test_nothing_else_of_the_model_runs_beside_it_whatever_the_ranges() -> None:
    """Two keys divide the devices differently: a rollout in the other half would have half of a person's devices."""
    with village(plan=by_person(range_percent=[0, 50])) as here:
        other = written(id="e2", range_percent=[50, 100])
        for second in (other, by_person(id="e2", range_percent=[50, 100])):
            with pytest.raises(Conflict, match="experiment e1 of wake has devices"):
                here.start(second)
        asked = msgspec.structs.replace(plan(stage(percent=5)), range_percent=(50.0, 100.0))
        with pytest.raises(Conflict, match="experiment e1"):
            start_rollout(
                here.town.registry, here.town.fleet, asked, plan_text="", tag="x", hour_s=HOUR, actor="ana", now=T0
            )
    with (
        village(plan=written(range_percent=[0, 50])) as here,
        pytest.raises(Conflict, match="an experiment by user_id needs all buckets of the model"),
    ):
        here.start(by_person(id="e2", range_percent=[50, 100]))


@pytest.mark.parametrize(
    "changes", [{"report_labels": ("user_id",)}, {"slice_labels": ("user_id",)}, {"hardware_label": "user_id"}]
)
def test_a_label_that_devices_are_asked_to_tell_is_refused(changes: dict[str, object]) -> None:
    with village(begun=False) as here:
        settings = msgspec.structs.replace(here.town.registry.model("wake").settings, **changes)
        here.town.registry.change_model("wake", settings=settings)
        with pytest.raises(Refused, match=f"asks devices to tell user_id \\({next(iter(changes))}\\)"):
            here.start(by_person())


@pytest.mark.parametrize(
    "changes", [{"report_labels": ("region", "user_id")}, {"slice_labels": ("user_id",)}, {"hardware_label": "user_id"}]
)
def test_devices_are_not_asked_to_tell_the_label_while_it_divides_them(changes: dict[str, Any]) -> None:
    asked = NewSettings(**changes)
    with village(plan=by_person()) as here:
        with pytest.raises(Refused, match="experiment e1 divides devices by their user_id"):
            check_told_labels(here.experiments, asked)
        check_told_labels(here.experiments, NewSettings(refresh_s=60.0, report_labels=("region",)))
        here.act("stop", arm=None, because="", now=T0 + 700)
        check_told_labels(here.experiments, asked)


# --- what devices say ---


def test_a_device_is_believed_about_its_arm_once() -> None:
    """The server does not know the value. Else one device could speak in every arm, one window each."""
    with village(plan=by_person(**THREE)) as here:
        counts = told(
            here,
            announce("dev-1", "activated", rollout="e1", stage=1, role="treated"),
            reports("dev-1", window(1, cohorts=cohorts("treated", 1))),
            reports("dev-1", window(2, cohorts=cohorts("treated", 0))),
            reports("dev-1", window(3, cohorts=cohorts("control", 0, 1))),
            announce("dev-1", "placebo", rollout="e1", stage=0, role="control"),
        )
        assert counts.contradictions == 4
        arms = here.town.fleet.counts("e1")
        assert (arms[1].reported_t, arms.get(0), arms[1].assigned_c) == (1, None, 0)


def test_a_control_is_one_of_every_arm_and_an_arm_that_is_none_is_not_believed() -> None:
    with village(plan=by_person(**THREE)) as here:
        counts = told(
            here,
            reports("dev-1", window(1, cohorts=cohorts("control", 0, 1))),
            reports("dev-2", window(1, cohorts=cohorts("treated", 7))),
            reports("dev-3", window(1, cohorts=(*cohorts("control", 0), *cohorts("treated", 1)))),
        )
        assert counts.contradictions == 2
        arms = here.town.fleet.counts("e1")
        assert (arms[0].reported_c, arms[1].reported_c, arms[1].reported_t) == (2, 1, 0)


def test_a_device_whose_person_changed_is_not_missed_in_the_arm_that_it_left() -> None:
    with village(plan=by_person()) as here:
        told(here, reports("dev-1", window(1, cohorts=cohorts("treated", 0))))
        told(here, reports("dev-1", window(2, cohorts=cohorts("control", 0))))
        (place,) = here.town.fleet.participations(["e1"], ["dev-1"])
        assert (place.role, place.hearing) == ("treated", "left")


# --- what can be said before ---


def test_check_says_what_only_the_devices_know_and_counts_alike_devices_as_one() -> None:
    with village(begun=False) as here:
        here.town.enrol(*(f"dev-{n}" for n in range(400)))

        def check(asked: Experiment) -> object:
            return check_experiment(here.town.registry, here.town.fleet, here.experiments, asked)

        alone, together = check(written()), check(by_person(devices_per_value=4.0))
        assert together.devices == {"control": 200, "large": 200}
        assert together.effect == pytest.approx(2 * alone.effect, rel=0.05)
        text = "\n".join(together.sentences)
        assert "by their user_id, whose value stays on them" in text
        assert "4 devices are taken to share a value of user_id" in text
        assert "nothing else of wake can be tried" in text


def test_check_counts_by_share_those_that_the_selector_names() -> None:
    with village(begun=False) as here:
        here.town.enrol(*(f"nz-{n}" for n in range(100)), labels={"region": "NZ"})
        here.town.enrol(*(f"au-{n}" for n in range(60)), labels={"region": "AU"})
        asked = by_person(selector={"match_labels": {"region": "NZ"}})
        told_before = check_experiment(here.town.registry, here.town.fleet, here.experiments, asked)
        assert (told_before.devices, told_before.elsewhere) == ({"control": 50, "large": 50}, 60)
