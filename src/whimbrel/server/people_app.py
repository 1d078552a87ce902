"""What people's listener serves: the admin API for programs, and the console for people, each with its own errors.

A path is the admin API's where it says so: `/{namespace}/admin/...` and `/schema`. All others are pages.
"""

from typing import Any, cast

from litestar import Litestar

from whimbrel.server.admin.app import admin_app
from whimbrel.server.admin.operations import AdminContext
from whimbrel.server.console.app import console_app
from whimbrel.server.console.streams import Streams
from whimbrel.server.console.visit import Console
from whimbrel.server.http import App, Receive, Scope, Send


class PeopleApp:
    """The application of people's listener."""

    def __init__(self, context: AdminContext) -> None:
        self.streams = Streams()
        self.admin: Litestar = admin_app(context)
        self._console: Litestar = console_app()
        self._console.state["console"] = Console(self.admin.state["operations"], streams=self.streams)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Of the lifespan the admin API takes care: the console has none of its own."""
        apps = cast(Any, self.admin if scope["type"] != "http" or is_admin(scope["path"]) else self._console)
        await cast(App, apps)(scope, receive, send)


def is_admin(path: str) -> bool:
    """Whether a path is the admin API's."""
    parts = path.split("/", 3)  # the first is empty
    return parts[1:2] == ["schema"] or parts[2:3] == ["admin"]
