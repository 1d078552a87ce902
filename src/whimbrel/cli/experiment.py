"""`whimbrel experiment`: compare versions on real devices, and stop at a decision."""

import time
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from msgspec import UNSET
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from whimbrel import durable
from whimbrel.cli.connect import Client, connected, quoted
from whimbrel.cli.following import follow
from whimbrel.cli.options import OnlyModel
from whimbrel.cli.output import Json, ago, console, counted, note, print_json, print_table, readable, say, when
from whimbrel.cli.text_file import read_text
from whimbrel.errors import UntrustedInput
from whimbrel.flows.experiments.check import ExperimentCheck
from whimbrel.flows.files.experiment_file import read_experiment
from whimbrel.plan.experiment_states import Phase
from whimbrel.server.admin.views.experiments import ArmEvidence, ExperimentView
from whimbrel.server.admin.views.verdicts import ReplayView

app = typer.Typer(
    help="Experiments: which version is better, on real devices, with an answer that may be read at any time.",
    no_args_is_help=True,
    add_completion=False,
)

_STYLES = {
    Phase.SHIPPED: "green",
    Phase.KEPT: "yellow",
    Phase.INCONCLUSIVE: "yellow",
    Phase.STOPPED: "red",
}
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
    explained = client.send("POST", "experiments/check", _asked(file), as_=ExperimentCheck)
    if json:
        print_json(explained)
        return
    say(f"{explained.name}, on {explained.model}:")
    for sentence in explained.sentences:
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
    begun = client.send("POST", "experiments", _asked(file) | {"hour_s": hour_s}, as_=ExperimentView)
    if json:
        print_json(begun)
        return
    for warning in begun.warnings:
        note(f"Note: {warning}")
    say(f"started {begun.id}: {begun.name}")
    for arm in begun.arms:
        say(f"  {arm.id} ({arm.role}): {arm.version} for {100 * arm.share:g}% of the devices in its range")
    say(f"Next: whimbrel experiment watch {begun.id}")


@app.command("list")
@connected
def list_experiments(client: Client, model: OnlyModel = None, json: Json = False) -> None:
    """All experiments, oldest first."""
    experiments = client.get("experiments", as_=list[ExperimentView], model=model)
    if json:
        print_json(experiments)
        return
    print_table(
        ["experiment", "name", "phase", "winner", "since (UTC)", "because"],
        [
            [each.id, each.name, each.phase, each.winner or "", when(each.created_at), each.because]
            for each in experiments
        ],
        title="experiments",
    )


@app.command("status")
@connected
def status(client: Client, experiment: Which, json: Json = False) -> None:
    """Where an experiment stands: devices an arm, intervals, guardrails, and what is to be said of it by now."""
    view = _fetch(client, experiment)
    if json:
        print_json(view)
        return
    console.print(picture(view))


@app.command("watch")
@connected
def watch(client: Client, experiment: Which, json: Json = False) -> None:
    """Follow an experiment until it ends (Ctrl-C stops watching, not the experiment). --json: one line a change."""
    follow(
        lambda: _fetch(client, experiment),
        over=lambda view: view.phase is not Phase.RUNNING,
        picture=picture,
        line=lambda view: f"{view.phase:<12} {view.because}",
        news=lambda view: view,
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
    """Ask again about every verdict, from the stored windows: moves and figures must be the same."""
    replayed = client.get(f"experiments/{quoted(experiment)}/replay", as_=ReplayView)
    if json:
        print_json(replayed)
    else:
        same = "all the same, to the last figure" if replayed.same else "NOT all the same"
        say(f"{counted(len(replayed.verdicts), 'verdict')}, {same}")
    if not replayed.same:
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
    view = client.get(f"experiments/{quoted(experiment)}", as_=ExperimentView, history=True)
    files = write_report(msgspec.to_builtins(view), form=form, stem=output.stem, now=time.time())
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


def picture(view: ExperimentView) -> Group:
    """An experiment for people."""
    view = readable(view)
    head = Text.assemble(
        (f"{view.id}  ", "bold"), f"{view.name}  ", (view.phase.value, _STYLES.get(view.phase, "cyan"))
    )
    evidence = {} if view.verdict is UNSET else view.verdict.evidence.arms
    table = Table("arm", "version", "share", "assigned", "active", "reported", "failed", "interval", box=None)
    for arm in view.arms:
        mark = " (control)" if arm.role == "control" else " (stopped)" if arm.stopped else ""
        if arm.without and not arm.stopped:
            mark = f" (not in {', '.join(arm.without)})"
        table.add_row(
            arm.id + mark,
            arm.version,
            f"{100 * arm.share:g}%",
            *(str(count) for count in (arm.assigned, arm.active, arm.reported, arm.failed)),
            _interval(evidence.get(arm.id)),
        )
    metric = view.primary
    lines: list[RenderableType] = [
        head,
        Text(f"{metric.name} should {metric.direction}; for {ago(view.created_at)}: {view.because}"),
        table,
    ]
    if view.bucket_by != "device":
        lines.insert(2, Text(by_label_words(view.bucket_by, view.devices_per_value)))
    if view.verdict is not UNSET:
        lines.append(Text(f"now: {view.verdict.move}: {view.verdict.because}"))
    for name, figures in evidence.items():
        if figures.guardrails:
            guards = "  ".join(f"{guard} {value:.2f}" for guard, value in figures.guardrails.items())
            lines.append(
                Text(f"{name}: ln E {figures.log_e:.2f} of {figures.log_e_needed:.2f}   {guards}", style="dim")
            )
    return Group(*lines)


def by_label_words(bucket_by: str, devices_per_value: float) -> str:
    """What it means for an experiment that its arms follow a label."""
    label = bucket_by.removeprefix("label:")
    return f"devices with the same {label} are in the same arm, and {devices_per_value:g} devices count as one"


def _interval(arm: ArmEvidence | None) -> str:
    look = arm and arm.deciding
    if not look:
        return ""
    low, high = (f"{end:+.4g}" if end is not None else "?" for end in (look.low, look.high))
    return f"{look.estimate:+.4g} ({low} to {high})"


def _act(client: Client, experiment: str, act: str, body: dict[str, Any], *, json: bool) -> None:
    ended = client.send("POST", f"experiments/{quoted(experiment)}/{act}", body, as_=ExperimentView)
    if json:
        print_json(ended)
        return
    say(f"{ended.id} is {ended.phase}: {ended.because}")


def _fetch(client: Client, experiment: str) -> ExperimentView:
    return client.get(f"experiments/{quoted(experiment)}", as_=ExperimentView)


def _asked(file: Path) -> dict[str, Any]:
    text = read_text(file, "the experiment")
    read_experiment(text, what=file.name)  # the same check as the server's, before anything is sent
    return {"plan": text, "file_name": file.name}
