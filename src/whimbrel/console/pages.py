"""How a page becomes HTML: one environment of templates, and the frame around every page.

1. Everything is escaped, whatever it is, and a character that nobody sees is written as an escape (`plain_text`): a
   label, a ticket or a name never becomes markup.
2. A name that a template uses and nobody gave is an error, and no empty place.
3. No template holds a script or a style: the server's policy would refuse them.

Called by the server's routes of the console, with typed views.
"""

from collections.abc import Callable
from typing import Any, Literal

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined

from whimbrel.console import words
from whimbrel.console.static_parts import PARTS
from whimbrel.flows.accounts.permissions import Caller, Permission
from whimbrel.plain_text import one_line

Theme = Literal["", "light", "dark"]  # "": as the system has it
SECTIONS = (  # of the navigation: the last part of a path, and its name
    ("fleet", "Fleet"),
    ("rollouts", "Rollouts"),
    ("models", "Models"),
    ("devices", "Devices"),
    ("audit", "Audit"),
    ("access", "Access"),
)
THEMES: tuple[Theme, ...] = ("", "light", "dark")


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """What stands around a page. `section`: of the navigation. `live`: where news of this page come from, if any.

    `csrf`: the token of the forms of this session. `path`: of this page, to which a change of the theme leads back.
    """

    title: str
    now: float
    path: str
    namespace: str = ""
    section: str = ""
    caller: Caller | None = None
    csrf: str = ""
    theme: Theme = ""
    live: str = ""
    notice: str = ""

    def may(self, permission: str) -> bool:
        """Whether who looks may do that."""
        return self.caller is not None and self.caller.may(Permission(permission))


def _finalized(value: Any) -> Any:
    """Text in one line of visible characters. Markup of a macro is a class of its own, and stays."""
    return one_line(value) if type(value) is str else value


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("whimbrel.console"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalized,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    filters: tuple[Callable[..., str], ...] = (
        words.ago,
        words.counted,
        words.figure,
        words.lasting,
        words.machine_time,
        words.percent,
        words.plain_name,
        words.sentence,
        words.size_words,
        words.stamp,
    )
    environment.filters.update({each.__name__: each for each in filters})
    environment.globals.update(parts={name: part.url for name, part in PARTS.items()}, themes=THEMES, sections=SECTIONS)
    return environment


_ENVIRONMENT = _environment()


def render(template: str, frame: Frame, **views: Any) -> bytes:
    """A page. `template`: its name without the ending; `views`: what it shows."""
    text = _ENVIRONMENT.get_template(f"{template}.html").render(frame=frame, now=frame.now, **views)
    return text.encode("utf-8", "backslashreplace")
