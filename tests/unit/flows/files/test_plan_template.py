"""A plan to begin with is a plan: as it is written, and with everything in it switched on."""

import re

from whimbrel.flows.files.plan_file import read_plan
from whimbrel.flows.files.plan_template import plan_template


def test_a_new_plan_is_understood_and_says_what_was_asked() -> None:
    plan = read_plan(plan_template("wake@2.1.0"), what="new")
    assert plan.model_version == "wake@2.1.0"
    assert [(stage.name, stage.target_percent) for stage in plan.stages] == [
        ("canary", 5),
        ("early", 25),
        ("general", 100),
    ]
    assert plan.reaches_everyone


def test_with_all_of_its_settings_switched_on_it_is_still_a_plan() -> None:
    plain = plan_template("wake@2.1.0")
    everything = re.sub(r"(?m)^( *)#(?=\S)", r"\1", plain)
    plan = read_plan(everything, what="new")
    assert (plan.promote, plan.on_running, plan.stages[2].approval is None) == ("when_proven", "queue", False)
    assert everything.count("\n") == plain.count("\n")


def test_a_new_blue_green_plan_is_understood_also_with_all_of_its_settings_switched_on() -> None:
    plain = plan_template("wake@2.1.0", strategy="blue_green")
    plan = read_plan(plain, what="new")
    assert (plan.is_blue_green, plan.shadows, plan.holdback, plan.reaches_everyone) == (True, 0, 0, True)
    everything = read_plan(re.sub(r"(?m)^( *)#(?=\S)", r"\1", plain), what="new")
    assert (everything.shadows, everything.holdback, len(everything.stages)) == (1, 10, 2)
    assert not [line for line in plain.splitlines() if "##" in line]


def test_every_key_has_its_sentence_above_it() -> None:
    lines = plan_template("wake@2.1.0").splitlines()
    assert not [line for line in lines if "##" in line]
    head = lines.index("rollout:")
    explained = [line.strip() for above, line in zip(lines[head:], lines[head + 1 :], strict=False) if "# " in above]
    assert {"#holdback_percent: 10", "error_rate_max: 0.02", "stages:", 'model_version: "wake@2.1.0"'} <= set(explained)
