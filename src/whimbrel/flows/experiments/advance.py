"""An experiment is looked at: it goes on, loses an arm, or ends with a decision and what follows from it.

1. Only closed windows are looked at. Every act is one transaction: the experiment's row, its consequences, and the
   audit entry with its evidence. The policy follows from the rows.
2. A person's act goes the same way, with the person as the actor.
3. An arm whose harm is proven is taken out, and its version is quarantined as a rollout's would be; a version that the
   control runs too (an A/A experiment) is not.
4. What is to follow a shipped arm follows in the same transaction. Where it cannot (a rollout of the model is running),
   the decision stands, and says so.
5. A verdict is kept with what it looked at: the same windows must give it again, byte for byte (`replay_experiment`).
"""

import hashlib
from typing import Literal

import msgspec

from whimbrel.errors import Conflict, NotFound, Refused
from whimbrel.flows.experiments.start import taken
from whimbrel.flows.ports import ExperimentsPort, FleetPort, RegistryPort
from whimbrel.flows.records import AuditRecord, ExperimentRecord, QuarantineRecord, VerdictRecord
from whimbrel.flows.rollouts.advance import Replayed
from whimbrel.flows.rollouts.start import start_rollout
from whimbrel.gate.experiment_gate import ExperimentInput, ExperimentLedger, ExperimentVerdict, judge_experiment
from whimbrel.model.documents import encode, parse
from whimbrel.plan.experiment_states import Act, after

# By experiment: what was folded already; forgetting one costs time, never a verdict.
ExperimentLedgers = dict[str, ExperimentLedger]
PersonAct = Literal["stop", "keep", "ship"]

_ACTS = {"stop_arm": Act.STOP_ARM, "ship": Act.SHIP, "keep": Act.KEEP, "end": Act.END}
_PERSON = {"stop": Act.STOP, "keep": Act.KEEP, "ship": Act.SHIP}


class Parts(msgspec.Struct, frozen=True):
    """What an act works on, within one transaction. `tag`: random, for the id of a rollout that follows."""

    registry: RegistryPort
    fleet: FleetPort
    experiments: ExperimentsPort
    tag: str


def look_at(
    parts: Parts, record: ExperimentRecord, *, now: float, books: ExperimentLedgers | None = None
) -> ExperimentVerdict:
    """What is to be said of an experiment at `now`; nothing is changed."""
    return _judged(
        parts, record, sighting(parts, record, now=now), record.window_at(now), {} if books is None else books
    )


def sighting(parts: Parts, record: ExperimentRecord, *, now: float) -> ExperimentInput:
    """What is looked at, but for the windows."""
    return ExperimentInput(
        elapsed_s=now - record.created_at,
        hour_s=record.hour_s,
        counts=parts.fleet.counts(record.id),
        stopped=tuple(sorted(record.stopped)),
        withdrawn=_withdrawn(parts.registry, record),
    )


def _withdrawn(registry: RegistryPort, record: ExperimentRecord) -> dict[str, str]:
    gone = {
        each.serial: f"was taken back ({each.because})"
        for each in registry.quarantines(record.model)
        if each.selector.everyone
    }
    gone |= {version.serial: "was retired" for version in registry.versions(record.model) if version.retired}
    return {arm.id: gone[record.serials[arm.id]] for _, arm in record.arms if record.serials[arm.id] in gone}


def _judged(
    parts: Parts, record: ExperimentRecord, seen: ExperimentInput, window: int, books: ExperimentLedgers
) -> ExperimentVerdict:
    book = books.get(record.id)
    if book is None or book.last >= window:
        book = books[record.id] = ExperimentLedger(record.plan)
    cells = parts.fleet.cells(record.id, before_window=window, from_window=book.last + 1)
    return judge_experiment(record.plan, seen, book, cells)


def advance_experiment(
    parts: Parts, record: ExperimentRecord, *, now: float, books: ExperimentLedgers | None = None
) -> ExperimentVerdict:
    """Look, and do what the verdict says. `books`: kept between the windows of an experiment."""
    seen, window = sighting(parts, record, now=now), record.window_at(now)
    said = _judged(parts, record, seen, window, {} if books is None else books)
    parts.registry.write_verdict(
        VerdictRecord(
            rollout=record.id,
            at=now,
            window=window,
            situation=encode(seen),
            move=said.move,
            because=said.because,
            sha256=_digest(said),
        )
    )
    act = _ACTS.get(said.move)
    if act is None:
        if said.because != record.because:
            parts.experiments.save(msgspec.structs.replace(record, because=said.because), before=record)
        return said
    _act(parts, record, act, arm=said.arm, because=said.because, actor="gate", evidence=said.evidence, now=now)
    return said


def act_by_person(
    parts: Parts,
    identifier: str,
    act: PersonAct,
    *,
    arm: str | None,
    because: str,
    actor: str,
    now: float,
) -> ExperimentRecord:
    """Stop, keep the control, or ship an arm. Raises `IllegalTransition` where it is over, `NotFound` for the arm."""
    record = parts.experiments.one(identifier)
    if act == "ship" and arm not in record.serials:
        raise NotFound(f"{identifier} has no arm {arm!r}; its variants are {', '.join(record.serials)}")
    if act == "ship" and arm in record.stopped:
        raise Refused(f"{arm} was stopped: {record.stopped[arm]}")
    if act == "ship" and arm == record.plan.control_id:
        act = "keep"
    evidence = look_at(parts, record, now=now).evidence if record.live else {}
    return _act(parts, record, _PERSON[act], arm=arm, because=because, actor=actor, evidence=evidence, now=now)


def replay_experiment(parts: Parts, identifier: str) -> list[Replayed]:
    """Ask again about every verdict of an experiment, from the stored windows alone."""
    record, books = parts.experiments.one(identifier), ExperimentLedgers()
    answers = []
    for kept in parts.registry.verdicts(identifier):
        seen = parse(ExperimentInput, kept.situation, what="a stored sighting")
        again = _judged(parts, record, seen, kept.window, books)
        answers.append(
            Replayed(
                at=kept.at,
                window=kept.window,
                move=kept.move,
                because=kept.because,
                sha256=kept.sha256,
                same=_digest(again) == kept.sha256,
            )
        )
    return answers


def _digest(said: ExperimentVerdict) -> str:
    return hashlib.sha256(encode(said)).hexdigest()


def _act(
    parts: Parts,
    record: ExperimentRecord,
    act: Act,
    *,
    arm: str | None,
    because: str,
    actor: str,
    evidence: dict[str, object],
    now: float,
) -> ExperimentRecord:
    registry = parts.registry
    ended = msgspec.structs.replace(record, phase=after(record.phase, act), because=because)
    if act is Act.STOP_ARM and arm is not None:
        ended = msgspec.structs.replace(ended, stopped=record.stopped | {arm: because})
    if act is Act.SHIP:
        ended = msgspec.structs.replace(ended, winner=arm)
    if not ended.live:
        ended = msgspec.structs.replace(ended, ended_at=now)
    parts.experiments.save(ended, before=record)
    if act is Act.STOP_ARM and arm is not None:
        _quarantine(registry, record, arm, because=because, now=now)
    if act is Act.SHIP and arm is not None and (follows := _follow(parts, ended, arm, actor=actor, now=now)):
        settled = msgspec.structs.replace(ended, because=f"{because}; {follows}")
        parts.experiments.save(settled, before=ended)
        ended = settled
    registry.write_audit(
        AuditRecord(
            namespace=registry.namespace,
            at=now,
            actor=actor,
            action=f"experiment {act.value.replace('_', ' ')}",
            because=ended.because,
            model=record.model,
            rollout=record.id,
            evidence={"arm": arm, **evidence},
        )
    )
    return ended


def _quarantine(registry: RegistryPort, record: ExperimentRecord, arm: str, *, because: str, now: float) -> None:
    serial = record.serials[arm]
    kept = {record.serials[record.plan.control_id], registry.model(record.model).baseline}
    known = {entry.serial for entry in registry.quarantines(record.model) if entry.selector.everyone}
    if serial not in kept | known:
        registry.quarantine(
            QuarantineRecord(namespace=registry.namespace, model=record.model, serial=serial, at=now, because=because)
        )


def _follow(parts: Parts, record: ExperimentRecord, arm: str, *, actor: str, now: float) -> str:
    """Do what is to follow; a sentence of it."""
    registry, serial, wish = parts.registry, record.serials[arm], record.plan.on_decision
    version = next(each for each in registry.versions(record.model) if each.serial == serial)
    live = taken(registry.rollouts(model=record.model, live=True), parts.experiments.all(model=record.model, live=True))
    if wish == "record":
        return "the result is recorded, and devices return to the baseline"
    if serial == registry.model(record.model).baseline:
        return f"{version.version} is the baseline already"
    if wish == "baseline":
        if live:
            return (
                f"{version.version} did not become the baseline, since {live[0][0]} runs: roll it out when that ended"
            )
        registry.change_model(record.model, baseline=serial)
        registry.change_version(record.model, serial, good=True)
        registry.set_alias(record.model, "champion", serial)
        return f"{version.version} is the baseline now"
    plan = record.plan.follow_up(f"{record.model}@{version.version}")
    try:
        rollout = start_rollout(
            registry,
            parts.fleet,
            plan,
            plan_text=encode(plan).decode(),
            tag=parts.tag,
            hour_s=record.hour_s,
            actor=actor,
            now=now,
        )
    except (Conflict, Refused) as error:
        return f"its rollout could not begin: {error}"
    return f"rollout {rollout.id} began"
