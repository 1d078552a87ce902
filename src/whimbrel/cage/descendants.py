"""Nothing that a caged process started outlives it.

1. `adopt`: whatever loses its parent below this process becomes this process's child (PR_SET_CHILD_SUBREAPER), also
   where it left its group or its session. So no descendant can hide.
2. `end`: kill the process, its group, and all that was adopted, until this process has no child left.

Called by processes whose only children are caged. Where the system has no adoption, the group is ended.
"""

import ctypes
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from whimbrel import limits

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_LOOK_AGAIN_S = 0.005


def adopt() -> bool:
    """Become the parent of every orphan below this process. Returns whether the system does it."""
    if sys.platform != "linux":
        return False
    with suppress(OSError, AttributeError):
        return bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
    return False


def end(child: int) -> int:
    """End `child` and all that came of it. Returns its status, also where it had ended by itself."""
    with suppress(OSError):
        os.killpg(child, signal.SIGKILL)
    with suppress(OSError):
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    until = time.monotonic() + limits.CAGE_END_S
    while _is_parent() and time.monotonic() < until:
        for orphan in _children():
            with suppress(OSError):
                os.kill(orphan, signal.SIGKILL)
        time.sleep(_LOOK_AGAIN_S)
    return status


def _is_parent() -> bool:
    """Whether this process has a child that lives; those that ended are let go."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0] != 0:
            pass
    except ChildProcessError:
        return False
    return True


def _children() -> list[int]:
    """The processes whose parent is this one (proc(5), the fourth field of `stat`)."""
    children = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            if int((place / "stat").read_text().rpartition(")")[2].split()[1]) == os.getpid():
                children.append(int(place.name))
    return children
