"""Ask before something is done that cannot be undone, or that moves a fleet: on a terminal, or by `--yes`."""

import sys

import typer

from whimbrel.cli.output import say
from whimbrel.errors import Refused
from whimbrel.plain_text import one_line


def confirm(what: str, *, consequence: str, yes: bool, nature: str = "cannot be undone") -> None:
    """Go on only where a person agrees. `what`: "to revoke wake 2.0.0"; `consequence`: a sentence, without its stop;
    `nature`: why it is asked.

    Raises `Refused` where nobody can be asked and `yes` is not given. A person who says no ends the command with 1.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise Refused(f"{what} {nature}, and nobody can be asked here; give --yes to do it")
    question = f"{what[:1].upper()}{what[1:]} {nature}: {consequence}. Go on?"
    if not typer.confirm(one_line(question), err=True):
        say("nothing was done")
        raise typer.Exit(1)
