"""Refusals and explanations of experiments, whole: with their figures, and as what something is refused."""

from typing import Any

import msgspec
import pytest

from support.experiments import Village, village, written
from support.values import T0, devices_in, model, plan, quarantined, release, rollout, stage, version
from whimbrel.errors import Conflict, NotFound, Refused
from whimbrel.flows.experiments.check import ExperimentCheck, check_experiment
from whimbrel.flows.experiments.start import check_told_labels
from whimbrel.flows.records import NewSettings
from whimbrel.model.documents import encode
from whimbrel.model.release import Requirement
from whimbrel.plan.experiment import Experiment
from whimbrel.plan.plan import Plan
from whimbrel.policy.bucket import BUCKETS

ROLLOUT = {"on_decision": "rollout", "rollout": {"stages": [{"name": "all", "target_percent": 100}]}}
HALF = {"allocation": {"control": 0.25, "large": 0.25}}


def settings(here: Village, **changes: Any) -> None:
    before = here.town.registry.model("wake").settings
    here.town.registry.change_model("wake", settings=msgspec.structs.replace(before, **changes))


def refusal(here: Village, asked: Experiment, kind: type[Refused] = Refused) -> str:
    with pytest.raises(kind) as refused:
        here.start(asked)
    assert type(refused.value) is kind
    assert here.experiments.all() == []
    return str(refused.value)


# --- it begins, or is refused ---


def test_what_is_written_down_when_it_begins() -> None:
    with village(begun=False) as here:
        record = here.start(written(reshuffle=True))
        assert (record.id, record.model, record.serials, record.because, record.started_by, record.delays) == (
            "e1",
            "wake",
            {"control": 1, "large": 2},
            "started by ana",
            "ana",
            (3 * 3600.0,),
        )
        assert here.town.registry.model("wake").salt == 7
        (entry,) = here.town.registry.audit_log()
        assert (entry.actor, entry.action, entry.because) == (
            "ana",
            "start experiment",
            "control (serial 1) 50.00%, large (serial 2) 50.00%",
        )
        assert entry.evidence == {
            "shares": {"control": 0.5, "large": 0.5},
            "serials": {"control": 1, "large": 2},
            "salt": 7,
        }


def test_an_experiment_without_an_id_is_named_by_its_model_and_tag() -> None:
    with village(begun=False) as here:
        assert here.start(written(id=None)).id == "wake-ab-t"


@pytest.mark.parametrize(
    ("ranges", "said"),
    [
        (
            [(0, 50)],
            "rollout r0 of wake has devices from 0% to 100% of the buckets, and a device runs one version at a "
            "time; end it, or name another range_percent",
        ),
        (
            [(0, 50), (50, 100)],
            "rollout r0 and rollout r1 of wake have devices from 0% to 100% of the buckets, and a device runs one "
            "version at a time; end it, or name another range_percent",
        ),
    ],
)
def test_what_has_devices_in_its_range_is_named(ranges: list[tuple[int, int]], said: str) -> None:
    with village(begun=False) as here:
        for number, (low, high) in enumerate(ranges):
            part: Plan = plan(stage("a", 10), range_percent=(low, high))
            here.town.registry.add_rollout(
                rollout(id=f"r{number}", plan=part, shares=(part.range.start + 1,)), plan_text=""
            )
        assert refusal(here, written(), Conflict) == said


def test_an_id_that_a_rollout_has_is_taken() -> None:
    with village(begun=False) as here:
        here.town.registry.add_rollout(
            rollout(id="e1", plan=plan(stage("a", 10), range_percent=(90, 100)), shares=(900_001,)), plan_text=""
        )
        asked = written(**HALF, range_percent=(0, 50))
        assert refusal(here, asked, Conflict) == "'e1' is the id of a rollout; give the experiment another"


def test_a_version_that_may_not_run_is_no_variant_and_the_variant_is_named() -> None:
    with village(begun=False) as here:
        here.town.registry.quarantine(quarantined(2, because="it crashes"))
        assert refusal(here, written()) == "large: wake 2026.01.01.2 was taken back before (it crashes)"
        here.town.registry.change_version("wake", 2, retired=True)
        assert refusal(here, written()) == "large: wake 2026.01.01.2 is retired; publish a new version"


def test_the_control_is_what_devices_run() -> None:
    with village(begun=False) as here:
        here.town.registry.change_model("wake", baseline=3)
        assert refusal(here, written()) == (
            "the control control is 2026.01.01.1, and the baseline of wake is 2026.01.01.3: compare with what devices "
            "run"
        )
        here.town.registry.change_model("wake", baseline=None)
        assert refusal(here, written()) == ("wake has no baseline to compare with; its first publication becomes it")


def test_a_variant_that_needs_another_model_to_change_is_refused() -> None:
    with village(begun=False, versions=1) as here:
        registry = here.town.registry
        registry.add_model(model(name="decoder"))
        document = release(2, requires=(Requirement(model="decoder", serial=2),))
        registry.add_version(version(2), release=encode(document), digests=document.digests)
        said = (
            "large: it requires decoder at serial 2, which is not what devices run, and an experiment moves one model; "
            "roll out the set, or compare versions that need no other model to change"
        )
        assert refusal(here, written()) == said
        registry.change_model("decoder", baseline=2)
        assert here.start().live


def test_one_persons_experiment_keeps_to_the_share_that_needs_no_second() -> None:
    with village(begun=False) as here:
        settings(here, second_person_above_percent=50.0)
        assert here.start(written(**ROLLOUT)).live  # exactly the share
    with village(begun=False) as here:
        settings(here, second_person_above_percent=49.0)
        assert refusal(here, written(**ROLLOUT)) == (
            "its arms have 50% of the devices, and this model needs a second person above 49%, which an experiment "
            "cannot wait for; give its arms less"
        )
        here.town.registry.add_rollout(
            rollout(plan=plan(stage("a", 40), range_percent=(90, 100)), shares=(940_000,)), plan_text=""
        )
        small = {"allocation": {"control": 0.4, "large": 0.46}, "range_percent": (0, 90)} | ROLLOUT
        settings(here, second_person_above_percent=45.0)
        said = refusal(here, written(**small))
        assert said == (
            "its arms have 41.4% of the devices, and this model needs a second person above 45%, of which others have "
            "4%, which an experiment cannot wait for; give its arms less"
        )


def test_what_makes_an_arm_everybodys_is_no_one_persons_word() -> None:
    said = (
        "on_decision: baseline makes an arm everybody's by one person's word, and this model needs a second person "
        "above 60%; write on_decision: rollout, whose rollout waits for one"
    )
    with village(begun=False) as here:
        settings(here, second_person_above_percent=60.0)
        assert refusal(here, written(on_decision="baseline")) == said
        same = [{"id": "control", "model_version": "wake@1.0.0"}, {"id": "large", "model_version": "wake@1.0.0"}]
        assert here.start(written(on_decision="baseline", variants=same)).live  # it brings nobody anything new
    with village(begun=False) as here:
        settings(here, second_person_above_percent=100.0)
        assert here.start(written(on_decision="baseline")).live


@pytest.mark.parametrize(
    ("changes", "is_asked"),
    [
        ({"report_labels": ("person",)}, True),
        ({"slice_labels": ("person",)}, True),
        ({"hardware_label": "person"}, True),
        ({"report_labels": ("region",), "hardware_label": "board"}, False),
        ({"refresh_s": 60}, False),
    ],
)
def test_a_label_that_divides_devices_is_not_asked_for_while_it_does(changes: dict[str, Any], is_asked: bool) -> None:
    by_person = written(bucket_by="label:person", devices_per_value=2)
    with village(plan=by_person) as here:
        if not is_asked:
            check_told_labels(here.experiments, NewSettings(**changes))
            return
        with pytest.raises(Refused) as refused:
            check_told_labels(here.experiments, NewSettings(**changes))
        assert str(refused.value) == (
            "experiment e1 divides devices by their person, whose values are to stay on devices; leave the label out, "
            "or end the experiment first"
        )
        here.act("stop", arm=None, because="", now=T0 + 1)
        check_told_labels(here.experiments, NewSettings(**changes))


# --- a person acts ---


def test_an_arm_that_is_not_there_or_was_stopped_is_not_shipped() -> None:
    with village() as here:
        with pytest.raises(NotFound) as absent:
            here.act("ship", arm="tiny", because="", now=T0 + 1)
        assert str(absent.value) == "e1 has no arm 'tiny'; its variants are control, large"
        stopped = msgspec.structs.replace(here.record, stopped={"large": "it crashes"})
        here.experiments.save(stopped, before=here.record)
        with pytest.raises(Refused) as refused:
            here.act("ship", arm="large", because="", now=T0 + 1)
        assert str(refused.value) == "large was stopped: it crashes"
        assert here.record.live


def test_to_ship_the_control_is_to_keep_it() -> None:
    with village() as here:
        kept = here.act("ship", arm="control", because="", now=T0 + 5)
        assert (kept.winner, kept.because, kept.ended_at) == (None, "ship by ana", T0 + 5)
        entry = here.town.registry.audit_log()[0]
        assert (entry.action, entry.actor, entry.evidence["arm"]) == ("experiment keep", "ana", "control")


@pytest.mark.parametrize(
    ("changes", "follows"),
    [
        ({"on_decision": "record"}, "the result is recorded, and devices return to the baseline"),
        ({"on_decision": "baseline"}, "2026.01.01.2 is the baseline now"),
        (ROLLOUT, "rollout wake-2-abc123 began"),
    ],
)
def test_what_follows_a_shipped_arm_is_in_its_reason(changes: dict[str, Any], follows: str) -> None:
    with village(plan=written(**changes)) as here:
        shipped = here.act("ship", arm="large", because="it is better", now=T0 + 5)
        assert (shipped.winner, shipped.because) == ("large", f"it is better; {follows}")
        newest = next(e for e in here.town.registry.audit_log() if e.action == "experiment ship")
        assert newest.because == shipped.because
        is_baseline = changes["on_decision"] == "baseline"
        assert here.town.registry.model("wake").baseline == (2 if is_baseline else 1)
        assert here.town.registry.aliases("wake") == ({"champion": 2} if is_baseline else {})
        assert here.town.registry.version("wake", 2).good is is_baseline


def test_a_baseline_does_not_change_under_what_runs_beside_it() -> None:
    with village(plan=written(**HALF, range_percent=(0, 50), on_decision="baseline")) as here:
        here.town.registry.add_rollout(
            rollout(target=3, plan=plan(stage("a", 10), range_percent=(90, 100)), shares=(900_001,)), plan_text=""
        )
        shipped = here.act("ship", arm="large", because="x", now=T0 + 5)
        assert shipped.because == (
            "x; 2026.01.01.2 did not become the baseline, since rollout r1 runs: roll it out when that ended"
        )
        assert here.town.registry.model("wake").baseline == 1


def test_a_version_that_is_the_baseline_already_is_said_to_be() -> None:
    with village(plan=written(on_decision="baseline")) as here:
        here.town.registry.change_model("wake", baseline=2)
        assert here.act("ship", arm="large", because="x", now=T0 + 5).because == (
            "x; 2026.01.01.2 is the baseline already"
        )


def test_a_rollout_that_cannot_begin_or_must_wait_is_told() -> None:
    with village(plan=written(**ROLLOUT)) as here:
        here.town.registry.quarantine(quarantined(2, because="it crashes"))
        said = here.act("ship", arm="large", because="x", now=T0 + 5).because
        assert said.startswith("x; its rollout could not begin: wake 2026.01.01.2 was taken back before (it crashes)")
    with village(plan=written(**ROLLOUT)) as here:
        settings(here, second_person_above_percent=0.5)
        said = here.act("ship", arm="large", because="x", now=T0 + 5).because
        assert said == "x; rollout wake-2-abc123 waits for approval"


# --- check ---


def check(here: Village, asked: Experiment) -> ExperimentCheck:
    return check_experiment(here.town.registry, here.town.fleet, here.experiments, asked)


def test_all_that_check_says_of_a_fleet_that_is_large_enough() -> None:
    with village(begun=False) as here:
        here.town.enrol(*devices_in(0, BUCKETS // 2, 60), *devices_in(BUCKETS // 2, BUCKETS, 40), models=("wake",))
        told = check(here, written(primary_metric={"name": "watch_time", "spread": 2.0}))
    assert (told.name, told.model, told.devices, told.elsewhere, told.unit) == (
        "A larger encoder",
        "wake",
        {"control": 60, "large": 40},
        0,
        "watch_time",
    )
    assert told.effect is not None
    assert told.sentences[:4] == (
        "control (control, serial 1): 0.5 of the devices, 60 of those that are enrolled now",
        "large (serial 2): 0.5 of the devices, 40 of those that are enrolled now",
        "0 enrolled devices are in no arm and run the baseline",
        "once 60 devices have reported (as a rule within a day: every enrolled device that is online joins at its next "
        "refresh) it is decided as soon as something is proven, and at the latest after 0.5 days",
    )
    assert told.sentences[4] == (
        f"the smallest difference of watch_time that is proven in four of five experiments: {told.effect:.3g} "
        f"watch_time, "
        "with all 100 devices heard (less where devices know their past: the effect shrinks with the square root of "
        "what that explains)"
    )
    assert told.sentences[-2:] == (
        "when an arm is shipped, the result is recorded, and devices return to the baseline",
        "every arm is watched for crashes, errors, silence, latency, accuracy and failed installs as a rollout is; an "
        "arm whose harm is proven is stopped at once",
    )
