"""The experiment file that a person wrote (YAML). docs/reference/experiment.md"""

from whimbrel.flows.files.yaml_file import parse_yaml
from whimbrel.plan.experiment import Experiment, ExperimentFile


def read_experiment(text: str, *, what: str) -> Experiment:
    """The experiment in `text`. `what` names the file in errors. Raises `UntrustedInput`, with the line."""
    return parse_yaml(ExperimentFile, text, what=what).experiment
