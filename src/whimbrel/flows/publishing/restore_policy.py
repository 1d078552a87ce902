"""Restore what an earlier policy of a model said: its baseline, its settings, and the versions that it refused.

1. The controller renders a policy from the rows, so the rows are set to what that policy said, and it is signed anew
   with the next sequence number: a sequence never goes back.
2. While something rolls out, nothing is restored: that has the say in the policy. Entries of rollouts and experiments
   that are over do not come back.
3. Another baseline is gone back to as everywhere (`roll_back_model`): with its set, and never to a version that is
   quarantined, retired or revoked. No quarantine is lifted: what a gate stopped stays stopped. Those that were lifted
   since come back.
4. Cadences are restored from a policy of a quiet time alone: while something rolls out they are the rollout's.

Called by the admin API.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from whimbrel.errors import Conflict, Refused
from whimbrel.flows.audit import audit
from whimbrel.flows.ports import RegistryPort
from whimbrel.flows.quarantine import quarantine
from whimbrel.flows.records import ModelSettings
from whimbrel.flows.rollouts.roll_back_model import refuse_while_others_decide, roll_back_model
from whimbrel.model.release import Line
from whimbrel.model.selector import EVERYONE
from whimbrel.policy.policy import Policy

_SETTINGS = (
    "conditions",
    "on_revoked",
    "activate_max_age_s",
    "report_labels",
    "hardware_label",
    "slice_labels",
    "local_limits",
)
_CADENCES = ("refresh_s", "report_s")


def restore_policy(
    registry: RegistryPort,
    model: str,
    wanted: Policy,
    *,
    lines: Callable[[str], Line],
    because: str,
    actor: str,
    now: float,
) -> None:
    """Set the rows of a model to what `wanted` said. `lines`: the line of a model; `now`: POSIX seconds.

    Raises `Refused` while something rolls out, and where its baseline cannot be gone back to; `Conflict` where nothing
    would change.
    """
    refuse_while_others_decide(registry, model)
    record = registry.model(model, lock=True)
    changes = _changed_settings(record.settings, wanted)
    held = [(entry.serial, entry.selector) for entry in registry.quarantines(model)]
    missing = [entry for entry in wanted.quarantine if (entry.serial, entry.selector) not in held]
    if record.baseline == wanted.baseline and not changes and not missing:
        raise Conflict(
            f"the policy of {model} has what can be restored of sequence {wanted.sequence} already; see: whimbrel "
            f"policy diff {model} {wanted.sequence}"
        )
    why = because or f"policy {wanted.sequence} is restored"
    if record.baseline != wanted.baseline:
        if wanted.baseline is None:
            raise Refused(
                f"policy {wanted.sequence} of {model} had no baseline: it is from before its first version, and "
                "devices cannot go back to none"
            )
        roll_back_model(
            registry, model, lines=lines, to=wanted.baseline, selector=EVERYONE, because=why, actor=actor, now=now
        )
    for entry in missing:
        if entry.serial != wanted.baseline:
            quarantine(registry, model, entry.serial, because=why, now=now, selector=entry.selector)
    if changes:
        registry.change_model(model, settings=msgspec.structs.replace(record.settings, **changes))
    audit(
        registry,
        model=model,
        actor=actor,
        action="restore_policy",
        because=why,
        now=now,
        evidence={
            "sequence": wanted.sequence,
            "settings": sorted(changes),
            "baseline_before": record.baseline,
            "baseline": wanted.baseline,
            "quarantined": [entry.serial for entry in missing],
        },
    )


def _changed_settings(settings: ModelSettings, wanted: Policy) -> dict[str, Any]:
    changed = {name: getattr(wanted, name) for name in _SETTINGS if getattr(settings, name) != getattr(wanted, name)}
    # For a day after a rollout, too, devices look as often as while it ran.
    quiet = not any(layer.entries for layer in wanted.layers) and wanted.refresh_s > settings.rollout_refresh_s
    if quiet:
        changed |= {n: getattr(wanted, n) for n in _CADENCES if getattr(settings, n) != getattr(wanted, n)}
    return changed
