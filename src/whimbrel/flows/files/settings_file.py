"""The settings of a model that a person wrote (YAML): the fields of `NewSettings`, with objectives in words.

    refresh_s: 60
    objectives:
      - accuracy >= 84% weekly, take back
      - {measure: memory_mb, at_most: 50, peak: true, window: hour}
    anomalies: alert

docs/howto/monitors.md
"""

import math
from typing import Any

import msgspec

from whimbrel.errors import UntrustedInput
from whimbrel.flows.files.yaml_file import load_yaml
from whimbrel.flows.records import NewSettings
from whimbrel.model.documents import convert
from whimbrel.model.local_limits import SHARE_LIMITS
from whimbrel.plan.objectives import read_objective


def read_settings(text: str, *, what: str) -> dict[str, Any]:
    """The settings that `text` names, as plain values. `what` names the file in errors. Raises `UntrustedInput`."""
    value, line_of = load_yaml(text, what=what)
    if not isinstance(value, dict):
        raise UntrustedInput(f"{what} has no settings; expected lines such as: refresh_s: 60")
    objectives = value.get("objectives")
    if isinstance(objectives, list):
        value["objectives"] = [
            _objective(each, where=f"{what}:{line_of(f'$.objectives[{index}]')}") if isinstance(each, str) else each
            for index, each in enumerate(objectives)
        ]
    local = value.get("local_limits")
    if isinstance(local, dict):
        value["local_limits"] = {
            name: read_limit(name, each) if isinstance(each, str) else each for name, each in local.items()
        }
    settings: dict[str, Any] = msgspec.to_builtins(convert(NewSettings, value, what=what))
    return settings


def read_limit(name: str, text: str) -> int | float | str:
    """A local limit's value as a person writes it: a number, a share in percent (`84%`), or a word as it is."""
    percent = text.endswith("%") and name in SHARE_LIMITS
    try:
        number = float(text.removesuffix("%")) / 100 if percent else float(text)
    except ValueError:
        return text
    if not math.isfinite(number):
        return text
    return int(text) if not percent and text.lstrip("+-").isdigit() else number


def _objective(text: str, *, where: str) -> dict[str, Any]:
    try:
        fields: dict[str, Any] = msgspec.to_builtins(read_objective(text))
    except ValueError as error:
        raise UntrustedInput(f"{where}: {error}") from error
    return fields
