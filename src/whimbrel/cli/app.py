"""`whimbrel`: the command line's entry. Errors are one sentence on standard error, and an exit status that says who."""

import os
import sys

import typer

from whimbrel.cli import demo, model, publish, repository, rollout, version
from whimbrel.errors import WhimbrelError

app = typer.Typer(
    name="whimbrel",
    help="Over-the-air versioning of machine-learning models for device fleets.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.command("init")(repository.init)
app.command("serve")(repository.serve)
app.add_typer(model.app, name="model")
app.command("publish")(publish.publish)
app.add_typer(version.app, name="version")
app.add_typer(rollout.app, name="rollout")
app.command("demo")(demo.demo)
app.command("audit")(repository.audit)
app.command("collect")(repository.collect)


def main() -> None:
    """Run a command; 0 when it did what was asked."""
    try:
        app()
    except WhimbrelError as error:
        sys.stderr.write(f"whimbrel: {error}\n")
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        sys.stderr.write(f"whimbrel: {error.strerror or error}{f': {error.filename}' if error.filename else ''}\n")
        sys.exit(3)
