"""`whimbrel`: the command line's entry. Errors are one sentence on standard error, and an exit status that says who.

1. A command is imported when it is called: a device has only the agent installed, and starts fast. The help and the
   completion of `whimbrel` itself import none: the table below has a line for each command.
2. A wrong command line, and whatever Whimbrel raises on purpose, is one sentence; with `--json`, one JSON object.
   docs/reference/errors.md lists the exit statuses and the kinds.
3. Two kinds of values are refused for every command: an empty word, but where an option gives it a meaning
   (`--selector "$UNSET"` in a script must not mean every device), and a number that is none (nan, inf).
"""

import importlib
import importlib.util
import json
import logging
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from whimbrel.durable import trouble
from whimbrel.errors import Unavailable, UntrustedInput, WhimbrelError
from whimbrel.version import __version__

_STOPPED, _PIPE_CLOSED = 130, 141  # as shells have them: 128 and the number of the signal
_BUG = 70  # EX_SOFTWARE of sysexits.h
_EMPTY = (
    "an empty value came after {}; give it a value, or leave the option out (is a variable of your script not set?)"
)
_MAY_BE_EMPTY = {"agent": {"--server", "--proxy", "--ca-file"}}  # '' takes the setting away, as its help says
_ClickError: type[Exception] = typer.BadParameter.__mro__[2]  # what every wrong command line is


class _Entry(NamedTuple):
    """A command: the file in this folder that makes it, the extra that it needs (or ""), and its line in the help."""

    file: str
    extra: str
    summary: str


_VERSIONS, _ROLLOUTS, _SERVER, _DEVICE, _PREVIEW = (
    "Models and versions",
    "Rollouts",
    "The server, and which one is meant",
    "On a device",
    "To try things out",
)
_COMMANDS = {
    _VERSIONS: {
        "model": _Entry("model", "server", "Lines of versions: add one, change its settings, name versions."),
        "publish": _Entry("publish", "server", "Publish a version: sign it, store it, and say what it is."),
        "version": _Entry("version", "server", "List and show versions; retire or revoke one."),
        "bundle": _Entry("bundle", "server", "Write files that carry versions to devices without a network."),
        "delta": _Entry("delta", "delta", "Make, apply and inspect patches between versions."),
    },
    _ROLLOUTS: {
        "rollout": _Entry("rollout", "server", "Start, watch, wait for, pause and take back rollouts; write plans."),
        "experiment": _Entry("experiment", "server", "Compare versions on real devices, with an answer at any time."),
        "forecast": _Entry("forecast", "server", "What a plan will do to a fleet, before it does it."),
        "gate": _Entry("gate", "server", "Judge a file of windows as the server would have."),
        "feedback": _Entry("feedback", "server", "Hand on the tickets of users, to be counted and judged."),
        "device": _Entry("device", "server", "Devices: what they run and wait for; label, block, allow or remove one."),
        "enrol-token": _Entry("enrol_token", "server", "With what devices enrol, on which terms, and until when."),
        "alert": _Entry("alert", "server", "Who is told of what happens to rollouts."),
    },
    _SERVER: {
        "init": _Entry("repository", "server", "Make a repository: keys, signed metadata, database, tokens."),
        "serve": _Entry("repository", "server", "Run the server."),
        "migrate": _Entry("repository", "server", "Bring a repository's database up to this version of Whimbrel."),
        "context": _Entry("context", "", "Name servers and folders, and say which one commands are about."),
        "audit": _Entry("repository", "server", "Who did what, when, why and on what evidence."),
        "collect": _Entry("repository", "server", "Delete artifacts that nothing refers to."),
    },
    _DEVICE: {
        "agent": _Entry("agent", "", "Keep the models of this device as their policies say."),
        "tuf-client": _Entry("tuf_client", "", "Read any TUF repository with the agent's trust code."),
    },
    _PREVIEW: {
        "demo": _Entry("demo", "demo", "Watch a version travel to a fleet, and a bad one be taken back."),
        "simulate": _Entry("simulate", "server", "Play worlds from seeds with real agents, and check every promise."),
    },
}
_BY_NAME = {name: entry for panel in _COMMANDS.values() for name, entry in panel.items()}
_MARKS = {"": "typer", "server": "litestar", "delta": "hdiffpatch", "demo": "sklearn"}  # a package that only it brings


class _Lazy(TyperGroup):
    _listing = False

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 (the name is the base class's)
        return list(_BY_NAME)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        entry = _BY_NAME.get(cmd_name)
        if entry is None:
            return None
        if self._listing:
            return _line_of(cmd_name, entry)
        try:
            module = importlib.import_module(f"whimbrel.cli.{entry.file}")
        except ModuleNotFoundError as error:
            if ctx.resilient_parsing:  # a shell asks for completions, and nobody would read the sentence
                return _line_of(cmd_name, entry)
            raise _extra_is_missing(cmd_name, error) from error
        part = getattr(module, cmd_name, None) or module.app
        if isinstance(part, typer.Typer):
            command = get_command(part)
        else:
            single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
            single.command(cmd_name)(part)
            command = get_command(single)
        command.name = cmd_name
        _take_finite_numbers(command)
        return command

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Every command with its line, also those whose extra is missing; none is imported."""
        with self._lines():
            super().format_help(ctx, formatter)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """The commands' names; none is imported."""
        with self._lines():
            return super().shell_complete(ctx, incomplete)

    def invoke(self, ctx: Any) -> Any:
        """Run the command. What it imports only when it works may be missing, too."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            if ctx.invoked_subcommand is None:
                raise
            raise _extra_is_missing(ctx.invoked_subcommand, error) from error

    @contextmanager
    def _lines(self) -> Iterator[None]:
        self._listing = True
        try:
            yield
        finally:
            self._listing = False


def _take_finite_numbers(command: Any) -> None:
    """Let every option of a command, and of the commands below it, refuse nan and inf. No option has a use for them."""
    for parameter in command.params:
        if parameter.callback is None:
            parameter.callback = _finite
    for below in getattr(command, "commands", {}).values():
        _take_finite_numbers(below)


def _finite(ctx: Any, param: Any, value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number", ctx=ctx, param=param)
    return value


def _refuse_empty_words(words: Sequence[str]) -> None:
    """Raises `UntrustedInput` where the command line has an empty word: mostly a script's variable that is not set."""
    may_be_empty = _MAY_BE_EMPTY.get(words[0] if words else "", set())
    for before, word in zip(["whimbrel", *words], words, strict=False):
        option, equals, value = word.partition("=")
        joined = bool(equals) and option.startswith("--") and not value.strip()
        named = option if joined else before
        if (joined or not word.strip()) and named not in may_be_empty:
            raise UntrustedInput(_EMPTY.format(named))


def _line_of(name: str, entry: _Entry) -> TyperCommand:
    """The command's place in a list, without its options."""
    missing = importlib.util.find_spec(_MARKS[entry.extra]) is None
    summary = f"{entry.summary} (needs the extra {entry.extra})" if missing else entry.summary
    panel = next(title for title, names in _COMMANDS.items() if name in names)
    return TyperCommand(name, help=summary, rich_help_panel=panel)


def _extra_is_missing(command: str, error: ModuleNotFoundError) -> Exception:
    """The sentence that names the missing extra; the error itself where one of our own modules is missing."""
    extra = _BY_NAME[command].extra
    if not extra or not error.name or error.name.partition(".")[0] == "whimbrel":
        return error
    return Unavailable(
        f"`whimbrel {command}` needs {error.name}, which is not installed: pip install 'whimbrel[{extra}]' "
        f"(from a clone: pip install '.[{extra}]')"
    )


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"whimbrel {__version__}\n")
        raise typer.Exit


app = typer.Typer(
    name="whimbrel",
    cls=_Lazy,
    help="Over-the-air versioning of machine-learning models for device fleets.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback(epilog="Exit status: 0 done; 1 the answer is no; 2 wrong input; 3 try again later; 4 refused.")
def _whimbrel(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Over-the-air versioning of machine-learning models for device fleets."""


def main() -> None:
    """Run a command; 0 when it did what was asked."""
    try:
        _refuse_empty_words(sys.argv[1:])
        status = app(prog_name="whimbrel", standalone_mode=False)
    except WhimbrelError as error:
        _fail(type(error).__name__, str(error), error.exit_code)
    except _ClickError as error:
        _fail_usage(error)
    except typer.Abort:
        _fail("Stopped", "nothing was done", _STOPPED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_PIPE_CLOSED)
    except OSError as error:
        reason = trouble(error, doing=" ".join(["whimbrel", *sys.argv[1:2]]))
        _fail(type(reason).__name__, str(reason), reason.exit_code)
    except Exception as error:
        logging.getLogger(__name__).exception("this is a bug of Whimbrel")
        _fail("Bug", f"this is a bug of Whimbrel ({type(error).__name__}: {error}); please report it", _BUG)
    sys.exit(status or 0)


def _fail_usage(error: Any) -> None:
    """A command line that cannot be understood; without any arguments, a group's help."""
    command = error.ctx.command_path if getattr(error, "ctx", None) else "whimbrel"
    if type(error).__name__ == "NoArgsIsHelpError":  # its help is printed already
        sys.exit(error.exit_code)
    words = " ".join(error.format_message().split())
    joint = " See" if words.endswith("?") else "; see"
    words = words[:1].lower() + words[1:].rstrip(".")
    _fail("Usage", f"{words}{joint}: {command} --help", UntrustedInput.exit_code)


def _fail(kind: str, words: str, status: int) -> None:
    """Say what is wrong on standard error, and end."""
    if "--json" in sys.argv[1:]:
        line = json.dumps({"kind": kind, "detail": words, "exit_code": status})
    else:
        line = f"whimbrel: {words}"
    sys.stderr.write(line + "\n")
    sys.exit(status)
