"""`whimbrel experiment`: compare versions on real devices, and stop at a decision."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from whimbrel import durable
from whimbrel.cli.connect import Client, connected, quoted
from whimbrel.cli.following import follow
from whimbrel.cli.output import Json, ago, console, pick, print_json, print_table, say, when
from whimbrel.cli.text_file import read_text
from whimbrel.errors import UntrustedInput
from whimbrel.flows.files.experiment_file import read_experiment

app = typer.Typer(
    help="Experiments: which version is better, on real devices, with an answer that may be read at any time.",
    no_args_is_help=True,
    add_completion=False,
)

_WATCH_S = 1.0
_FORMS = {".html": "html", ".md": "markdown", ".png": "png"}
Which = Annotated[str, typer.Argument(help="The experiment's id; see: whimbrel experiment list")]
Why = Annotated[str, typer.Option("--because", help="The reason, for the audit log.")]
File = Annotated[Path, typer.Argument(help="The experiment, a YAML file.")]


@app.command("check")
@connected
def check(client: Client, file: File, json: Json = False) -> None:
    """Explain an experiment before it begins: devices an arm, the smallest effect that can be found, what follows.

    Nothing is changed. A file that is not wholly understood is refused, with the line.
    """
    told = client.send("POST", "experiments/check", _asked(file))
    if json:
        print_json(told)
        return
    say(f"{told['name']}, on {told['model']}:")
    for sentence in told["sentences"]:
        say(f"  - {sentence}")


@app.command("start")
@connected
def start(
    client: Client,
    file: File,
    hour_s: Annotated[
        float, typer.Option(min=0.01, max=3600, help="Seconds that an hour of the file lasts; for rehearsals.")
    ] = 3600.0,
    json: Json = False,
) -> None:
    """Start an experiment. Refused where a rollout or another experiment has devices in its range."""
    begun = client.send("POST", "experiments", _asked(file) | {"hour_s": hour_s})
    if json:
        print_json(begun)
        return
    say(f"started {begun['id']}: {begun['name']}")
    for arm in begun["arms"]:
        say(f"  {arm['id']} ({arm['role']}): {arm['version']} for {100 * arm['share']:g}% of the devices in its range")
    say(f"Next: whimbrel experiment watch {begun['id']}")


@app.command("list")
@connected
def list_experiments(client: Client, model: str | None = None, json: Json = False) -> None:
    """All experiments, oldest first."""
    found = client.get("experiments", model=model)
    if json:
        print_json(found)
        return
    print_table(
        ["experiment", "name", "phase", "winner", "since (UTC)", "because"],
        [
            [*pick(one, "id", "name", "phase"), one["winner"] or "", when(one["created_at"]), one["because"]]
            for one in found
        ],
        title="experiments",
    )


@app.command("status")
@connected
def status(client: Client, experiment: Which, json: Json = False) -> None:
    """Where an experiment stands: devices an arm, intervals, guardrails, and what is to be said of it by now."""
    seen = client.get(f"experiments/{quoted(experiment)}")
    if json:
        print_json(seen)
        return
    console.print(view(seen))


@app.command("watch")
@connected
def watch(client: Client, experiment: Which, json: Json = False) -> None:
    """Follow an experiment until it ends (Ctrl-C stops watching, not the experiment). --json: one line a change."""
    follow(
        lambda: client.get(f"experiments/{quoted(experiment)}"),
        over=lambda seen: bool(seen["phase"] != "running"),
        picture=view,
        line=lambda seen: f"{seen['phase']:<12} {seen['because']}",
        news=lambda seen: seen,
        json=json,
    )


@app.command("stop")
@connected
def stop(client: Client, experiment: Which, because: Why = "", json: Json = False) -> None:
    """End it without a decision: devices return to the baseline, and no version is quarantined."""
    _act(client, experiment, "stop", {"because": because}, json=json)


@app.command("decide")
@connected
def decide(
    client: Client,
    experiment: Which,
    ship: Annotated[str | None, typer.Option(help="The arm that won; what `on_decision` says follows.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="The control stays.")] = False,
    because: Why = "",
    json: Json = False,
) -> None:
    """Decide by hand, against or before the evidence: name an arm with --ship, or say --keep. It is logged as yours."""
    if (ship is None) != keep:
        raise UntrustedInput("say either --ship ARM or --keep")
    body = {"because": because} | ({"arm": ship} if ship is not None else {})
    _act(client, experiment, "keep" if keep else "ship", body, json=json)


@app.command("replay")
@connected
def replay(client: Client, experiment: Which, json: Json = False) -> None:
    """Ask again about every verdict, from the stored windows: the answers must be the same, byte for byte."""
    seen = client.get(f"experiments/{quoted(experiment)}/replay")
    if json:
        print_json(seen)
    else:
        same = "all the same, byte for byte" if seen["same"] else "NOT all the same"
        say(f"{len(seen['verdicts'])} verdicts, {same}")
    if not seen["same"]:
        raise typer.Exit(1)


@app.command("report")
@connected
def report(
    client: Client,
    experiment: Which,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="A file that ends in .html, .md (plots beside it) or .png (the plot)."),
    ],
    json: Json = False,
) -> None:
    """Write a report: what was asked, the arms, the interval over time, guardrails, the decision and why, its limits.

    HTML is one file with its plots inside. Markdown comes with PNG files beside it. It may be written at any time.
    """
    from whimbrel.console.experiment_report import write_report

    form = _FORMS.get(output.suffix.lower())
    if form is None:
        raise UntrustedInput(f"{output} ends in {output.suffix or 'nothing'}; expected one of {', '.join(_FORMS)}")
    seen = client.get(f"experiments/{quoted(experiment)}", history=True)
    files = write_report(seen, form=form, stem=output.stem, now=time.time())
    written = []
    for name, content in files.items():
        place = output.parent / name if name else output
        durable.write_durably(place, content)
        written.append({"path": str(place), "size_bytes": len(content)})
    if json:
        print_json({"id": experiment, "files": written})
        return
    for each in written:
        say(f"wrote {each['path']}")


def view(seen: dict[str, Any]) -> Group:
    """An experiment for people."""
    phase = seen["phase"]
    style = {"shipped": "green", "kept": "yellow", "inconclusive": "yellow", "stopped": "red"}.get(phase, "cyan")
    head = Text.assemble((f"{seen['id']}  ", "bold"), f"{seen['name']}  ", (phase, style))
    table = Table("arm", "version", "share", "assigned", "active", "reported", "failed", "interval", box=None)
    told = seen["verdict"]["evidence"]["arms"]
    for arm in seen["arms"]:
        mark = {"control": " (control)"}.get(arm["role"], " (stopped)" if arm["stopped"] else "")
        table.add_row(
            arm["id"] + mark,
            arm["version"],
            f"{100 * arm['share']:g}%",
            *(str(arm[name]) for name in ("assigned", "active", "reported", "failed")),
            _interval(told.get(arm["id"])),
        )
    metric = seen["primary"]
    lines: list[Any] = [
        head,
        Text(f"{metric['name']} should {metric['direction']}; for {ago(seen['created_at'])}: {seen['because']}"),
        table,
        Text(f"now: {seen['verdict']['move']}: {seen['verdict']['because']}"),
    ]
    for name, arm in told.items():
        if arm.get("guardrails"):
            guards = "  ".join(f"{guard} {value:.2f}" for guard, value in arm["guardrails"].items())
            lines.append(Text(f"{name}: ln E {arm['log_e']:.2f} of {arm['log_e_needed']:.2f}   {guards}", style="dim"))
    return Group(*lines)


def _interval(arm: dict[str, Any] | None) -> str:
    look = arm and arm["deciding"]
    if not look:
        return ""
    low, high = (f"{look[end]:+.4g}" if look[end] is not None else "?" for end in ("low", "high"))
    return f"{look['estimate']:+.4g} ({low} to {high})"


def _act(client: Client, experiment: str, act: str, body: dict[str, Any], *, json: bool) -> None:
    seen = client.send("POST", f"experiments/{quoted(experiment)}/{act}", body)
    if json:
        print_json(seen)
        return
    say(f"{seen['id']} is {seen['phase']}: {seen['because']}")


def _asked(file: Path) -> dict[str, Any]:
    text = read_text(file, "the experiment")
    read_experiment(text, what=file.name)  # the same check as the server's, before anything is sent
    return {"plan": text, "file_name": file.name}
