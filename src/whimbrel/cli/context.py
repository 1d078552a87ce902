"""`whimbrel context`: name the servers and folders that you work with, and say which one commands are about."""

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from whimbrel import limits
from whimbrel.cli.output import Json, print_json, print_table, say
from whimbrel.cli.user_config import Context, config_path, keep_token, read_config, token_path, write_config
from whimbrel.errors import Conflict, NotFound, UntrustedInput
from whimbrel.model.documents import convert
from whimbrel.model.ids import check_name

app = typer.Typer(
    help="Contexts: names for servers and folders. A command is about the current one, unless an option (--repository, "
    "--server, --context) or a variable (WHIMBREL_REPOSITORY, WHIMBREL_SERVER) says otherwise.",
    no_args_is_help=True,
    add_completion=False,
)


def _names(incomplete: str) -> list[str]:
    return [name for name in read_config().contexts if name.startswith(incomplete)]


Which = Annotated[str, typer.Argument(help="The context's name.", autocompletion=_names)]


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits, - and _.")],
    repository: Annotated[Path | None, typer.Option("--repository", "-R", help="A repository's folder.")] = None,
    server: Annotated[str | None, typer.Option(help="Or a server's admin URL.")] = None,
    token_file: Annotated[Path | None, typer.Option(help="File with your token. Its path is kept.")] = None,
    with_token: Annotated[
        bool,
        typer.Option("--with-token", help="Read the token from standard input, and keep it readable by you alone."),
    ] = False,
    namespace: Annotated[str | None, typer.Option(help="Namespace.")] = None,
    keys: Annotated[Path | None, typer.Option(help="Folder of the offline keys.")] = None,
    use: Annotated[bool, typer.Option("--use", help="Make it the current one. The first context is.")] = False,
    json: Json = False,
) -> None:
    """Name a server or a folder.

    whimbrel context add production --server https://models.example.com:8471 --token-file ~/admin.token
    """
    try:
        check_name(name, kind="context")
    except ValueError as error:
        raise UntrustedInput(str(error)) from error
    config = read_config()
    if name in config.contexts:
        raise Conflict(f"there is a context {name!r} already; remove it first: whimbrel context remove {name}")
    if repository is not None and not repository.is_dir():
        raise UntrustedInput(f"there is no folder {repository}; make a repository with: whimbrel init")
    if with_token and token_file is not None:
        raise UntrustedInput("--with-token and --token-file both give the token; keep one of them")
    token = _token() if with_token else None
    fields = {
        "repository": _absolute(repository),
        "server": server,
        "token_file": str(token_path(name)) if with_token else _absolute(token_file),
        "namespace": namespace,
        "keys": _absolute(keys),
    }
    context = convert(Context, fields, what=f"the context {name}")
    if token is not None:
        keep_token(name, token)
    current = name if use or config.current is None else config.current
    write_config(msgspec.structs.replace(config, current=current, contexts={**config.contexts, name: context}))
    _tell(name, context, current=current == name, json=json)


@app.command("use")
def use_context(name: Which, json: Json = False) -> None:
    """Make a context the current one."""
    config = read_config()
    context = config.context(name)
    write_config(msgspec.structs.replace(config, current=name))
    _tell(name, context, current=True, json=json)


@app.command("list")
def list_contexts(json: Json = False) -> None:
    """All contexts; the current one has a mark."""
    config = read_config()
    if json:
        print_json([_fields(name, each, current=name == config.current) for name, each in config.contexts.items()])
        return
    rows = [
        [">" if name == config.current else "", name, each.server or each.repository, each.namespace or ""]
        for name, each in sorted(config.contexts.items())
    ]
    print_table(["", "context", "server or folder", "namespace"], rows, title="contexts")


@app.command("show")
def show(
    name: Annotated[
        str | None, typer.Argument(help="The context's name; the current one's by default.", autocompletion=_names)
    ] = None,
    json: Json = False,
) -> None:
    """What a context says. Tokens are not shown."""
    config = read_config()
    shown = name or config.current
    if shown is None:
        raise NotFound("no context is current; see: whimbrel context list")
    _tell(shown, config.context(shown), current=shown == config.current, json=json)


@app.command("remove")
def remove(name: Which, json: Json = False) -> None:
    """Forget a context, and the token that was kept for it. The server or folder itself is left alone."""
    config = read_config()
    config.context(name)
    left = {other: context for other, context in config.contexts.items() if other != name}
    current = None if config.current == name else config.current
    write_config(msgspec.structs.replace(config, current=current, contexts=left))
    token_path(name).unlink(missing_ok=True)
    if json:
        print_json({"removed": name, "current": current})
        return
    say(f"context {name} is removed" + ("" if current else "; no context is current: whimbrel context use NAME"))


def _tell(name: str, context: Context, *, current: bool, json: bool) -> None:
    if json:
        print_json(_fields(name, context, current=current))
        return
    say(f"{name}{' (current)' if current else ''}")
    for field, value in msgspec.structs.asdict(context).items():
        if value is not None:
            say(f"  {field.replace('_', ' '):<11}{value}")
    say(f"  kept in    {config_path()}")


def _fields(name: str, context: Context, *, current: bool) -> dict[str, object]:
    return {"name": name, "current": current, **msgspec.structs.asdict(context)}


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.expanduser().absolute())


def _token() -> str:
    token = sys.stdin.read(limits.SECRET_BYTES + 1).strip()
    if not token or len(token) > limits.SECRET_BYTES or not token.isascii() or not token.isprintable():
        raise UntrustedInput("no token came over standard input: whimbrel context add ... --with-token < FILE")
    return token
