"""`whimbrel serve` as a process, with its log in a file."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.server import Running


class Server:
    """One `whimbrel serve`. Its log is in a file."""

    def __init__(self, folder: Path, log: Path, *arguments: str, start_new_session: bool = False) -> None:
        self._folder, self.log_file = folder, log
        command = [sys.executable, "-m", "whimbrel.cli", "serve", str(folder), "--listen", "127.0.0.1:0"]
        if "--admin-listen" not in arguments:
            command += ["--admin-listen", "127.0.0.1:0"]
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [*command, *arguments],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                start_new_session=start_new_session,
            )

    def listening(self) -> Running:
        """Wait until it listens."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        match = re.match(r"devices: (\S+)/default +people: (\S+) ", line)
        assert match, f"{line!r} {self.log_file.read_text()}"
        return Running(match[1], match[2], self._folder)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> list[str]:
        """Stop it in good order; the lines of its log."""
        self.process.send_signal(number)
        assert self.process.wait(timeout=60) == 0, self.log_file.read_text()
        return self.log

    @property
    def log(self) -> list[str]:
        return self.log_file.read_text().splitlines()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()


@contextmanager
def served(folder: Path, *arguments: str, name: str = "log", start_new_session: bool = False) -> Iterator[Server]:
    log = folder.parent / f"{name}.txt"
    server = Server(folder, log, *arguments, start_new_session=start_new_session)
    try:
        yield server
    finally:
        server.close()
