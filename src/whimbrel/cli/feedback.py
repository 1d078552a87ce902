"""`whimbrel feedback`: what users write to the help desk becomes evidence in the rollout of the model they use."""

import csv
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import track

from whimbrel import limits
from whimbrel.cli.connect import Client, connected
from whimbrel.cli.options import ModelName
from whimbrel.cli.output import Json, print_json, print_table, say, stderr, when
from whimbrel.errors import UntrustedInput, reason_of
from whimbrel.flows.reports.user_reports import FilingResult
from whimbrel.health.user_report import UserReport
from whimbrel.model.documents import convert, parse
from whimbrel.server.admin.views.tickets import TicketView

app = typer.Typer(
    help="Tickets of users: handed on, counted, and judged (user_reports_ratio_max in a plan).",
    no_args_is_help=True,
    add_completion=False,
)

_COLUMNS = ("ticket", "model", "device_id", "version", "at", "text")


@app.command("add")
@connected
def add(
    client: Client,
    model: ModelName,
    ticket: Annotated[str, typer.Option(help="The help desk's number; handed on again it counts once.")],
    device: Annotated[str | None, typer.Option(help="The device, best: its ticket counts in its arm.")] = None,
    version: Annotated[str | None, typer.Option(help="Or the version, where the device is not known.")] = None,
    text: Annotated[str, typer.Option(help="What the user wrote.")] = "",
    at: Annotated[str | None, typer.Option(help="When it was, e.g. 2026-03-04T23:00:00Z; now by default.")] = None,
    json: Json = False,
) -> None:
    """Hand on one ticket.

    whimbrel feedback add --model wake --device kitchen-7 --ticket ZD-4711 --text "does not hear me any more"
    """
    given = {"ticket": ticket, "model": model, "device_id": device, "version": version, "at": at, "text": text}
    _send(client, [_report(given, what="the ticket")], json=json)


@app.command("import")
@connected
def import_file(
    client: Client,
    file: Annotated[Path, typer.Argument(help="Tickets: .csv with a header, or .jsonl with an object a line.")],
    model: Annotated[str | None, typer.Option("--model", "-m", help="Of tickets that name none.")] = None,
    json: Json = False,
) -> None:
    """Hand on a file of tickets, in batches. Handed on again, each counts once.

    Columns or fields: ticket, model, device_id or version, at (a time, or POSIX seconds), text. An empty file with
    --model says that the help desk is connected and nobody complains: user_reports_ratio_max needs to hear it.
    """
    reports = list(_read(file, model))
    _send(client, reports, model=model, json=json)


@app.command("list")
@connected
def list_reports(
    client: Client,
    model: ModelName,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, the newest first.")] = 100,
    json: Json = False,
) -> None:
    """Tickets of a model, and what became of each: counted in its device's arm, or why not."""
    tickets = client.get("user-reports", as_=list[TicketView], model=model, limit=limit)
    if json:
        print_json(tickets)
        return
    print_table(
        ["ticket", "at (UTC)", "names", "became", "text"],
        [[t.ticket, when(t.at), t.device_id or t.version, t.fate, t.text[:60]] for t in tickets],
        title=f"tickets of {model}",
    )


def _send(client: Client, reports: list[UserReport], *, model: str | None = None, json: bool) -> None:
    size = limits.USER_REPORTS_A_BATCH
    total = FilingResult(new=0, known=0, refused={})
    starts = range(0, max(1, len(reports)), size)
    for start in track(starts, "handing on", console=stderr, transient=True, disable=len(starts) < 2):
        asked = {"reports": reports[start : start + size]} | ({"model": model} if model else {})
        total = total.plus(client.send("POST", "user-reports", asked, as_=FilingResult))
    if json:
        print_json(total)
    else:
        say(f"{total.new} new, {total.known} known before, {len(total.refused)} refused")
        for ticket, because in list(total.refused.items())[:20]:
            say(f"  {ticket}: {because}")
    if total.refused:
        raise typer.Exit(1)


def _read(file: Path, model: str | None) -> Iterator[UserReport]:
    try:
        if file.stat().st_size > limits.USER_REPORT_FILE_BYTES:
            raise UntrustedInput(f"{file} has over {limits.USER_REPORT_FILE_BYTES} bytes; cut it")
        with file.open(encoding="utf-8-sig", newline="") as lines:
            if file.suffix.lower() == ".csv":
                yield from _read_csv(lines, file, model)
            else:
                for number, line in enumerate(lines, start=1):
                    if line.strip():
                        given = parse(dict[str, Any], line.encode(), what=f"{file.name}:{number}")
                        yield _report({"model": model} | given, what=f"{file.name}:{number}")
    except OSError as error:
        raise UntrustedInput(f"{file} cannot be read: {reason_of(error)}") from error
    except UnicodeDecodeError as error:
        raise UntrustedInput(f"{file} cannot be read: {reason_of(error)}") from error


def _read_csv(lines: Any, file: Path, model: str | None) -> Iterator[UserReport]:
    rows = csv.DictReader(lines)
    unknown = sorted(set(rows.fieldnames or ()) - set(_COLUMNS))
    if unknown:
        raise UntrustedInput(f"{file.name}:1: unknown column {unknown[0]!r}; known are {', '.join(_COLUMNS)}")
    try:
        for row in rows:
            if None in row:
                raise UntrustedInput(f"{file.name}:{rows.line_num}: more fields than the header has columns")
            given = {key: value for key, value in row.items() if value not in {None, ""}}
            yield _report({"model": model} | given, what=f"{file.name}:{rows.line_num}")
    except csv.Error as error:
        raise UntrustedInput(f"{file.name}:{rows.line_num}: {error}") from error


def _report(given: dict[str, Any], *, what: str) -> UserReport:
    words = {key: value for key, value in given.items() if value is not None}
    if isinstance(moment := words.get("at"), str):
        words["at"] = _seconds(moment, what=what)
    return convert(UserReport, words, what=what)


def _seconds(text: str, *, what: str) -> float:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UntrustedInput(f"{what}: at is {text!r}; expected a time such as 2026-03-04T23:00:00Z") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
