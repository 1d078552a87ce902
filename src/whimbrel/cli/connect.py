"""Connect a command to a repository: all take `--repository DIR`, `--server URL` with a token, or `--context NAME`.

Both speak the admin API: over a socket, or, for a folder, to the same application inside this process. So there is one
set of rules, errors and checks, and a command works the same on a desk and on a server.
"""

import asyncio
import functools
import inspect
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar, overload
from urllib.parse import quote

import httpx
import msgspec
import typer

from whimbrel import limits
from whimbrel.cli.output import progress_bar, stderr
from whimbrel.cli.place import find_place
from whimbrel.cli.server_channel import authorities, check_channel, no_answer
from whimbrel.errors import (
    Conflict,
    DiskFull,
    NotAllowed,
    NotFound,
    Refused,
    TooMany,
    Unavailable,
    UntrustedInput,
    WhimbrelError,
    reason_of,
)
from whimbrel.model.document_errors import sentence
from whimbrel.plain_text import one_line
from whimbrel.server.admin.views.repository import NOTICE

T = TypeVar("T")

_TIMEOUT_S = 60.0
_NO_SUCH_PATH = "there is nothing at this path"  # server/app.py, of what devices ask


class Client:
    """The admin API of one namespace. Answers are decoded into its views; problems come back as our errors."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        *,
        runner: asyncio.Runner,
        namespace: str,
        keys: Path | None,
    ) -> None:
        self._http = http
        self._runner = runner
        self.namespace = namespace
        self._keys = keys
        self.notice: str | None = None  # what the server wants the operator to know

    @overload
    def get(self, path: str, *, as_: type[T], **query: Any) -> T: ...
    @overload
    def get(self, path: str, **query: Any) -> Any: ...

    def get(self, path: str, *, as_: Any = Any, **query: Any) -> Any:
        """GET below `/{ns}/admin/v1`, decoded as the view `as_` (or a list of them)."""
        given = {name: value for name, value in query.items() if value is not None}
        return _decoded(self._call("GET", path, params=given), as_)

    def get_bytes(self, path: str) -> bytes:
        """GET, undecoded: signed metadata."""
        return self._call("GET", path).content

    @overload
    def send(
        self, method: str, path: str, body: Any = None, *, as_: type[T], wait_s: float = ..., **query: Any
    ) -> T: ...
    @overload
    def send(self, method: str, path: str, body: Any = None, *, wait_s: float = ..., **query: Any) -> Any: ...

    def send(
        self, method: str, path: str, body: Any = None, *, as_: Any = Any, wait_s: float = _TIMEOUT_S, **query: Any
    ) -> Any:
        """POST, PUT or PATCH a JSON body; bytes in it travel as base64. The answer is decoded as the view `as_`."""
        return _decoded(self._call(method, path, json=msgspec.to_builtins(body), params=query, timeout=wait_s), as_)

    def has_artifact(self, sha256: str) -> bool:
        """Whether its bytes are stored already."""
        try:
            self._call("HEAD", f"artifacts/{sha256}")
        except NotFound:
            return False
        return True

    def send_artifact(self, path: Path, sha256: str) -> None:
        """Send a file's bytes, with a progress bar on a terminal."""
        size = path.stat().st_size

        async def chunks() -> AsyncIterator[bytes]:
            with progress_bar(f"sending {path.name}", total=size) as advance, path.open("rb") as file:
                while chunk := file.read(limits.COPY_CHUNK_BYTES):
                    yield chunk
                    advance(len(chunk))

        self._call("PUT", f"artifacts/{sha256}", content=chunks())

    def keys(self) -> Path:
        """The folder of the offline keys. Raises `NotFound` where none was named."""
        if self._keys is None:
            raise NotFound("this signs with an offline key; name the folder that holds it with --keys DIR")
        return self._keys

    def _call(self, method: str, path: str, **more: Any) -> httpx.Response:
        try:
            answer = self._runner.run(self._http.request(method, f"/{self.namespace}/admin/v1/{path}", **more))
        except httpx.TransportError as error:
            raise no_answer(f"the server at {self._http.base_url}", error) from error
        self.notice = answer.headers.get(NOTICE, self.notice)
        if answer.is_success:
            return answer
        raise problem_of(answer)


def _decoded(answer: httpx.Response, kind: Any) -> Any:
    if not answer.content:
        return None
    what = f"the server's answer to {answer.request.method} {answer.request.url.path}"
    try:
        return msgspec.json.decode(answer.content, type=kind)
    except msgspec.DecodeError as error:
        raise UntrustedInput(
            f"{what} cannot be read: {sentence(str(error), kind=kind)}; is it of the same version as this command?"
        ) from error


def quoted(part: str) -> str:
    """A person's word as one segment of a path: wake?x is no query of wake."""
    return quote(part, safe="")


def problem_of(answer: httpx.Response) -> WhimbrelError:
    """The error that a server answered."""
    try:
        detail = str(answer.json()["detail"])
        if answer.status_code == 404 and detail.startswith(_NO_SUCH_PATH):
            detail = (
                f"{_origin(answer)} is the address that devices ask; people ask another port: `whimbrel serve` prints "
                "both"
            )
    except (ValueError, KeyError, TypeError):
        detail = f"the server answered {answer.status_code}, which is not one of Whimbrel's answers; is the URL right?"
    kinds: dict[int, type[WhimbrelError]] = {
        400: UntrustedInput,
        401: NotAllowed,
        403: Refused,
        404: NotFound,
        409: Conflict,
        413: UntrustedInput,
        429: TooMany,
        503: Unavailable,
        507: DiskFull,
    }
    return kinds.get(answer.status_code, WhimbrelError)(detail)


def _origin(answer: httpx.Response) -> str:
    url = answer.request.url
    return f"{url.scheme}://{url.netloc.decode()}"


@contextmanager
def connect(
    *,
    repository: Path | None = None,
    server: str | None = None,
    context: str | None = None,
    token_file: Path | None = None,
    namespace: str | None = None,
    keys: Path | None = None,
) -> Iterator[Client]:
    """A client for the folder or server that is meant (cli/place.py). Raises `UntrustedInput` unless one is."""
    place = find_place(
        repository=repository,
        server=server,
        context=context,
        token_file=token_file,
        namespace=namespace,
        keys=keys,
    )
    with asyncio.Runner() as runner:
        if place.server is not None:
            check_channel(place.server)
            http = httpx.AsyncClient(
                base_url=place.server,
                headers=_bearer(_token(place.token_file)),
                timeout=_TIMEOUT_S,
                trust_env=False,
                verify=authorities(),
            )
            client = Client(http, runner=runner, namespace=place.namespace or "default", keys=place.keys)
            yield from _connected(client, http, runner)
            return
        _keep_to_errors("whimbrel.server")
        from whimbrel.server.admin.app import admin_app  # a second of work that a remote server or --help needs not
        from whimbrel.server.app import open_repository
        from whimbrel.server.config import Folder
        from whimbrel.server.people import folder_caller

        folder = Folder.open(place.repository or Path())
        with open_repository(folder) as opened:
            working = opened.admin_context(folder=folder_caller())
            transport = httpx.ASGITransport(admin_app(working))  # type: ignore[arg-type]
            shown = {} if place.token_file is None else _bearer(_read_token(place.token_file))
            http = httpx.AsyncClient(transport=transport, base_url="http://folder", headers=shown, timeout=_TIMEOUT_S)
            held = place.keys or folder.offline_keys
            client = Client(http, runner=runner, namespace=place.namespace or folder.config.namespace, keys=held)
            try:
                yield from _connected(client, http, runner)
            finally:
                runner.run(opened.controllers.resign())
                runner.run(opened.inbox.close())


def _connected(client: Client, http: httpx.AsyncClient, runner: asyncio.Runner) -> Iterator[Client]:
    try:
        yield client
    finally:
        runner.run(http.aclose())
        if client.notice and "--json" not in sys.argv:
            stderr.print(f"note: {one_line(client.notice)}", markup=False, highlight=False)


def _keep_to_errors(name: str) -> None:
    """In a folder the server is in this process: what it logs is said by the command too, but for our own bugs."""
    logger = logging.getLogger(name)
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setLevel(logging.ERROR)
        logger.addHandler(handler)


def _bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def _token(file: Path | None) -> str:
    if file is not None:
        return _read_token(file)
    token = os.environ.get("WHIMBREL_TOKEN", "").strip()
    if not token:
        raise NotAllowed(
            "a server asks for a token: sign in (whimbrel login), name a file with --token-file, or set WHIMBREL_TOKEN"
        )
    return token


def _read_token(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise NotAllowed(f"the token cannot be read from {file}: {reason_of(error)}") from error


_WHERE = "Where"
Repository = Annotated[
    Path | None,
    typer.Option(
        "--repository", "-R", help="A repository's folder; else $WHIMBREL_REPOSITORY.", rich_help_panel=_WHERE
    ),
]
Server = Annotated[
    str | None,
    typer.Option(help="Or a server's admin URL; else $WHIMBREL_SERVER.", rich_help_panel=_WHERE),
]
ContextName = Annotated[
    str | None,
    typer.Option(
        "--context", help="Or a context's name (whimbrel context list); else the current one.", rich_help_panel=_WHERE
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(help="File with your token; else $WHIMBREL_TOKEN.", rich_help_panel=_WHERE),
]
Namespace = Annotated[str | None, typer.Option(help="Namespace.", rich_help_panel=_WHERE)]
Keys = Annotated[
    Path | None,
    typer.Option(help="Folder of the offline keys; the repository's own by default.", rich_help_panel=_WHERE),
]
_OPTIONS: dict[str, Any] = {
    "repository": Repository,
    "server": Server,
    "context": ContextName,
    "token_file": TokenFile,
    "namespace": Namespace,
    "keys": Keys,
}


def connected(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say where, and a `Client` as its first argument."""
    return _with_place(command, unless=None)


def connected_unless(argument: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The same for a command that needs no repository where `argument` is given: its first argument is None then."""
    return functools.partial(_with_place, unless=argument)


def _with_place(command: Callable[..., None], *, unless: str | None) -> Callable[..., None]:
    @functools.wraps(command)
    def run(**arguments: Any) -> None:
        where = {name: arguments.pop(name) for name in _OPTIONS}
        if unless is not None and arguments[unless] is not None:
            command(None, **arguments)
            return
        with connect(**where) as client:
            command(client, **arguments)

    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    where = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in _OPTIONS.items()
    ]
    keyword = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    run.__signature__ = inspect.Signature([*keyword, *where])  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in [*keyword, *where]}
    return run
