"""What may a device decide by itself about the version that it runs? Signed limits, which act without any server.

1. A release carries those of its publisher, a policy those of whoever operates the fleet. What the policy says of a
   limit goes before what the release says.
2. A limit acts on the sessions of one device; how much of them is needed is in device/limit_checks.py.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from whimbrel import limits
from whimbrel.model.documents import Document

SHARE_LIMITS = frozenset({"error_rate_max", "accuracy_min"})  # from 0 to 1; people may write them in percent
AfterFailedProbe = Literal["report", "go_back"]


class LocalLimits(Document, frozen=True):
    """Limits of one device. None: no such limit, or for `crash_loop` and `sessions` the default.

    `crash_loop`: crashes one after the other after which the device leaves the version; 0: it never does so.
    `sessions`: the newest sessions that the three limits below look at.
    `error_rate_max`: errors an inference. `latency_ms_p95_max`: 95 of 100 sessions are at most this slow.
    `accuracy_min`: the mean of the metric `accuracy`, a share.
    `probe_every_s`: seconds between two runs of the release's probe while the device is idle.
    `on_failed_probe`: what follows when such a run fails: it is told ("report"), or the device goes back too.
    """

    crash_loop: Annotated[int, Meta(ge=0, le=limits.CRASHES_IN_A_ROW)] | None = None
    sessions: Annotated[int, Meta(ge=10, le=limits.LIMIT_SESSIONS_MOST)] | None = None
    error_rate_max: Annotated[float, Meta(gt=0, lt=1)] | None = None
    latency_ms_p95_max: Annotated[float, Meta(gt=0, le=1e9)] | None = None
    accuracy_min: Annotated[float, Meta(gt=0, lt=1)] | None = None
    probe_every_s: Annotated[float, Meta(ge=3600, le=365 * 86400)] | None = None
    on_failed_probe: AfterFailedProbe | None = None

    def over(self, other: "LocalLimits | None") -> "LocalLimits":
        """These limits, and those of `other` where nothing is said here."""
        if other is None:
            return self
        said = {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not None}
        return msgspec.structs.replace(other, **said)

    @property
    def crashes(self) -> int:
        """Crashes in a row that end a version here; 0: none do."""
        return limits.CRASH_LOOP if self.crash_loop is None else self.crash_loop

    @property
    def looks_at_sessions(self) -> bool:
        """Whether any limit needs the sessions' own figures."""
        return any(each is not None for each in (self.error_rate_max, self.latency_ms_p95_max, self.accuracy_min))
