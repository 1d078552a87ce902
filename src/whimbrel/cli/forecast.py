"""`whimbrel forecast`: what a plan will do to a fleet, before it does it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec
import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from whimbrel import limits
from whimbrel.cli.connect import Client, ContextName, Namespace, Repository, Server, TokenFile, connect, quoted
from whimbrel.cli.output import Json, counted, percent, print_json, print_table, say, size_of, stderr
from whimbrel.cli.text_file import read_text
from whimbrel.console.charts import draw
from whimbrel.durable import trouble
from whimbrel.errors import Refused, UntrustedInput
from whimbrel.flows.files.plan_file import read_plan
from whimbrel.flows.files.yaml_file import parse_yaml
from whimbrel.flows.reports.history import History
from whimbrel.forecast.cost import WAYS, DownloadSizes, Prices, parse_sizes, sizes_for
from whimbrel.forecast.effects import METRICS, Effect, parse_class_effect, parse_effect
from whimbrel.forecast.fleet_description import FleetDescription
from whimbrel.forecast.fleet_from_history import fleet_from_history, sizes_from_history
from whimbrel.forecast.forecast import Tick
from whimbrel.forecast.forecast import forecast as make_forecast
from whimbrel.forecast.plots import plot
from whimbrel.forecast.summary import Chance, Forecast, ForecastRequest, Spread
from whimbrel.plan.plan import Plan, VersionName

_DEVICES_DEFAULT = 1_000_000
_EXAMPLES = ", ".join(example for _, example in METRICS.values())
_DEVICES = typer.Option(
    "--devices",
    "-D",
    min=1,
    max=limits.FORECAST_DEVICES,
    help="Devices of the fleet: a million, or as many as the history has.",
)
_RUNS = typer.Option(min=1, max=limits.FORECAST_RUNS, help="Rollouts that are simulated for each effect.")
_PRICES = typer.Option(help="A price table (YAML): see docs/reference/forecast.md. There is none by default.")


def forecast(
    plan: Annotated[Path, typer.Argument(help="The plan, a YAML file.")],
    devices: Annotated[int | None, _DEVICES] = None,
    effect: Annotated[list[str] | None, typer.Option("--effect", "-e", help=f"What is wrong: {_EXAMPLES}.")] = None,
    effect_class: Annotated[
        list[str] | None, typer.Option(help="The same in one hardware class only: pi4:crash=5x.")
    ] = None,
    runs: Annotated[int, _RUNS] = 100,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="The same seed gives the same forecast.")] = 0,
    traffic: Annotated[Path | None, typer.Option(help="What the fleet is like (YAML), instead of defaults.")] = None,
    size: Annotated[
        list[str] | None,
        typer.Option("--size", help=f"Bytes a device fetches by a way ({', '.join(WAYS)}): delta=2MB."),
    ] = None,
    prices: Annotated[Path | None, _PRICES] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Draw it into this file (.png or .svg).")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, max=64, help="Processes that play rollouts side by side.")] = 2,
    from_history: Annotated[
        bool, typer.Option("--from-history", help="The fleet as its devices told of the plan's model.")
    ] = False,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="With --from-history: of this model instead of the plan's.")
    ] = None,
    repository: Repository = None,
    server: Server = None,
    context: ContextName = None,
    token_file: TokenFile = None,
    namespace: Namespace = None,
    json: Json = False,
) -> None:
    """Simulate rollouts of a plan over a fleet, with the real decisions and the real gate, and say what to expect.

    Each effect is tried alone, next to rollouts of a version that nothing is wrong with: how often and when it is
    caught, and how many devices have had it by then.
    """
    staged = read_plan(read_text(plan, "the plan"), what=plan.name)
    form = _form(output)
    if from_history and traffic is not None:
        raise UntrustedInput("--from-history and --traffic both say what the fleet is like; keep one of them")
    if model is not None and not from_history:
        raise UntrustedInput("--model names the model of a history; it goes with --from-history")
    if not from_history:
        basis = _Basis(_described(traffic))
    else:
        with connect(
            repository=repository, server=server, context=context, token_file=token_file, namespace=namespace
        ) as client:
            basis = _from_history(client, model or VersionName.parse(staged.model_version).model, staged)
    fleet = basis.fleet
    given = sizes_for([(base.name, base.way) for base in fleet.versions], parse_sizes(size or ()))
    effects = [parse_effect(text) for text in effect or ()]
    effects += [parse_class_effect(text, classes=list(fleet.hardware)) for text in effect_class or ()]
    _once(effects)
    with _progress() as tick:
        result = make_forecast(
            ForecastRequest(
                plan=staged,
                fleet=fleet,
                devices=devices or basis.devices or _DEVICES_DEFAULT,
                effects=tuple(effects),
                runs=runs,
                seed=seed,
                sizes=given or basis.sizes,
                prices=parse_yaml(Prices, read_text(prices, "the price table"), what=prices.name) if prices else None,
                notes=basis.notes,
            ),
            processes=processes,
            tick=tick,
        )
    if output is not None and form is not None:
        _write(output, draw(plot(result), form))
    if json:
        print_json(msgspec.to_builtins(result))
        return
    tell(result)
    if output is not None:
        say(f"drawn into {output}")


def tell(forecast: Forecast) -> None:
    """A forecast for people."""
    rollouts = f"{counted(forecast.runs, 'rollout')} an effect, seed {forecast.seed}"
    say(f"{forecast.model_version} to {counted(forecast.devices, 'device')}; {rollouts}")
    for warning in forecast.warnings:
        say(f"  {warning}")
    sized = any(stage.bytes is not None for stage in forecast.stages)
    print_table(
        ["stage", "share", "devices", "begins", "nine of ten by", "reached", *(["sends"] if sized else [])],
        [
            [
                stage.name,
                f"{stage.share_percent:g}%",
                f"{stage.devices:,}",
                _hours(stage.begins_h.median),
                _hours(stage.begins_h.p90),
                _percent(stage.reached),
                *([size_of(stage.bytes or 0)] if sized else []),
            ]
            for stage in forecast.stages
        ],
        title="Nothing wrong",
    )
    if forecast.finished.times:
        say(
            f"  finished: {_percent(forecast.finished)} of the rollouts, after {_hours(forecast.finishes_h.median)} "
            f"(nine of ten by {_hours(forecast.finishes_h.p90)})"
        )
    else:
        say("  finished: none of the rollouts")
    by_harm = f": {_counts(forecast.false_alarm_harm)}" if forecast.false_alarm_harm else ""
    say(f"  false alarms: {_interval(forecast.false_alarm)}{by_harm}")
    if forecast.held.times:
        say(f"  held at the end: {_interval(forecast.held)}: {forecast.held_because}")
    if forecast.effects:
        _effects(forecast)
    if forecast.transfer is not None:
        _transfer(forecast)
    say("Assumed")
    for sentence in forecast.assumed:
        say(f"  {sentence}")


def _effects(forecast: Forecast) -> None:
    sized = any(each.bytes is not None for each in forecast.effects)
    print_table(
        [
            "effect",
            "caught",
            "found as",
            "95% interval",
            "verdict after",
            "nine of ten by",
            "exposed",
            "nine of ten below",
            *(["sent for nothing"] if sized else []),
        ],
        [
            [
                each.effect,
                _percent(each.caught),
                _counts(each.harm) or "-",
                f"{each.caught.low:.0%} to {each.caught.high:.0%}",
                _hours(each.verdict_h.median),
                _hours(each.verdict_h.p90),
                _count(each.exposed, "median"),
                _count(each.exposed, "p90"),
                *([size_of(each.bytes or 0)] if sized else []),
            ]
            for each in forecast.effects
        ],
        title="What is wrong",
    )
    for each in forecast.effects:
        where = ", ".join(f"{times} in {stage}" for stage, times in each.caught_in.items())
        say(f"  {each.effect}: {f'caught {where}; ' if where else ''}the first: {each.move}: {each.because}")
        if each.held.times:
            say(f"    held at the end: {_interval(each.held)}: {each.held_because}")


def _transfer(forecast: Forecast) -> None:
    sent = forecast.transfer
    if sent is None:
        return
    ways = ", ".join(f"{way} {size_of(total)}" for way, total in sent.by_way.items())
    cost = f", {sent.cost:,.2f} {sent.currency}" if sent.cost is not None else ""
    say(f"Downloads: {size_of(sent.total)} in {counted(sent.downloads, 'download')} ({ways}){cost}")
    cost = f", {sent.looks_cost:,.2f} {sent.currency}" if sent.looks_cost is not None else ""
    say(f"Looks at the metadata meanwhile: {sent.looks:,.0f}, {size_of(sent.looks_bytes)}{cost}")


def _counts(times: dict[str, int]) -> str:
    """Names with their counts, or one name alone."""
    return next(iter(times)) if len(times) == 1 else ", ".join(f"{name} {count}" for name, count in times.items())


def _hours(hours: float | None) -> str:
    if hours is None:
        return "never"
    if hours < 1:
        return f"{60 * hours:.0f} min"
    return f"{hours:.1f} h" if hours < 100 else f"{hours / 24:.1f} d"


def _percent(chance: Chance) -> str:
    return percent(chance.share)


def _interval(chance: Chance) -> str:
    return f"{chance.times} of {chance.runs} (between {percent(chance.low)} and {percent(chance.high)})"


def _count(spread: Spread, part: Literal["median", "p90"]) -> str:
    value = getattr(spread, part)
    return "never" if value is None else f"{value:,.0f}"


# --- what comes in and goes out ---


class _Basis(NamedTuple):
    """What a forecast rests on."""

    fleet: FleetDescription
    sizes: DownloadSizes | None = None
    devices: int | None = None
    notes: tuple[str, ...] = ()


def _from_history(client: Client, model: str, plan: Plan) -> _Basis:
    path, notes = f"models/{quoted(model)}/history", []
    try:
        history = client.get(path, as_=History, version=plan.model_version)
    except Refused as error:  # it is not published yet, or is another model's: its bytes are not known
        history = client.get(path, as_=History)
        notes.append(f"the bytes of {plan.model_version} are not known: {error}")
    fleet, defaults = fleet_from_history(history)
    if defaults:
        notes.append(f"the history does not tell {', '.join(defaults)}; these are defaults")
    return _Basis(fleet, sizes_from_history(history), history.devices, tuple(notes))


@contextmanager
def _progress() -> Iterator[Tick]:
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=stderr,
        transient=True,
        disable=not stderr.is_terminal,
    ) as progress:
        task = progress.add_task("playing rollouts", total=1.0)
        yield lambda share: progress.update(task, completed=share)


def _once(effects: list[Effect]) -> None:
    texts = [each.text for each in effects]
    for text in texts:
        if texts.count(text) > 1:
            raise UntrustedInput(f"{text!r} is asked for twice; each effect is tried alone, so once is enough")


def _described(path: Path | None) -> FleetDescription:
    if path is None:
        return FleetDescription()
    read = parse_yaml(FleetDescription, read_text(path, "the traffic file"), what=path.name)
    return read if read.source != "defaults" else msgspec.structs.replace(read, source=path.name)


def _form(path: Path | None) -> Literal["png", "svg"] | None:
    if path is None:
        return None
    forms: dict[str, Literal["png", "svg"]] = {".png": "png", ".svg": "svg"}
    if path.suffix.lower() not in forms:
        raise UntrustedInput(f"{path} is neither .png nor .svg; name a file that ends in one of them")
    if not path.absolute().parent.is_dir():
        raise UntrustedInput(f"the folder {path.absolute().parent} is not there; make it, or name another")
    return forms[path.suffix.lower()]


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise trouble(error, doing="drawing the chart") from error
