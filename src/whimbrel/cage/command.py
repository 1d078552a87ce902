"""A command of somebody else's, run in a folder: within limits, and behind the walls that a command leaves room for.

1. `run` starts a Python process by `child.py`, which forks the command behind walls and watches it: its time, and what
   it writes. It tells `run` of both, a line of JSON at a time. Where `run` ends, so does all that the command started.
2. The command reads programs, libraries and its folders, and writes in its folders (Landlock). Of other files it
   changes no mode, owner or time (mounts of its own). It opens no socket, and has no network. Its environment has the
   few names of `child.py`, and folders of its own for HOME and TMPDIR.
3. Unlike a probe it may start processes. `Ran` says which walls held.
4. Folders deeper than `limits.REBUILD_DEPTH`, or that cannot be looked into, end it: what lies there is not counted.

Called by `whimbrel version rebuild`, after a person agreed.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from whimbrel import limits
from whimbrel.cage import child
from whimbrel.errors import InvariantBroken, Unavailable

_PROGRAMS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt")
_READABLE = ("/etc/alternatives", "/etc/fonts", "/etc/mime.types", "/proc")
_WRITABLE = ("/dev/null",)
_NOT_STARTED = 127  # sh(1): the status of a command that could not be run


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What to run. `folder` has the inputs, and is where it runs; `scratch` is for its HOME, TMPDIR and output."""

    command: tuple[str, ...]
    folder: str
    scratch: str
    time_s: float
    bytes_max: int


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """How it went, or goes: `done` is False in what is told on the way.

    `status`: the exit status, negative for a signal. `stopped`: which limit ended it, in words. `problem`: why it did
    not start. `landlock`, `offline`: whether it was kept to its folders, and from the network. `read_only`: whether it
    could change no mode, owner or time of a file elsewhere.
    """

    done: bool = True
    elapsed_s: float = 0.0
    size_bytes: int = 0
    status: int = 0
    stopped: str | None = None
    problem: str | None = None
    landlock: bool = False
    offline: bool = False
    read_only: bool = False

    @property
    def is_well(self) -> bool:
        """Whether it ended by itself, with status 0."""
        return self.problem is None and self.stopped is None and self.status == 0


class _Begun(msgspec.Struct, frozen=True):
    landlock: int = 0
    offline: bool = False
    read_only: bool = False
    problem: str | None = None


def run(request: Request, on_progress: Callable[[Ran], None]) -> Ran:
    """Run a command to its end, or to a limit. Raises `Unavailable` where it cannot be watched here."""
    if sys.platform == "win32":
        raise Unavailable("a command cannot be kept within limits on Windows; do it on Linux or macOS")
    process = subprocess.Popen(
        child.command("whimbrel.cage.command"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=child.ROOT,
        env=child.environment(),
    )
    try:
        asking, answering = process.stdin, process.stdout
        if asking is None or answering is None:
            raise InvariantBroken("a process that was started with pipes has none")
        asking.write(msgspec.json.encode(request) + b"\n")
        asking.flush()
        for line in answering:
            told = msgspec.json.decode(line, type=Ran)
            if told.done:
                return told
            on_progress(told)
        raise Unavailable("the process that watched the command ended; try again")
    finally:
        process.terminate()
        process.communicate()


def _watch() -> int:
    """The process that `run` started: start the command, and tell of it until it has ended."""
    from whimbrel.cage import descendants

    request = msgspec.json.decode(sys.stdin.buffer.readline(), type=Request)
    descendants.adopt()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    begun = time.monotonic()
    reading, writing = os.pipe()
    command = os.fork()
    if command == 0:
        _begin(request, writing)
    try:
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            # The walls in one line, and a second one only where the command could not be started.
            lines = [msgspec.json.decode(line, type=_Begun) for line in pipe]
        walls = lines[0] if lines else _Begun()
        stopped = None
        while stopped is None and os.waitid(os.P_PID, command, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            elapsed, (size, objection) = time.monotonic() - begun, _bytes_below(request.folder, request.scratch)
            stopped = _passed(request, elapsed, size, objection)
            _tell(Ran(done=False, elapsed_s=elapsed, size_bytes=size))
            time.sleep(limits.REBUILD_LOOK_S if elapsed > limits.REBUILD_LOOK_S else limits.REBUILD_LOOK_S / 10)
        status = os.waitstatus_to_exitcode(descendants.end(command))
        size, objection = _bytes_below(request.folder, request.scratch)
        elapsed = time.monotonic() - begun
        problem = next((each.problem for each in lines if each.problem is not None), None)
        _tell(
            Ran(
                elapsed_s=elapsed,
                size_bytes=size,
                status=status,
                stopped=stopped or _passed(request, 0.0, size, objection),
                problem=problem,
                landlock=bool(walls.landlock),
                offline=walls.offline,
                read_only=walls.read_only,
            )
        )
    except BaseException:
        with contextlib.suppress(OSError):
            descendants.end(command)
        raise
    return 0


def _passed(request: Request, elapsed_s: float, size_bytes: int, objection: str | None) -> str | None:
    """Which limit was passed, in words. `objection`: of `_bytes_below`."""
    if elapsed_s > request.time_s:
        return f"it took more than {request.time_s:g} s"
    if objection is not None:
        return objection
    return f"it wrote more than {request.bytes_max} bytes" if size_bytes > request.bytes_max else None


def _begin(request: Request, writing: int) -> None:
    """In the forked process: close the walls and become the command. It never returns."""
    try:
        from whimbrel.cage import walls

        os.setsid()
        homes = {name: os.path.join(request.scratch, name.lower()) for name in ("HOME", "TMPDIR")}
        output = os.open(os.path.join(request.scratch, "output"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        for home in homes.values():
            os.mkdir(home, 0o700)
        os.chdir(request.folder)
        environment = child.environment() | homes
        program = shutil.which(request.command[0], path=environment.get("PATH", os.defpath))
        closed = walls.enter_command(
            walls.Bounds(
                memory_bytes=limits.REBUILD_MEMORY_BYTES,
                cpu_s=None,
                readable=[Path(place) for place in _READABLE],
                kept=(1, 2, writing),
                file_bytes=request.bytes_max,
                descriptors=limits.REBUILD_DESCRIPTORS,
            ),
            runnable=[*map(Path, _PROGRAMS), *_programs(environment)],
            writable=[Path(request.folder), *map(Path, homes.values()), *map(Path, _WRITABLE)],
        )
        _write(writing, _Begun(landlock=closed.landlock, offline=closed.offline, read_only=closed.read_only))
        if program is None:
            raise FileNotFoundError(2, f"there is no program {request.command[0]!r} here; is it installed?")
        os.execve(program, [*request.command], environment)  # noqa: S606  without a shell: that is meant
    except BaseException as error:  # noqa: BLE001  whatever it is, this process must end here, and say so
        words = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        with contextlib.suppress(OSError):
            _write(writing, _Begun(problem=f"it did not start: {words}"))
    finally:
        os._exit(_NOT_STARTED)


def _programs(environment: dict[str, str]) -> list[Path]:
    """The folders of PATH, and the Python that this is: a virtual environment may lie anywhere."""
    named = [*environment.get("PATH", "").split(os.pathsep), sys.prefix, sys.base_prefix]
    return [Path(each) for each in dict.fromkeys(named) if os.path.isabs(each) and os.path.normpath(each) != child.ROOT]


def _bytes_below(*folders: str) -> tuple[int, str | None]:
    """Bytes on the disk of all below, and why they cannot be counted: too many files, or folders that are too deep."""
    total = many = 0
    waiting = [(folder, 0) for folder in folders]
    while waiting:
        place, depth = waiting.pop()
        if depth > limits.REBUILD_DEPTH:
            return total, f"it made folders within folders, more than {limits.REBUILD_DEPTH} deep"
        try:
            entries = list(os.scandir(place))
        except PermissionError:
            return total, "it made a folder that cannot be looked into"
        except OSError:  # it is there no more
            continue
        many += len(entries)
        if many > limits.REBUILD_FILES:
            return total, f"it wrote more than {limits.REBUILD_FILES} files"
        for entry in entries:
            with contextlib.suppress(OSError):
                total += entry.stat(follow_symlinks=False).st_blocks * 512
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((entry.path, depth + 1))
    return total, None


def _write(descriptor: int, begun: _Begun) -> None:
    os.write(descriptor, msgspec.json.encode(begun) + b"\n")


def _tell(ran: Ran) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(ran) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(_watch())
