"""Plans as people write them: the published form, and one with every word of ours."""

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

WHOLE = """\
rollout:
  model_version: "detector-v3.2"
  stages:
    - name: desk
      target_percent: 0.1
      soak_hours: 24
      max_hours: 72
      selector: {match_labels: {ring: internal}, match_expressions: [{key: app, operator: Version, values: [">=2"]}]}
      conditions: {charging: true, windows: [{start_s: 0, end_s: 21600, zone: local}]}
    - name: half
      target_percent: 50
      soak_hours: 48
      approval: {count: 2, note: look at the error budget}
    - {name: all, target_percent: 100, soak_hours: 24}
  holdback_percent: 5
  blast_radius: {percent: 10, devices: 500}
  range_percent: [0, 100]
  on_running: queue
  schedule: {start_at: 2026-12-01T09:00, zone: Europe/Oslo}
  freeze:
    - {from: fri 16:00, to: mon 08:00, zone: Europe/Oslo, note: weekends}
    - {from: 2026-12-23, to: 2027-01-03}
    - {from: "22:00", to: "06:00"}
  on_success: {alias: stable, retire_previous: true}
  on_failure: {alias: bad, retire_target: true, abort_queued: true}
  alerts: [{to: oncall, on: [rolled_back, held, waiting_for_approval]}]
"""

# The stages of the mobile sample, by percent, regions and segments.
STAGED = """\
rollout:
  model_version: impulse_predictor@2026.03.05.1
  stages:
    - {name: internal, target_percent: 0.1, duration_hours: 24, user_segments: [internal]}
    - name: beta
      target_percent: 1
      duration_hours: 48
      user_segments: [beta_testers]
      success_criteria: {accuracy_drop_max: 0.01}
    - {name: early access, target_percent: 10, duration_hours: 72, regions: [AU, NZ]}
    - {name: general, target_percent: 50, duration_hours: 168}
    - {name: full, target_percent: 100}
"""

BLUE_GREEN = """\
rollout:
  model_version: detector@2.0.0
  strategy: blue_green
  stages:
    - {name: shadow, target_percent: 100, duration_hours: 24, shadow: {sample_percent: 5}}
    - {name: green, target_percent: 100, duration_hours: 24, selector: {match_labels: {site: oslo}}}
"""

WHOLE_PLANS = [PUBLISHED, WHOLE, STAGED, BLUE_GREEN]
