"""Output of commands: tables and sentences for people, one JSON document for scripts, progress only on terminals."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from typing import Annotated, TypeVar

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from whimbrel.plain_text import in_json, one_line, plain_texts

ViewT = TypeVar("ViewT", bound=msgspec.Struct)
_PIPED_COLUMNS = 160  # where no terminal says how wide it is, do not cut tables to 80

# What is shown comes from people, devices and servers: none of it is markup of the terminal library's.
console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else _PIPED_COLUMNS, markup=False, emoji=False)
stderr = Console(stderr=True, soft_wrap=True, markup=False, emoji=False)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


def print_json(value: object) -> None:
    """One JSON document on standard output: of plain values, or of views."""
    sys.stdout.write(json_line(value))


def json_line(value: object) -> str:
    """The same as text. It is printable ASCII, so that what devices and tickets say moves no cursor."""
    return in_json(json.dumps(value, indent=None, sort_keys=True, default=_plain)) + "\n"


def _plain(value: object) -> object:
    return msgspec.to_builtins(value) if isinstance(value, msgspec.Struct) else str(value)


def say(text: str) -> None:
    """A sentence for people, in one line: what it tells of others begins no line of its own."""
    console.print(one_line(text), highlight=False)


def note(text: str) -> None:
    """A sentence for people on standard error."""
    stderr.print(one_line(text), highlight=False)


def readable(view: ViewT) -> ViewT:
    """A view whose every text may be shown on a terminal."""
    return msgspec.convert(plain_texts(msgspec.to_builtins(view)), type(view))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str | None = None) -> None:
    """A plain table; says so when there is nothing."""
    if not rows:
        say(f"{title}: none" if title else "none")
        return
    table = Table(*columns, title=title, box=None, header_style="bold", title_justify="left", pad_edge=False)
    for row in rows:
        table.add_row(*("" if cell is None else one_line(str(cell)) for cell in row))
    console.print(table)


def counted(number: int, noun: str, *, plural: str = "") -> str:
    """A number and its noun, such as 1 device or 1,204 devices. `plural`: of a noun that takes more than an s."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def percent(share: float, *, digits: int = 1) -> str:
    """A share in percent, with as many digits as it needs and at most `digits`: 25%, 12.5%."""
    return f"{round(100 * share, digits):g}%"


def when(moment: float | None) -> str:
    """A POSIX time for people, in UTC. A clock may say any time: one without a date is shown as its seconds."""
    if moment is None:
        return ""
    try:
        return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"{moment:.0f} s after 1970"


def ago(moment: float) -> str:
    """How long ago, in the largest unit that fits."""
    seconds = max(0.0, time.time() - moment)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def size_of(size_bytes: float) -> str:
    """Bytes for people, in powers of 1000."""
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size_bytes >= size:
            return f"{size_bytes / size:.1f} {unit}"
    return f"{size_bytes:.0f} B"


@contextmanager
def progress_bar(what: str, *, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error, where that is a terminal; gives a function to advance it."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=stderr,
        transient=True,
        disable=not stderr.is_terminal,
    ) as progress:
        task = progress.add_task(what, total=total)

        def advance(amount: int) -> None:
            progress.advance(task, amount)

        yield advance


@contextmanager
def counting(what: str, *, total: int) -> Iterator[Callable[[str], None]]:
    """How many of `total` are done, on standard error, where that is a terminal; gives a function that adds one."""
    done = 0
    with stderr.status(f"0 of {total} {what}") if stderr.is_terminal and total > 1 else nullcontext() as status:

        def count(remark: str = "") -> None:
            nonlocal done
            done += 1
            if status is not None:
                status.update(f"{done} of {total} {what}{f'; {one_line(remark)}' if remark else ''}")

        yield count


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """A sign of life on standard error, where that is a terminal, while something of unknown length goes on."""
    if stderr.is_terminal:
        with stderr.status(one_line(what)):
            yield
    else:
        yield
