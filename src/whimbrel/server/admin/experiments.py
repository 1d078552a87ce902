"""The admin API's routes for experiments.

Every change is one transaction, writes the audit log, and returns when the signed metadata says so too.
"""

import secrets
from typing import cast, get_args

import msgspec
from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody
from litestar.status_codes import HTTP_200_OK, HTTP_201_CREATED
from msgspec import UNSET

from whimbrel import limits
from whimbrel.errors import NotFound
from whimbrel.flows.accounts.permissions import Caller, Permission
from whimbrel.flows.experiments.advance import PersonAct, act_by_person
from whimbrel.flows.experiments.check import ExperimentCheck, check_experiment, direction_warnings
from whimbrel.flows.experiments.counts import counts_by_arm
from whimbrel.flows.experiments.judge import ExperimentLedgers, experiment_verdict_for, replay_experiment
from whimbrel.flows.experiments.start import start_experiment
from whimbrel.flows.experiments.trace import interval_points
from whimbrel.flows.files.experiment_file import read_experiment
from whimbrel.flows.records import ExperimentRecord
from whimbrel.gate.experiment_gate import ExperimentVerdict
from whimbrel.plan.experiment import PrimaryMetric
from whimbrel.server.admin.moves import EXPERIMENT_ACTS
from whimbrel.server.admin.operations import Operations
from whimbrel.server.admin.views.experiments import (
    ActView,
    ArmView,
    ExperimentAct,
    ExperimentVerdictView,
    ExperimentView,
    NewExperiment,
    PrimaryView,
)
from whimbrel.server.admin.views.verdicts import ReplayView, replay_view
from whimbrel.stores.transaction import Stores

_SALT_BITS = 53  # a salt is a whole number that JSON holds everywhere


@get("/experiments", permission=Permission.READ, summary="Experiments, oldest first")
async def list_experiments(
    operations: NamedDependency[Operations],
    namespace: FromPath[str],
    model: FromQuery[str | None] = None,
    live: FromQuery[bool] = False,
) -> list[ExperimentView]:
    """All experiments of a namespace, or of one model, or those that still have a say in the policy."""

    def work(stores: Stores) -> list[ExperimentView]:
        return [experiment_view(stores, record) for record in stores.experiments.all(model=model, live=live)]

    return await operations.do(namespace, work)


@post(
    "/experiments",
    permission=Permission.RELEASE,
    status_code=HTTP_201_CREATED,
    summary="Start an experiment",
    request_max_body_size=limits.ADMIN_FILE_BYTES,
)
async def begin(
    operations: NamedDependency[Operations],
    caller: NamedDependency[Caller],
    namespace: FromPath[str],
    data: JSONBody[NewExperiment],
) -> ExperimentView:
    """Start an experiment."""

    def work(stores: Stores) -> ExperimentView:
        record = start_experiment(
            stores.registry,
            stores.experiments,
            read_experiment(data.plan, what=data.file_name),
            plan_text=data.plan,
            tag=secrets.token_hex(3),
            salt=secrets.randbits(_SALT_BITS),
            hour_s=data.hour_s,
            actor=caller.account,
            started_by=caller.account if caller.counts_as_person else "",
            now=operations.now(),
        )
        return msgspec.structs.replace(experiment_view(stores, record), warnings=direction_warnings(record.plan))

    return await operations.change(namespace, work)


@post(
    "/experiments/check",
    permission=Permission.READ,
    status_code=HTTP_200_OK,
    summary="What an experiment would do, in plain words",
    request_max_body_size=limits.ADMIN_FILE_BYTES,
)
async def explain_experiment(
    operations: NamedDependency[Operations], namespace: FromPath[str], data: JSONBody[NewExperiment]
) -> ExperimentCheck:
    """Explain an experiment, and change nothing."""

    def work(stores: Stores) -> ExperimentCheck:
        plan = read_experiment(data.plan, what=data.file_name)
        return check_experiment(stores.registry, stores.fleet, stores.experiments, plan)

    return await operations.do(namespace, work)


@get("/experiments/{identifier:str}", permission=Permission.READ, summary="One experiment, with the present view of it")
async def show_experiment(
    operations: NamedDependency[Operations],
    namespace: FromPath[str],
    identifier: FromPath[str],
    history: FromQuery[bool] = False,
) -> ExperimentView:
    """One experiment, with what is to be said of it by now. `history`: the intervals over time too, for a plot."""
    return await operations.do(
        namespace,
        lambda stores: experiment_with_verdict(stores, identifier, history=history, now=operations.now()),
    )


@get(
    "/experiments/{identifier:str}/replay",
    permission=Permission.READ,
    summary="Every verdict, asked again of the stored windows",
)
async def replay(
    operations: NamedDependency[Operations], namespace: FromPath[str], identifier: FromPath[str]
) -> ReplayView:
    """Ask again about every verdict."""
    verdicts = await operations.do(
        namespace,
        lambda stores: replay_experiment(
            identifier, registry=stores.registry, fleet=stores.fleet, experiments=stores.experiments
        ),
    )
    return replay_view(identifier, verdicts)


@post(
    "/experiments/{identifier:str}/{act:str}",
    permission=EXPERIMENT_ACTS,
    status_code=HTTP_200_OK,
    summary="End an experiment by hand",
)
async def act_on_experiment(
    operations: NamedDependency[Operations],
    caller: NamedDependency[Caller],
    *,
    namespace: FromPath[str],
    identifier: FromPath[str],
    act: FromPath[str],
    data: JSONBody[ExperimentAct],
) -> ExperimentView:
    """Stop, keep the control, or ship an arm."""
    asked = person_act(act)

    def work(stores: Stores) -> ExperimentView:
        record = act_by_person(
            identifier,
            asked,
            registry=stores.registry,
            fleet=stores.fleet,
            experiments=stores.experiments,
            tag=secrets.token_hex(3),
            arm=data.arm,
            because=data.because,
            actor=caller.account,
            now=operations.now(),
        )
        return experiment_view(stores, record)

    return await operations.change(namespace, work)


EXPERIMENT_ROUTES = (list_experiments, begin, explain_experiment, show_experiment, replay, act_on_experiment)


def person_act(text: str) -> PersonAct:
    """One of the acts of a person. Raises `NotFound`."""
    if text not in get_args(PersonAct):
        raise NotFound(f"an experiment cannot be asked to {text!r}; it can: {', '.join(get_args(PersonAct))}")
    return cast("PersonAct", text)


def experiment_with_verdict(stores: Stores, identifier: str, *, history: bool, now: float) -> ExperimentView:
    """An experiment with what is to be said of it by now; with `history` also its intervals over time and its acts."""
    ledgers = ExperimentLedgers()
    record = stores.experiments.one(identifier)
    verdict = experiment_verdict_for(record, registry=stores.registry, fleet=stores.fleet, now=now, ledgers=ledgers)
    view = msgspec.structs.replace(experiment_view(stores, record), verdict=experiment_verdict_view(verdict))
    if not history:
        return view
    log = stores.audit.newest(rollout=identifier, limit=limits.EXPERIMENT_POINTS)
    return msgspec.structs.replace(
        view,
        history=interval_points(record, ledgers[record.id]),
        acts=[
            ActView(at=entry.at, actor=entry.actor, action=entry.action, because=entry.because)
            for entry in reversed(log)
        ],
    )


def experiment_verdict_view(verdict: ExperimentVerdict) -> ExperimentVerdictView:
    """A verdict with its figures. An end of an interval that is not bounded is None."""
    return msgspec.convert(msgspec.to_builtins(verdict), type=ExperimentVerdictView)


def experiment_view(stores: Stores, record: ExperimentRecord) -> ExperimentView:
    """An experiment for people and scripts, without a verdict."""
    plan = record.plan
    return ExperimentView(
        id=record.id,
        name=plan.name,
        model=record.model,
        phase=record.phase,
        because=record.because,
        winner=record.winner,
        arms=arm_views(stores, record),
        primary=primary_view(plan.primary),
        guardrails=list(plan.guardrail_metrics),
        alpha=plan.alpha,
        arm_alpha=plan.arm_alpha,
        minimum_sample_size=plan.minimum_sample_size,
        duration_days=plan.duration_days,
        range_percent=plan.range_percent,
        bucket_by=plan.bucket_by,
        devices_per_value=plan.cluster,
        on_decision=plan.on_decision,
        created_at=record.created_at,
        ended_at=record.ended_at,
        hour_s=record.hour_s,
    )


def arm_views(stores: Stores, record: ExperimentRecord) -> list[ArmView]:
    """Every variant of an experiment, in the order of its file."""
    versions = {v.serial: f"{v.version} ({v.semantic_version})" for v in stores.registry.versions(record.model)}
    counts = counts_by_arm(record, stores.fleet.counts(record.id))
    return [
        ArmView(
            id=variant.id,
            role="control" if variant.id == record.plan.control_id else "treated",
            version=versions.get(record.serials[variant.id]),
            description=variant.description,
            share=record.plan.share(variant.id),
            stopped=record.stopped.get(variant.id),
            without=list(record.without.get(variant.id, ())),
            **msgspec.structs.asdict(counts[variant.id]),
        )
        for variant in record.plan.variants
    ]


def primary_view(primary: PrimaryMetric) -> PrimaryView:
    """The metric that decides, with its direction also where the file leaves it out."""
    return PrimaryView(
        name=primary.name,
        minimum_effect=UNSET if primary.minimum_effect is None else primary.minimum_effect,
        spread=UNSET if primary.spread is None else primary.spread,
        direction="increase" if primary.rises else "decrease",
    )
