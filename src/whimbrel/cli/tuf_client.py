"""`whimbrel tuf-client`: a client of any TUF repository, on the agent's trust code.

The three commands of the public conformance suite (theupdateframework/tuf-conformance), and its exit statuses: 0 or 1.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from whimbrel.agent.tuf_repository_client import TufRepositoryClient
from whimbrel.errors import WhimbrelError, reason_of

app = typer.Typer(
    help="A client of any TUF repository, on the agent's trust code: for the public conformance suite.",
    no_args_is_help=True,
    add_completion=False,
)


class _Given(msgspec.Struct, frozen=True):
    """The options, which stand before the command."""

    metadata_dir: Path | None
    metadata_url: str
    names: tuple[str, ...]
    target_url: str
    target_dir: Path | None


@app.callback()
def _options(
    context: typer.Context,
    metadata_dir: Annotated[
        Path | None, typer.Option(help="Folder of the trusted metadata, a file ROLE.json for each role.")
    ] = None,
    metadata_url: Annotated[str, typer.Option(help="Where the repository's metadata is.")] = "",
    target_name: Annotated[list[str] | None, typer.Option(help="A target to download; may be repeated.")] = None,
    target_base_url: Annotated[str, typer.Option(help="Where the repository's targets are.")] = "",
    target_dir: Annotated[Path | None, typer.Option(help="Folder for downloaded targets.")] = None,
) -> None:
    context.obj = _Given(metadata_dir, metadata_url, tuple(target_name or ()), target_base_url, target_dir)


@app.command()
def init(
    context: typer.Context,
    root: Annotated[Path, typer.Argument(help="The root.json to trust.", exists=True, dir_okay=False)],
) -> None:
    """Trust a root from now on."""
    client = _client(context.obj)
    with _status_1():
        client.init(root.read_bytes())


@app.command()
def refresh(context: typer.Context) -> None:
    """Bring the metadata of the top level up to date."""
    given: _Given = context.obj
    client, metadata_url = _client(given), _needed(given.metadata_url, "--metadata-url")
    with _status_1():
        client.refresh(metadata_url)


@app.command()
def download(context: typer.Context) -> None:
    """Download targets, in the order in which they were named; stop at the first that fails."""
    given: _Given = context.obj
    if given.target_dir is None or not given.names:
        raise typer.BadParameter("download needs --target-name, --target-base-url and --target-dir before it")
    client, metadata_url = _client(given), _needed(given.metadata_url, "--metadata-url")
    target_url = _needed(given.target_url, "--target-base-url")
    with _status_1():
        updater = client.refresh(metadata_url)
        for name in given.names:
            sys.stdout.write(f"{client.download(updater, name, url=target_url, into=given.target_dir)}\n")


def _client(given: _Given) -> TufRepositoryClient:
    if given.metadata_dir is None:
        raise typer.BadParameter("--metadata-dir is needed, before the command")
    return TufRepositoryClient(given.metadata_dir)


def _needed(value: str, option: str) -> str:
    if not value:
        raise typer.BadParameter(f"{option} is needed, before the command")
    return value


@contextmanager
def _status_1() -> Iterator[None]:
    """The suite asks for 1 whatever went wrong."""
    try:
        yield
    except (WhimbrelError, OSError) as error:
        sys.stderr.write(f"whimbrel: {reason_of(error)}\n")
        raise typer.Exit(1) from error
