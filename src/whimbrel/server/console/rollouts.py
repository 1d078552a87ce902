"""The list of rollouts, and the page of one: where it stands, what it waits for, what each guardrail shows."""

from collections.abc import Sequence

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from whimbrel import limits
from whimbrel.console.views.rollout import (
    Button,
    GuardrailLine,
    MemberLine,
    RolloutLine,
    RolloutPage,
    SliceLine,
    StageStep,
)
from whimbrel.console.words import counted, figure, lasting, percent, plain_name, plan_hours, sentence
from whimbrel.flows.accounts.permissions import Caller, Permission
from whimbrel.flows.monitors.show_health import ClassFigures, class_figures
from whimbrel.flows.records import RolloutRecord
from whimbrel.flows.rollouts.effects import Effects, effects_of
from whimbrel.gate.monitor import Figures
from whimbrel.gate.verdict import Counts
from whimbrel.plan.rollout_states import LIVE, NEXT, PENDING, Event, State
from whimbrel.server.admin.rollouts import rollout_view
from whimbrel.server.admin.views.rollouts import RolloutView
from whimbrel.server.console.events import event_line
from whimbrel.server.console.guardrails import evidence_words, guardrail_lines, part_of_proof
from whimbrel.server.console.versions import version_names
from whimbrel.server.console.visit import AnyRequest, Console, frame_for, page, visit_of
from whimbrel.stores.transaction import Stores

TONES = {
    State.COMPLETED: "good",
    State.ROLLING_BACK: "bad",
    State.ROLLED_BACK: "bad",
    State.ABORTED: "bad",
    State.HOLDING: "waits",
    State.PAUSED: "waits",
    State.WAITING_FOR_APPROVAL: "waits",
    State.DRAFT: "waits",
}


@get("/{namespace:str}/rollouts", permission=Permission.READ)
async def list_rollouts(request: AnyRequest, console: NamedDependency[Console]) -> Response[bytes]:
    """The newest rollouts."""
    visit, now = visit_of(request), console.operations.now()
    lines = await console.operations.do(
        visit.namespace, lambda stores: rollout_lines(stores, stores.registry.rollouts()[-limits.CONSOLE_ROWS :])
    )
    live = f"/{visit.namespace}/live"
    return page("rollouts", frame_for(request, "Rollouts", now=now, section="rollouts", live=live), lines=lines)


@get("/{namespace:str}/rollouts/{identifier:str}", permission=Permission.READ)
async def show_rollout(
    request: AnyRequest, console: NamedDependency[Console], identifier: FromPath[str]
) -> Response[bytes]:
    """One rollout."""
    visit, now = visit_of(request), console.operations.now()
    view = await console.operations.do(
        visit.namespace, lambda stores: rollout_page(console, stores, identifier, caller=visit.caller, now=now)
    )
    live = (
        ""
        if view.ended_at is not None and view.state not in {"rolling back"}
        else f"/{visit.namespace}/rollouts/{identifier}/live"
    )
    frame = frame_for(request, f"{view.model} {view.target}", now=now, section="rollouts", live=live)
    return page("rollout", frame, page=view)


ROLLOUT_PAGES = (list_rollouts, show_rollout)


def rollout_lines(stores: Stores, rollouts: Sequence[RolloutRecord]) -> list[RolloutLine]:
    """Rollouts as a list shows them: of `rollouts`, oldest first, the newest first."""
    names: dict[str, dict[int, str]] = {}
    lines = []
    for each in reversed(rollouts):
        if each.model not in names:
            names[each.model] = version_names(stores, each.model)
        known = names[each.model]
        before = known.get(each.baseline or 0, "nothing")
        lines.append(
            RolloutLine(
                id=each.id,
                model=each.model,
                versions=f"{before} → {known.get(each.target, each.target)}",
                state=plain_name(each.state.value),
                tone=TONES.get(each.state, "busy"),
                stage=each.plan.stages[each.stage].name if each.state in LIVE else "",
                since=each.state_since or each.created_at,
                because=each.because,
            )
        )
    return lines


def rollout_page(console: Console, stores: Stores, identifier: str, *, caller: Caller, now: float) -> RolloutPage:
    """What the page shows. Raises `NotFound`."""
    rollout = stores.registry.rollout(identifier)
    key = f"{rollout.window_at(now)}:{rollout.state}:{rollout.stage}" if not rollout.ended else rollout.state.value
    effects = console.effects.of(
        (stores.namespace, identifier, key), lambda: effects_of(stores.registry, stores.fleet, rollout)
    )
    view = rollout_view(stores, rollout, now=now)
    classes = console.counts.of(
        ("classes", stores.namespace, identifier), lambda: _classes(stores, rollout, now=now), now=now
    ).value
    names = version_names(stores, rollout.model)
    entries = stores.audit.newest(rollout=identifier, limit=limits.CONSOLE_ROWS)
    target = names.get(rollout.target, str(rollout.target))
    baseline = names.get(rollout.baseline or 0, "")
    buttons, why_none = buttons_of(stores.namespace, rollout, caller)
    first, quiet, untold = guardrail_lines(effects)
    judged = effects.stage if effects is not None else rollout.stage
    return RolloutPage(
        id=rollout.id,
        model=rollout.model,
        baseline=baseline,
        target=target,
        state=plain_name(rollout.state.value),
        tone=TONES.get(rollout.state, "busy"),
        state_since=rollout.state_since or rollout.created_at,
        answer=_answer(rollout, view, target=target, baseline=baseline, worst=_worst(first), now=now),
        because=rollout.because,
        waits_for=_waits_for(rollout, view, effects),
        started_by=rollout.started_by,
        created_at=rollout.created_at,
        ended_at=rollout.ended_at,
        stages=tuple(_steps(rollout, view, now=now)),
        guardrails=tuple(first),
        quiet=tuple(quiet),
        untold=tuple(untold),
        judged_stage=rollout.plan.stages[judged].name,
        evidence=part_of_proof(effects.log_e, effects.needed) if effects is not None else 0.0,
        evidence_words="" if effects is None else evidence_words(effects.log_e, effects.needed),
        slices=tuple(_slices(rollout, classes)),
        not_judged=tuple(_not_judged(view)),
        members=tuple(
            MemberLine(
                model=each.model,
                words=f"{each.baseline or 'nothing'} → {each.target}",
                href=f"/{stores.namespace}/rollouts/{each.rollout}",
            )
            for each in view.members
        ),
        events=tuple(event_line(each) for each in entries),
        buttons=buttons,
        devices=tuple(sorted(view.devices.items(), key=lambda each: -each[1])),
        no_buttons=why_none,
    )


def _worst(guardrails: Sequence[GuardrailLine]) -> str:
    """The guardrail that proves harm, in words; "" where none does."""
    harmed = [each for each in guardrails if each.tone == "harm"]
    return f"{harmed[0].name.lower()} {harmed[0].effect}" if harmed else ""


def _answer(rollout: RolloutRecord, view: RolloutView, *, target: str, baseline: str, worst: str, now: float) -> str:
    """Where it stands, in one sentence. `worst`: the guardrail that proves harm."""
    stage = rollout.plan.stages[rollout.stage].name
    since = lasting(now - (rollout.state_since or rollout.created_at))
    share = view.stages[view.stage].share_percent
    on = f"{percent(share)} of the devices" if share is not None else "its devices"
    match rollout.state:
        case State.COMPLETED:
            return f"{target} is everybody's version since {since}."
        case State.ROLLED_BACK:
            again = f"every device that was heard from runs {baseline or 'nothing of it'} again."
            return (
                f"{target} was taken back: {worst}. {sentence(again)}" if worst else f"{target} was taken back; {again}"
            )
        case State.ROLLING_BACK:
            left = counted(view.devices_left or 0, "device")
            return f"{target} is taken back now; {left} in reach still to go."
        case State.ABORTED:
            return f"This rollout was ended; {target} is not quarantined."
        case State.PAUSED:
            return f"Paused for {since}, with {on} on {target}. Proven harm would still take it back."
        case State.WAITING_FOR_APPROVAL:
            return f"Everything is well at stage {stage}; people must agree before it goes on."
        case State.HOLDING:
            return f"Holds at stage {stage} for {since}, with {on} on {target}."
        case State.DRAFT:
            return "Written down, and not begun."
        case State.SCHEDULED:
            return "Begins by itself at its time."
        case State.QUEUED:
            return "Begins by itself when nothing is in its way."
    return f"Stage {stage}: {on} run {target}."


def _waits_for(rollout: RolloutRecord, view: RolloutView, effects: Effects | None) -> str:
    """What must happen before it goes on; "" for one that has ended."""
    if view.approval is not None:
        agreed = f"{', '.join(view.approval.by)} agreed" if view.approval.by else "nobody agreed yet"
        note = f" ({view.approval.note})" if view.approval.note else ""
        freeze = f"; a freeze holds until {view.approval.frozen_until}" if view.approval.frozen_until else ""
        return (
            f"It waits for {counted(view.approval.missing, 'more person', 'more people')} to approve stage "
            f"{view.approval.stage}: {agreed}{note}{freeze}"
        )
    if rollout.state not in LIVE:
        return ""
    if rollout.state is State.PAUSED:
        return "It waits until a person resumes it, or takes it back"
    return "" if effects is None else f"The gate says: {effects.verdict.because}"


def _steps(rollout: RolloutRecord, view: RolloutView, *, now: float) -> list[StageStep]:
    steps = []
    ended_well = rollout.state is State.COMPLETED
    for index, stage in enumerate(view.stages):
        counts = view.counts.get(str(index), Counts())
        share = stage.share_percent if stage.share_percent is not None else stage.target_percent
        soak_s = stage.duration_hours * rollout.hour_s
        soaked_s = now - rollout.stage_since
        if index > rollout.stage or rollout.state in PENDING:
            state, progress = "next", 0.0
            note = f"then {plan_hours(stage.duration_hours)}" if stage.duration_hours else "at the end"
            if stage.approvals:
                note += f", after {counted(stage.approvals, 'approval')}"
        elif index < rollout.stage or ended_well:
            state, progress, note = "done", 100.0, counted(counts.reported_t, "device") + " reported"
        elif rollout.state in LIVE:
            state, progress = "now", min(100.0, 100 * soaked_s / soak_s) if soak_s else 100.0
            hours = soaked_s / rollout.hour_s
            note = (
                f"{hours:.3g} of {plan_hours(stage.duration_hours)}"
                if hours < stage.duration_hours
                else (f"its {plan_hours(stage.duration_hours)} are over")
            )
        else:
            state, progress, note = "missed", 0.0, "stopped here"
        steps.append(
            StageStep(
                name=stage.name,
                share=percent(share),
                state=state,
                note=note,
                progress=round(progress, 2),
                treated=counts.assigned_t,
                active=counts.activated_t,
                reported=counts.reported_t,
                control=counts.assigned_c,
                silent=counts.silent_t,
                failed=counts.failed_t,
                went_back=counts.went_back_t,
                shadow=stage.shadow is not None,
            )
        )
    return steps


def _classes(stores: Stores, rollout: RolloutRecord, *, now: float) -> list[ClassFigures]:
    return class_figures(
        stores.health,
        rollout.model,
        baseline=rollout.baseline,
        candidate=rollout.target,
        since=rollout.created_at,
        now=now,
    )


def _slices(rollout: RolloutRecord, classes: Sequence[ClassFigures]) -> list[SliceLine]:
    lines = [_slice(rollout, each) for each in classes]
    known = {each.name for each in lines}
    gone = [name for name in rollout.without if name not in known]
    return lines + [SliceLine(name=name, state="went back", tone="bad", before="", after="") for name in gone]


def _slice(rollout: RolloutRecord, each: ClassFigures) -> SliceLine:
    name = each.hardware_class or "(none told)"
    gone = each.hardware_class in rollout.without
    return SliceLine(
        name=name,
        state="went back" if gone else "with the rest",
        tone="bad" if gone else "",
        before=_figures(each.baseline),
        after=_figures(each.candidate),
    )


def _figures(figures: Figures | None) -> str:
    if figures is None:
        return "nothing told"
    words = [f"{figures.device_hours:,} device-hours"]
    words += [f"crashes {figure(figures.crash_rate, 'percent')}"] if figures.crash_rate is not None else []
    words += [f"errors {figure(figures.error_rate, 'percent')}"] if figures.error_rate is not None else []
    return ", ".join(words)


def _not_judged(view: RolloutView) -> list[str]:
    """Who counts for nothing, and why."""
    total = Counts()
    for counts in view.counts.values():
        total = total.plus(counts)
    unproven = Counts()
    for counts in view.unproven.values():
        unproven = unproven.plus(counts)
    waiting = total.assigned_t - total.activated_t - total.failed_t
    quiet = total.activated_t - total.reported_t
    words = [
        (
            waiting,
            "got the version assigned and did not activate it yet: away, waiting for their conditions, or fetching",
        ),
        (quiet, "activated it and did not report since"),
        (total.unused_t, "reported, and nobody used the model: a report without use shows no harm"),
        (
            unproven.assigned_t + unproven.assigned_c,
            "came in by a shared token after it began, and prove nothing: anybody can invent such devices",
        ),
    ]
    return [f"{counted(number, 'device')} {why}" for number, why in words if number > 0]


def buttons_of(namespace: str, rollout: RolloutRecord, caller: Caller) -> tuple[tuple[Button, ...], str]:
    """The moves that the rollout takes now and the person may make; why there are none, where there are none."""
    moves = (
        ("rollback", "Roll back", "danger sure", Event.ROLL_BACK, Permission.STOP),
        ("approve", "Approve", "primary", Event.APPROVE, Permission.APPROVE),
        ("resume", "Resume", "primary", Event.RESUME, Permission.RELEASE),
        ("pause", "Pause", "plain", Event.PAUSE, Permission.STOP),
        ("reject", "Reject", "plain", Event.REJECT, Permission.STOP),
        ("finish", "Give it to everybody", "plain", Event.FINISH, Permission.RELEASE),
        ("abort", "End it", "plain", Event.ABORT, Permission.STOP),
    )
    possible = [each for each in moves if (rollout.state, each[3]) in NEXT]
    if rollout.state is State.COMPLETED:
        possible.append(("rollback", "Roll back", "danger sure", Event.TAKE_BACK, Permission.STOP))
    if rollout.lead:
        return (), f"It moves with the rollout {rollout.lead} of its set."
    allowed = tuple(
        Button(label=label, href=f"/{namespace}/rollouts/{rollout.id}/{move}", tone=tone)
        for move, label, tone, _, permission in possible
        if caller.may(permission)
    )
    if possible and not allowed:
        return (), f"You look at it as {' and '.join(caller.roles)}, and may not move it."
    return allowed, ""
