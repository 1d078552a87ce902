"""`whimbrel`: the command line's entry. Errors are one sentence on standard error, and an exit status that says who.

Each command is imported when it is called: a device has only the agent installed, and starts fast.
"""

import importlib
import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from whimbrel.errors import Unavailable, WhimbrelError

_COMMANDS = {  # name -> the file in this folder that makes it, the extra of the package that it needs
    "init": ("repository", "server"),
    "model": ("model", "server"),
    "publish": ("publish", "server"),
    "version": ("version", "server"),
    "rollout": ("rollout", "server"),
    "experiment": ("experiment", "server"),
    "gate": ("gate", "server"),
    "forecast": ("forecast", "server"),
    "feedback": ("feedback", "server"),
    "device": ("device", "server"),
    "alert": ("alert", "server"),
    "serve": ("repository", "server"),
    "audit": ("repository", "server"),
    "collect": ("repository", "server"),
    "delta": ("delta", "delta"),
    "bundle": ("bundle", "server"),
    "agent": ("agent", ""),
    "simulate": ("simulate", "server"),
    "demo": ("demo", "demo"),
}


class _Lazy(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 (the name is the base class's)
        return [name for name in _COMMANDS if _installed(name)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        file, _ = _COMMANDS[cmd_name]
        try:
            module = importlib.import_module(f"whimbrel.cli.{file}")
        except ModuleNotFoundError as error:
            raise _extra_is_missing(cmd_name, error) from error
        part = getattr(module, cmd_name, None) or module.app
        if isinstance(part, typer.Typer):
            command = get_command(part)
        else:
            single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
            single.command(cmd_name)(part)
            command = get_command(single)
        command.name = cmd_name
        return command

    def invoke(self, ctx: Any) -> Any:
        """Run the command. What it imports only when it works may be missing, too."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            if ctx.invoked_subcommand is None:
                raise
            raise _extra_is_missing(ctx.invoked_subcommand, error) from error


def _extra_is_missing(command: str, error: ModuleNotFoundError) -> Exception:
    """The sentence that names the missing extra; the error itself where one of our own modules is missing."""
    _, extra = _COMMANDS[command]
    if not extra or not error.name or error.name.partition(".")[0] == "whimbrel":
        return error
    return Unavailable(
        f"`whimbrel {command}` needs {error.name}, which is not installed: pip install 'whimbrel[{extra}]' "
        f"(from a clone: pip install '.[{extra}]')"
    )


def _installed(name: str) -> bool:
    try:
        importlib.import_module(f"whimbrel.cli.{_COMMANDS[name][0]}")
    except ModuleNotFoundError:
        return False
    return True


app = typer.Typer(
    name="whimbrel",
    cls=_Lazy,
    help="Over-the-air versioning of machine-learning models for device fleets.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _whimbrel() -> None:
    """Over-the-air versioning of machine-learning models for device fleets."""


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
