"""Editors are told what the reader takes: the published schema, asked by a validator that is not ours."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from support.plans import WHOLE_PLANS
from whimbrel.flows.files.plan_file import read_plan
from whimbrel.flows.files.plan_schema import plan_schema, schema_text
from whimbrel.flows.files.yaml_file import load_yaml

PAGE = Path(__file__).parents[4] / "docs" / "reference" / "plan.schema.json"
VALIDATOR = Draft202012Validator(plan_schema())


def test_the_published_file_is_what_the_code_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == schema_text(), f"whimbrel rollout plan schema > {PAGE.name}"


def test_it_is_a_json_schema() -> None:
    Draft202012Validator.check_schema(plan_schema())


def _parts(schema: Any) -> list[dict[str, Any]]:
    below = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    return [*([schema] if isinstance(schema, dict) else []), *(each for one in below for each in _parts(one))]


def test_every_key_says_what_it_means_and_null_is_offered_nowhere() -> None:
    for name, part in plan_schema()["$defs"].items():
        for key, about in part.get("properties", {}).items():
            assert about["description"].endswith("."), f"{name}.{key}"
    assert not [part for part in _parts(plan_schema()) if part.get("type") == "null"]


@pytest.mark.parametrize("text", WHOLE_PLANS)
def test_what_the_reader_takes_the_schema_takes(text: str) -> None:
    read_plan(text, what="plan.yaml")
    assert [error.message for error in VALIDATOR.iter_errors(load_yaml(text, what="it")[0])] == []


BAD: list[tuple[str, Any, str]] = [
    ("rollout.stages.0.target_percent", 101, "is greater than the maximum of 100"),
    ("rollout.stages.0.target_percent", "5", "is not of type 'number'"),
    ("rollout.stages.0.target_percent", None, "is not of type 'number'"),
    ("rollout.stages.0.sucess_criteria", {}, "Additional properties are not allowed"),
    ("rollout.stages.0.name", "a\n", "does not match"),
    ("rollout.stages.0.approval", {"count": 0}, "less than the minimum of 1"),
    ("rollout.stages.0.conditions", {"charging": "yes"}, "is not of type 'boolean'"),
    ("rollout.stages.0.selector", {"match_expressions": [{"key": "a", "operator": "Like"}]}, "is not one of"),
    ("rollout.stages", [], "should be non-empty"),
    ("rollout.freeze", [{"from": "Friday", "to": "mon"}], "does not match"),
    ("rollout.freeze", [{"from": "fri"}], "'to' is a required property"),
    ("rollout.range_percent", [0], "is too short"),
    ("rollout.range_percent", [0, 120], "is greater than the maximum"),
    ("rollout.on_running", "wait", "is not one of"),
    ("rollout.alerts", [{"to": "oncall", "on": ["exploded"]}], "is not one of"),
    ("rollout.blast_radius", {"devices": 0}, "less than the minimum"),
    ("rollout.schedule", {"start_at": "soon"}, "does not match"),
    ("rollback", {}, "Additional properties are not allowed"),
]


@pytest.mark.parametrize(("path", "value", "said"), BAD)
def test_what_the_reader_refuses_the_schema_marks(path: str, value: Any, said: str) -> None:
    plan: Any = {"rollout": {"model_version": "wake@2.0.0", "stages": [{"name": "a", "target_percent": 5}]}}
    place = plan
    *way, last = path.split(".")
    for step in way:
        place = place[int(step) if step.isdigit() else step]
    place[last] = value
    found = [error.message for error in VALIDATOR.iter_errors(plan)]
    assert any(said in message for message in found), found
    with pytest.raises(Exception, match=r"plan\.json"):
        read_plan(json.dumps(plan), what="plan.json")
