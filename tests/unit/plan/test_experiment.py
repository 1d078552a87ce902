"""What a person wrote about an experiment: understood wholly, or refused with the line."""

import pytest

from support.experiments import TEXT, written
from whimbrel.agent.labels import seen_labels
from whimbrel.errors import UntrustedInput
from whimbrel.flows.files.experiment_file import read_experiment
from whimbrel.plan.experiment import KINDS_OF_DEVICES, Experiment
from whimbrel.plan.ranges import Range

PUBLISHED = """
experiment:
  id: exp-7
  name: accuracy of the new head
  variants:
    - id: baseline
      model_version: "wake@1.0.0"
      description: what runs today
    - id: candidate
      model_version: "wake@2.0.0"
      description: the new head
  allocation: {baseline: 0.5, candidate: 0.5}
  primary_metric: accuracy
  guardrail_metrics: [crash_rate, latency_p99, battery]
  minimum_sample_size: 10000
  duration_days: 7
"""


def read(text: str) -> Experiment:
    return read_experiment(text, what="e.yaml")


def test_the_published_form_is_taken_as_it_is() -> None:
    plan = read(PUBLISHED)
    assert (plan.model, plan.control_id, [arm.id for arm in plan.treated]) == ("wake", "baseline", ["candidate"])
    assert plan.ranges() == {"baseline": Range(0, 500_000), "candidate": Range(500_000, 1_000_000)}
    assert plan.primary.rises
    assert plan.guard_plan(plan.treated[0]).alpha == 0.1
    assert (plan.minimum_sample_size, plan.duration_days) == (10_000, 7)


def test_what_the_form_leaves_out_has_its_published_values() -> None:
    text = PUBLISHED.replace("  minimum_sample_size: 10000\n  duration_days: 7\n", "")
    assert read(text) == read(PUBLISHED)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("id: e1", "id: e1\n  bucket_by: user_id", "expected device, or label:<name>"),
        ("id: e1", 'id: e1\n  bucket_by: "label:a b"', "expected device, or label:<name>"),
        ("id: e1", "id: e1\n  bucket_by: label:os", "os names a kind of device"),
        ("id: e1", "id: e1\n  bucket_by: label:runtime.litert", "names a kind of device"),
        ("id: e1", "id: e1\n  devices_per_value: 3", "bucket_by names no label"),
        (
            "id: e1",
            "id: e1\n  bucket_by: label:user_id\n  selector: {match_labels: {user_id: ann}}",
            "Policies are public",
        ),
        ("name: A", "nam: A", "nam"),
        ("control: 50%", "control: 50", r"allocation 50: .* such as 5%"),
        ("control: 50%", "control: 0%", "allocation 0%"),
        ("control: 50%", "control: 60%", "adds up to 110%"),
        ("control: 50%", "controls: 50%", "allocation is of controls, large"),
        ("wake@2.0.0", "other@2.0.0", "one model"),
        ("wake@2.0.0", "wake 2", "names no version"),
        ("id: large", "id: control", "share an id"),
        ("primary_metric: watch_time", "primary_metric: latency_p99", "cannot decide"),
        ("crash_rate, lat", "{name: crash_rate, margin: 1}, lat", "without direction and margin"),
        ("crash_rate, lat", "latency_p99, lat", "share a name"),
        ("reshuffle: false", "on_decision: rollout", "go together"),
        ("reshuffle: false", "control: huge", "control is 'huge'"),
        ("reshuffle: false", "range_percent: [50, 50]", "from below to"),
        ("reshuffle: false", "minimum_days: 3", "more than duration_days"),
        ("reshuffle: false", "alpha: 0", "alpha"),
        ("reshuffle: false", "minimum_sample_size: 1", "minimum_sample_size"),
        ("reshuffle: false", "on_decision: rollout\n  rollout: {stages: []}", "rollout"),
        ("reshuffle: false", "on_decision: rollout\n  rollout: {model_version: wake@2.0.0}", "leave model_version out"),
    ],
)
def test_what_cannot_be_understood_is_refused_with_the_line(before: str, after: str, words: str) -> None:
    assert before in TEXT
    with pytest.raises(UntrustedInput, match=r"e\.yaml:\d+: ") as said:
        read(TEXT.replace(before, after))
    assert said.match(words)


def test_the_budget_is_split_evenly_over_the_arms() -> None:
    three = written(
        variants=[{"id": name, "model_version": "wake@1.0.0"} for name in ("control", "a", "b")],
        allocation={"control": 0.2, "a": 0.4, "b": 0.4},
        guardrail_metrics=[{"name": "skips"}],
    )
    assert three.arm_alpha == 0.025
    guard = three.guard_plan(three.treated[0]).alpha + sum([three.own_guard_alpha()] * len(three.own_guardrails))
    assert 2 * guard == pytest.approx(three.guardrail_alpha)


def test_arms_lie_side_by_side_in_the_range_and_what_is_over_is_in_none() -> None:
    plan = written(range_percent=[10, 30], allocation={"control": 0.25, "large": "50%"})
    assert plan.ranges() == {"control": Range(100_000, 150_000), "large": Range(150_000, 250_000)}


@pytest.mark.parametrize(("metric", "rises"), [("accuracy", True), ("error_rate", False), ("crash_rate", False)])
def test_less_of_a_rate_is_better_unless_it_is_said(metric: str, rises: bool) -> None:
    assert written(primary_metric=metric).primary.rises is rises
    assert written(primary_metric={"name": metric, "direction": "increase"}).primary.rises


def test_arms_by_a_label_are_taken_in_both_spellings_and_count_two_devices_as_one() -> None:
    plan = read(TEXT.replace("id: e1", "id: e1\n  bucketBy: label:user_id"))
    assert (plan.bucket_label, plan.cluster, plan.taken) == ("user_id", 2.0, Range())
    assert read(TEXT).bucket_label is None
    assert read(TEXT.replace("id: e1", "id: e1\n  bucket_by: device")) == read(TEXT)
    assert (read(TEXT).cluster, written(bucket_by="label:home", devices_per_value=5).cluster) == (1.0, 5.0)


def test_every_label_that_an_agent_finds_by_itself_names_a_kind_of_device() -> None:
    seen = {name for name in seen_labels() if not name.startswith("runtime.")}
    assert seen <= KINDS_OF_DEVICES
