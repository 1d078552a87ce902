"""Watch something until it ends: a live picture on a terminal, and one line for each change in pipes and scripts.

A server that does not answer for some minutes, as while it is started again, ends neither watching nor waiting.
"""

import sys
import time
from collections.abc import Callable
from typing import TypeVar

from rich.console import RenderableType
from rich.live import Live

from whimbrel.cli.output import console, print_json, say, waiting
from whimbrel.errors import Unavailable

_PERIOD_S = 1.0
_PATIENCE_S = 300.0  # a server is started again, or a network comes back, within minutes

ViewT = TypeVar("ViewT")


def follow(
    look: Callable[[], ViewT],
    *,
    over: Callable[[ViewT], bool],
    picture: Callable[[ViewT], RenderableType],
    line: Callable[[ViewT], str],
    news: Callable[[ViewT], object],
    json: bool,
) -> ViewT:
    """Look every second until it is `over`; how it was then.

    `line`: of a view, for people; it is printed where it is another one than before. `news`: the part of a view of
    which a change makes a new JSON document.
    """
    view = look()
    if not json and sys.stdout.isatty():
        with Live(picture(view), console=console, refresh_per_second=4) as live:
            while not over(view):
                time.sleep(_PERIOD_S)
                view = _patiently(look)
                live.update(picture(view))
        return view
    last: object = None
    while True:
        if (present := news(view) if json else line(view)) != last:
            last = present
            if json:
                print_json(present)
            else:
                say(str(present))
            sys.stdout.flush()  # who reads it through a pipe follows too
        if over(view):
            return view
        time.sleep(_PERIOD_S)
        view = _patiently(look)


def wait_until(
    look: Callable[[], ViewT], *, over: Callable[[ViewT], bool], timeout_s: float | None, what: str
) -> tuple[ViewT, bool]:
    """Look every second until it is `over`, or `timeout_s` seconds have passed: how it is then, whether it is over."""
    begun = time.monotonic()
    view = look()
    with waiting(what):
        while not over(view):
            left_s = float("inf") if timeout_s is None else begun + timeout_s - time.monotonic()
            if left_s <= 0:
                return view, False
            time.sleep(min(_PERIOD_S, left_s))
            view = _patiently(look)
    return view, True


def _patiently(look: Callable[[], ViewT]) -> ViewT:
    begun = time.monotonic()
    while True:
        try:
            return look()
        except Unavailable:
            if time.monotonic() - begun > _PATIENCE_S:
                raise
            time.sleep(_PERIOD_S)
