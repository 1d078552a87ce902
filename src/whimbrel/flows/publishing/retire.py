"""Retire a version: it is offered no more, and its artifacts are collected when no device runs it.

Called by the admin API. Devices that have the version keep it; `set_line` is what forbids one.
"""

import msgspec

from whimbrel.errors import Refused
from whimbrel.flows.audit import audit
from whimbrel.flows.ports import ExperimentsPort, PublishingPort
from whimbrel.flows.records import VersionRecord
from whimbrel.flows.versions import find_named_version


def retire(
    registry: PublishingPort,
    experiments: ExperimentsPort,
    model: str,
    *,
    name: str,
    because: str,
    actor: str,
    now: float,
) -> VersionRecord:
    """Retire the version `name` of a model. `now`: POSIX seconds.

    Raises `Refused` while it is the baseline, part of a live rollout, or the control of a live experiment. A treated
    arm's version may be retired: the experiment stops that arm.
    """
    version = find_named_version(registry, model, name=name)
    if registry.model(model).baseline == version.serial:
        raise Refused(f"{model} {version.version} is the baseline; roll another version out first")
    for rollout in registry.rollouts(model=model, live=True):
        if version.serial in {rollout.target, rollout.baseline}:
            raise Refused(f"{model} {version.version} is part of rollout {rollout.id}; abort it first")
    for experiment in experiments.all(model=model, live=True):
        if version.serial == experiment.serials[experiment.plan.control_id]:
            raise Refused(f"{model} {version.version} is the control of {experiment.id}; stop it first")
    registry.change_version(model, version.serial, retired=True)
    audit(
        registry,
        model=model,
        actor=actor,
        action="retire",
        because=because,
        now=now,
        evidence={"serial": version.serial},
    )
    return msgspec.structs.replace(version, retired=True)
