"""The walls of the cage: limits that a process sets on itself, for good, before it opens a file of somebody else's.

Each wall is one that the others do not need: where a system has only some of them, these still hold. The caller's
parent process still ends the process when its time is over.
"""

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from whimbrel import limits
from whimbrel.cage import kernel_filter, landlock, mounts
from whimbrel.cage.readable import runtime_places

_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 24, 38  # linux/prctl.h
_CLONE_NEWIPC, _CLONE_NEWUSER, _CLONE_NEWNET = 0x08000000, 0x10000000, 0x40000000  # linux/sched.h
_CAPABILITY_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3 of linux/capability.h
_DESCRIPTORS = 4096  # looked at where the system does not list them
_CAP_DAC_READ_SEARCH, _CAPABILITIES = 2, 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a caged process may have.

    `memory_bytes`: addresses beyond those that it has now. `cpu_s`: seconds of processor time; None: no bound.
    `descriptors`: open files at once.
    `readable`: files and folders beside the runtime's own. `listed`: folders whose names it may see, here and below,
    and no content. `kept`: open descriptors that it goes on with; 0, 1 and 2
    lead to nothing unless they are kept, and all others are closed. `file_bytes`: what may be written to one of them.
    """

    memory_bytes: int
    cpu_s: int | None
    readable: Sequence[Path] = ()
    listed: Sequence[Path] = ()
    kept: Sequence[int] = ()
    file_bytes: int = 0
    descriptors: int = limits.PROBE_FILES


@dataclass(frozen=True, slots=True, kw_only=True)
class Walls:
    """Which walls hold: `landlock` is the kernel's version of it, or 0. `read_only`: no mode, owner or time of a file
    outside can be changed, which Landlock does not prevent.
    """

    namespaces: bool
    filtered: bool
    landlock: int
    read_only: bool = False

    @property
    def offline(self) -> bool:
        """Whether no network can be reached."""
        return self.filtered or self.namespaces


def enter(bounds: Bounds) -> Walls:
    """Close the walls around this process. A wall that the system does not offer is left out, and said."""
    namespaces = _leave_network()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _close_descriptors(bounds.kept)
    _limit(bounds)
    _drop_capabilities()
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    kernel_landlock = landlock.restrict([*runtime_places(), *bounds.readable], listed=bounds.listed)
    return Walls(namespaces=namespaces, filtered=kernel_filter.install(), landlock=kernel_landlock)


def enter_command(bounds: Bounds, *, runnable: Sequence[Path], writable: Sequence[Path]) -> Walls:
    """Close those walls that a command needs not: it may start processes, run the programs in `runnable` and write in
    `writable`. It opens no socket of any kind, and has no network; a pair of sockets of its own it may have.
    """
    namespaces = _leave_network()
    read_only = mounts.keep_writable_only([place for place in writable if place.is_dir()])
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _close_descriptors(bounds.kept)
    _limit(bounds)
    _drop_capabilities()
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    places = [*runtime_places(), *bounds.readable]
    kernel_landlock = landlock.restrict(places, listed=bounds.listed, runnable=runnable, writable=writable)
    filtered = kernel_filter.install_for_commands()
    return Walls(namespaces=namespaces, filtered=filtered, landlock=kernel_landlock, read_only=read_only)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _close_descriptors(kept: Iterable[int]) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        if standard not in kept:
            os.dup2(nothing, standard)
    try:
        opened = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        opened = list(range(3, _DESCRIPTORS))
    for descriptor in opened:
        if descriptor > 2 and descriptor not in kept:
            with suppress(OSError):
                os.close(descriptor)


def _limit(bounds: Bounds) -> None:
    values = [
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, bounds.file_bytes),
        (resource.RLIMIT_NOFILE, bounds.descriptors),
        (resource.RLIMIT_AS, _addresses_bytes() + bounds.memory_bytes),
    ]
    if bounds.cpu_s is not None:
        values.append((resource.RLIMIT_CPU, bounds.cpu_s))
    for kind, value in values:
        with suppress(ValueError, OSError):  # macOS refuses some: the others remain
            _, hard = resource.getrlimit(kind)
            least = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (least, least))


def _leave_network() -> bool:
    # unshare(2): a process without threads may have a user namespace of its own, and in it an empty network.
    if sys.platform != "linux":
        return False
    own = _CLONE_NEWNET | _CLONE_NEWIPC
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        # First without a user namespace: in one of its own, root could no longer read other users' files.
        return any(libc.unshare(flags) == 0 for flags in (own, _CLONE_NEWUSER | own, _CLONE_NEWUSER | _CLONE_NEWNET))
    return False


class _CapabilityHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("process", ctypes.c_int)]


class _CapabilitySet(ctypes.Structure):
    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


def _drop_capabilities() -> None:
    """Root keeps the right to read (a model may be another user's), and loses all others. See capabilities(7)."""
    if sys.platform != "linux":
        return
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        for capability in range(_CAPABILITIES):
            libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
        kept = 1 << _CAP_DAC_READ_SEARCH if os.geteuid() == 0 else 0
        header = _CapabilityHeader(_CAPABILITY_VERSION, 0)
        if libc.capset(ctypes.byref(header), (_CapabilitySet * 2)(_CapabilitySet(kept, kept, 0))) != 0:
            libc.capset(ctypes.byref(header), (_CapabilitySet * 2)())


def _addresses_bytes() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (OSError, ValueError):
        pages = limits.GIB // resource.getpagesize()
    return pages * resource.getpagesize()
