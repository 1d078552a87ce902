"""The commands that make, apply and inspect a patch.

`whimbrel delta encode | apply | inspect`. Results go to stdout (`--json`: one object), progress and words to stderr.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from whimbrel import limits
from whimbrel.cli.output import percent
from whimbrel.errors import UntrustedInput, WhimbrelError

app = typer.Typer(
    help="Patches between versions of a model: small, checked, in bounded memory.",
    no_args_is_help=True,
    add_completion=False,
)

Base = Annotated[
    Path, typer.Argument(metavar="BASE", help="The version that is there: a file or a folder.", exists=True)
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of words.")]
Threads = Annotated[
    int | None,
    typer.Option(min=1, max=limits.DELTA_THREADS, help="Threads to work with. [default: the number of cores]"),
]
Memory = Annotated[
    int | None,
    typer.Option(min=1, help="MiB to work with, above the files; fewer threads run if need be (16 MiB a thread)."),
]


def _cores() -> int:
    return max(1, min(limits.DELTA_THREADS, os.cpu_count() or 1))


@app.command()
def encode(
    base: Base,
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="The new version: a file or a folder.", exists=True)],
    patch: Annotated[Path, typer.Argument(metavar="PATCH", help="Where to write the patch.")],
    *,
    threads: Threads = None,
    memory: Memory = None,
    as_json: Json = False,
    advise: Annotated[bool, typer.Option("--advise", help="Say what kind of change this looks like.")] = False,
) -> None:
    """Make the PATCH that leads from BASE to TARGET."""
    from whimbrel.delta import advice
    from whimbrel.patchfile import encode_files, inspect_file

    with _progress("encode") as (advance, on_total):
        made = encode_files(
            base,
            target,
            patch,
            threads=threads or _cores(),
            memory_bytes=_bytes(memory),
            advance=advance,
            on_total=on_total,
        )
    words = advice.advise(inspect_file(patch)) if advise else None
    if as_json:
        fields: dict[str, Any] = {
            "patch_bytes": made.patch_bytes,
            "target_bytes": made.target_bytes,
            "ratio": round(made.ratio, 6),
            "seconds": round(made.seconds, 3),
        }
        if words is not None:
            fields["advice"] = {"kind": words.kind, "expected": list(words.expected), "because": list(words.because)}
        _print_json(fields)
        return
    typer.echo(
        f"{patch}: {made.patch_bytes:,} bytes for {made.target_bytes:,} "
        f"({percent(made.ratio, digits=2)}) in {made.seconds:.1f} s"
    )
    if words is not None:
        typer.echo(str(words))


@app.command()
def apply(
    base: Base,
    patch: Annotated[Path, typer.Argument(metavar="PATCH", help="The patch.", exists=True, dir_okay=False)],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Where to put the new version.")],
    *,
    threads: Threads = None,
    memory: Memory = None,
    as_json: Json = False,
) -> None:
    """Make OUT from BASE and PATCH. OUT appears whole and right, or not at all."""
    from whimbrel.patchfile import apply_files

    with _progress("apply") as (advance, on_total):
        size = apply_files(
            base,
            patch,
            out,
            threads=threads or _cores(),
            memory_bytes=_bytes(memory),
            advance=advance,
            on_total=on_total,
        )
    if as_json:
        _print_json({"out": str(out), "target_bytes": size})
    else:
        typer.echo(f"{out}: {size:,} bytes, and their SHA-256 is right")


@app.command()
def inspect(
    patch: Annotated[Path, typer.Argument(metavar="PATCH", help="The patch.", exists=True, dir_okay=False)],
    as_json: Json = False,
) -> None:
    """Show what PATCH does, a line a tensor: mode, bytes, ratio."""
    from whimbrel.delta.summary import summarise
    from whimbrel.patchfile import inspect_file

    contents = inspect_file(patch)
    lines = summarise(contents)
    if as_json:
        _print_json(
            {
                "patch_bytes": contents.size_bytes,
                "target_bytes": contents.target_bytes,
                "ratio": round(contents.size_bytes / max(1, contents.target_bytes), 6),
                "base": [_file(entry) for entry in contents.base],
                "target": [_file(entry) for entry in contents.target],
                "ranges": [
                    {
                        "name": line.name,
                        "mode": line.mode,
                        "dtype": line.dtype,
                        "offset": line.target_offset,
                        "target_bytes": line.target_bytes,
                        "patch_bytes": round(line.patch_bytes),
                        "ratio": round(line.ratio, 6),
                    }
                    for line in lines
                ],
            }
        )
        return
    table = Table(box=None, header_style="bold")
    for title in ("tensor", "mode", "dtype"):
        table.add_column(title, overflow="fold")
    for title in ("bytes", "in the patch", "ratio"):
        table.add_column(title, justify="right")
    for line in lines:
        table.add_row(
            _printable(line.name),
            line.mode,
            line.dtype,
            f"{line.target_bytes:,}",
            f"{line.patch_bytes:,.0f}",
            percent(line.ratio, digits=2),
        )
    Console(markup=False, highlight=False).print(table)
    ratio = percent(contents.size_bytes / max(1, contents.target_bytes), digits=2)
    typer.echo(f"{contents.size_bytes:,} bytes for {contents.target_bytes:,} ({ratio})")
    for entry in contents.target:
        typer.echo(f"target {entry.sha256.hex()}  {_printable(entry.path)}".rstrip())
    for entry in contents.base:
        typer.echo(f"base   {entry.sha256.hex()}  {_printable(entry.path)}".rstrip())


def _file(entry: Any) -> dict[str, Any]:
    return {"path": entry.path, "size_bytes": entry.size_bytes, "sha256": entry.sha256.hex()}


def _printable(text: str) -> str:
    """A name from a patch may hold anything; a terminal gets none of its commands."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _bytes(mebibytes: int | None) -> int | None:
    return None if mebibytes is None else mebibytes * limits.MIB


def _print_json(fields: dict[str, Any]) -> None:
    typer.echo(json.dumps(fields))


@contextmanager
def _progress(word: str) -> Iterator[tuple[Callable[[int], None], Callable[[int], None]]]:
    """(advance, on_total): a bar on stderr where that is a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(word, total=None)
        yield (lambda done: bar.advance(task, done)), (lambda total: bar.update(task, total=total))


if __name__ == "__main__":
    try:
        app(standalone_mode=True)
    except WhimbrelError as error:
        sys.stderr.write(f"{type(error).title}: {error}\n")
        sys.exit(error.exit_code)
    except ImportError as error:
        lacking = UntrustedInput(f"{error}; install whimbrel[delta]")
        sys.stderr.write(f"{lacking}\n")
        sys.exit(lacking.exit_code)
