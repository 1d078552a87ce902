"""A person moves a rollout: the page that asks first, and the move.

1. The question says how many devices the move touches. Two clicks roll a version back, and no script.
2. A form carries the state that its page showed. Where the rollout is in another one meanwhile, nothing is done, and
   the person is told what happened and who did it.
3. The rules are those of the admin API: the same permission, the same flow, the same entry in the audit log.
"""

from typing import Any

from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Redirect
from litestar.status_codes import HTTP_303_SEE_OTHER, HTTP_409_CONFLICT

from whimbrel.console.views.rollout import MoveQuestion
from whimbrel.console.words import counted, percent
from whimbrel.errors import Conflict, IllegalTransition, NotFound
from whimbrel.flows.records import RolloutRecord
from whimbrel.flows.rollouts.approvals import stage_to_approve
from whimbrel.flows.rollouts.shares import share_percent
from whimbrel.plan.rollout_states import State
from whimbrel.server.admin.moves import ROLLOUT_MOVES
from whimbrel.server.admin.rollouts import ask_rollout, person_move
from whimbrel.server.admin.views.reason import Reason
from whimbrel.server.console.events import event_line
from whimbrel.server.console.versions import version_names
from whimbrel.server.console.visit import (
    AnyRequest,
    Console,
    because_of,
    check_form,
    form_of,
    frame_for,
    page,
    visit_of,
)
from whimbrel.stores.transaction import Stores


@get("/{namespace:str}/rollouts/{identifier:str}/{move:str}", permission=ROLLOUT_MOVES)
async def ask(
    request: AnyRequest,
    console: NamedDependency[Console],
    identifier: FromPath[str],
    move: FromPath[str],
) -> Response[bytes]:
    """The question."""
    visit, now = visit_of(request), console.operations.now()
    question = await console.operations.do(visit.namespace, lambda stores: question_of(stores, identifier, move))
    return page("move", frame_for(request, question.title, now=now, section="rollouts"), page=question)


@post("/{namespace:str}/rollouts/{identifier:str}/{move:str}", permission=ROLLOUT_MOVES, status_code=HTTP_303_SEE_OTHER)
async def do(
    request: AnyRequest,
    console: NamedDependency[Console],
    namespace: FromPath[str],
    identifier: FromPath[str],
    move: FromPath[str],
) -> Response[Any]:
    """The move. It returns when the signed metadata says so too."""
    visit, now = visit_of(request), console.operations.now()
    form = await form_of(request)
    check_form(visit.session, form)
    asked, because = person_move(move), because_of(form)

    def work(stores: Stores) -> None:
        rollout = stores.registry.rollout(identifier)
        if form.get("seen", "") != seen(rollout):
            raise Conflict(f"{identifier} has moved since you looked at it")
        ask_rollout(stores, identifier, asked, reason=Reason(because=because), caller=visit.caller, now=now)

    try:
        await console.operations.change(namespace, work)
    except (Conflict, IllegalTransition) as error:
        return await _told_what_happened(request, console, identifier, error)
    return Redirect(f"/{namespace}/rollouts/{identifier}", status_code=HTTP_303_SEE_OTHER)


MOVE_ROUTES = (ask, do)


async def _told_what_happened(
    request: AnyRequest, console: Console, identifier: str, error: Exception
) -> Response[bytes]:
    visit, now = visit_of(request), console.operations.now()

    def work(stores: Stores) -> dict[str, Any]:
        rollout = stores.registry.rollout(identifier)
        entries = stores.audit.newest(rollout=identifier, limit=3)
        return {"rollout": rollout, "events": [event_line(each) for each in entries]}

    known = await console.operations.do(visit.namespace, work)
    frame = frame_for(request, "Somebody was faster", now=now, section="rollouts")
    state = known["rollout"].state.value.replace("_", " ")
    return page(
        "moved",
        frame,
        status=HTTP_409_CONFLICT,
        detail=str(error),
        state=state,
        events=known["events"],
        href=f"/{visit.namespace}/rollouts/{identifier}",
    )


def seen(rollout: RolloutRecord) -> str:
    """What a person who looked at a rollout saw of it, for a form."""
    return f"{rollout.state.value}.{rollout.stage}.{rollout.state_since:.3f}"


def question_of(stores: Stores, identifier: str, move: str) -> MoveQuestion:
    """What a person is asked. Raises `NotFound` for no such move or rollout."""
    person_move(move)
    rollout = stores.registry.rollout(identifier)
    inventory = stores.fleet.inventory(rollout.model)
    names = version_names(stores, rollout.model)
    target, baseline = names.get(rollout.target, ""), names.get(rollout.baseline or 0, "no version")
    on, total = inventory.get(rollout.target, 0), sum(inventory.values())
    title, touches, then, button, danger = _words(rollout, move, target=target, baseline=baseline, on=on, total=total)
    return MoveQuestion(
        id=rollout.id,
        model=rollout.model,
        target=target,
        move=move,
        title=title,
        touches=touches,
        then=then,
        button=button,
        danger=danger,
        seen=seen(rollout),
    )


def _words(
    rollout: RolloutRecord, move: str, *, target: str, baseline: str, on: int, total: int
) -> tuple[str, str, tuple[str, ...], str, bool]:
    running, share = counted(on, "device"), share_percent(rollout.plan, rollout.shares[-1]) if rollout.shares else 0.0
    match move:
        case "rollback":
            others = () if rollout.state is not State.COMPLETED else ("It is the baseline: the whole model goes back.",)
            return (
                f"Roll {rollout.model} {target} back?",
                f"{running} of {total:,} run {target} and go back to {baseline}.",
                (
                    *others,
                    "Devices that can hear of it go back within seconds; others when they hear of it.",
                    f"{target} is quarantined: nobody gets it again until a person lifts that.",
                ),
                f"Roll back {running}",
                True,
            )
        case "pause":
            return (
                f"Pause the rollout of {target}?",
                f"No device changes: {running} keep {target}.",
                ("It does not advance until a person resumes it.", "Proven harm still takes it back."),
                "Pause",
                False,
            )
        case "resume":
            return (
                f"Resume the rollout of {target}?",
                f"No device changes now: {running} keep {target}.",
                ("The gate goes on where it was, and may advance the rollout at its next look.",),
                "Resume",
                False,
            )
        case "approve":
            stage = rollout.plan.stages[min(stage_to_approve(rollout), len(rollout.plan.stages) - 1)]
            more = round(total * max(0.0, stage.target_percent - share) / 100)
            return (
                f"Approve stage {stage.name}?",
                f"About {counted(more, 'more device')} of {total:,} get {target}.",
                (
                    f"The stage serves {percent(stage.target_percent)} of its devices; it begins when everybody who "
                    "must agree did.",
                ),
                f"Approve stage {stage.name}",
                False,
            )
        case "reject":
            return (
                "Reject it?",
                f"No device changes: {running} keep {target}.",
                ("A draft ends, and a rollout that waits for approval is paused where it is.",),
                "Reject",
                False,
            )
        case "finish":
            return (
                f"Give {target} to everybody now?",
                f"{counted(total - on, 'more device')} of {total:,} get {target}.",
                ("The stages that are left are skipped, and nobody is left to compare with.",),
                f"Give it to {counted(total - on, 'more device')}",
                True,
            )
        case "abort":
            return (
                f"End the rollout of {target}?",
                f"{running} of {total:,} run {target} and return to {baseline}.",
                (f"{target} is not quarantined, and may be offered again.",),
                f"End it for {running}",
                True,
            )
    raise NotFound(f"a rollout cannot be asked to {move!r}")
