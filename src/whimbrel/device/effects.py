"""What a device does next. After a restart an effect may be performed again: twice has the same result as once."""

import msgspec

from whimbrel.device.events import Event
from whimbrel.device.journal import Candidate, GoingBack
from whimbrel.device.slots import Held


class Effect(msgspec.Struct, frozen=True):
    """Something to do. The shell performs it and returns an event, or a `Wait` or None: not now."""


class AwaitConditions(Effect, frozen=True):
    """Wait for jitter and conditions. Returns `Begun`."""

    candidate: Candidate


class Fetch(Effect, frozen=True):
    """Download. Returns `Fetched`."""

    candidate: Candidate


class Stage(Effect, frozen=True):
    """Verify, and fill the inactive slot. Returns `Staged`, `Corrupt`, `InstallFailed`."""

    candidate: Candidate


class RunProbe(Effect, frozen=True):
    """Run the version in a cage. Returns `ProbePassed`, `ProbeFailed`, `Withdrawn` (a smaller build fits better)."""

    candidate: Candidate


class Activate(Effect, frozen=True):
    """Refresh, decide again, announce the swap, swap between sessions. Returns `Withdrawn`, `Corrupt`, or None."""

    candidate: Candidate


class BeginShadow(Effect, frozen=True):
    """Check that the version is still to be tried, and intact. Returns `ShadowBegun`, `Withdrawn`, `Corrupt`."""

    candidate: Candidate


class KeepShadow(Effect, frozen=True):
    """Check that the shadowed version's files are intact. Returns `Corrupt`, or None while they are."""

    candidate: Candidate


class PointTo(Effect, frozen=True):
    """Make the pointer name `held`, on trial."""

    held: Held


class Commit(Effect, frozen=True):
    """Make the pointer say that the trial is over."""


class SwapBack(Effect, frozen=True):
    """Point to the other slot, or to nothing. Returns `WentBack`, `Returned`, `Emptied`, `FallbackLost`."""

    going_back: GoingBack


class Then(Effect, frozen=True):
    """Nothing is to be done in the world: `event` follows at once."""

    event: Event
