"""What may a probe use? Limits that a child sets on itself before it opens a model that nobody has run here yet."""

import ctypes
import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path

from whimbrel import limits
from whimbrel.device.ports import ProbeRequest

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def enter(request: ProbeRequest) -> None:
    """Limit this process for good. What a system does not offer is left out: the wall clock of the parent stays."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    for kind, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, limits.PROBE_FILES),
        (resource.RLIMIT_CPU, limits.PROBE_CPU_S),
        (resource.RLIMIT_AS, _memory_bytes(request)),
    ):
        with suppress(ValueError, OSError):
            resource.setrlimit(kind, (value, value))


def _memory_bytes(request: ProbeRequest) -> int:
    allowed = limits.PROBE_MEMORY_BYTES + 3 * _size(Path(request.path))
    if request.probe is not None and request.probe.memory_mib_max is not None:
        allowed = request.probe.memory_mib_max * limits.MIB
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (OSError, ValueError):
        pages = limits.GIB // resource.getpagesize()
    return pages * resource.getpagesize() + allowed


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
