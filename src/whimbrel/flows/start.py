"""A rollout begins: the version is found, refusals are made, the first share is set. (Step 6 of the journey.)

1. A version is named by calendar or semantic version; an ambiguous name is refused with the candidates.
2. Refused: a version that is retired, quarantined, over the plan's `size_bytes_max`, without the reference that its
   plan judges drift by, or the baseline already; a model without a baseline (nothing to compare with); a second live
   rollout of the same model.
"""

from whimbrel.errors import Conflict, NotFound, Refused
from whimbrel.flows.drift import reference_of
from whimbrel.flows.ports import FleetPort, RegistryPort
from whimbrel.flows.records import AuditRecord, RolloutRecord, VersionRecord
from whimbrel.flows.shares import share_for
from whimbrel.rollout.bucket import BUCKETS
from whimbrel.rollout.conduct import OnFailure, OnSuccess
from whimbrel.rollout.delays import longest_wait_s
from whimbrel.rollout.guardrails import drift_limits
from whimbrel.rollout.plan import Plan, VersionName
from whimbrel.rollout.states import State


def start_rollout(
    registry: RegistryPort,
    fleet: FleetPort,
    plan: Plan,
    *,
    plan_text: str,
    tag: str,
    hour_s: float,
    actor: str,
    now: float,
    override: str = "",
) -> RolloutRecord:
    """Write the rollout, running its first stage; the controller publishes. `tag` (random) ends its id.

    `override`: a person's reason to offer a version again that was taken back; it is logged.
    """
    try:
        name = VersionName.parse(plan.model_version)
    except ValueError as error:
        raise Refused(str(error)) from error
    _check_known(plan)
    model = registry.model(name.model, lock=True)  # two starts at once: one of them finds the other
    target = find_version(registry.versions(name.model), name)
    quarantined = [entry for entry in registry.quarantines(model.name) if entry.serial == target.serial]
    if target.retired:
        raise Refused(f"{target.model} {target.version} is retired; publish a new version")
    if quarantined and not override:
        raise Refused(
            f"{target.model} {target.version} was taken back before ({quarantined[-1].because}); publish a new "
            "version, or offer it again with a reason (--override)"
        )
    if (limit := _size_limit(plan)) is not None and target.size_bytes > limit:
        raise Refused(
            f"the largest variant of {target.model} {target.version} has {target.size_bytes} bytes, and the plan's "
            f"size_bytes_max is {limit}; publish a smaller build, or raise the limit"
        )
    if drift_limits(plan) and reference_of(registry, model.name, target.serial) is None:
        raise Refused(
            f"the plan watches drift, and {target.model} {target.version} was published without a reference of its "
            "predictions; publish it with one in its card (reference: ...), or take drift out of the plan"
        )
    if model.baseline is None:
        raise Refused(f"{model.name} has no baseline to compare with; its first publication becomes it")
    if model.baseline == target.serial:
        raise Refused(f"{target.model} {target.version} is the baseline already: every device is meant to run it")
    if running := registry.rollouts(model=model.name, live=True):
        raise Conflict(
            f"rollout {running[0].id} of {model.name} is {running[0].state.value}; finish, abort or roll it back first"
        )
    rollout = RolloutRecord(
        namespace=registry.namespace,
        id=f"{model.name[:40]}-{target.serial}-{tag}",
        model=model.name,
        baseline=model.baseline,
        target=target.serial,
        plan=plan,
        state=State.RUNNING,
        stage=0,
        shares=(share_for(fleet, plan, stage=0, salt=model.salt),),
        hour_s=hour_s,
        created_at=now,
        stage_since=now,
        because=f"started by {actor}",
        delays=(longest_wait_s(hour_s),),
    )
    share = (rollout.shares[0] - plan.range.start) / BUCKETS
    registry.add_rollout(rollout, plan_text=plan_text)
    if quarantined:
        registry.lift_quarantines(model.name, target.serial, at=now)
        registry.write_audit(
            AuditRecord(
                namespace=registry.namespace,
                at=now,
                actor=actor,
                action="override",
                because=override,
                model=model.name,
                rollout=rollout.id,
                evidence={"serial": target.serial, "taken_back": [entry.because for entry in quarantined]},
            )
        )
    registry.write_audit(
        AuditRecord(
            namespace=registry.namespace,
            at=now,
            actor=actor,
            action="start",
            because=f"{target.version} ({target.semantic_version}) to {share:.2%} of the devices",
            model=model.name,
            rollout=rollout.id,
            evidence={"shares": list(rollout.shares), "salt": model.salt, "baseline": model.baseline},
        )
    )
    return rollout


def find_version(versions: list[VersionRecord], name: VersionName) -> VersionRecord:
    """The one version that is meant. Raises `NotFound`, or `Refused` with the candidates."""
    found = [v for v in versions if name.matches(calendar=v.version, semantic=v.semantic_version)]
    exact = [v for v in found if v.semantic_version == name.text]  # 3.2.0 is also how 3.2.0-rc.1 begins
    if len(found) == 1 or len(exact) == 1:
        return (exact or found)[0]
    candidates = ", ".join(f"{v.version} ({v.semantic_version})" for v in (found or versions)[-10:])
    if found:
        raise Refused(f"{name.text!r} of {name.model} may be any of {candidates}; name one of them")
    raise NotFound(f"{name.model} has no version {name.text!r}; it has: {candidates or 'none yet'}")


def _size_limit(plan: Plan) -> int | None:
    """The least `size_bytes_max` of any stage: a file does not shrink on its way."""
    every = (plan.criteria(index).size_bytes_max for index in range(len(plan.stages)))
    return min((limit for limit in every if limit is not None), default=None)


def _check_known(plan: Plan) -> None:
    """A field whose effect is not built yet is refused: a plan that cannot be carried out wholly is not begun."""
    given = {
        "schedule": plan.schedule is not None,
        "freeze": bool(plan.freeze),
        "on_running": plan.on_running != "refuse",
        "on_success": plan.on_success != OnSuccess(),
        "on_failure": plan.on_failure != OnFailure(),
        "approval": any(stage.approval is not None for stage in plan.stages),
        "max_hours": any(stage.max_hours is not None for stage in plan.stages),
    }
    if missing := [name for name, said in given.items() if said]:
        raise Refused(f"this server cannot carry out {', '.join(missing)} yet; leave it out")
