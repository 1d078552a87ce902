"""The experiment file that a person wrote (YAML). docs/reference/experiment.md

1. Keys are taken in snake_case and in camelCase: the form was published in both.
2. A version without a model (`"2.0.0"`, `v2.0.0`) is one of the model that `model` or another variant names.
3. A guardrail that is a plain name has a direction and a margin if it is known (plan/known_metrics.py). They are
   written into the experiment, so that a verdict stays what it was where a later release knows better. Of any other
   metric the file says both: nobody can tell whether more of it is worse.
"""

import difflib
import re
from typing import Any

from whimbrel.flows.files.yaml_file import parse_yaml
from whimbrel.model.ids import check_name
from whimbrel.plan.experiment import Experiment, ExperimentFile
from whimbrel.plan.known_metrics import KNOWN_METRICS
from whimbrel.plan.plan import VersionName

_BARE = re.compile(r"^v?([0-9][0-9A-Za-z.+-]{0,127})\Z")


def read_experiment(text: str, *, what: str) -> Experiment:
    """The experiment in `text`. `what` names the file in errors. Raises `UntrustedInput`, with the line."""
    return parse_yaml(ExperimentFile, text, what=what, camel_case=True, complete=_complete).experiment


def _complete(file: object) -> None:
    """Fill in models, directions and margins. What has another type than expected is left to the conversion."""
    experiment = file.get("experiment") if isinstance(file, dict) else None
    if not isinstance(experiment, dict):
        return
    _complete_versions(experiment)
    guardrails = experiment.get("guardrail_metrics")
    if isinstance(guardrails, list):
        for index, each in enumerate(guardrails):
            guardrails[index] = _completed_guardrail(each, at=f"experiment.guardrail_metrics[{index}]")


# --- versions ---


def _complete_versions(experiment: dict[str, Any]) -> None:
    model = experiment.pop("model", None)
    variants = experiment.get("variants")
    listed = [each for each in variants if isinstance(each, dict)] if isinstance(variants, list) else []
    named = {name for each in listed if (name := _model_of(each.get("model_version")))}
    if model is not None:
        try:
            model = check_name(model if isinstance(model, str) else str(model), kind="model")
        except ValueError as error:
            raise ValueError(f"experiment.model: {error}") from error
        if others := sorted(named - {model}):
            raise ValueError(f"experiment.model: it is {model}, and a variant is a version of {others[0]}")
    elif len(named) == 1:
        (model,) = named
    for index, each in enumerate(listed):
        text = each.get("model_version")
        match = _BARE.match(text) if isinstance(text, str) else None
        if match is None:
            continue
        if model is None:
            raise ValueError(
                f"experiment.variants[{index}].model_version: {text} is a version of no model that is named; write "
                f'"<model>@{match[1]}", or `model: <model>` beside `variants`'
            )
        # A whole version, or the beginning of one ("2.1" in the place of "2.1.0").
        each["model_version"] = f"{model}@{match[1]}" if match[1].count(".") > 1 else f"{model}-v{match[1]}"


def _model_of(text: object) -> str | None:
    try:
        return VersionName.parse(text).model if isinstance(text, str) else None
    except ValueError:
        return None


# --- guardrails ---


def _completed_guardrail(guardrail: object, *, at: str) -> object:
    if isinstance(guardrail, str):
        known = KNOWN_METRICS.get(guardrail)
        if known is None:
            raise ValueError(f"{at}: {_unknown(guardrail)}")
        if known.measures:
            return guardrail
        return {"name": known.name, "direction": known.better, "margin": known.margin}
    if not isinstance(guardrail, dict) or not isinstance(name := guardrail.get("name"), str):
        return guardrail
    known = KNOWN_METRICS.get(name)
    if known is not None and known.reserved:
        return guardrail  # the experiment itself says that it takes no direction and margin
    filled = {} if known is None else {"direction": known.better, "margin": known.margin}
    whole = {key: value for key, value in filled.items() if value is not None} | guardrail
    missing = [key for key in ("direction", "margin") if key not in whole]
    if not missing:
        return whole
    if known is not None:
        raise ValueError(
            f"{at}: {name!r} with a direction is a metric that the app records, and its margin is missing; write "
            f"{_example(name, known.better)}, or {name} alone to watch what every session tells, as in a rollout"
        )
    raise ValueError(f"{at}: {_unknown(name, missing=missing)}")


def _unknown(name: str, *, missing: list[str] | None = None) -> str:
    name = name[:64]
    lead = f"the {' and the '.join(missing)} of {name!r} must be said" if missing else f"{name!r} is no known metric"
    close = difflib.get_close_matches(name.lower(), KNOWN_METRICS, n=1, cutoff=0.8)
    return (
        f"{lead}, and nobody can tell when it is worse; write {_example(name, 'decrease')} if less of it is "
        "better, or direction: increase if more is; margin is how much worse it may get, in its units"
        + (f". Did you mean {close[0]!r}?" if close else "")
    )


def _example(name: str, better: str) -> str:
    return f"{{name: {name}, direction: {better}, margin: 0.01}}"
