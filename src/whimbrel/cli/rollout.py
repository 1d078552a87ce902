"""`whimbrel rollout`: start a plan, watch it, and take the wheel."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer
from msgspec import UNSET
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from whimbrel.cli.connect import Client, connected, quoted
from whimbrel.cli.following import follow, wait_until
from whimbrel.cli.model_health import figure_cells
from whimbrel.cli.model_rollback import revoke_command, take_back
from whimbrel.cli.option_values import duration_s
from whimbrel.cli.options import OnlyModel, Yes
from whimbrel.cli.output import Json, ago, console, counted, percent, print_json, print_table, readable, say, when
from whimbrel.cli.plan import app as plan_app
from whimbrel.cli.text_file import read_text
from whimbrel.cli.version import revoke_words
from whimbrel.console.charts import form_of
from whimbrel.durable import write_durably
from whimbrel.errors import Unavailable
from whimbrel.flows.files.plan_file import read_plan
from whimbrel.flows.monitors.show_health import ClassFigures
from whimbrel.flows.publishing.draft_revocations import DraftRevocation
from whimbrel.flows.rollouts.approvals import PendingApproval
from whimbrel.flows.rollouts.builds_running import BuildRunning
from whimbrel.flows.rollouts.trace import Point
from whimbrel.flows.wording import evidence_words, move_words, percent_words
from whimbrel.model.documents import plain
from whimbrel.plan.rollout_states import LIVE, PENDING, State
from whimbrel.server.admin.views.models import NewWayBack
from whimbrel.server.admin.views.rollouts import MemberView, RolloutView, StageView
from whimbrel.server.admin.views.verdicts import ReplayView, ShadowEstimates, VerdictView

app = typer.Typer(help="Rollouts: start, follow, pause and take them back.", no_args_is_help=True, add_completion=False)
app.add_typer(plan_app, name="plan")

_NEWS = ("id", "state", "stage_name", "because", "counts", "devices")  # of which a change is told
Which = Annotated[str, typer.Argument(help="The rollout's id; see: whimbrel rollout list")]
Why = Annotated[str, typer.Option("--because", "--note", help="The reason, for the audit log.")]


@app.command("start")
@connected
def start(
    client: Client,
    plan: Annotated[Path, typer.Argument(help="The plan, a YAML file.")],
    hour_s: Annotated[
        float, typer.Option(min=0.01, max=3600, help="Seconds that an hour of the plan lasts; for rehearsals.")
    ] = 3600.0,
    override: Annotated[
        str, typer.Option(help="Why a version that was taken back may be offered again; it is logged.")
    ] = "",
    draft: Annotated[
        bool, typer.Option("--draft", help="Write it down; it begins when it is approved (rollout approve).")
    ] = False,
    json: Json = False,
) -> None:
    """Start a rollout from a plan. A plan that is not wholly understood is refused, with the line.

    It begins at once, or waits: for its schedule, for the end of a freeze, for another rollout that is in its way
    (`on_running: queue`), or, as a draft, for people's approval.
    """
    text = read_text(plan)
    read_plan(text, what=plan.name)  # the same check as the server's, before anything is sent
    asked = {"plan": text, "file_name": plan.name, "hour_s": hour_s, "override": override, "draft": draft}
    begun = client.send("POST", "rollouts", asked, as_=RolloutView)
    if json:
        print_json(begun)
        return
    outcome = f"{begun.state}, {begun.because}" if begun.state in PENDING else "started"
    say(f"{begun.id}: {begun.baseline or 'no version'} -> {begun.target}: {outcome}")
    for member in begun.members:
        say(f"  {_member_words(member)}")
    for stage in begun.stages:
        where = " in the shadow" if stage.shadow is not None else ""
        say(f"  {stage.name}: {stage.target_percent:g}%{where} for {stage.duration_hours:g} h")
    say(f"Next: whimbrel rollout {'approve' if begun.state is State.DRAFT else 'watch'} {begun.id}")


@app.command("list")
@connected
def list_rollouts(client: Client, model: OnlyModel = None, json: Json = False) -> None:
    """All rollouts, oldest first."""
    rollouts = client.get("rollouts", as_=list[RolloutView], model=model)
    if json:
        print_json(rollouts)
        return
    print_table(
        ["rollout", "state", "stage", "target", "since (UTC)", "because"],
        [[r.id, r.state, r.stage_name, r.target, when(r.stage_since), r.because] for r in rollouts],
        title="rollouts",
    )


@app.command("status")
@connected
def status(client: Client, rollout: Which, json: Json = False) -> None:
    """Where a rollout stands, and what the gate says now."""
    view = _fetch(client, rollout)
    if json:
        print_json(view)
        return
    console.print(picture(view))
    if view.state in {"rolled_back", "rolling_back"}:
        for draft in client.get(f"models/{quoted(view.model)}/revocations/drafts", as_=list[DraftRevocation]):
            say(f"Only the policy forbids {view.model} {draft.semantic_version}. To forbid it for ever, with its key:")
            say(f"  {revoke_words(draft)}")


@app.command("watch")
@connected
def watch(client: Client, rollout: Which, json: Json = False) -> None:
    """Follow a rollout until it ends (Ctrl-C stops watching, not the rollout). --json: one line a change.

    The exit status is 0 where it completed, and 1 where it ended otherwise.
    """
    ended = follow(
        lambda: _fetch(client, rollout),
        over=lambda view: view.ended,
        picture=picture,
        line=lambda view: f"{view.state:<12} {view.stage_name:<16} {view.because}",
        news=lambda view: {key: getattr(view, key) for key in _NEWS},
        json=json,
    )
    _exit_unless_completed(ended)


@app.command("wait")
@connected
def wait(
    client: Client,
    rollout: Which,
    until: Annotated[
        Literal["completed", "ended"],
        typer.Option(
            "--for",
            help="completed: end as soon as it has, or cannot any more. ended: also until devices are off a version "
            "that is taken back.",
        ),
    ] = "completed",
    timeout: Annotated[
        str | None, typer.Option(help="Wait at most so long: 90s, 30m, 6h or 2d. Without it, as long as it takes.")
    ] = None,
    json: Json = False,
) -> None:
    """Wait until a rollout is over, for pipelines: exit status 0 where it completed, 1 where it did not.

    3 where the time is up first: it goes on, and may be waited for again.
    """
    timeout_s = None if timeout is None else duration_s(timeout, what="--timeout")
    view, over = wait_until(
        lambda: _fetch(client, rollout),
        over=lambda view: view.ended or (until == "completed" and view.state not in PENDING | LIVE),
        timeout_s=timeout_s,
        what=f"waiting for {rollout}",
    )
    if json and over:
        print_json(view)
    elif over:
        say(f"{view.id} is {view.state}: {view.because}")
    else:
        stage = f" in stage {view.stage_name}" if view.state in LIVE else ""
        raise Unavailable(
            f"{view.id} is still {view.state}{stage} after {timeout} ({view.because}); wait again, or see: "
            f"whimbrel rollout status {view.id}"
        )
    _exit_unless_completed(view)


@app.command("replay")
@connected
def replay(client: Client, rollout: Which, json: Json = False) -> None:
    """Ask the gate again about every verdict, from the stored windows: moves and figures must be the same."""
    replayed = client.get(f"rollouts/{rollout}/replay", as_=ReplayView)
    if json:
        print_json(replayed)
    else:
        print_table(
            ["at (UTC)", "window", "move", "same", "because"],
            [
                [when(each.at), each.window, move_words(each.move), "yes" if each.same else "NO", each.because]
                for each in replayed.verdicts
            ],
            title=f"verdicts of {rollout}",
        )
        same = "all the same, to the last figure" if replayed.same else "NOT all the same"
        say(f"{counted(len(replayed.verdicts), 'verdict')}, {same}")
    if not replayed.same:
        raise typer.Exit(1)


@app.command("evidence")
@connected
def evidence(
    client: Client,
    rollout: Which,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Draw it into this file: .png or .svg.", dir_okay=False)
    ] = None,
    json: Json = False,
) -> None:
    """How the evidence grew: ln E after every judged window, recomputed from the stored windows; also as a picture."""
    points = client.get(f"rollouts/{quoted(rollout)}/evidence", as_=list[Point])
    if output is not None:
        form = form_of(output.suffix)
        write_durably(output, client.get_bytes(f"rollouts/{quoted(rollout)}/evidence/{form}"))
    if json:
        print_json(points)
        return
    print_table(
        ["at (UTC)", "window", "stage", "ln E", "needed", "most by", "move"],
        [
            [
                when(point.at),
                point.window,
                point.stage,
                f"{point.log_e:.2f}",
                f"{point.needed:.2f}",
                max(point.guardrails, key=point.guardrails.__getitem__, default=""),
                move_words(point.move),
            ]
            for point in points
        ],
        title=f"evidence of {rollout}",
    )
    if points:
        say(f"{evidence_words(points[-1].needed)}.")
    if output is not None:
        say(f"drawn into {output}")


def _move_command(move: str, teaching: str) -> Callable[..., None]:
    @connected
    def run(client: Client, rollout: Which, because: Why = "", json: Json = False) -> None:
        _move(client, rollout, move, because=because, json=json)

    run.__doc__ = teaching
    return run


def _move(client: Client, rollout: str, move: str, *, because: str, json: bool) -> None:
    reason = {"because": because}
    moved = client.send("POST", f"rollouts/{quoted(rollout)}/{quoted(move)}", reason, as_=RolloutView)
    if json:
        print_json(moved)
        return
    say(f"{moved.id} is {moved.state}: {moved.because}")


app.command("approve")(
    _move_command(
        "approve",
        "Agree that a draft begins, or that the next stage does. Each person counts once, whatever token shows who it "
        "is; where a stage asks for approval, whoever started the rollout does not count. The last one that is needed "
        "sets it going. `rollout status` says who agreed and who is missing.",
    )
)
app.command("reject")(
    _move_command("reject", "Say no: a draft ends, and a rollout that waits for approval is paused where it is.")
)
app.command("pause")(_move_command("pause", "Do not advance. Proven harm still takes it back."))
app.command("resume")(_move_command("resume", "Go on after a pause."))
app.command("finish")(
    _move_command("finish", "Make its version everybody's baseline now, whatever its plan still says.")
)
app.command("abort")(_move_command("abort", "End it: devices return to the baseline; the version is not quarantined."))


@app.command("rollback")
@connected
def rollback(client: Client, rollout: Which, because: Why = "", yes: Yes = False, json: Json = False) -> None:
    """Take it back: devices return, and the version is quarantined.

    Also after it was complete, as long as its version is the baseline: then the model goes back to the baseline
    before, as by `whimbrel model rollback`. That changes what the whole fleet runs, so it asks first; a rollout that is
    live is taken back at once.
    """
    view = _fetch(client, rollout)
    if view.state is State.COMPLETED:
        asked = NewWayBack(rollout=view.id, because=because)
        done = take_back(client, view.model, asked, yes=yes, quiet=json)
        if json:
            more = {"way_back": done, "revoke_command": revoke_command(done, because=because)}
            print_json(plain(_fetch(client, rollout)) | more)
        return
    _move(client, rollout, "rollback", because=because, json=json)


def picture(view: RolloutView) -> Group:
    """A rollout for people."""
    view = readable(view)
    head = Text.assemble(
        (f"{view.id}  ", "bold"),
        f"{view.baseline or 'no version'} -> {view.target}  ",
        (view.state.value, _style(view.state)),
    )
    lines: list[RenderableType] = [head, Text(f"for {ago(view.state_since)}: {view.because}")]
    lines += [Text(_member_words(member)) for member in view.members]
    lines.append(_stage_table(view))
    if view.approval is not None:
        lines.append(_approval_line(view.approval))
    if view.devices_left:
        lines.append(Text(f"{counted(view.devices_left, 'device')} in reach still on it"))
    if view.verdict is not UNSET:
        lines += _verdict_lines(view.verdict)
    if view.classes is not UNSET and view.classes:
        lines.append(_class_table(view.classes))
    if view.builds is not UNSET and view.builds:
        lines.append(_build_table(view.builds))
    devices = "  ".join(f"{name}: {n}" for name, n in sorted(view.devices.items()))
    lines.append(Text(f"devices: {devices or 'none heard yet'}"))
    return Group(*lines)


def _member_words(member: MemberView) -> str:
    return f"with {member.model}: {member.baseline or 'no version'} -> {member.target} ({member.rollout})"


def _stage_table(view: RolloutView) -> Table:
    table = Table(
        "stage", "share", "hours", "treated", "active", "reported", "silent", "failed", "went back", "control", box=None
    )
    for index, stage in enumerate(view.stages):
        counts = view.counts.get(str(index))
        present = "> " if index == view.stage and view.state in LIVE else "  "
        table.add_row(
            present + stage.name + (" (in the shadow)" if stage.shadow is not None else ""),
            percent_words(_share_percent(stage)),
            f"{stage.duration_hours:g}",
            *(
                "" if counts is None else str(getattr(counts, name))
                for name in (
                    "assigned_t",
                    "activated_t",
                    "reported_t",
                    "silent_t",
                    "failed_t",
                    "went_back_t",
                    "assigned_c",
                )
            ),
        )
    return table


def _class_table(classes: Sequence[ClassFigures]) -> Table:
    """Both versions by hardware class: the baseline's week, and the new version since the rollout began."""
    table = Table("class", "version", "device-hours", "used", "crashes", "errors", "p95 ms", "means", box=None)
    for each in classes:
        for title, figures in (("baseline", each.baseline), ("new", each.candidate)):
            hours, _, used, crashes, errors, _, p95, _, means = figure_cells(figures)
            name = each.hardware_class or "(none told)"
            table.add_row(name if title == "baseline" else "", title, hours, used, crashes, errors, p95, means)
    return table


def _build_table(builds: Sequence[BuildRunning]) -> Table:
    """Which builds of the new version run, by hardware class."""
    table = Table("class", "build", "devices", "at most", box=None)
    for each in builds:
        budgets = [(each.latency_ms_max, "ms"), (each.memory_mib_max, "MiB")]
        most = ", ".join(f"{value:g} {unit}" for value, unit in budgets if value is not None)
        table.add_row(each.hardware_class or "(none told)", each.variant, str(each.devices), most)
    return table


def _share_percent(stage: StageView) -> float:
    return stage.share_percent if stage.share_percent is not None else stage.target_percent


def _approval_line(approval: PendingApproval) -> Text:
    agreed = f"approved by {', '.join(approval.by)}" if approval.by else "nobody approved yet"
    note = f" ({approval.note})" if approval.note else ""
    frozen = f"; a freeze holds until {approval.frozen_until}" if approval.frozen_until else ""
    return Text(f"stage {approval.stage}: {agreed}, {approval.missing} of {approval.wanted} missing{note}{frozen}")


def _verdict_lines(verdict: VerdictView) -> list[RenderableType]:
    evidence = verdict.evidence
    guards = "  ".join(f"{name} {value:.2f}" for name, value in evidence.guardrails.items())
    lines: list[RenderableType] = [Text(f"gate: {move_words(verdict.move)}: {verdict.because}")]
    if evidence.shadow is not UNSET:
        lines.append(Text(f"in the shadow: {_shadow_line(evidence.shadow)}"))
    of_all = f"ln E {evidence.log_e:.2f} of {evidence.log_e_needed:.2f}   {guards}"
    return [*lines, Text(of_all, style="dim"), Text(evidence_words(evidence.log_e_needed), style="dim")]


def _shadow_line(shown: ShadowEstimates) -> str:
    """What the candidate showed to nobody, in one line."""

    def share(value: float | None) -> str:
        return "nothing told" if value is None else percent(value, digits=2)

    words = [
        f"{counted(shown.compared, 'input')} compared in {counted(shown.device_windows, 'device-window')}",
        f"agreement {share(shown.agreement)} of {share(shown.agreement_min)}",
        f"failures {share(shown.failures)}",
        f"crashes {shown.crashed}",
        f"dropped {share(shown.dropped)}",
    ]
    if shown.latency_ratio is not None:
        words.append(
            f"time {shown.latency_ratio:.2f}x (p50 {shown.candidate_p50_ms} ms against {shown.active_p50_ms} ms)"
        )
    return "; ".join(words)


def _style(state: State) -> str:
    red = {State.ROLLING_BACK, State.ROLLED_BACK, State.ABORTED}
    yellow = {State.HOLDING, State.WAITING_FOR_APPROVAL, State.PAUSED}
    return "green" if state is State.COMPLETED else "red" if state in red else "yellow" if state in yellow else "cyan"


def _exit_unless_completed(view: RolloutView) -> None:
    """So that a pipeline goes on only with a version that everybody has."""
    if view.state is not State.COMPLETED:
        raise typer.Exit(1)


def _fetch(client: Client, rollout: str) -> RolloutView:
    return client.get(f"rollouts/{quoted(rollout)}", as_=RolloutView)
