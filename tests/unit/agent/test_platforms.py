"""What another system does not offer is left out, or said. Written for macOS and Windows, tried on what they lack."""

import subprocess
import sys
from pathlib import Path

_WITHOUT_POSIX = """
import os, sys
sys.modules["fcntl"] = sys.modules["resource"] = None
del os.fork, os.fchmod, os.pread, os.pwrite, os.O_CLOEXEC, os.O_NOFOLLOW
from pathlib import Path
import whimbrel.agent.app, whimbrel.agent.daemon, whimbrel.cli.agent, whimbrel.packing, whimbrel.patchfile
from whimbrel.agent.disk import RealDisk
from whimbrel.agent.probes import ProbeServer
from whimbrel.errors import Unavailable

RealDisk().write(Path(sys.argv[1]) / "folder" / "file", b"kept")
try:
    ProbeServer().start()
except Unavailable as error:
    print(error)
"""
_WINDOWS_LOCKS = """
import fcntl, os, sys, types

def locking(handle, mode, count):
    assert (os.lseek(handle, 0, os.SEEK_CUR), count) == (2**30, 1)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

from pathlib import Path
from whimbrel.agent import locks
sys.modules["msvcrt"] = types.SimpleNamespace(LK_NBLCK=2, locking=locking)  # what msvcrt(3) says, over flock
sys.modules["fcntl"] = None
sys.platform = "win32"
place = Path(sys.argv[1]) / "lock"
first = locks.take_hold(place, make=True, wait=False)
print(first is not None, locks.take_hold(place, make=True, wait=False), locks.is_held(place))
first.release()
print(locks.is_held(place), locks.take_hold(place, make=False, wait=True) is not None)
"""


def ran(program: str, folder: Path) -> str:
    command = [sys.executable, "-c", program, folder]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def test_system_without_posix_imports_the_agent_and_says_that_probes_must_be_brought(tmp_path: Path) -> None:
    said = ran(_WITHOUT_POSIX, tmp_path)
    assert "this system has none (Windows): bring your own, AgentOptions(probes=...)" in said
    assert (tmp_path / "folder" / "file").read_bytes() == b"kept"


def test_windows_locks_a_byte_that_no_file_holds(tmp_path: Path) -> None:
    assert ran(_WINDOWS_LOCKS, tmp_path) == "True None True\nFalse True\n"
