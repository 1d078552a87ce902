"""Options that many commands share, so that one thing is said in one way everywhere.

A model is named with `--model NAME` (`-m`). Only the commands of `whimbrel model` name it as their argument, since it
is what they are about.
"""

import getpass
from typing import Annotated

import typer

ModelName = Annotated[str, typer.Option("--model", "-m", help="The model's name.")]
OnlyModel = Annotated[str | None, typer.Option("--model", "-m", help="Only this model's.")]
By = Annotated[
    str,
    typer.Option("--by", envvar="WHIMBREL_ACTOR", help="Who does it, for the audit log; your login name by default."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; scripts need it.")]


def login() -> str:
    """The login name of whoever types; "admin" where nobody is logged in, as in a container without that user."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "admin"
