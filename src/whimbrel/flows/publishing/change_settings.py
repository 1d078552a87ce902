"""Change a model's settings. Devices learn of them with the next policy; budgets hold from the next publication on.

Called by the admin API.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from whimbrel.flows.audit import audit_model
from whimbrel.flows.ports import PublishingPort
from whimbrel.flows.records import ModelSettings
from whimbrel.model.documents import convert


def change_settings(registry: PublishingPort, model: str, changes: Mapping[str, Any], *, now: float) -> ModelSettings:
    """Set the fields of `ModelSettings` that `changes` names; the others stay. `now`: POSIX seconds.

    Raises `NotFound` for a model that is not there, `UntrustedInput` for a field or value that is none.
    """
    before = registry.model(model).settings
    after = convert(ModelSettings, msgspec.to_builtins(before) | dict(changes), what="the settings")
    registry.change_model(model, settings=after)
    audit_model(
        registry,
        model,
        actor="admin",
        action="set model",
        because=", ".join(sorted(changes)),
        now=now,
        evidence=changes,
    )
    return after
