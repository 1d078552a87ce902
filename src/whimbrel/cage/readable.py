"""The places that a caged Python reads: its modules, the libraries of the system, and what tells it of the machine."""

import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
_SYSTEM = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/share/locale",
    "/usr/share/zoneinfo",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/dev/null",
    "/dev/zero",
    "/dev/random",
    "/dev/urandom",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/sys/vm",
    "/sys/devices/system",
    "/sys/fs/cgroup",
)
_LIBRARIES = "LD_LIBRARY_PATH"


def runtime_places() -> Iterator[Path]:
    """Folders and files, some of which may not exist. None of them is a whole home, or the root of the file system."""
    named = [*_SYSTEM, *sysconfig.get_paths().values(), str(_PACKAGE)]
    for prefix in {sys.prefix, sys.base_prefix}:
        named += [f"{prefix}/lib", f"{prefix}/lib64", f"{prefix}/pyvenv.cfg"]
    named += sys.path
    named += os.environ.get(_LIBRARIES, "").split(os.pathsep)
    too_much = {"/", os.path.expanduser("~"), sys.prefix, sys.base_prefix}
    for name in dict.fromkeys(named):
        if os.path.isabs(name) and os.path.normpath(name) not in too_much:
            yield Path(name)
