"""The JSON Schema of a plan, for editors. It is generated from the same structs that read a plan.

1. Structure, bounds and patterns are the structs'; what every key means is said here, and a key without a sentence is
   an error (a test asks for all of them).
2. A `null` is never valid: the reader refuses a key without a value, so the schema does not offer one.
3. Contradictions between keys are the reader's to find: `whimbrel rollout plan check` says them.

Published as docs/reference/plan.schema.json; `whimbrel rollout plan schema` prints it.
"""

import json
from typing import Any

import msgspec

from whimbrel.errors import InvariantBroken
from whimbrel.plan.plan import PlanFile

_SAYS = {
    "PlanFile.rollout": "The plan of one rollout.",
    "Plan.model_version": "<model>@<calendar or semantic version>, or <model>-v<semantic version or its prefix>.",
    "Plan.stages": "In order; a share only grows.",
    "Plan.strategy": "In stages; or blue_green: all devices at once, with the version before kept in the other slot.",
    "Plan.rollback": "What happens on proven harm.",
    "Plan.guardrails": "Tests with another margin, severity or share of the budget, or for metrics of your own.",
    "Plan.promote": "What promotion needs: no harm found, or every guardrail proven to be within its margin.",
    "Plan.on_small_harm": "Proven harm that is within the stage's limits: goes back, or holds.",
    "Plan.holdback_percent": "The control that stays from 90% up until the last soak ends: 10, and 0 in blue_green.",
    "Plan.min_devices": "A stage's share is raised until so many devices that follow the model fall in it.",
    "Plan.min_reports": "Devices of a stage that must have reported before it is promoted.",
    "Plan.alpha": "The false-alarm budget of the whole rollout.",
    "Plan.blast_radius": "The most that may be on the new version before it is proven: in every stage but the last.",
    "Plan.range_percent": "The stretch of the layer's buckets that it may use, from and to; shares are of it.",
    "Plan.on_running": "When another rollout is in its way: refuse to begin, or wait for its turn.",
    "Plan.schedule": "When it begins by itself.",
    "Plan.freeze": "Times in which nothing begins and nothing advances. Going back never waits.",
    "Plan.on_success": "What follows when it is complete.",
    "Plan.on_failure": "What follows when it was taken back.",
    "Plan.alerts": "Whom to tell of what.",
    "Stage.name": "Unique in the plan.",
    "Stage.target_percent": "The share of the devices (of the range) on the new version.",
    "Stage.duration_hours": "The least time it soaks.",
    "Stage.soak_hours": "The same as duration_hours.",
    "Stage.max_hours": "The longest bake: what is in doubt waits until then, and holds from then on.",
    "Stage.approval": "People who must agree before this stage begins.",
    "Stage.success_criteria": "Limits; they hold for the later stages too, until they are said again.",
    "Stage.rollback": "What happens on proven harm in this stage.",
    "Stage.regions": "Only devices whose label `region` is among these.",
    "Stage.user_segments": "Only devices whose label `user_segment` is among these.",
    "Stage.selector": "Only devices with these labels.",
    "Stage.conditions": "When its devices may fetch and activate, in the place of the model's conditions.",
    "Stage.shadow": "The candidate runs beside the active version and answers nobody.",
    "ShadowStage.sample_percent": "The share of a device's calls that the candidate is given too.",
    "ShadowStage.agreement_min": "The least share of inputs that both versions must answer alike.",
    "ShadowStage.error_rate_max": "Inputs that the active version answers and the candidate does not, at most.",
    "ShadowStage.latency_ratio_max": "The candidate's time over the active version's, at most.",
    "ShadowStage.min_inputs": "Inputs of all devices that must have been compared.",
    "ShadowStage.compare": "What counts as the same answer.",
    "ShadowStage.tolerance": "The difference that still counts as the same answer.",
    "Rollback.auto_rollback": "Proven harm takes it back by itself; otherwise it holds, and a person decides.",
    "Rollback.health_check_interval_sec": "Seconds a tally window, and how often the gate looks; 300 by default.",
    "Approval.count": "How many people; each counts once.",
    "Approval.note": "What they should look at.",
    "BlastRadius.percent": "Of all devices.",
    "BlastRadius.devices": "So many, as they are enrolled when a stage begins.",
    "Freeze.from": "A date, a week day, or a time of the day: 2026-12-24, 2026-12-24T18:00, fri 16:00, 22:00.",
    "Freeze.to": "In the same form. A day without a time ends at its midnight.",
    "Freeze.zone": "An IANA time zone, such as Europe/Oslo.",
    "Freeze.note": "Why.",
    "Schedule.start_at": "A date or a time, local or with an offset: 2026-12-01T09:00, 2026-12-01T09:00+01:00.",
    "Schedule.zone": "The IANA time zone of a local time; UTC where it is absent.",
    "OnSuccess.alias": "Also names the new baseline.",
    "OnSuccess.retire_previous": "The version before is offered no more, also not to go back to.",
    "OnFailure.alias": "Names the version that was taken back.",
    "OnFailure.retire_target": "It is offered no more, also not by an override.",
    "OnFailure.abort_queued": "Rollouts of the model that wait for their turn end unbegun.",
    "AlertRule.to": "A receiver that the server's operator configured.",
    "AlertRule.on": "What it is told of.",
    "Selector.match_labels": "Labels with these values.",
    "Selector.match_expressions": "Terms that must all hold.",
    "Expression.key": "The label.",
    "Expression.operator": "What is asked of it.",
    "Expression.values": 'The values; for Version its bounds, as in [">=1.8", "<3"].',
    "Conditions.unmetered": "On an unmetered network.",
    "Conditions.charging": "While charging.",
    "Conditions.battery_min": "The least charge, from 0 to 1; charging satisfies it too.",
    "Conditions.idle": "While nobody uses the device.",
    "Conditions.window_utc": "Seconds after midnight, from and to, in UTC.",
    "Conditions.windows": "Stretches of the day; one of them is enough.",
    "Conditions.storage_mib_min": "Free storage beyond what the version itself needs.",
    "Conditions.metered_mib_a_day": "The most that is fetched on a metered network.",
    "Conditions.start_jitter_s": "Starts are spread over so many seconds.",
    "Window.start_s": "Seconds after local midnight.",
    "Window.end_s": "Seconds after local midnight; before the start, it is on the next day.",
    "Window.zone": "An IANA time zone; `local` is the device's own.",
    "Window.days": "The days on which it begins; none: every day.",
    "Guardrail.metric": "The test, or a metric that devices report.",
    "Guardrail.margin": "The harm that is tolerated, in the place of the test's own.",
    "Guardrail.direction": "What is worse; for metrics of your own.",
    "Guardrail.severity": "What its proof does: goes back, holds, or only warns.",
    "Guardrail.weight": "Its share of the false-alarm budget, beside the others.",
    "SuccessCriteria.accuracy_drop_max": "The control's mean less the new version's, at most.",
    "SuccessCriteria.error_rate_max": "Errors an inference, at most.",
    "SuccessCriteria.latency_p99_max_ms": "At most 1% of the sessions are slower.",
    "SuccessCriteria.crash_ratio_max": "The new version's crash rate over the control's, at most; 2 is twice.",
    "SuccessCriteria.latency_increase_max": "Of p99; 0.5 is half as much again.",
    "SuccessCriteria.battery_increase_max": "Of the mean of the metric `battery`.",
    "SuccessCriteria.user_reports_ratio_max": "Tickets a device and window over the control's, at most.",
    "SuccessCriteria.drift_psi_max": "Of the predictions against the release's reference, at most.",
    "SuccessCriteria.size_bytes_max": "Of the largest variant, at most.",
    "SuccessCriteria.accuracy_min": "The new version's mean, at least.",
    "SuccessCriteria.feedback_min": "The share of thumbs up, at least.",
    "SuccessCriteria.battery_max": "The mean of the metric `battery`, at most.",
    "SuccessCriteria.memory_mb_max": "The mean of the metric `memory_mb`, at most.",
    "SuccessCriteria.metrics_min": "The mean of metrics of your own, at least.",
    "SuccessCriteria.metrics_max": "The mean of metrics of your own, at most.",
}


def plan_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a plan's file."""
    made = msgspec.json.schema(PlanFile)
    for name, part in made["$defs"].items():
        for key, about in part.get("properties", {}).items():
            if f"{name}.{key}" not in _SAYS:
                raise InvariantBroken(f"the key {name}.{key} of a plan is not explained; say it in {__name__}")
            description = {"description": _SAYS[f"{name}.{key}"]}
            part["properties"][key] = description | _without_null(about) | description
        part["description"] = " ".join(part.get("description", "").split("\n\n")[0].split())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Whimbrel rollout plan",
    } | made


def meaning_of(key: str) -> str:
    """What a key of a plan means, in a sentence. `key`: as in Plan.stages or SuccessCriteria.error_rate_max."""
    return _SAYS[key]


def schema_text() -> str:
    """The same as it is published."""
    return json.dumps(plan_schema(), indent=2, ensure_ascii=False) + "\n"


def _without_null(about: Any) -> Any:
    if isinstance(about, dict):
        choices = [each for each in about.get("anyOf", ()) if each != {"type": "null"}]
        rest = {key: _without_null(value) for key, value in about.items() if key != "anyOf"}
        if rest.get("default", 0) is None:
            del rest["default"]
        if len(choices) == 1:
            return {key: value for key, value in _without_null(choices[0]).items() if key != "description"} | rest
        return rest | ({"anyOf": [_without_null(each) for each in choices]} if choices else {})
    return [_without_null(each) for each in about] if isinstance(about, list) else about
