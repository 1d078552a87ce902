"""A plan is read as it was meant, or refused with the line."""
# ruff: noqa: E501  (the table of refusals: one row a line)

import pytest

from support.plans import PUBLISHED, WHOLE
from whimbrel.errors import UntrustedInput
from whimbrel.flows.files.plan_file import read_plan
from whimbrel.flows.files.yaml_file import load_yaml
from whimbrel.plan.criteria import SuccessCriteria


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
    (_with("duration_hours: 24", "soak_hours: 24\n      duration_hours: 1"), "plan.yaml:6: rollout.stages[0].soak_hours: 24 and duration_hours 1 mean the same and differ; keep one of them"),
    (_with("duration_hours: 24", "duration_hours: 24\n      max_hours: 1"), "plan.yaml:7: rollout.stages[0].max_hours: 1 is the longest bake, and the least is 24 h"),
    (_with("duration_hours: 24", "approval: {count: 0}"), "plan.yaml:6: rollout.stages[0].approval.count: expected a number of at least 1 (found '0')"),
    (_with("duration_hours: 24", "approval: 2"), "plan.yaml:6: rollout.stages[0].approval: expected fields with values: count, note (found '2')"),
    (_with("duration_hours: 24", "selector: {match_labels: {a: 7}}"), "plan.yaml:6: rollout.stages[0].selector.match_labels"),
    (_with("duration_hours: 24", "conditions: {chargin: true}"), "plan.yaml:6: rollout.stages[0].conditions: unknown key 'chargin'; did you mean 'charging'?"),
    (_with("  rollback:", "  blast_radius: {}\n  rollback:"), "plan.yaml:13: rollout.blast_radius: it caps nothing; say percent, devices, or both"),
    (_with("  rollback:", "  range_percent: [50]\n  rollback:"), "plan.yaml:13: rollout.range_percent: expected a list of 2"),
    (_with("  rollback:", "  range_percent: [50, 20]\n  rollback:"), "plan.yaml:13: rollout.range_percent: from 50 to 20 is no stretch of devices"),
    (_with("  rollback:", "  freeze:\n    - {from: fri, to: 2026-12-24}\n  rollback:"), "plan.yaml:14: rollout.freeze[0].to: '2026-12-24' is another form than from 'fri'"),
    (_with("  rollback:", "  freeze:\n    - {from: Freitag, to: mon}\n  rollback:"), "plan.yaml:14: rollout.freeze[0].from"),
    (_with("  rollback:", "  freeze:\n    - {from: fri, to: mon, zone: Mars/Olympus}\n  rollback:"), "plan.yaml:14: rollout.freeze[0].zone: there is no time zone 'Mars/Olympus' here; name one of the IANA database, such as Europe/Oslo"),
    (_with("  rollback:", "  schedule: {start_at: 2026-12-01T09:00, zone: Oslo}\n  rollback:"), "plan.yaml:13: rollout.schedule.zone: there is no time zone 'Oslo'"),
    (_with("  rollback:", "  schedule: {start_at: tomorrow}\n  rollback:"), "plan.yaml:13: rollout.schedule.start_at"),
    (_with("  rollback:", "  on_running: wait\n  rollback:"), "plan.yaml:13: rollout.on_running"),
    (_with("  rollback:", "  on_success: {alias: Best One}\n  rollback:"), "plan.yaml:13: rollout.on_success.alias"),
    (_with("  rollback:", "  on_failure: {page: me}\n  rollback:"), "plan.yaml:13: rollout.on_failure: unknown key 'page'; known here: alias, retire_target, abort_queued"),
    (_with("  rollback:", "  alerts: [{to: oncall, on: [exploded]}]\n  rollback:"), "plan.yaml:13: rollout.alerts[0].on[0]"),
    (_with("  rollback:", "  alerts: [{to: oncall, on: []}]\n  rollback:"), "plan.yaml:13: rollout.alerts[0].on"),
    (_with("success_criteria", "sucess_criteria"), "plan.yaml:7: rollout.stages[0]: unknown key 'sucess_criteria'; did you mean 'success_criteria'?"),
    (_with("error_rate_max", "error_rte_max"), "plan.yaml:7: rollout.stages[0].success_criteria: unknown key 'error_rte_max'; did you mean 'error_rate_max'?"),
    (_with("auto_rollback", "frobnicate"), "plan.yaml:13: rollout.rollback: unknown key 'frobnicate'; known here: auto_rollback, health_check_interval_sec"),
    (_with("target_percent: 25", "target_percent: lots"), "plan.yaml:9: rollout.stages[1].target_percent: expected a number (found 'lots')"),
    (_with("target_percent: 25", "target_percent: 2_5"), "plan.yaml:9:"),
    (_with("target_percent: 25", "target_percent: .nan"), "plan.yaml:9:"),
    (_with("target_percent: 25", "target_percent: .inf"), "plan.yaml:9:"),
    (_with("target_percent: 25", "target_percent: 101"), "plan.yaml:9: rollout.stages[1].target_percent: expected a number of at most 100 (found '101')"),
    (_with("      target_percent: 25\n", ""), "plan.yaml:8: rollout.stages[1]: the key 'target_percent' is missing"),
    (_with("error_rate_max: 0.001", "error_rate_max: "), "plan.yaml:7: there is no value here"),
    (_with("error_rate_max: 0.001", "error_rate_max: null"), "plan.yaml:7: there is no value here"),
    (_with("error_rate_max: 0.001", "error_rate_max: 0,001"), "plan.yaml:7:"),
    (_with("auto_rollback: true", "auto_rollback: no"), "plan.yaml:13: rollout.rollback.auto_rollback: expected true or false (found 'no')"),
    (_with('"detector-v3.2"', "3.2"), 'plan.yaml:2: rollout.model_version: 3.2 is read as a number or truth value; quote it: "3.2"'),
    (_with('"detector-v3.2"', "detector"), "plan.yaml:2: rollout.model_version: 'detector' names no version"),
    (_with("general", "canary"), "two stages share a name"),
    (_with("target_percent: 100", "target_percent: 10"), "a share only grows"),
    (_with("duration_hours: 24", "duration_hours: 24\n      duration_hours: 1"), "plan.yaml:7: the key 'duration_hours' is said twice, first on line 6"),
    ("", "plan.yaml is empty"),
    ("# nothing\n", "plan.yaml is empty"),
    ("rollout", "plan.yaml:1: it has no keys at its top; expected: rollout"),
    ("rollout: [", "plan.yaml:2: this is not YAML"),
    ("rollout:\n\t- x", "plan.yaml:2: this is not YAML"),
    ("a: \x00", "plan.yaml is not YAML text"),
    ("a: \ud800", "plan.yaml is not YAML text"),
]
# fmt: on


@pytest.mark.parametrize(("text", "said"), REFUSED)
def test_a_plan_that_cannot_be_understood_is_refused_with_its_line(text: str, said: str) -> None:
    assert said in _refusal(text)


def test_the_whole_form_is_read() -> None:
    plan = read_plan(WHOLE, what="plan.yaml")
    assert [stage.duration_hours for stage in plan.stages] == [24, 48, 24]
    assert plan.stages[0].selector.matches({"ring": "internal", "app": "2.1"})
    assert plan.stages[0].conditions is not None
    assert plan.stages[1].approval is not None
    assert (plan.stages[1].approval.count, plan.on_success.alias, plan.on_failure.abort_queued) == (2, "stable", True)
    assert [freeze.words() for freeze in plan.freeze] == [
        "every week from fri 16:00 to mon 08:00 Europe/Oslo (weekends)",
        "from 2026-12-23 to 2027-01-03 UTC",
        "every day from 22:00 to 06:00 UTC",
    ]


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
        "a": "010",
        "b": "1:30",
        "c": "2026-03-05",
        "d": 1000.0,
        "e": -5,
        "f": "5",
        "g": True,
        "h": "on",
        "i": "0x10",
    }
