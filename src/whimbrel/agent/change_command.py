"""`whimbrel agent run --on-change COMMAND`: a command that runs whenever another version of a model is active.

1. It runs beside the agent, one change after the other, in their order: neither a swap nor a way back waits for it.
2. It has a bounded time, and then it is ended with all that it started. How it ended is logged, and changes nothing.
3. It reads its facts from environment variables, so that no shell takes a name apart. The enrolment token is not there.
"""

import os
import queue
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from whimbrel import limits
from whimbrel.agent.changes import VersionChange
from whimbrel.errors import UntrustedInput, reason_of

ENROL_TOKEN = "WHIMBREL_ENROL_TOKEN"  # noqa: S105 (the variable's name)


def words_of(command: str) -> list[str]:
    """The program and its arguments, split as a shell does. Raises `UntrustedInput` for no program that can be run."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UntrustedInput(f"--on-change {command!r} cannot be read: {error}") from error
    if not words:
        raise UntrustedInput("--on-change is empty; expected a command, such as 'systemctl restart my-app'")
    if shutil.which(words[0]) is None:
        raise UntrustedInput(
            f"--on-change: {words[0]!r} is no program that can be run here; for a line of shell: sh -c '...'"
        )
    return words


class ChangeCommand:
    """A hook for `AgentOptions.on_change`. `write` gets a line for the log. Leaving it waits for what runs."""

    def __init__(
        self, command: str, *, write: Callable[[str], object], limit_s: float = limits.CHANGE_COMMAND_S
    ) -> None:
        self._words = words_of(command)
        self._write = write
        self._limit_s = limit_s
        self._waiting: queue.Queue[VersionChange | None] = queue.Queue(limits.CHANGES_WAITING)
        self._thread = threading.Thread(target=self._work, name="on-change", daemon=True)

    def __call__(self, change: VersionChange) -> None:
        """Run the command soon. Returns at once."""
        try:
            self._waiting.put_nowait(change)
        except queue.Full:
            self._write(
                f"{change.model}: --on-change was not run: {limits.CHANGES_WAITING} changes wait for it already"
            )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(queue.Full):
            self._waiting.put_nowait(None)
        self._thread.join(self._limit_s)

    def _work(self) -> None:
        while (change := self._waiting.get()) is not None:
            self._write(f"{change.model}: {self._run(change)}")

    def _run(self, change: VersionChange) -> str:
        begun = time.monotonic()
        try:
            process = subprocess.Popen(
                self._words, env=_environment(change), stdin=subprocess.DEVNULL, start_new_session=os.name == "posix"
            )
        except OSError as error:
            return f"--on-change could not be run: {reason_of(error)}"
        try:
            status = process.wait(self._limit_s)
        except subprocess.TimeoutExpired:
            _end(process)
            return f"--on-change was ended: it took longer than {self._limit_s:g} s"
        took = f"in {time.monotonic() - begun:.1f} s"
        return f"--on-change ran {took}" if status == 0 else f"--on-change failed with status {status} {took}"


def _end(process: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError):
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()


def _environment(change: VersionChange) -> dict[str, str]:
    """Ours without the secret, and the facts; what is None is empty."""
    facts = {
        "WHIMBREL_KIND": change.kind,
        "WHIMBREL_MODEL": change.model,
        "WHIMBREL_SERIAL": change.serial,
        "WHIMBREL_VERSION": change.version,
        "WHIMBREL_PATH": change.path.absolute() if change.path else None,
        "WHIMBREL_SERIAL_BEFORE": change.serial_before,
        "WHIMBREL_VERSION_BEFORE": change.version_before,
    }
    ours = {name: value for name, value in os.environ.items() if name != ENROL_TOKEN}
    return ours | {name: "" if value is None else str(value) for name, value in facts.items()}
