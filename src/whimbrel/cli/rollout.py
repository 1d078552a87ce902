"""`whimbrel rollout`: start a plan, watch it, and take the wheel."""

import getpass
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from whimbrel.cli.connect import Client, connected, quoted
from whimbrel.cli.following import follow
from whimbrel.cli.output import Json, ago, console, pick, print_json, print_table, say, when
from whimbrel.cli.plan import app as plan_app
from whimbrel.cli.text_file import read_text
from whimbrel.console.charts import form_of
from whimbrel.durable import write_durably
from whimbrel.flows.files.plan_file import read_plan

app = typer.Typer(help="Rollouts: staged, judged, taken back.", no_args_is_help=True, add_completion=False)
app.add_typer(plan_app, name="plan")

_LIVE = {"advancing", "running", "soaking", "holding", "waiting_for_approval", "paused"}
_WATCH_S = 1.0
Which = Annotated[str, typer.Argument(help="The rollout's id; see: whimbrel rollout list")]
Why = Annotated[str, typer.Option("--because", "--note", help="The reason, for the audit log.")]
By = Annotated[
    str,
    typer.Option("--by", envvar="WHIMBREL_ACTOR", help="Who does it, for the audit log; your login name by default."),
]


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
    by: By = "",
    json: Json = False,
) -> None:
    """Start a rollout from a plan. A plan that is not wholly understood is refused, with the line.

    It begins at once, or waits: for its schedule, for the end of a freeze, for another rollout that is in its way
    (`on_running: queue`), or, as a draft, for people's approval.
    """
    text = read_text(plan)
    read_plan(text, what=plan.name)  # the same check as the server's, before anything is sent
    asked = {"plan": text, "file_name": plan.name, "hour_s": hour_s, "override": override, "draft": draft}
    begun = client.send("POST", "rollouts", asked | {"actor": by or _login()})
    if json:
        print_json(begun)
        return
    waits = begun["state"] in {"draft", "scheduled", "queued"}
    said = f"{begun['state']}, {begun['because']}" if waits else "started"
    say(f"{begun['id']}: {begun['baseline']} -> {begun['target']}: {said}")
    _stages(begun)
    say(f"Next: whimbrel rollout {'approve' if begun['state'] == 'draft' else 'watch'} {begun['id']}")


@app.command("list")
@connected
def list_rollouts(client: Client, model: str | None = None, json: Json = False) -> None:
    """All rollouts, oldest first."""
    rollouts = client.get("rollouts", model=model)
    if json:
        print_json(rollouts)
        return
    print_table(
        ["rollout", "state", "stage", "target", "since (UTC)", "because"],
        [[*pick(r, "id", "state", "stage_name", "target"), when(r["stage_since"]), r["because"]] for r in rollouts],
        title="rollouts",
    )


@app.command("status")
@connected
def status(client: Client, rollout: Which, json: Json = False) -> None:
    """Where a rollout stands, and what the gate says now."""
    seen = client.get(f"rollouts/{quoted(rollout)}")
    if json:
        print_json(seen)
        return
    console.print(view(seen))


@app.command("watch")
@connected
def watch(client: Client, rollout: Which, json: Json = False) -> None:
    """Follow a rollout until it ends (Ctrl-C stops watching, not the rollout). --json: one line a change."""
    follow(
        lambda: client.get(f"rollouts/{quoted(rollout)}"),
        over=lambda seen: bool(seen["ended"]),
        picture=view,
        line=lambda seen: f"{seen['state']:<12} {seen['stage_name']:<16} {seen['because']}",
        news=lambda seen: {key: seen[key] for key in ("id", "state", "stage_name", "because", "counts", "devices")},
        json=json,
    )


@app.command("replay")
@connected
def replay(client: Client, rollout: Which, json: Json = False) -> None:
    """Ask the gate again about every verdict, from the stored windows: the answers must be the same, byte for byte."""
    seen = client.get(f"rollouts/{rollout}/replay")
    if json:
        print_json(seen)
    else:
        print_table(
            ["at (UTC)", "window", "move", "same", "because"],
            [
                [when(v["at"]), v["window"], v["move"], "yes" if v["same"] else "NO", v["because"]]
                for v in seen["verdicts"]
            ],
            title=f"verdicts of {rollout}",
        )
        say(
            f"{len(seen['verdicts'])} verdicts, {'all the same, byte for byte' if seen['same'] else 'NOT all the same'}"
        )
    if not seen["same"]:
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
    points = client.get(f"rollouts/{quoted(rollout)}/evidence")
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
                when(p["at"]),
                p["window"],
                p["stage"],
                f"{p['log_e']:.2f}",
                f"{p['needed']:.2f}",
                max(p["guardrails"], key=p["guardrails"].get, default=""),
                p["move"],
            ]
            for p in points
        ],
        title=f"evidence of {rollout}",
    )
    if output is not None:
        say(f"drawn into {output}")


def _move_command(move: str, teaching: str) -> Callable[..., None]:
    @connected
    def run(client: Client, rollout: Which, because: Why = "", by: By = "", json: Json = False) -> None:
        said = {"because": because, "actor": by or _login()}
        moved = client.send("POST", f"rollouts/{quoted(rollout)}/{quoted(move)}", said)
        if json:
            print_json(moved)
            return
        say(f"{moved['id']} is {moved['state']}: {moved['because']}")

    run.__doc__ = teaching
    return run


app.command("approve")(
    _move_command(
        "approve",
        "Agree that a draft begins, or that the next stage does. Each person counts once (--by), and the last one that "
        "is needed sets it going. `rollout status` says who agreed and who is missing.",
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
app.command("rollback")(_move_command("rollback", "Take it back: devices return, and the version is quarantined."))


def view(seen: dict[str, Any]) -> Group:
    """A rollout for people."""
    head = Text.assemble(
        (f"{seen['id']}  ", "bold"), f"{seen['baseline']} -> {seen['target']}  ", (seen["state"], _style(seen["state"]))
    )
    table = Table(
        "stage", "share", "hours", "treated", "active", "reported", "failed", "went back", "control", box=None
    )
    for index, stage in enumerate(seen["stages"]):
        counts = seen["counts"].get(str(index), {})
        share = stage["share_percent"] if stage["share_percent"] is not None else stage["target_percent"]
        table.add_row(
            ("> " if index == seen["stage"] and seen["state"] in _LIVE else "  ")
            + stage["name"]
            + (" (in the shadow)" if stage["shadow"] is not None else ""),
            f"{share:g}%",
            f"{stage['duration_hours']:g}",
            *(
                str(counts.get(name, ""))
                for name in ("assigned_t", "activated_t", "reported_t", "failed_t", "went_back_t", "assigned_c")
            ),
        )
    verdict = seen.get("verdict")
    lines: list[Any] = [head, Text(f"for {ago(seen['state_since'])}: {seen['because']}"), table]
    if asked := seen.get("approval"):
        agreed = f"approved by {', '.join(asked['by'])}" if asked["by"] else "nobody approved yet"
        note = f" ({asked['note']})" if asked["note"] else ""
        frozen = f"; a freeze holds until {asked['frozen_until']}" if asked["frozen_until"] else ""
        lines.append(
            Text(f"stage {asked['stage']}: {agreed}, {asked['missing']} of {asked['wanted']} missing{note}{frozen}")
        )
    if seen.get("devices_left"):
        lines.append(Text(f"{seen['devices_left']} devices in reach are not off it yet"))
    if verdict:
        evidence = verdict["evidence"]
        guards = "  ".join(f"{name} {value:.2f}" for name, value in evidence["guardrails"].items())
        lines.append(Text(f"gate: {verdict['move']}: {verdict['because']}"))
        if "shadow" in evidence:
            lines.append(Text(f"in the shadow: {_shadow_line(evidence['shadow'])}"))
        lines.append(Text(f"ln E {evidence['log_e']:.2f} of {evidence['log_e_needed']:.2f}   {guards}", style="dim"))
    lines.append(Text("devices: " + "  ".join(f"{name}: {n}" for name, n in sorted(seen["devices"].items()))))
    return Group(*lines)


def _shadow_line(told: dict[str, Any]) -> str:
    """What the candidate showed to nobody, in one line."""

    def share(value: float | None) -> str:
        return "nothing told" if value is None else f"{100 * value:.2f}%"

    words = [
        f"{told['compared']} inputs compared in {told['device_windows']} device-windows",
        f"agreement {share(told['agreement'])} of {share(told['agreement_min'])}",
        f"failures {share(told['failures'])}",
        f"crashes {told['crashed']}",
        f"dropped {share(told['dropped'])}",
    ]
    if told["latency_ratio"] is not None:
        words.append(
            f"time {told['latency_ratio']:.2f}x (p50 {told['candidate_p50_ms']} ms against {told['active_p50_ms']} ms)"
        )
    return "; ".join(words)


def _stages(begun: dict[str, Any]) -> None:
    for stage in begun["stages"]:
        where = " in the shadow" if stage["shadow"] is not None else ""
        say(f"  {stage['name']}: {stage['target_percent']:g}%{where} for {stage['duration_hours']:g} h")


def _style(state: str) -> str:
    red, yellow = {"rolling_back", "rolled_back", "aborted"}, {"holding", "waiting_for_approval", "paused"}
    return "green" if state == "completed" else "red" if state in red else "yellow" if state in yellow else "cyan"


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # nobody is logged in: a container without that user
        return "admin"
