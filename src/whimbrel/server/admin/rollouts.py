"""The admin API's routes for rollouts and plans.

Every change is one transaction, writes the audit log, and returns when the signed metadata says so too.
"""

import asyncio
import secrets
from functools import partial
from typing import cast, get_args

import msgspec
from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody
from litestar.status_codes import HTTP_200_OK, HTTP_201_CREATED

from whimbrel import limits
from whimbrel.console.charts import MEDIA_TYPES, draw, form_of
from whimbrel.console.evidence import evidence_chart
from whimbrel.errors import NotFound, Refused
from whimbrel.flows.accounts.permissions import Caller, Permission
from whimbrel.flows.files.plan_file import read_plan
from whimbrel.flows.monitors.show_health import class_figures
from whimbrel.flows.publishing.set_line import line_of
from whimbrel.flows.records import RolloutRecord
from whimbrel.flows.rollouts.approvals import pending_approval
from whimbrel.flows.rollouts.approve import Consent, approve, reject
from whimbrel.flows.rollouts.builds_running import builds_running
from whimbrel.flows.rollouts.check_plan import PlanCheck, check_plan
from whimbrel.flows.rollouts.judge import replay_rollout, verdict_for
from whimbrel.flows.rollouts.move import PersonMove, move_by_person
from whimbrel.flows.rollouts.progress import devices_left
from whimbrel.flows.rollouts.roll_back_model import roll_back_completed
from whimbrel.flows.rollouts.rollout_set import members_of
from whimbrel.flows.rollouts.shares import share_percent
from whimbrel.flows.rollouts.start import start_rollout
from whimbrel.flows.rollouts.trace import Point, trace
from whimbrel.plan.rollout_states import State
from whimbrel.server.admin.moves import ROLLOUT_MOVES
from whimbrel.server.admin.operations import Operations
from whimbrel.server.admin.problems import problems
from whimbrel.server.admin.views.reason import Reason
from whimbrel.server.admin.views.rollouts import MemberView, NewRollout, PlanToCheck, RolloutView, StageView
from whimbrel.server.admin.views.verdicts import ReplayView, replay_view, verdict_view
from whimbrel.stores.transaction import Stores


@get("/rollouts", permission=Permission.READ, summary="Rollouts, oldest first")
async def list_rollouts(
    operations: NamedDependency[Operations],
    namespace: FromPath[str],
    model: FromQuery[str | None] = None,
    live: FromQuery[bool] = False,
) -> list[RolloutView]:
    """All rollouts of a namespace, or of one model, or those that still have a say in the policy."""

    def work(stores: Stores) -> list[RolloutView]:
        rollouts = stores.registry.rollouts(model=model, live=live)
        return [rollout_view(stores, rollout, now=operations.now()) for rollout in rollouts]

    return await operations.do(namespace, work)


@post(
    "/rollouts",
    permission=Permission.DRAFT,
    status_code=HTTP_201_CREATED,
    summary="Start a rollout from a plan",
    request_max_body_size=limits.ADMIN_FILE_BYTES,
)
async def start(
    operations: NamedDependency[Operations],
    caller: NamedDependency[Caller],
    namespace: FromPath[str],
    data: JSONBody[NewRollout],
) -> RolloutView:
    """Start a rollout, or let it wait. Who may not release starts a draft, which a person approves."""
    if not data.draft:
        caller.check(Permission.RELEASE)

    def work(stores: Stores) -> str:
        rollout = start_rollout(
            stores.registry,
            stores.fleet,
            read_plan(data.plan, what=data.file_name),
            plan_text=data.plan,
            tag=secrets.token_hex(3),
            hour_s=data.hour_s,
            override=data.override,
            actor=caller.account,
            started_by=caller.account if caller.counts_as_person else "",
            draft=data.draft,
            now=operations.now(),
        )
        return rollout.id

    return await _shown(operations, namespace, await operations.change(namespace, work))


@post(
    "/plans/check",
    permission=Permission.READ,
    status_code=HTTP_200_OK,
    summary="What a plan would do, to how many devices",
    request_max_body_size=limits.ADMIN_FILE_BYTES,
)
async def explain_plan(
    operations: NamedDependency[Operations], namespace: FromPath[str], data: JSONBody[PlanToCheck]
) -> PlanCheck:
    """Explain a plan before it begins."""

    def work(stores: Stores) -> PlanCheck:
        plan = read_plan(data.plan, what=data.file_name)
        return check_plan(stores.registry, stores.fleet, plan, now=operations.now(), devices=data.devices)

    return await operations.do(namespace, work)


@get("/rollouts/{identifier:str}", permission=Permission.READ, summary="One rollout, with the gate's present view")
async def show_rollout(
    operations: NamedDependency[Operations], namespace: FromPath[str], identifier: FromPath[str]
) -> RolloutView:
    """One rollout; a live one with what the gate says now."""
    return await operations.do(namespace, lambda stores: rollout_with_verdict(stores, identifier, now=operations.now()))


@get(
    "/rollouts/{identifier:str}/replay",
    permission=Permission.READ,
    summary="Every verdict, asked again of the stored windows",
)
async def replay(
    operations: NamedDependency[Operations], namespace: FromPath[str], identifier: FromPath[str]
) -> ReplayView:
    """Ask the gate again about every verdict."""
    verdicts = await operations.do(namespace, lambda stores: replay_rollout(stores.registry, stores.fleet, identifier))
    return replay_view(identifier, verdicts)


@get("/rollouts/{identifier:str}/evidence", permission=Permission.READ, summary="ln E after every judged window")
async def list_evidence(
    operations: NamedDependency[Operations], namespace: FromPath[str], identifier: FromPath[str]
) -> list[Point]:
    """How the evidence grew."""
    return await operations.do(namespace, lambda stores: trace(stores.registry, stores.fleet, identifier))


@get(
    "/rollouts/{identifier:str}/evidence/{form:str}",
    permission=Permission.READ,
    summary="The same as a picture: png or svg",
    responses=problems(Refused),  # a chart of too many points
)
async def draw_evidence(
    operations: NamedDependency[Operations], namespace: FromPath[str], identifier: FromPath[str], form: FromPath[str]
) -> Response[bytes]:
    """The chart of the evidence."""
    picture_form = form_of(form)
    points = await operations.do(namespace, lambda stores: trace(stores.registry, stores.fleet, identifier))
    picture = await asyncio.to_thread(lambda: draw(evidence_chart(points, title=identifier), picture_form))
    return Response(picture, media_type=MEDIA_TYPES[picture_form])


@post(
    "/rollouts/{identifier:str}/{move:str}",
    permission=ROLLOUT_MOVES,
    status_code=HTTP_200_OK,
    summary="Move a rollout by hand",
)
async def move(
    operations: NamedDependency[Operations],
    caller: NamedDependency[Caller],
    *,
    namespace: FromPath[str],
    identifier: FromPath[str],
    move: FromPath[str],
    data: JSONBody[Reason],
) -> RolloutView:
    """Approve, reject, pause, resume, finish, abort or roll back."""
    asked = person_move(move)
    await operations.change(
        namespace,
        lambda stores: ask_rollout(stores, identifier, asked, reason=data, caller=caller, now=operations.now()),
    )
    return await _shown(operations, namespace, identifier)


ROLLOUT_ROUTES = (
    list_rollouts,
    start,
    show_rollout,
    replay,
    move,
    explain_plan,
    list_evidence,
    draw_evidence,
)


def person_move(text: str) -> PersonMove | Consent:
    """One of the moves a person may make. Raises `NotFound`."""
    moves = (*get_args(PersonMove), *get_args(Consent))
    if text not in moves:
        raise NotFound(f"a rollout cannot be asked to {text!r}; it can: {', '.join(moves)}")
    return cast("PersonMove | Consent", text)


def ask_rollout(
    stores: Stores, identifier: str, asked: PersonMove | Consent, *, reason: Reason, caller: Caller, now: float
) -> RolloutRecord:
    """What a person asks a rollout to do."""
    actor = caller.account
    registry, fleet = stores.registry, stores.fleet
    because = reason.because
    rollout = registry.rollout(identifier)
    if asked == "rollback" and rollout.state is State.COMPLETED:
        lines = partial(line_of, registry, stores.roles)
        return roll_back_completed(registry, identifier, lines=lines, because=because, actor=actor, now=now)
    match asked:
        case "approve":
            return approve(registry, fleet, identifier, by=actor, note=because, now=now)
        case "reject":
            return reject(registry, fleet, identifier, by=actor, note=because, now=now)
        case _:
            return move_by_person(
                registry,
                fleet,
                identifier,
                asked,
                because=because,
                actor=actor,
                counts=caller.counts_as_person,
                now=now,
            )


async def _shown(operations: Operations, namespace: str, identifier: str) -> RolloutView:
    """A rollout without the gate: what a change answers when the signed metadata says so too."""
    return await operations.do(
        namespace,
        lambda stores: rollout_view(stores, stores.registry.rollout(identifier), now=operations.now()),
    )


def rollout_with_verdict(stores: Stores, identifier: str, *, now: float) -> RolloutView:
    """A rollout for people and scripts; a live one with what the gate says now."""
    rollout = stores.registry.rollout(identifier)
    classes = class_figures(
        stores.health,
        rollout.model,
        baseline=rollout.baseline,
        candidate=rollout.target,
        since=rollout.created_at,
        now=now,
    )
    builds = builds_running(stores.registry, stores.fleet, rollout)
    view = msgspec.structs.replace(rollout_view(stores, rollout, now=now), classes=classes, builds=builds)
    if rollout.live:
        verdict = verdict_for(stores.registry, stores.fleet, rollout, now=now)
        view = msgspec.structs.replace(view, verdict=verdict_view(verdict))
    return view


def rollout_view(stores: Stores, rollout: RolloutRecord, *, now: float) -> RolloutView:
    """A rollout for people and scripts, without the gate."""
    registry, fleet = stores.registry, stores.fleet
    versions = _version_names(stores, rollout.model)
    goes_back = rollout.state is State.ROLLING_BACK
    return RolloutView(
        id=rollout.id,
        model=rollout.model,
        state=rollout.state,
        state_since=rollout.state_since,
        ended=rollout.ended,
        range_percent=rollout.plan.range_percent,
        approval=pending_approval(registry, rollout, now=now),
        devices_left=devices_left(registry, fleet, rollout, now=now) if goes_back else None,
        stage=rollout.stage,
        stage_name=rollout.plan.stages[rollout.stage].name,
        stages=stage_views(rollout),
        baseline=versions.get(rollout.baseline or 0),
        target=versions.get(rollout.target),
        because=rollout.because,
        created_at=rollout.created_at,
        stage_since=rollout.stage_since,
        ended_at=rollout.ended_at,
        hour_s=rollout.hour_s,
        without=list(rollout.without),
        lead=rollout.lead,
        members=[_member_view(stores, each) for each in members_of(registry, rollout)],
        counts={str(stage): counts for stage, counts in fleet.counts(rollout.id).items()},
        unproven={str(stage): counts for stage, counts in fleet.unproven_counts(rollout.id).items()},
        devices={versions.get(serial or 0, "none"): n for serial, n in fleet.inventory(rollout.model).items()},
    )


def _version_names(stores: Stores, model: str) -> dict[int, str]:
    return {v.serial: f"{v.version} ({v.semantic_version})" for v in stores.registry.versions(model)}


def _member_view(stores: Stores, member: RolloutRecord) -> MemberView:
    versions = _version_names(stores, member.model)
    return MemberView(
        rollout=member.id,
        model=member.model,
        baseline=versions.get(member.baseline or 0),
        target=versions.get(member.target),
    )


def stage_views(rollout: RolloutRecord) -> list[StageView]:
    """The stages of a rollout's plan, with the share of each that was entered."""
    shares = [share_percent(rollout.plan, share) for share in rollout.shares]
    return [
        StageView(
            name=stage.name,
            target_percent=stage.target_percent,
            share_percent=shares[index] if index < len(shares) else None,
            duration_hours=stage.duration_hours,
            shadow=stage.shadow,
            approvals=stage.approval.count if stage.approval is not None else 0,
        )
        for index, stage in enumerate(rollout.plan.stages)
    ]
