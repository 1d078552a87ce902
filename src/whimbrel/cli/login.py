"""`whimbrel login` and `logout`: a person signs in with the provider of a server, and ends the session again."""

import re
import sys
import webbrowser
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec
import typer

from whimbrel.cli.connect import connect, problem_of
from whimbrel.cli.loopback import WAIT_S, id_token_by_browser, id_token_by_paste
from whimbrel.cli.output import Json, print_json, say, stderr, when
from whimbrel.cli.server_channel import authorities, check_channel, no_answer
from whimbrel.cli.user_config import Context, UserConfig, keep_token, read_config, token_path, write_config
from whimbrel.errors import Conflict, UntrustedInput, reason_of
from whimbrel.model.document_errors import sentence
from whimbrel.model.documents import convert
from whimbrel.server.admin.views.accounts import MadeToken, SignInView, TokenView
from whimbrel.server.admin.views.reason import Reason

T = TypeVar("T")

_TIMEOUT_S = 60.0
Server = Annotated[str | None, typer.Option(help="The server's admin URL; else that of the context.")]
ContextName = Annotated[str | None, typer.Option("--context", help="The context; else the current one.")]
NamespaceName = Annotated[str | None, typer.Option("--namespace", help="Namespace.")]


def login(
    server: Server = None,
    context: ContextName = None,
    namespace: NamespaceName = None,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the browser, or only print the address.")
    ] = True,
    paste: Annotated[
        bool,
        typer.Option("--paste", help="The browser is on another machine: paste the address that it ends at."),
    ] = False,
    json: Json = False,
) -> None:
    """Sign in with the provider of a server, as yourself. The session is kept for the context, and ends by itself.

    whimbrel login --server https://models.example.com:8471

    The first time a context is made for the server. Commands use its session until it ends; `whimbrel logout` ends it.
    """
    config = read_config()
    name, place = _context(config, server=server, context=context, namespace=namespace)
    check_channel(place.server or "")
    base = f"{place.server}/{place.namespace or 'default'}/admin/v1"
    begun = _post(f"{base}/sign-in/begin", None, SignInView)
    if paste:
        token = id_token_by_paste(begun, ask=_ask)
    else:
        token = id_token_by_browser(begun, open_url=lambda url: _show(url, browser=browser))
    session = _post(f"{base}/sign-in", {"id_token": token}, MadeToken)
    kept = keep_token(name, session.token)
    place = msgspec.structs.replace(place, token_file=str(kept))
    write_config(
        msgspec.structs.replace(
            config,
            current=name if config.current is None else config.current,
            contexts={**config.contexts, name: place},
        )
    )
    if json:
        shown = {each: getattr(session, each) for each in TokenView.__struct_fields__}
        print_json({**shown, "context": name, "current": config.current in {None, name}})
        return
    say(f"signed in as {session.account} ({', '.join(session.roles)}) until {when(session.expires_at)} UTC")
    if config.current not in {None, name}:
        say(f"  the current context is another one; use this session with: whimbrel context use {name}")


def logout(context: ContextName = None, json: Json = False) -> None:
    """End the session of a context, on the server and here."""
    config = read_config()
    name, place = _context(config, server=None, context=context, namespace=None)
    kept = token_path(name)
    if place.token_file != str(kept) or not kept.exists():
        raise UntrustedInput(f"context {name} has no session; see: whimbrel login --help")
    with connect(context=name) as client:
        ended = client.send("POST", "tokens/self/revoke", Reason(because="signed out"), as_=TokenView)
    kept.unlink()
    if json:
        print_json(ended)
        return
    say(f"{ended.account} is signed out of {place.server}")


def _context(
    config: UserConfig, *, server: str | None, context: str | None, namespace: str | None
) -> tuple[str, Context]:
    """The context to sign in for; a new one for a server that none is of."""
    if server is not None and context is not None:
        raise UntrustedInput("--server and --context each name a server; keep one of them")
    if server is None:
        name = context or config.current
        if name is None:
            raise UntrustedInput("name the server to sign in to: whimbrel login --server URL")
        place = config.context(name)
        if place.server is None:
            raise UntrustedInput(f"context {name} is a folder, where nobody signs in: you act as yourself there")
        return name, place if namespace is None else msgspec.structs.replace(place, namespace=namespace)
    url = server.rstrip("/")
    for name, place in config.contexts.items():
        if place.server == url and namespace in {None, place.namespace}:
            return name, place
    host = re.sub(r"[^a-z0-9_-]+", "-", (urlsplit(url).hostname or "").lower()).strip("-_")[:64] or "server"
    names = [host] if namespace is None else [host, f"{host}-{namespace}"[:64]]
    free = [name for name in names if name not in config.contexts]
    if not free:
        raise Conflict(
            f"there is a context {names[-1]!r} of another server; name one for this: "
            f"whimbrel context add NAME --server {url}"
        )
    name = free[0]
    return name, convert(Context, {"server": url, "namespace": namespace}, what="the context")


def _post(url: str, body: object, kind: type[T]) -> T:
    try:
        answer = httpx.post(url, json=body, timeout=_TIMEOUT_S, trust_env=False, verify=authorities())
    except httpx.TransportError as error:
        raise no_answer(url, error) from error
    if not answer.is_success:
        raise problem_of(answer)
    try:
        return msgspec.json.decode(answer.content, type=kind)
    except msgspec.DecodeError as error:
        why = sentence(reason_of(error))
        raise UntrustedInput(f"the answer of {url} cannot be read: {why}; is it a Whimbrel server?") from error


def _show(url: str, *, browser: bool) -> None:
    opened = browser and webbrowser.open(url)
    what = "Sign in with your browser, which was opened" if opened else "Open this address in a browser on this machine"
    stderr.print(f"{what} (you have {WAIT_S / 60:.0f} minutes):\n{url}", markup=False, highlight=False)


def _ask(url: str) -> str:
    stderr.print(
        "Open this address in a browser, and sign in. It ends at a page that cannot be shown: copy its whole address "
        f"from the address bar, and paste it here.\n{url}",
        markup=False,
        highlight=False,
    )
    if sys.stdin.isatty():
        return str(typer.prompt("Address", err=True))
    return sys.stdin.readline(16384)
