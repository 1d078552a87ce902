"""`whimbrel rollout plan`: understand a plan before it begins, and write it with an editor's help."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from whimbrel.cli.connect import (
    Client,
    ContextName,
    Namespace,
    Repository,
    Server,
    TokenFile,
    connect,
    connected,
    quoted,
)
from whimbrel.cli.fit import tell_fit
from whimbrel.cli.options import ModelName
from whimbrel.cli.output import Json, counted, note, print_json, print_table, say, when
from whimbrel.cli.text_file import read_text
from whimbrel.errors import Conflict, NotFound, UntrustedInput, reason_of
from whimbrel.flows.files.plan_file import read_plan
from whimbrel.flows.files.plan_schema import schema_text
from whimbrel.flows.files.plan_template import plan_template
from whimbrel.flows.rollouts.check_plan import PlanCheck
from whimbrel.flows.wording import duration_words, percent_words
from whimbrel.plan.plan import Strategy
from whimbrel.server.admin.views.versions import ListedVersion

app = typer.Typer(help="Plans: explained before they begin.", no_args_is_help=True, add_completion=False)


@app.command("check")
@connected
def check(
    client: Client,
    plan: Annotated[Path, typer.Argument(help="The plan, a YAML file.")],
    devices: Annotated[
        int | None,
        typer.Option(min=1, max=10**10, help="Imagine a fleet of so many devices, labelled as yours."),
    ] = None,
    json: Json = False,
) -> None:
    """What will happen to how many devices, what each stage could see, and how long that takes. Nothing is begun.

    Devices are counted from the inventory. How often they are in use and crash is taken from the model's newest
    rollouts, or assumed, and said. Warnings are about plans that are pointless or dangerous; none of them refuses one.
    """
    text = read_text(plan)
    read_plan(text, what=plan.name)  # the same check as the server's, before anything is sent
    asked = {"plan": text, "file_name": plan.name, "devices": devices}
    explained = client.send("POST", "plans/check", asked, as_=PlanCheck)
    if json:
        print_json(explained)
    else:
        _tell(explained)


@app.command("new")
def new(
    model: ModelName,
    version: Annotated[
        str | None, typer.Option(help="The version to roll out; the model's newest by default, asked of the server.")
    ] = None,
    strategy: Annotated[
        Strategy, typer.Option(help="staged: three stages. blue_green: all devices at once, and back at once.")
    ] = "staged",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write it into this new file; otherwise it is printed.")
    ] = None,
    repository: Repository = None,
    server: Server = None,
    context: ContextName = None,
    token_file: TokenFile = None,
    namespace: Namespace = None,
) -> None:
    """Write a plan to begin with, and a comment at every key. Nothing is begun.

    whimbrel rollout plan new --model detector -o plan.yaml
    """
    if version is None:
        with connect(
            repository=repository, server=server, context=context, token_file=token_file, namespace=namespace
        ) as client:
            newest = _newest(client, model)
        version = newest.version
        if newest.baseline:
            note(f"note: {model}@{version} is the baseline already; publish the next version, then name it here")
    place = "plan.yaml" if output is None else shlex.quote(str(output))
    text = plan_template(f"{model}@{version}", file=place, strategy=strategy)
    read_plan(text, what="the plan")  # a model or version that no plan can name is said here
    if output is None:
        sys.stdout.write(text)
        return
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise Conflict(f"{output} is there already; name a new file") from error
    except OSError as error:
        raise UntrustedInput(f"{output} cannot be written: {reason_of(error)}") from error
    say(f"wrote {output}, a plan for {model}@{version}")
    say(f"Next: whimbrel rollout plan check {shlex.quote(str(output))}")


@app.command("schema")
def schema() -> None:
    """Print the JSON Schema of plans, for editors and other tools.

    Keep it next to your plans, and begin a plan with: # yaml-language-server: $schema=plan.schema.json
    """
    sys.stdout.write(schema_text())


def _newest(client: Client, model: str) -> ListedVersion:
    versions = client.get(f"models/{quoted(model)}/versions", as_=list[ListedVersion])
    offered = [each for each in versions if not (each.retired or each.revoked)]
    if not offered:
        raise NotFound(f"{model} has no version to roll out; publish one: whimbrel publish --model {model} FILE")
    return offered[-1]


def _tell(check: PlanCheck) -> None:
    fleet = f"{counted(check.fleet, 'device')}{' (imagined)' if check.imagined else ''}"
    say(f"{check.model}: {check.baseline or 'no version'} -> {check.target}, {fleet}")
    say("")
    heads = ["stage", "share", "devices", "soaks h", "from (UTC)"]
    rows = [
        [
            stage.name,
            percent_words(stage.share_percent),
            f"{stage.devices:,}",
            f"{stage.hours:g}",
            when(stage.earliest)[:16],
        ]
        for stage in check.stages
    ]
    if check.baseline:  # a first version is compared with nothing
        heads += ["control", "sees (80%)", "1.5x", "2x", "3x", "-2 points"]
        for row, stage in zip(rows, check.stages, strict=True):
            sight = stage.sight
            row += [
                f"{stage.control:,}",
                f"{sight.crash_ratio:.1f}x" if sight.crash_ratio else "nothing",
                *(_wait(sight.hours_to_see[ratio]) for ratio in ("1.5", "2", "3")),
                _wait(sight.hours_to_see_drop),
            ]
    print_table(heads, rows)
    if check.fit.none or check.fit.some or check.fit.unknown:
        say("")
        tell_fit(check.fit, what=check.target)
    for stage in check.stages:
        say("")
        say(stage.name)
        for sentence in stage.sentences:
            say(f"  {sentence}")
    say("")
    for sentence in check.sentences:
        say(sentence)
    usage = check.traffic
    say(
        f"Traffic ({usage.source}): a device is in use in {usage.active_an_hour:.2g} windows an hour, and "
        f"crashes in {100 * usage.crash_rate:.2g}% of them."
    )
    for warning in check.warnings:
        say(f"WARNING: {warning}")


def _wait(hours: float | None) -> str:
    return "never" if hours is None else duration_words(hours)
