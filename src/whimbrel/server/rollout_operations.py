"""What happens when a person asks about a rollout? The operations behind the admin API's rollouts and user reports.

Every change is one transaction, writes the audit log, and returns when the signed metadata says so too.
"""

import secrets
from typing import Annotated, Any, cast, get_args

import msgspec
from msgspec import Meta

from whimbrel import limits
from whimbrel.errors import NotFound
from whimbrel.flows.files.plan_file import read_plan
from whimbrel.flows.records import RolloutRecord
from whimbrel.flows.reports.user_reports import file_reports
from whimbrel.flows.rollouts.approvals import approval_view
from whimbrel.flows.rollouts.approve import approve, reject
from whimbrel.flows.rollouts.check_plan import check_plan, view
from whimbrel.flows.rollouts.judge import replay_rollout, verdict_for
from whimbrel.flows.rollouts.move import PersonMove, move_by_person
from whimbrel.flows.rollouts.progress import devices_left
from whimbrel.flows.rollouts.start import start_rollout
from whimbrel.flows.rollouts.trace import Point, trace
from whimbrel.health.user_report import UserReports
from whimbrel.model.documents import Document, plain
from whimbrel.plan.rollout_states import State
from whimbrel.server.operations import Actor, Because, Consent, Reason
from whimbrel.stores.transaction import Stores


class NewRollout(Document, frozen=True):
    """POST rollouts: a plan as it was written. `hour_s`: seconds that an hour of the plan lasts."""

    plan: Annotated[str, Meta(max_length=limits.PLAN_BYTES)]
    file_name: Annotated[str, Meta(max_length=1024)] = "plan.yaml"
    hour_s: Annotated[float, Meta(gt=0, le=3600)] = 3600.0
    override: Because = ""
    actor: Actor = "admin"
    draft: bool = False


class PlanToCheck(Document, frozen=True):
    """POST plans/check: a plan as it was written. `devices`: imagine a fleet of that size."""

    plan: Annotated[str, Meta(max_length=limits.PLAN_BYTES)]
    file_name: Annotated[str, Meta(max_length=1024)] = "plan.yaml"
    devices: Annotated[int, Meta(ge=1, le=10**10)] | None = None


def begin(stores: Stores, *, data: NewRollout, now: float) -> dict[str, Any]:
    """Start a rollout, or let it wait."""
    plan = read_plan(data.plan, what=data.file_name)
    rollout = start_rollout(
        stores.registry,
        stores.fleet,
        plan,
        plan_text=data.plan,
        tag=secrets.token_hex(3),
        hour_s=data.hour_s,
        override=data.override,
        actor=data.actor,
        draft=data.draft,
        now=now,
    )
    return rollout_view(stores, rollout, now=now)


def explain(stores: Stores, *, data: PlanToCheck, now: float) -> dict[str, Any]:
    """What a plan would do, before it begins."""
    plan = read_plan(data.plan, what=data.file_name)
    return view(check_plan(stores.registry, stores.fleet, plan, now=now, devices=data.devices))


def show(stores: Stores, *, identifier: str, now: float) -> dict[str, Any]:
    """One rollout; a live one with what the gate says now."""
    rollout = stores.registry.rollout(identifier)
    seen = rollout_view(stores, rollout, now=now)
    if rollout.live:
        verdict = verdict_for(stores.registry, stores.fleet, rollout, now=now)
        seen["verdict"] = {"move": verdict.move, "because": verdict.because, "evidence": verdict.evidence}
    return seen


def as_it_is(stores: Stores, *, identifier: str, now: float) -> dict[str, Any]:
    """One rollout without the gate: what a change answers when the signed metadata says so too."""
    return rollout_view(stores, stores.registry.rollout(identifier), now=now)


def ask_again(stores: Stores, *, identifier: str) -> dict[str, Any]:
    """Every verdict, asked again of the stored windows."""
    verdicts = replay_rollout(stores.registry, stores.fleet, identifier)
    return {
        "id": identifier,
        "same": all(each.same for each in verdicts),
        "verdicts": [msgspec.to_builtins(each) for each in verdicts],
    }


def points(stores: Stores, *, identifier: str) -> list[Point]:
    """How the evidence grew."""
    return trace(stores.registry, stores.fleet, identifier)


def move(
    stores: Stores,
    *,
    identifier: str,
    move: PersonMove | Consent,
    data: Reason,
    now: float,
) -> dict[str, Any]:
    """What a person asks a rollout to do."""
    registry, fleet = stores.registry, stores.fleet
    by, because = data.actor, data.because
    match move:
        case "approve":
            moved = approve(registry, fleet, identifier, by=by, note=because, now=now)
        case "reject":
            moved = reject(registry, fleet, identifier, by=by, note=because, now=now)
        case _:
            why = because or f"{move} by {by}"
            moved = move_by_person(registry, fleet, identifier, move, because=why, actor=by, now=now)
    return rollout_view(stores, moved, now=now)


def file_user_reports(stores: Stores, *, data: UserReports, now: float) -> dict[str, Any]:
    """Tickets of users: each once."""
    filed = file_reports(stores.registry, stores.fleet, stores.tickets, data.reports, now=now)
    if data.model is not None:
        stores.tickets.heard(stores.registry.model(data.model).name, at=now)
    return plain(filed)


def user_reports(stores: Stores, *, model: str, limit: int) -> list[dict[str, Any]]:
    """The newest tickets of a model."""
    versions = {v.serial: v.version for v in stores.registry.versions(stores.registry.model(model).name)}
    return [
        msgspec.to_builtins(each) | {"version": versions.get(each.serial or 0)}
        for each in stores.tickets.newest(model=model, limit=limit)
    ]


def person_move(text: str) -> PersonMove | Consent:
    """One of the moves a person may make. Raises `NotFound`."""
    known = (*get_args(PersonMove), *get_args(Consent))
    if text not in known:
        raise NotFound(f"a rollout cannot be asked to {text!r}; it can: {', '.join(known)}")
    return cast("PersonMove | Consent", text)


def rollout_view(stores: Stores, rollout: RolloutRecord, *, now: float) -> dict[str, Any]:
    registry, fleet = stores.registry, stores.fleet
    versions = {v.serial: f"{v.version} ({v.semantic_version})" for v in registry.versions(rollout.model)}
    own = rollout.plan.range
    shares = [round(100 * (share - own.start) / own.buckets, 4) for share in rollout.shares]
    stages = [
        {
            "name": stage.name,
            "target_percent": stage.target_percent,
            "share_percent": shares[index] if index < len(shares) else None,
            "duration_hours": stage.duration_hours,
            "shadow": None if stage.shadow is None else msgspec.to_builtins(stage.shadow),
            "approvals": stage.approval.count if stage.approval is not None else 0,
        }
        for index, stage in enumerate(rollout.plan.stages)
    ]
    going = rollout.state is State.ROLLING_BACK
    return {
        "id": rollout.id,
        "model": rollout.model,
        "state": rollout.state.value,
        "state_since": rollout.state_since,
        "ended": rollout.ended,
        "range_percent": list(rollout.plan.range_percent),
        "approval": approval_view(registry, rollout, now=now),
        "devices_left": devices_left(registry, fleet, rollout, now=now) if going else None,
        "stage": rollout.stage,
        "stage_name": rollout.plan.stages[rollout.stage].name,
        "stages": stages,
        "baseline": versions.get(rollout.baseline),
        "target": versions.get(rollout.target),
        "because": rollout.because,
        "created_at": rollout.created_at,
        "stage_since": rollout.stage_since,
        "ended_at": rollout.ended_at,
        "hour_s": rollout.hour_s,
        "without": list(rollout.without),
        "counts": {str(stage): msgspec.to_builtins(counts) for stage, counts in fleet.counts(rollout.id).items()},
        "devices": {versions.get(serial or 0, "none"): n for serial, n in fleet.inventory(rollout.model).items()},
    }
