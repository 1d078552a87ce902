"""Run an agent as a service until SIGTERM or Ctrl-C. It prints one line for each change, and needs no terminal.

`whimbrel agent run` becomes this process, so that a device that idles for weeks holds no command line in memory.
"""

import os
import signal
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from whimbrel.agent.app import Agent, CycleResult
from whimbrel.agent.options import AgentOptions
from whimbrel.agent.status import state_words
from whimbrel.errors import WhimbrelError

ENROL_TOKEN = "WHIMBREL_ENROL_TOKEN"  # noqa: S105 (the variable's name)


def run(agent: Agent) -> None:
    """Cycle until the process is asked to end. Raises `Conflict` where another process runs the folder's agent."""

    def end(_: int, __: FrameType | None) -> None:
        threading.Thread(target=agent.stop).start()  # not here: the loop may hold the lock that this needs

    for name in ("SIGTERM", "SIGINT", "SIGBREAK"):  # the last is Windows' own
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), end)
    agent.run(tell=StatusLines())


def become(folder: Path, *, enrol_token: str | None) -> None:
    """Replace this process by one that runs the folder's agent and nothing else. Returns where that cannot be."""
    if os.name != "posix":
        return  # Windows starts another process instead, and a service manager would lose it
    environment = dict(os.environ)
    if enrol_token is not None:
        environment[ENROL_TOKEN] = enrol_token  # not an argument: everybody may read these
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, "-m", "whimbrel.agent", str(folder)], environment)  # noqa: S606


def main(arguments: list[str]) -> int:
    """`python -m whimbrel.agent FOLDER`, of a folder that was set up before; the exit status."""
    if len(arguments) != 1:
        sys.stderr.write("whimbrel: expected one folder; to set one up: whimbrel agent run --help\n")
        return 2
    try:
        with Agent.open(Path(arguments[0]), AgentOptions(enrol_token=os.environ.get(ENROL_TOKEN) or None)) as agent:
            run(agent)
    except WhimbrelError as error:
        sys.stderr.write(f"whimbrel: {error}\n")
        return error.exit_code
    except OSError as error:
        sys.stderr.write(f"whimbrel: {error.strerror or error}{f': {error.filename}' if error.filename else ''}\n")
        return 3
    return 0


class StatusLines:
    """One line on standard error when something changed: for a terminal, or a service manager's log."""

    def __init__(self) -> None:
        self._written: object = None

    def __call__(self, result: CycleResult) -> None:
        lines = [
            f"{name}: {state_words(status)}, runs {status['version'] or 'nothing'}; {status['because']}"
            + (f"; waits for {status['waits_for']}" if status["waits_for"] and not result.problems else "")
            for name, status in result.models.items()
        ]
        lines += [f"trouble: {problem}" for problem in result.problems]
        if lines != self._written:
            self._written = lines
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            sys.stderr.write("".join(f"{now} {line}\n" for line in lines))
            sys.stderr.flush()
