"""An experiment is judged: it goes on, loses an arm, or ends with a decision and what follows from it.

1. Every act is one transaction: the experiment's row, its consequences, and the audit entry with its evidence. The
   policy follows from the rows.
2. A person's act goes the same way, with the person as the actor.
3. An arm whose harm is proven is taken out, and its version is quarantined as a rollout's would be; a version that the
   control runs too (an A/A experiment) is not.
4. An arm that is stopped in some slices alone stays in the policy: its version is quarantined there, so their devices
   run the baseline, and what they tell is left out of the arm's evidence and of its control's. So are the slices of
   every other arm with the same version.
5. What is to follow a shipped arm follows in the same transaction. Where it cannot (a rollout of the model is running),
   the decision stands, and says so.
"""

from typing import Literal

import msgspec

from whimbrel.errors import Conflict, NotFound, Refused
from whimbrel.flows.audit import audit
from whimbrel.flows.experiments.judge import ExperimentLedgers, experiment_verdict_for, judge_and_store_experiment
from whimbrel.flows.experiments.start import live_comparisons
from whimbrel.flows.ports import ExperimentsPort, FleetPort, RegistryPort
from whimbrel.flows.quarantine import quarantine, refused_serials, selector_of
from whimbrel.flows.records import ExperimentRecord, VersionRecord
from whimbrel.flows.rollouts.start import start_rollout
from whimbrel.gate.experiment_gate import ExperimentVerdict
from whimbrel.gate.verdict import ExperimentMove
from whimbrel.model.documents import encode
from whimbrel.model.selector import EVERYONE
from whimbrel.plan.experiment_states import Act, after
from whimbrel.plan.rollout_states import State

PersonAct = Literal["stop", "keep", "ship"]

_ACT_OF_VERDICT: dict[ExperimentMove, Act] = {
    "stop_arm": Act.STOP_ARM,
    "stop_slice": Act.STOP_SLICE,
    "ship": Act.SHIP,
    "keep": Act.KEEP,
    "end": Act.END,
}
_ACT_OF_PERSON: dict[PersonAct, Act] = {"stop": Act.STOP, "keep": Act.KEEP, "ship": Act.SHIP}


def advance_experiment(
    record: ExperimentRecord,
    *,
    registry: RegistryPort,
    fleet: FleetPort,
    experiments: ExperimentsPort,
    tag: str,
    now: float,
    ledgers: ExperimentLedgers | None = None,
) -> ExperimentVerdict:
    """Judge, and do what the verdict says. `ledgers`: kept between the windows of an experiment.

    `tag` (random) ends the id of a rollout that follows.
    """
    kept = {} if ledgers is None else ledgers
    verdict = judge_and_store_experiment(record, registry=registry, fleet=fleet, now=now, ledgers=kept)
    act = _ACT_OF_VERDICT.get(verdict.move)
    if act is None:
        if verdict.because != record.because:
            experiments.save(msgspec.structs.replace(record, because=verdict.because), before=record)
        return verdict
    _act(
        record,
        act,
        registry=registry,
        fleet=fleet,
        experiments=experiments,
        tag=tag,
        arm=verdict.arm,
        slices=verdict.slices,
        because=verdict.because,
        actor="gate",
        evidence=verdict.evidence,
        now=now,
    )
    return verdict


def act_by_person(
    identifier: str,
    person_act: PersonAct,
    *,
    registry: RegistryPort,
    fleet: FleetPort,
    experiments: ExperimentsPort,
    tag: str,
    arm: str | None,
    because: str,
    actor: str,
    now: float,
) -> ExperimentRecord:
    """Stop, keep the control, or ship an arm. Raises `IllegalTransition` where it is over, `NotFound` for the arm.

    Without a reason, `because` says who did it. `tag` (random) ends the id of a rollout that follows.
    """
    because = because or f"{person_act} by {actor}"
    record = experiments.one(identifier)
    if person_act == "ship" and arm not in record.serials:
        raise NotFound(f"{identifier} has no arm {arm!r}; its variants are {', '.join(record.serials)}")
    if person_act == "ship" and arm in record.stopped:
        raise Refused(f"{arm} was stopped: {record.stopped[arm]}")
    if person_act == "ship" and arm == record.plan.control_id:
        person_act = "keep"
    evidence: dict[str, object] = {}
    if record.live:
        evidence = experiment_verdict_for(record, registry=registry, fleet=fleet, now=now).evidence
    return _act(
        record,
        _ACT_OF_PERSON[person_act],
        registry=registry,
        fleet=fleet,
        experiments=experiments,
        tag=tag,
        arm=arm,
        because=because,
        actor=actor,
        evidence=evidence,
        now=now,
    )


def _act(
    record: ExperimentRecord,
    act: Act,
    *,
    registry: RegistryPort,
    fleet: FleetPort,
    experiments: ExperimentsPort,
    tag: str,
    arm: str | None,
    because: str,
    actor: str,
    evidence: dict[str, object],
    now: float,
    slices: tuple[str, ...] = (),
) -> ExperimentRecord:
    ended = msgspec.structs.replace(record, phase=after(record.phase, act), because=because)
    if act is Act.STOP_ARM and arm is not None:
        ended = msgspec.structs.replace(ended, stopped=record.stopped | {arm: because})
    if act is Act.STOP_SLICE and arm is not None:
        ended = msgspec.structs.replace(ended, without=_without(record, arm, slices))
    if act is Act.SHIP:
        ended = msgspec.structs.replace(ended, winner=arm)
    if not ended.live:
        ended = msgspec.structs.replace(ended, ended_at=now)
    experiments.save(ended, before=record)
    if act in {Act.STOP_ARM, Act.STOP_SLICE} and arm is not None:
        _quarantine_arm(registry, record, arm, slices, because=because, now=now)
    if act is Act.SHIP and arm is not None:
        follows = _follow(
            ended, arm, registry=registry, fleet=fleet, experiments=experiments, tag=tag, actor=actor, now=now
        )
        shipped = msgspec.structs.replace(ended, because=f"{because}; {follows}")
        experiments.save(shipped, before=ended)
        ended = shipped
    action = f"experiment {act.value.replace('_', ' ')}"
    with_arm = {"arm": arm, **evidence}
    audit(registry, ended, actor=actor, action=action, because=ended.because, now=now, evidence=with_arm)
    return ended


def _without(record: ExperimentRecord, arm: str, slices: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """The slices in which each arm is stopped, with these of `arm`'s version."""
    same = [other.id for _, other in record.arms if record.serials[other.id] == record.serials[arm]]
    return record.without | {each: tuple(sorted({*record.without.get(each, ()), *slices})) for each in same}


def _quarantine_arm(
    registry: RegistryPort, record: ExperimentRecord, arm: str, slices: tuple[str, ...], *, because: str, now: float
) -> None:
    """Quarantine an arm's version: everywhere, or in some slices."""
    serial, model = record.serials[arm], registry.model(record.model)
    needed = {record.serials[record.plan.control_id], model.baseline}
    if serial not in needed | refused_serials(registry, record.model).keys():
        selector = selector_of(slices, hardware=model.settings.hardware_label) if slices else EVERYONE
        quarantine(registry, record.model, serial, because=because, now=now, selector=selector)


def _follow(
    record: ExperimentRecord,
    arm: str,
    *,
    registry: RegistryPort,
    fleet: FleetPort,
    experiments: ExperimentsPort,
    tag: str,
    actor: str,
    now: float,
) -> str:
    """Do what is to follow a shipped arm; a sentence about it."""
    serial, on_decision = record.serials[arm], record.plan.on_decision
    version = next(each for each in registry.versions(record.model) if each.serial == serial)
    if on_decision == "record":
        return "the result is recorded, and devices return to the baseline"
    if serial == registry.model(record.model).baseline:
        return f"{version.version} is the baseline already"
    if on_decision == "baseline":
        return _make_baseline(record, version, registry=registry, experiments=experiments)
    plan = record.plan.follow_up(f"{record.model}@{version.version}")
    try:
        rollout = start_rollout(
            registry,
            fleet,
            plan,
            plan_text=encode(plan).decode(),
            tag=tag,
            hour_s=record.hour_s,
            actor=actor,
            started_by=record.started_by,
            now=now,
        )
    except (Conflict, Refused) as error:
        return f"its rollout could not begin: {error}"
    if rollout.state is State.DRAFT:
        return f"rollout {rollout.id} waits for approval"
    return f"rollout {rollout.id} began"


def _make_baseline(
    record: ExperimentRecord, version: VersionRecord, *, registry: RegistryPort, experiments: ExperimentsPort
) -> str:
    if live := live_comparisons(registry, experiments, model=record.model):
        return f"{version.version} did not become the baseline, since {live[0].title} runs: roll it out when that ended"
    registry.change_model(record.model, baseline=version.serial)
    registry.change_version(record.model, version.serial, good=True)
    registry.set_alias(record.model, "champion", version.serial)
    return f"{version.version} is the baseline now"
