"""How is something watched until it ends? A live picture on a terminal; one line a change for pipes and scripts."""

import sys
import time
from collections.abc import Callable
from typing import Any

from rich.console import RenderableType
from rich.live import Live

from whimbrel.cli.output import console, print_json, say

_PERIOD_S = 1.0

Seen = dict[str, Any]


def follow(
    look: Callable[[], Seen],
    *,
    over: Callable[[Seen], bool],
    picture: Callable[[Seen], RenderableType],
    line: Callable[[Seen], str],
    news: Callable[[Seen], Seen],
    json: bool,
) -> None:
    """Look every second until it is `over`. `news`: the part of which a change makes a new `line`, or JSON document."""
    seen = look()
    if not json and sys.stdout.isatty():
        with Live(picture(seen), console=console, refresh_per_second=4) as live:
            while not over(seen):
                time.sleep(_PERIOD_S)
                seen = look()
                live.update(picture(seen))
        return
    last: Seen | None = None
    while True:
        if (now := news(seen)) != last:
            last = now
            if json:
                print_json(now)
            else:
                say(line(seen))
        if over(seen):
            return
        time.sleep(_PERIOD_S)
        seen = look()
