"""Processes that run tests: forks of one that has imported the libraries, and nothing of ours.

To import pytest, numpy and the server's libraries takes seconds; a fork has them at once. Each fork has a session of
its own, so that it and all that it started can be ended together, and a folder of its own that is removed with it.
"""

import contextlib
import importlib
import os
import re
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
DATA_BYTES = 6 * 1024**3  # a mutant that multiplies instead of adding must not take the machine's memory
FILE_BYTES = 2 * 1024**3
LIBRARIES = (
    "alembic.command", "alembic.operations", "asyncio", "coverage",
    "cryptography.hazmat.primitives.asymmetric.ec", "cryptography.x509", "hypothesis", "httptools", "httpx",
    "hypothesis.strategies", "joserfc.jwt", "litestar", "litestar.openapi", "litestar.testing", "msgspec", "nats",
    "numpy", "obstore", "pcodec", "psycopg", "pytest", "rich.console", "rich.live", "rich.progress", "rich.table",
    "securesystemslib.signer", "sqlalchemy", "sqlalchemy.dialects.sqlite", "tuf.api.metadata", "tuf.ngclient",
    "typer.testing", "urllib3", "uvicorn", "xxhash", "yaml", "zstandard",
)  # fmt: skip


def import_libraries() -> None:
    """Import what the sources import and what is not under test. A library that is not installed is left out."""
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "bench")]
    imported = {"pytest", "hypothesis", "coverage"}
    for path in (ROOT / "src").rglob("*.py"):
        imported |= set(re.findall(r"^\s*(?:from|import) (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE))
    for name in LIBRARIES:
        if name.partition(".")[0] in imported:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    ours = [name for name in sys.modules if name.partition(".")[0] == "whimbrel"]
    if ours:
        raise SystemExit(f"the process that forks has imported {', '.join(ours[:3])}: each fork must do so itself")


class Fork:
    """A process that runs one function; its exit code is the function's value. What it prints goes to `output`."""

    def __init__(self, run: Callable[["Callable[[str], None]"], int], *, source: Path, folder: Path) -> None:
        """Start at once. `run` is given a function that sends a line to this process (`lines` returns them)."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.folder = folder
        self.output = folder / "output"
        self.began = time.monotonic()
        self.exit_code: int | None = None
        self._unread = b""
        self._cpu_s: float | None = None
        self.pipe, writing = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.pipe)
            _be_the_fork(run, source=source, folder=folder, writing=writing)
        os.close(writing)
        os.set_blocking(self.pipe, False)

    def lines(self) -> list[str]:
        """The lines that came since the last call. `exit_code` is set when the process has ended."""
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self.pipe, 1 << 16):
                self._unread += piece
        *lines, self._unread = self._unread.split(b"\n")
        if self.exit_code is None:
            pid, status, used = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self.exit_code = os.waitstatus_to_exitcode(status)
                self._cpu_s = used.ru_utime + used.ru_stime
        return [line.decode("utf-8", "replace") for line in lines]

    def cpu_s(self) -> float:
        """The seconds of CPU that the process and its ended children have used."""
        if self._cpu_s is not None:
            return self._cpu_s
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        except OSError:
            return time.monotonic() - self.began  # no /proc, or it has just ended
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        """End the process with all that it started, and remove its folder."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        if self.exit_code is None:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)
            self.exit_code = -signal.SIGKILL
        os.close(self.pipe)
        shutil.rmtree(self.folder, ignore_errors=True)


def _be_the_fork(run: Callable[[Callable[[str], None]], int], *, source: Path, folder: Path, writing: int) -> None:
    code = 70
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a terminal does not reach this session
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_DATA, (DATA_BYTES, resource.getrlimit(resource.RLIMIT_DATA)[1]))
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        output = os.open(folder / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        for number in (1, 2):
            os.dup2(output, number)
        os.chdir(ROOT)
        os.environ.update(PYTHONPATH=str(source), PYTHONDONTWRITEBYTECODE="1", TMPDIR=str(folder), COLUMNS="120")
        sys.path.insert(0, str(source))
        code = run(lambda line: (os.write(writing, line.encode() + b"\n"), None)[1])
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def run_pytest(files: list[str], *, folder: Path, plugin: object, stop_at_first: bool) -> int:
    """Run the tests of files in this process, as `make test` does, with a plugin that chooses and watches them."""
    import hypothesis
    import pytest

    hypothesis.settings.register_profile("mutation", derandomize=True, database=None, max_examples=30, deadline=None)
    hypothesis.settings.load_profile("mutation")
    options = ["-q", "--no-header", "--tb=short", "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", str(ROOT)]
    options += ["--basetemp", str(folder / "t"), "-m", "not long and not postgresql and not nats", "--timeout=0"]
    options += ["-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning"]
    return int(pytest.main([*options, *(["-x"] if stop_at_first else []), *files], plugins=[plugin]))
