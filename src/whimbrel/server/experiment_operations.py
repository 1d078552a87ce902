"""What happens when a person asks about an experiment? The operations behind the admin API's experiments.

Every change is one transaction, writes the audit log, and returns when the signed metadata says so too.
"""

import secrets
from typing import Annotated, Any, cast, get_args

import msgspec
from msgspec import Meta

from whimbrel import limits
from whimbrel.errors import NotFound
from whimbrel.flows.experiments.advance import PersonAct, act_by_person
from whimbrel.flows.experiments.check import check_experiment
from whimbrel.flows.experiments.judge import ExperimentLedgers, experiment_verdict_for, replay_experiment
from whimbrel.flows.experiments.start import start_experiment
from whimbrel.flows.files.experiment_file import read_experiment
from whimbrel.flows.records import ExperimentRecord
from whimbrel.gate.experiment_gate import ArmNow, Look
from whimbrel.model.documents import Document
from whimbrel.stores.transaction import Stores

_SALT_BITS = 53  # a salt is a whole number that JSON holds everywhere


class NewExperiment(Document, frozen=True):
    """POST experiments: the file as it was written. `hour_s`: seconds that an hour of it lasts."""

    plan: Annotated[str, Meta(max_length=limits.PLAN_BYTES)]
    file_name: Annotated[str, Meta(max_length=1024)] = "experiment.yaml"
    hour_s: Annotated[float, Meta(gt=0, le=3600)] = 3600.0
    actor: Annotated[str, Meta(max_length=128)] = "admin"


class ExperimentAct(Document, frozen=True):
    """POST experiments/<id>/<act>: who ends an experiment by hand, why, and which arm is shipped."""

    because: Annotated[str, Meta(max_length=2000)] = ""
    arm: Annotated[str, Meta(max_length=limits.NAME_CHARS)] | None = None
    actor: Annotated[str, Meta(max_length=128)] = "admin"


def person_act(text: str) -> PersonAct:
    """One of the acts of a person. Raises `NotFound`."""
    if text not in get_args(PersonAct):
        raise NotFound(f"an experiment cannot be asked to {text!r}; it can: {', '.join(get_args(PersonAct))}")
    return cast("PersonAct", text)


def start(stores: Stores, *, data: NewExperiment, now: float) -> dict[str, Any]:
    """Begin."""
    record = start_experiment(
        stores.registry,
        stores.experiments,
        read_experiment(data.plan, what=data.file_name),
        plan_text=data.plan,
        tag=secrets.token_hex(3),
        salt=secrets.randbits(_SALT_BITS),
        hour_s=data.hour_s,
        actor=data.actor,
        now=now,
    )
    return view(stores, record)


def check(stores: Stores, *, data: NewExperiment) -> dict[str, Any]:
    """Explain, and change nothing."""
    plan = read_experiment(data.plan, what=data.file_name)
    told = check_experiment(stores.registry, stores.fleet, stores.experiments, plan)
    answer: dict[str, Any] = {"name": plan.name, "model": plan.model} | msgspec.to_builtins(told)
    return answer


def every(stores: Stores, *, model: str | None, live: bool) -> list[dict[str, Any]]:
    """All of them, oldest first."""
    records = stores.experiments.all(model=model, live=live)
    return [view(stores, record) for record in records]


def one(stores: Stores, *, identifier: str, history: bool, now: float) -> dict[str, Any]:
    """One, with what is to be said of it by now. `history`: the intervals over time too, for a plot."""
    ledgers = ExperimentLedgers()
    record = stores.experiments.one(identifier)
    until = record.ended_at if record.ended_at is not None else now
    said = experiment_verdict_for(record, registry=stores.registry, fleet=stores.fleet, now=until, ledgers=ledgers)
    seen = view(stores, record) | {"verdict": msgspec.to_builtins(said)}
    if history:
        seen["history"] = _history(record, ledgers)
        log = stores.registry.audit_log(rollout=identifier, limit=limits.EXPERIMENT_POINTS)
        seen["acts"] = [{"at": e.at, "actor": e.actor, "action": e.action, "because": e.because} for e in reversed(log)]
    return seen


def act(stores: Stores, *, identifier: str, wanted: PersonAct, data: ExperimentAct, now: float) -> dict[str, Any]:
    """Stop, keep or ship by hand."""
    record = act_by_person(
        identifier,
        wanted,
        registry=stores.registry,
        fleet=stores.fleet,
        experiments=stores.experiments,
        tag=secrets.token_hex(3),
        arm=data.arm,
        because=data.because or f"{wanted} by {data.actor}",
        actor=data.actor,
        now=now,
    )
    return view(stores, record)


def replay(stores: Stores, *, identifier: str) -> dict[str, Any]:
    """Every verdict, asked again of the stored windows."""
    verdicts = replay_experiment(
        identifier, registry=stores.registry, fleet=stores.fleet, experiments=stores.experiments
    )
    same = all(each.same for each in verdicts)
    return {"id": identifier, "same": same, "verdicts": [msgspec.to_builtins(each) for each in verdicts]}


def view(stores: Stores, record: ExperimentRecord) -> dict[str, Any]:
    """An experiment for people and scripts."""
    versions = {v.serial: f"{v.version} ({v.semantic_version})" for v in stores.registry.versions(record.model)}
    counts = stores.fleet.counts(record.id)
    places = {variant.id: place for place, variant in enumerate(record.plan.treated)}
    arms = []
    for variant in record.plan.variants:
        control = variant.id == record.plan.control_id
        seen = counts.get(places.get(variant.id, record.arms[0][0] if record.arms else 0))
        side = "c" if control else "t"
        arms.append(
            {
                "id": variant.id,
                "role": "control" if control else "treated",
                "version": versions.get(record.serials[variant.id]),
                "description": variant.description,
                "share": record.plan.share(variant.id),
                "stopped": record.stopped.get(variant.id),
                "assigned": getattr(seen, f"assigned_{side}", 0),
                "active": getattr(seen, "placebo_c" if control else "activated_t", 0),
                "reported": getattr(seen, f"reported_{side}", 0),
                "failed": 0 if control or seen is None else seen.failed_t + seen.went_back_t,
            }
        )
    plan = record.plan
    return {
        "id": record.id,
        "name": plan.name,
        "model": record.model,
        "phase": record.phase.value,
        "because": record.because,
        "winner": record.winner,
        "arms": arms,
        "primary": msgspec.to_builtins(plan.primary) | {"direction": "increase" if plan.primary.rises else "decrease"},
        "guardrails": msgspec.to_builtins(plan.guardrail_metrics),
        "alpha": plan.alpha,
        "arm_alpha": plan.arm_alpha,
        "minimum_sample_size": plan.minimum_sample_size,
        "duration_days": plan.duration_days,
        "range_percent": list(plan.range_percent),
        "on_decision": plan.on_decision,
        "created_at": record.created_at,
        "ended_at": record.ended_at,
        "hour_s": record.hour_s,
    }


def _history(record: ExperimentRecord, ledgers: ExperimentLedgers) -> list[dict[str, Any]]:
    """At most `EXPERIMENT_POINTS` looks an arm, evenly over time, the last one among them."""
    found = []
    book = ledgers[record.id]
    for place, variant in enumerate(record.plan.treated):
        mine = [(window, now) for window, where, now in book.history if where == place]
        step = max(1, -(-len(mine) // limits.EXPERIMENT_POINTS))
        for window, now in mine[::-1][::step][::-1]:
            days = (window + 1) * record.plan.window_s() / record.hour_s / 24
            found.append({"arm": variant.id, "window": window, "days": days} | _looks(now))
    return found


def _looks(now: ArmNow) -> dict[str, Any]:
    def told(look: Look | None) -> list[float] | None:
        return [look.estimate, look.low, look.high] if look is not None else None

    return {"deciding": told(now.deciding), "plain": told(now.plain)}
