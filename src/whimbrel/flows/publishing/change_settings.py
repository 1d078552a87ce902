"""Change a model's settings. Devices learn of them with the next policy; budgets hold from the next publication on.

Called by the admin API.
"""

from typing import Any

import msgspec

from whimbrel.flows.audit import audit
from whimbrel.flows.ports import PublishingPort
from whimbrel.flows.records import ModelSettings, NewSettings
from whimbrel.model.documents import plain


def change_settings(
    registry: PublishingPort, model: str, changes: NewSettings, *, actor: str = "admin", now: float
) -> ModelSettings:
    """Set the fields of `ModelSettings`, and of its conditions, that `changes` sets; the others stay.

    `now`: POSIX seconds.

    Raises `NotFound` for a model that is not there.
    """
    before = registry.model(model).settings
    replaced = _set_fields(changes)
    if not isinstance(changes.conditions, msgspec.UnsetType):
        replaced["conditions"] = msgspec.structs.replace(before.conditions, **_set_fields(changes.conditions))
    after = msgspec.structs.replace(before, **replaced)
    registry.change_model(model, settings=after)
    audit(
        registry,
        model=model,
        actor=actor,
        action="set model",
        because=", ".join(sorted(replaced)),
        now=now,
        evidence=plain(changes),
    )
    return after


def _set_fields(changes: msgspec.Struct) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(changes).items() if value is not msgspec.UNSET}
