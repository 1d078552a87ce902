"""How many connections may this process hold? As many as it has descriptors for, less those that others need."""

import logging
import os

from whimbrel import limits
from whimbrel.errors import Unavailable

log = logging.getLogger(__name__)


def room_for(wanted: int) -> int:
    """Connections that this process may hold, at most `wanted`. The soft limit is raised as far as the hard one.

    An artifact that is sent costs a descriptor of its own for a moment. Raises `Unavailable` where too few are left.
    """
    if os.name != "posix":
        return wanted
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + limits.DESCRIPTORS_KEPT + limits.DOWNLOADS
    if soft != resource.RLIM_INFINITY and soft < needed:
        raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        if raised > soft:
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    if soft < limits.DESCRIPTORS_LEAST:
        raise Unavailable(
            f"this process may open {soft} files, and a server needs at least {limits.DESCRIPTORS_LEAST}; raise the "
            "limit (ulimit -n, LimitNOFILE= of systemd) and start it again"
        )
    room = max(soft // 4, soft - limits.DESCRIPTORS_KEPT - limits.DOWNLOADS)
    if room < wanted:
        log.info("this process may open %s files: it holds at most %s connections of %s", soft, room, wanted)
    return min(room, wanted)
