"""What can happen to a model on a device. Each event carries what the step needs, and nothing that it can look up."""

from collections.abc import Mapping

import msgspec

from whimbrel.device.shadowing import Shadowing
from whimbrel.device.slots import Held, SlotName
from whimbrel.health.report import WayName
from whimbrel.model.release import File


class Event(msgspec.Struct, frozen=True):
    """Something that happened."""


class Offered(Event, frozen=True):
    """The decision names a version that is not active here, and its release has a variant for this device."""

    serial: int
    version: str
    slot: SlotName
    files: tuple[File, ...]
    policy_sequence: int
    at: float
    rollout: str | None = None
    stage: int = 0
    despite: str = ""  # why it was refused here; a policy overrides that
    shadow: Shadowing | None = None  # not to be activated, but tried beside the active version
    variant: str = ""  # the name of the build for this device


class Withdrawn(Event, frozen=True):
    """The decision changed before the version was active."""


class Begun(Event, frozen=True):
    """The conditions and the jitter let the download begin."""


class Fetched(Event, frozen=True):
    """All bytes are here. `moved_by`: the same bytes, by the way that they were for."""

    bytes_moved: int
    moved_by: Mapping[WayName, int] = {}


class Corrupt(Event, frozen=True):
    """The bytes are not what the release says; they were thrown away. Says nothing about the version."""

    reason: str
    at: float = 0.0
    bytes_moved: int = 0
    moved_by: Mapping[WayName, int] = {}


class InstallFailed(Event, frozen=True):
    """It cannot be installed here, and trying again would not help."""

    reason: str


class Staged(Event, frozen=True):
    """The files are in the inactive slot, verified and durable."""

    held: Held


class ProbeBegun(Event, frozen=True):
    """A probe is about to run; said first, so that a device that dies of it knows."""


class ProbePassed(Event, frozen=True):
    """The version loads and answers as its publisher says."""


class ProbeFailed(Event, frozen=True):
    """It does not."""

    reason: str


class Restarted(Event, frozen=True):
    """The process ended in the middle of a probe."""


class Activated(Event, frozen=True):
    """No session is open and the policy is fresh: the pointer is about to be swapped."""

    at: float


class ShadowBegun(Event, frozen=True):
    """It is ready, and apps may try it beside the active version."""

    at: float


class ShadowSeen(Event, frozen=True):
    """What apps wrote down: it ended its worker so many times."""

    crashed: int


class ShadowFailed(Event, frozen=True):
    """It ended its worker too often."""

    reason: str


class ShadowEnded(Event, frozen=True):
    """The decision is to run what was only tried."""


class SessionsSeen(Event, frozen=True):
    """Sessions of the version on trial ended."""

    healthy: int
    failed: int


class TrialPassed(Event, frozen=True):
    """Enough healthy sessions."""


class TrialFailed(Event, frozen=True):
    """Too many sessions that crashed or failed."""

    reason: str


class LeftByItself(Event, frozen=True):
    """This device leaves the active version for the one before: a crash loop, a limit, an app that asked for it."""

    leaves: int
    to: int | None
    reason: str
    policy_sequence: int = 0  # only a newer policy may let it be tried again here


class Recalled(Event, frozen=True):
    """The policy wants what the other slot holds (`to`), or that no version is offered (None)."""

    to: int | None
    leaves: int | None
    reason: str
    stopped_at: float | None = None  # from when on the policy alone offers no version


class WentBack(Event, frozen=True):
    """The device went back by itself; what it left is refused from now on. `to`: what it runs now; None: nothing."""

    to: int | None = None


class Returned(Event, frozen=True):
    """The policy's recall is done."""


class Emptied(Event, frozen=True):
    """No version is offered any more, as the policy says."""


class FallbackLost(Event, frozen=True):
    """The other slot does not hold what it should; the version must be fetched again."""
