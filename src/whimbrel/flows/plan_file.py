"""What does a rollout plan, as a person wrote it, ask for? One YAML file, one plan, or one sentence with its line.

A plan that cannot be understood is refused; it is never read as "no limit".
"""

from whimbrel.errors import UntrustedInput
from whimbrel.flows.yaml_file import load_yaml, parse_yaml
from whimbrel.rollout.plan import Plan, PlanFile, VersionName


def read_plan(text: str, *, what: str) -> Plan:
    """The plan in `text` (YAML). `what` names the file in errors. Raises `UntrustedInput`, with the line."""
    plan = parse_yaml(PlanFile, text, what=what).rollout
    try:
        VersionName.parse(plan.model_version)
    except ValueError as error:
        _, line_of = load_yaml(text, what=what)
        raise UntrustedInput(f"{what}:{line_of('$.rollout.model_version')}: rollout.model_version: {error}") from error
    return plan
