"""Run an agent as a service until SIGTERM or Ctrl-C. It prints one line for each change, and needs no terminal.

`whimbrel agent run` becomes this process, so that a device that idles for weeks holds no command line in memory.
"""

import os
import signal
import sys
import threading
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from whimbrel.agent.app import Agent, CycleResult
from whimbrel.agent.change_command import ENROL_TOKEN, ChangeCommand
from whimbrel.agent.options import AgentOptions
from whimbrel.agent.progress import DownloadProgress, sentence
from whimbrel.agent.status import status_sentence
from whimbrel.errors import WhimbrelError, reason_of
from whimbrel.plain_text import one_line

_ON_CHANGE = "--on-change"
_OFTEN_S, _RARE_S = 10.0, 60.0  # between two lines about a download: in its first minute, and after it


def run(agent: Agent, lines: "LogLines") -> None:
    """Cycle until the process is asked to end. Raises `Conflict` where another process runs the folder's agent."""

    def end(_: int, __: FrameType | None) -> None:
        threading.Thread(target=agent.stop).start()  # not here: the loop may hold the lock that this needs

    for name in ("SIGTERM", "SIGINT", "SIGBREAK"):  # the last is Windows' own
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), end)
    agent.run(tell=lines.cycle)


def run_folder(folder: Path, *, enrol_token: str | None, on_change: str | None) -> None:
    """Run the agent of a folder that was set up before, with a log on standard error. `on_change`: a command."""
    lines = LogLines()
    with ExitStack() as closing:
        hook = closing.enter_context(ChangeCommand(on_change, write=lines.write)) if on_change else None
        options = AgentOptions(enrol_token=enrol_token, progress=lines.download, on_change=hook)
        run(closing.enter_context(Agent.open(folder, options)), lines)


def become(folder: Path, *, enrol_token: str | None, on_change: str | None) -> None:
    """Replace this process by one that runs the folder's agent and nothing else. Returns where that cannot be."""
    if os.name != "posix":
        return  # Windows starts another process instead, and a service manager would lose it
    environment = dict(os.environ)
    if enrol_token is not None:
        environment[ENROL_TOKEN] = enrol_token  # not an argument: everybody may read these
    sys.stdout.flush()
    sys.stderr.flush()
    words = [sys.executable, "-m", "whimbrel.agent", str(folder), *([_ON_CHANGE, on_change] if on_change else [])]
    os.execve(sys.executable, words, environment)  # noqa: S606


def main(arguments: list[str]) -> int:
    """`python -m whimbrel.agent FOLDER [--on-change COMMAND]`, of a folder that was set up before; the exit status."""
    match arguments:
        case [folder]:
            on_change = None
        case [folder, given, on_change] if given == _ON_CHANGE:
            pass
        case _:
            sys.stderr.write("whimbrel: expected one folder; to set one up: whimbrel agent run --help\n")
            return 2
    try:
        run_folder(Path(folder), enrol_token=os.environ.get(ENROL_TOKEN) or None, on_change=on_change)
    except WhimbrelError as error:
        sys.stderr.write(f"whimbrel: {one_line(str(error))}\n")
        return error.exit_code
    except OSError as error:
        sys.stderr.write(f"whimbrel: {reason_of(error)}{f': {error.filename}' if error.filename else ''}\n")
        return 3
    return 0


class LogLines:
    """Lines on standard error when something changed: for a terminal, or a service manager's log. Thread-safe."""

    def __init__(self) -> None:
        self._written: object = None
        self._fetching: tuple[str, int] | None = None
        self._begun = self._next = 0.0

    def cycle(self, result: CycleResult) -> None:
        """What the models are doing, where it is not what the last cycle said."""
        waits = {"waits_for": None} if result.problems else {}  # it would be said twice
        lines = [f"{name}: {status_sentence({**status, **waits})}" for name, status in result.models.items()]
        lines += [f"trouble: {problem}" for problem in result.problems]
        if lines != self._written:
            self._written = lines
            self.write(*lines)

    def download(self, progress: DownloadProgress) -> None:
        """A download's first word and its last at once, and what is between them ever more rarely."""
        what, now = (progress.model, progress.serial), time.monotonic()
        if what != self._fetching:
            self._fetching, self._begun, self._next = what, now, now
        if now >= self._next or (progress.ended and progress.share >= 1):
            since_s = now - self._begun
            self._next = now + (_OFTEN_S if since_s < _RARE_S else _RARE_S)
            self.write(f"{progress.model}: fetches {progress.version}: {sentence(progress)}")

    def write(self, *lines: str) -> None:
        """Write lines with the time."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        sys.stderr.write("".join(f"{now} {one_line(line)}\n" for line in lines))
        sys.stderr.flush()
