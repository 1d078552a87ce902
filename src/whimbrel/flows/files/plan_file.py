"""A rollout plan as a person wrote it: one YAML file becomes one plan, or one sentence with its line.

A plan that cannot be understood is refused; it is never read as "no limit".
"""

from whimbrel.errors import UntrustedInput
from whimbrel.flows.files.yaml_file import load_yaml, parse_yaml
from whimbrel.plan.plan import Plan, PlanFile, VersionName
from whimbrel.plan.schedule import zone_of


def read_plan(text: str, *, what: str) -> Plan:
    """The plan in `text` (YAML). `what` names the file in errors. Raises `UntrustedInput`, with the line."""
    plan = parse_yaml(PlanFile, text, what=what).rollout
    try:
        VersionName.parse(plan.model_version)
    except ValueError as error:
        raise _refused(text, "model_version", str(error), what=what) from error
    zones = [(f"freeze[{index}].zone", freeze.zone) for index, freeze in enumerate(plan.freeze)]
    if plan.schedule is not None and plan.schedule.zone is not None:
        zones.append(("schedule.zone", plan.schedule.zone))
    for path, name in zones:
        if zone_of(name) is None:
            because = f"there is no time zone {name!r} here; name one of the IANA database, such as Europe/Oslo"
            raise _refused(text, path, because, what=what)
    return plan


def _refused(text: str, path: str, because: str, *, what: str) -> UntrustedInput:
    _, line_of = load_yaml(text, what=what)
    return UntrustedInput(f"{what}:{line_of(f'$.rollout.{path}')}: rollout.{path}: {because}")
