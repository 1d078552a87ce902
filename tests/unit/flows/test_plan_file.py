"""A plan is read as it was meant, or refused with the line."""
# ruff: noqa: E501  (the table of refusals: one row a line)

import pytest

from whimbrel.errors import UntrustedInput
from whimbrel.flows.plan_file import read_plan
from whimbrel.flows.yaml_file import load_yaml
from whimbrel.rollout.criteria import SuccessCriteria

PUBLISHED = """\
rollout:
  model_version: "detector-v3.2"
  stages:
    - name: canary
      target_percent: 5
      duration_hours: 24
      success_criteria: {accuracy_drop_max: 0.02, error_rate_max: 0.001, latency_p99_max_ms: 50}
    - name: early_adopters
      target_percent: 25
      duration_hours: 48
    - name: general
      target_percent: 100
  rollback: {auto_rollback: true, health_check_interval_sec: 300}
"""


def _refusal(text: str) -> str:
    with pytest.raises(UntrustedInput) as caught:
        read_plan(text, what="plan.yaml")
    return str(caught.value)


def _with(old: str, new: str) -> str:
    assert old in PUBLISHED
    return PUBLISHED.replace(old, new)


def test_the_published_form_is_read_as_it_is() -> None:
    plan = read_plan(PUBLISHED, what="plan.yaml")
    assert plan.model_version == "detector-v3.2"
    assert [(stage.name, stage.target_percent, stage.duration_hours) for stage in plan.stages] == [
        ("canary", 5, 24),
        ("early_adopters", 25, 48),
        ("general", 100, 0),
    ]
    assert plan.criteria(2) == SuccessCriteria(accuracy_drop_max=0.02, error_rate_max=0.001, latency_p99_max_ms=50)
    assert plan.rollback.auto_rollback
    assert plan.window_s() == 300


# fmt: off
REFUSED = [
    (_with("success_criteria", "sucess_criteria"), "plan.yaml:7: rollout.stages[0]: unknown key 'sucess_criteria'; did you mean 'success_criteria'?"),
    (_with("error_rate_max", "error_rte_max"), "plan.yaml:7: rollout.stages[0].success_criteria: unknown key 'error_rte_max'; did you mean 'error_rate_max'?"),
    (_with("auto_rollback", "frobnicate"), "plan.yaml:13: rollout.rollback: unknown key 'frobnicate'; known here: auto_rollback, health_check_interval_sec"),
    (_with("target_percent: 25", "target_percent: lots"), "plan.yaml:9: rollout.stages[1].target_percent: expected `float`, got `str` (found 'lots')"),
    (_with("target_percent: 25", "target_percent: 2_5"), "plan.yaml:9:"),
    (_with("target_percent: 25", "target_percent: .nan"), "plan.yaml:9:"),
    (_with("target_percent: 25", "target_percent: .inf"), "plan.yaml:9:"),
    (_with("target_percent: 25", "target_percent: 101"), "plan.yaml:9: rollout.stages[1].target_percent: expected `float` <= 100.0 (found '101')"),
    (_with("      target_percent: 25\n", ""), "plan.yaml:8: rollout.stages[1]: the key 'target_percent' is missing"),
    (_with("error_rate_max: 0.001", "error_rate_max: "), "plan.yaml:7: there is no value here"),
    (_with("error_rate_max: 0.001", "error_rate_max: null"), "plan.yaml:7: there is no value here"),
    (_with("error_rate_max: 0.001", "error_rate_max: 0,001"), "plan.yaml:7:"),
    (_with("auto_rollback: true", "auto_rollback: no"), "plan.yaml:13: rollout.rollback.auto_rollback: expected `bool`, got `str` (found 'no')"),
    (_with('"detector-v3.2"', "3.2"), 'plan.yaml:2: rollout.model_version: 3.2 is read as a number or truth value; quote it: "3.2"'),
    (_with('"detector-v3.2"', "detector"), "plan.yaml:2: rollout.model_version: 'detector' names no version"),
    (_with("general", "canary"), "two stages share a name"),
    (_with("target_percent: 100", "target_percent: 10"), "a share only grows"),
    (_with("duration_hours: 24", "duration_hours: 24\n      duration_hours: 1"), "plan.yaml:7: the key 'duration_hours' is said twice, first on line 6"),
    ("", "plan.yaml is empty"),
    ("# nothing\n", "plan.yaml is empty"),
    ("rollout", "plan.yaml:1: expected `object`, got `str` (found 'rollout')"),
    ("rollout: [", "plan.yaml:2: this is not YAML"),
    ("rollout:\n\t- x", "plan.yaml:2: this is not YAML"),
    ("a: \x00", "plan.yaml is not YAML text"),
    ("a: \ud800", "plan.yaml is not YAML text"),
]
# fmt: on


@pytest.mark.parametrize(("text", "said"), REFUSED)
def test_a_plan_that_cannot_be_understood_is_refused_with_its_line(text: str, said: str) -> None:
    assert said in _refusal(text)


def test_norway_is_a_region_and_not_a_falsehood() -> None:
    plan = read_plan(_with("    - name: general", "    - name: general\n      regions: [NO, NZ]"), what="plan.yaml")
    assert plan.stages[2].regions == ("NO", "NZ")


def test_every_value_has_its_line() -> None:
    _, line_of = load_yaml(PUBLISHED, what="plan.yaml")
    assert line_of("$.rollout.stages[1].name") == 8
    assert line_of("$.rollout.stages[1].no_such_key") == 8
    assert line_of("$.rollout.rollback") == 13
    assert line_of("$") == 1


def test_plain_words_are_what_they_look_like() -> None:
    value, _ = load_yaml('{a: 010, b: 1:30, c: 2026-03-05, d: 1e3, e: -5, f: "5", g: True, h: on, i: 0x10}', what="x")
    assert value == {
        "a": "010", "b": "1:30", "c": "2026-03-05", "d": 1000.0, "e": -5, "f": "5", "g": True, "h": "on", "i": "0x10",
    }  # fmt: skip
