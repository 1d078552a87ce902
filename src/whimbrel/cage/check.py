"""Which walls of the cage hold on this machine? A process of its own closes them, and tries each from within.

`python -m whimbrel.cage.check` writes what it met as JSON. `report` starts it and puts the answers into words: what was
tried, what it means where it works, and what to do then. Called by `whimbrel doctor` and `whimbrel agent status`.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import msgspec

from whimbrel import limits
from whimbrel.cage import child
from whimbrel.errors import Unavailable, reason_of


class Tried(msgspec.Struct, frozen=True):
    """What the process met: which walls it could close, and which attacks worked."""

    filtered: bool
    landlock: int  # the kernel's version; 0: none
    namespaces: bool
    worked: dict[str, bool]


class Wall(msgspec.Struct, frozen=True):
    """`holds`: whether nothing got past it. `means`: what that is; `to_do`: "" where it holds."""

    name: str
    holds: bool
    means: str
    to_do: str = ""


_KERNEL = "use a kernel with seccomp filters (CONFIG_SECCOMP_FILTER) on x86-64, aarch64, riscv64 or 32-bit arm"
_LANDLOCK = (
    "use Linux 5.13 or newer, with `landlock` among the kernel's LSMs (/sys/kernel/security/lsm); until then, keep "
    "keys and secrets in files that the agent's user cannot read"
)
_WALLS = (  # the name of the attack, what it means where it is refused, where it works, and what to do then
    ("processes", "a model starts no process", "a model can start processes; they are ended with it", _KERNEL),
    ("sockets", "a model opens no socket", "a model can open sockets", _KERNEL),
    ("writing", "a model changes no file", "a model can change files that this user may change", _KERNEL),
    (
        "signals",
        "a model signals no other process",
        "a model can end other processes of this user; run the agent as a user of its own",
        _KERNEL,
    ),
    (
        "files",
        "a model reads its own files and the runtime's, and no other",
        "a model can read every file that this user may read",
        _LANDLOCK,
    ),
)


@cache
def walls_here() -> Tried:
    """What holds on this machine. Raises `Unavailable` where it cannot be tried."""
    if sys.platform == "win32":
        return Tried(filtered=False, landlock=0, namespaces=False, worked={name: True for name, *_ in _WALLS})
    try:
        tried = subprocess.run(
            child.command("whimbrel.cage.check"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd=child.ROOT,
            env=child.environment(),
            timeout=limits.CAGE_CHECK_S,
            check=True,
        ).stdout
        return msgspec.json.decode(tried, type=Tried)
    except (OSError, subprocess.SubprocessError, msgspec.DecodeError) as error:
        raise Unavailable(
            f"the cage could not be tried: {reason_of(error)}; run `python -m whimbrel.cage.check`"
        ) from error


def report() -> list[Wall]:
    """Each wall in words. Raises `Unavailable` where it cannot be tried."""
    worked = walls_here().worked
    return [
        Wall(name, holds=False, means=open_words, to_do=to_do) if worked[name] else Wall(name, True, closed_words)
        for name, closed_words, open_words, to_do in _WALLS
    ]


def _tried() -> Tried:
    """Close the walls and try each attack: from here on this process can do nothing else."""
    from whimbrel.cage import walls

    outside = os.path.realpath("/etc/passwd")
    parent = os.getppid()
    closed = walls.enter(walls.Bounds(memory_bytes=limits.GIB, cpu_s=10, kept=(1, 2), file_bytes=limits.MIB))
    return Tried(
        filtered=closed.filtered,
        landlock=closed.landlock,
        namespaces=closed.namespaces,
        worked={
            "processes": _works(_fork),
            "sockets": _works(lambda: socket.socket(socket.AF_UNIX).close()),
            "writing": _works(lambda: os.utime(outside)),
            "signals": _works(lambda: os.kill(parent, 0)),
            "files": _works(lambda: Path(outside).open("rb").close()),
        },
    )


def _fork() -> None:
    process = os.fork()
    if process == 0:
        os._exit(0)
    os.waitpid(process, 0)


def _works(attack: Callable[[], None]) -> bool:
    try:
        attack()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(_tried()) + b"\n")
