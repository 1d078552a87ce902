"""A plan to begin with: a YAML file that is valid as it is, with a comment at every key.

1. A key's comment is its sentence in the JSON Schema, so that what a key means is said in one place.
2. A line that begins with `#` and no space is a setting to switch on: without its `#` the file is still a plan.
3. Limits on what devices may not report at all are switched off: a limit that is asked for and not reported holds.

Called by `whimbrel rollout plan new`.
"""

import re

from whimbrel.flows.files.plan_schema import meaning_of
from whimbrel.plan.plan import Strategy

_TEMPLATE = """\
# A plan for a rollout. A line with a "#" and no space behind it is a setting that you may switch on: take the "#" away.
#   explain it, with your devices:   whimbrel rollout plan check {file}
#   begin:                           whimbrel rollout start {file}
rollout:
  ## Plan.model_version
  model_version: "{model_version}"

  ## Plan.stages
  stages:
    - name: canary
      ## Stage.target_percent
      target_percent: 5
      ## Stage.duration_hours
      duration_hours: 24
      ## Stage.max_hours
      #max_hours: 72
      ## Stage.success_criteria
      success_criteria:
        ## SuccessCriteria.error_rate_max
        error_rate_max: 0.02
        ## SuccessCriteria.crash_ratio_max
        #crash_ratio_max: 1.5
        ## SuccessCriteria.latency_p99_max_ms
        #latency_p99_max_ms: 50
        ## SuccessCriteria.accuracy_drop_max
        #accuracy_drop_max: 0.02
      ## Stage.regions
      #regions: [NO, NZ]
      ## Stage.conditions
      #conditions: {{unmetered: true, charging: true}}

    - name: early
      target_percent: 25
      duration_hours: 24

    - name: general
      target_percent: 100
      duration_hours: 24
      ## Stage.approval
      #approval: {{count: 1, note: look at the errors}}

  ## Plan.rollback
  rollback:
    ## Rollback.auto_rollback
    auto_rollback: true
    ## Rollback.health_check_interval_sec
    health_check_interval_sec: 300

  ## Plan.holdback_percent
  #holdback_percent: 10
  ## Plan.min_devices
  #min_devices: 20
  ## Plan.blast_radius
  #blast_radius: {{percent: 30}}
  ## Plan.promote
  #promote: when_proven
  ## Plan.on_running
  #on_running: queue
  ## Plan.schedule
  #schedule: {{start_at: "2030-01-07T09:00", zone: Europe/Oslo}}
  ## Plan.freeze
  #freeze: [{{from: fri 16:00, to: mon 08:00, zone: Europe/Oslo, note: nobody is there}}]
  ## Plan.alerts
  #alerts: [{{to: on-call, on: [rolled_back, held]}}]
"""


_BLUE_GREEN = """\
# A plan for a rollout. A line with a "#" and no space behind it is a setting that you may switch on: take the "#" away.
#   explain it, with your devices:   whimbrel rollout plan check {file}
#   begin:                           whimbrel rollout start {file}
#   back, at any time:               whimbrel rollout rollback ROLLOUT
rollout:
  ## Plan.model_version
  model_version: "{model_version}"
  ## Plan.strategy
  strategy: blue_green

  ## Plan.stages
  stages:
    ## Stage.shadow
    #- {{name: shadow, target_percent: 100, duration_hours: 24, shadow: {{sample_percent: 5, agreement_min: 0.98}}}}
    - name: green
      target_percent: 100
      ## Stage.duration_hours
      duration_hours: 24
      ## Stage.success_criteria
      success_criteria:
        ## SuccessCriteria.error_rate_max
        error_rate_max: 0.02
        ## SuccessCriteria.latency_p99_max_ms
        #latency_p99_max_ms: 50
        ## SuccessCriteria.accuracy_drop_max
        #accuracy_drop_max: 0.02
      ## Stage.selector
      #selector: {{match_labels: {{site: oslo}}}}
      ## Stage.approval
      #approval: {{count: 1, note: look at the errors}}

  ## Plan.rollback
  rollback:
    ## Rollback.auto_rollback
    auto_rollback: true
    ## Rollback.health_check_interval_sec
    health_check_interval_sec: 60

  ## Plan.holdback_percent
  #holdback_percent: 10
  ## Plan.on_running
  #on_running: queue
  ## Plan.schedule
  #schedule: {{start_at: "2030-01-07T09:00", zone: Europe/Oslo}}
  ## Plan.alerts
  #alerts: [{{to: on-call, on: [rolled_back, held]}}]
"""


def plan_template(model_version: str, *, file: str = "plan.yaml", strategy: Strategy = "staged") -> str:
    """A plan for `model_version`, such as detector@2.1.0. `file`: where a person will have it, for the comments."""
    template = _BLUE_GREEN if strategy == "blue_green" else _TEMPLATE
    text = template.format(model_version=model_version, file=file)
    return re.sub(r"## (\S+)", lambda found: f"# {meaning_of(found[1])}", text)
