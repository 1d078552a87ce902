"""Watch something until it ends: a live picture on a terminal, and one line for each change in pipes and scripts."""

import sys
import time
from collections.abc import Callable
from typing import TypeVar

from rich.console import RenderableType
from rich.live import Live

from whimbrel.cli.output import console, print_json, say

_PERIOD_S = 1.0

ViewT = TypeVar("ViewT")


def follow(
    look: Callable[[], ViewT],
    *,
    over: Callable[[ViewT], bool],
    picture: Callable[[ViewT], RenderableType],
    line: Callable[[ViewT], str],
    news: Callable[[ViewT], object],
    json: bool,
) -> None:
    """Look every second until it is `over`. `news`: the part of which a change makes a new `line`, or JSON document."""
    view = look()
    if not json and sys.stdout.isatty():
        with Live(picture(view), console=console, refresh_per_second=4) as live:
            while not over(view):
                time.sleep(_PERIOD_S)
                view = look()
                live.update(picture(view))
        return
    last_news: object = None
    while True:
        if (present_news := news(view)) != last_news:
            last_news = present_news
            if json:
                print_json(present_news)
            else:
                say(line(view))
        if over(view):
            return
        time.sleep(_PERIOD_S)
        view = look()
