"""The console of a server in memory: a browser without a screen, and the same on a real socket."""

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import unescape
from typing import Any, cast

import httpx
import uvicorn
from litestar import Litestar

from support.server_in_memory import NAMESPACE, OneThread, ServerInMemory, server_in_memory
from whimbrel.server.admin.operations import AdminContext, Operations
from whimbrel.server.console.app import console_app
from whimbrel.server.console.streams import Streams
from whimbrel.server.console.visit import Console
from whimbrel.server.http import App, Receive, Scope, Send

_APPLICATION: list[Litestar] = []


def console_over(server: ServerInMemory, context: AdminContext | None = None) -> App:
    """The console as an application. It is made once in a process: each server lends it what it works on."""
    if not _APPLICATION:
        _APPLICATION.append(console_app())
    console = Console(Operations(context or server.repository.admin_context()), streams=Streams())

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        _APPLICATION[0].state["console"] = console
        await cast(App, _APPLICATION[0])(scope, receive, send)

    return app


class Browser:
    """What a person does with the console. It follows no redirect by itself, and keeps cookies."""

    def __init__(self, server: ServerInMemory, *, app: App | None = None, address: str = "192.0.2.1") -> None:
        self.http: httpx.Client = server.client(app or console_over(server), base="", address=address)

    def get(self, path: str, **more: Any) -> httpx.Response:
        """A page."""
        return self.http.get(path, **more)

    def submit(self, page: httpx.Response, action: str = "", **fields: str) -> httpx.Response:
        """Send the form of a page: what is in it, with `fields`. `action`: how the address of the form ends."""
        form = next(each for each in forms(page.text) if each[0].endswith(action))
        return self.http.post(form[0], data={**form[1], **fields})

    def sign_in(self, token: str) -> httpx.Response:
        """Sign in, and give the answer."""
        return self.submit(self.get(f"/{NAMESPACE}/sign-in"), "/sign-in", token=token)


def signed_in(server: ServerInMemory, token: str | None = None) -> Browser:
    """A browser of somebody who is signed in; by default of the first admin."""
    browser = Browser(server)
    answer = browser.sign_in(token or server.admin_token)
    assert answer.status_code == 303, answer.text
    return browser


def forms(page: str) -> list[tuple[str, dict[str, str]]]:
    """The forms of a page: where each goes, and its hidden fields."""
    found = []
    for form in re.findall(r"<form[^>]*>.*?</form>", page, re.S):
        action = re.search(r'action="([^"]*)"', form)
        hidden = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)"', form)
        found.append((unescape(action[1]) if action else "", {unescape(n): unescape(v) for n, v in hidden}))
    return found


def text_of(page: httpx.Response) -> str:
    """The words of a page's main part."""
    main = page.text.partition('<main id="main" tabindex="-1">')[2].partition("</main>")[0]
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", main))).strip()


@contextmanager
def console_on_a_socket(prepare: Callable[[ServerInMemory], Any], **more: Any) -> Iterator[tuple[str, str, Any]]:
    """A console that a real browser can open: its address, the first admin's token, and what `prepare` gave."""
    ready, stop, known = threading.Event(), threading.Event(), {}

    async def serve(server: ServerInMemory) -> None:
        config = uvicorn.Config(cast(Any, console_over(server)), port=0, lifespan="off", log_config=None)
        http = uvicorn.Server(config)
        task = asyncio.create_task(http.serve())
        while not http.started:
            await asyncio.sleep(0.01)
        known["port"] = http.servers[0].sockets[0].getsockname()[1]
        ready.set()
        while not stop.is_set():
            await asyncio.sleep(0.05)
        http.force_exit = http.should_exit = True
        await task

    def run() -> None:
        with server_in_memory(versions=1, **more) as server:
            known["told"], known["token"] = prepare(server), server.admin_token
            with asyncio.Runner(loop_factory=OneThread) as runner:
                runner.run(serve(server))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(240), "the console did not begin to listen"
    try:
        yield f"http://127.0.0.1:{known['port']}", known["token"], known["told"]
    finally:
        stop.set()
        thread.join(20)
