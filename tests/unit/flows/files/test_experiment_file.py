"""The published form of an experiment: taken in both spellings, and guardrails by name only where the name is known."""

import pytest

from whimbrel.errors import UntrustedInput
from whimbrel.flows.files.experiment_file import read_experiment
from whimbrel.plan.experiment import Experiment, GuardrailMetric

SNAKE = """
experiment:
  name: accuracy of the new head
  variants:
    - {id: control, model_version: "wake@1.0.0", description: what runs today}
    - {id: treatment, model_version: "wake@2.0.0", description: the new head}
  allocation: {control: 0.5, treatment: 0.5}
  primary_metric: {name: accuracy, minimum_effect: 0.01}
  guardrail_metrics: [false_positive_rate, inference_latency, error_rate]
  minimum_sample_size: 20000
  duration_days: 14
"""
CAMEL = """
experiment:
  name: accuracy of the new head
  model: wake
  variants:
    - {id: control, modelVersion: "1.0.0", description: what runs today}
    - {id: treatment, modelVersion: v2.0.0, description: the new head}
  allocation: {control: 0.5, treatment: 0.5}
  primaryMetric: {name: accuracy, minimumEffect: 0.01}
  guardrailMetrics: [false_positive_rate, inference_latency, error_rate]
  minimumSampleSize: 20000
  durationDays: 14
"""
KNOWN = "[false_positive_rate, inference_latency, error_rate]"


def read(text: str) -> Experiment:
    return read_experiment(text, what="e.yaml")


def guarded(guardrails: str) -> Experiment:
    return read(SNAKE.replace(KNOWN, guardrails))


def test_both_spellings_are_one_experiment() -> None:
    assert read(CAMEL) == read(SNAKE)


def test_a_known_name_has_its_measure_its_direction_and_its_margin() -> None:
    plan = read(SNAKE)
    assert plan.own_guardrails == (GuardrailMetric(name="false_positive_rate", direction="decrease", margin=0.005),)
    assert plan.watched_guardrails == {
        "inference_latency": ("latency_p50", "latency_p95", "latency_p99"),
        "error_rate": ("error",),
    }


def test_what_a_known_name_means_is_written_into_the_experiment() -> None:
    """A later release may tolerate another margin; a stored verdict is judged again as it was."""
    assert read(SNAKE).guardrail_metrics[0] == GuardrailMetric(
        name="false_positive_rate", direction="decrease", margin=0.005
    )


@pytest.mark.parametrize(
    ("guardrail", "rises", "margin"),
    [
        ("{name: skips, direction: decrease, margin: 0.1}", False, 0.1),
        ("{name: skips, direction: increase, margin: 0}", True, 0.0),
        ("{name: recall, margin: 0.02}", True, 0.02),
        ("{name: recall, direction: decrease}", False, 0.005),
        ("{name: inference_latency, margin: 5}", False, 5.0),
    ],
)
def test_what_a_file_says_goes_before_what_is_known(guardrail: str, rises: bool, margin: float) -> None:
    (own,) = guarded(f"[{guardrail}]").own_guardrails
    assert (own.rises, own.margin) == (rises, margin)


@pytest.mark.parametrize(
    ("guardrail", "words"),
    [
        ("skips", r"'skips' is no known metric, and.*write \{name: skips, direction: decrease, margin: 0.01\}"),
        ("{name: skips}", "the direction and the margin of 'skips' must be said"),
        ("{name: skips, direction: decrease}", "the margin of 'skips' must be said"),
        ("{name: skips, margin: 1}", "the direction of 'skips' must be said"),
        ("falsePositiveRate", "Did you mean 'false_positive_rate'?"),
        ("{name: memory_mb}", "its margin is missing.*or memory_mb alone"),
        ("{name: error_rate, margin: 1}", "without direction and margin"),
        ("7", "guardrail_metrics"),
        ("[recall]", "guardrail_metrics"),
        ("{name: 7}", "name"),
    ],
)
def test_a_guardrail_that_nobody_can_judge_is_refused_with_what_to_write(guardrail: str, words: str) -> None:
    for text in (SNAKE, CAMEL):
        with pytest.raises(UntrustedInput, match=rf"e\.yaml:\d+: .*{words}"):
            read(text.replace(KNOWN, f"[latency_p99, {guardrail}]"))


def test_a_refusal_names_the_line_of_the_guardrail() -> None:
    with pytest.raises(UntrustedInput, match=r"e\.yaml:12: experiment\.guardrail_metrics\[1\]: 'skips'"):
        read(CAMEL.replace(KNOWN, "\n    - error_rate\n    - skips"))


@pytest.mark.parametrize(
    ("bare", "full"),
    [
        ('"2.0.0"', "wake@2.0.0"),
        ("v2.0.0", "wake@2.0.0"),
        ("v2.0.0-rc.1", "wake@2.0.0-rc.1"),
        ("v2", "wake-v2"),
        ('"2.1"', "wake-v2.1"),
        ("2026.03.05.1", "wake@2026.03.05.1"),
    ],
)
def test_a_bare_version_is_one_of_the_model_that_is_named(bare: str, full: str) -> None:
    for text in (CAMEL.replace("v2.0.0", bare), SNAKE.replace('"wake@2.0.0"', bare)):
        assert read(text).treated[0].model_version == full


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("  model: wake\n", "", r"variants\[0\]\.model_version: 1\.0\.0 is a version of no model.*<model>@1\.0\.0"),
        ("model: wake", "model: Wake", "'Wake' is not a model name"),
        ("model: wake", "model: 7.5", "model"),
        ('"1.0.0"', '"other@1.0.0"', "it is wake, and a variant is a version of other"),
        ("v2.0.0", "newest", "'newest' names no version"),
        ("v2.0.0", "2.1", "quote it"),
        (
            "durationDays: 14",
            "durationDays: 14\n  duration_days: 7",
            "'duration_days' is said twice, on lines 13 and 12",
        ),
        ("durationDays: 14", "durationDay: 14", "unknown key 'durationDay'; did you mean 'duration_days'"),
        ("durationDays: 14", "durationDays: 900", "durationDays|duration_days"),
        ("primaryMetric: {", "primaryMetric: {nom: 1, ", "nom"),
    ],
)
def test_what_cannot_be_completed_is_refused_with_the_line(before: str, after: str, words: str) -> None:
    assert before in CAMEL
    with pytest.raises(UntrustedInput, match=r"e\.yaml:\d+: ") as refusal:
        read(CAMEL.replace(before, after))
    assert refusal.match(words)


@pytest.mark.parametrize(
    "text", ["", "[]", "experiment: 7", "experiment: {variants: 7}", "experiment: {variants: [7]}"]
)
def test_what_is_no_experiment_is_refused_too(text: str) -> None:
    with pytest.raises(UntrustedInput, match=r"e\.yaml"):
        read(text)


def test_labels_of_a_selector_keep_their_spelling() -> None:
    text = CAMEL + "  selector: {matchLabels: {durationDays: long}}\n"
    assert read(text).selector.match_labels == {"durationDays": "long"}
