"""The cage of a probe: limits that a child sets on itself before it opens a model that has never run here."""

import ctypes
import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path

from whimbrel import limits
from whimbrel.agent.probes import kernel_filter
from whimbrel.device.ports import ProbeRequest

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000  # linux/sched.h


def enter(request: ProbeRequest) -> bool:
    """Limit this process for good, for one probe. Returns whether it is without a network now."""
    return confine(memory_bytes=_memory_bytes(request), cpu_s=limits.PROBE_CPU_S)


def confine(*, memory_bytes: int, cpu_s: int | None) -> bool:
    """Limit this process for good: addresses beyond those that it has, processor time, files, children, network.

    Returns whether it is without a network now. A limit that the system does not offer is left out; the parent still
    ends the process when its time is over.
    """
    offline = _leave_network()
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    bounds = [
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, limits.PROBE_FILES),
        (resource.RLIMIT_AS, _addresses_bytes() + memory_bytes),
    ]
    if cpu_s is not None:
        bounds.append((resource.RLIMIT_CPU, cpu_s))
    for kind, value in bounds:
        with suppress(ValueError, OSError):
            resource.setrlimit(kind, (value, value))
    return kernel_filter.install() or offline


def _leave_network() -> bool:
    # unshare(2): a process without threads may have a user namespace of its own, and in it an empty network.
    if sys.platform != "linux":
        return False
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        # First without a user namespace: in one of its own, root could no longer read other users' files.
        return any(libc.unshare(flags) == 0 for flags in (_CLONE_NEWNET, _CLONE_NEWUSER | _CLONE_NEWNET))
    return False


def resident_bytes(*, peak: bool) -> int | None:
    """Bytes that this process holds in memory now, or held at its peak (proc(5), VmRSS and VmHWM); None if unknown."""
    word = "VmHWM:" if peak else "VmRSS:"
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    kibibytes = next((line.split()[1] for line in lines if line.startswith(word)), None)
    return int(kibibytes) * limits.KIB if kibibytes else None


def _memory_bytes(request: ProbeRequest) -> int:
    allowed = limits.PROBE_MEMORY_BYTES + 3 * max(size_of(Path(request.path)), request.size_bytes)
    if request.probe is not None and request.probe.memory_mib_max is not None:
        # Addresses are not memory: arenas and maps reserve more than they hold. The budget counts what is held.
        allowed = 2 * request.probe.memory_mib_max * limits.MIB + limits.PROBE_ADDRESSES_BYTES
    return allowed


def _addresses_bytes() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (OSError, ValueError):
        pages = limits.GIB // resource.getpagesize()
    return pages * resource.getpagesize()


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
