"""What does a device do next? Each effect may be repeated by whoever starts again: doing it twice is doing it once."""

import msgspec

from whimbrel.device.events import Event
from whimbrel.device.journal import Candidate, GoingBack
from whimbrel.device.slots import Held


class Effect(msgspec.Struct, frozen=True):
    """Something to do. The shell does it and answers with an event, or with None: not now."""


class AwaitConditions(Effect, frozen=True):
    """Wait for jitter and conditions. Answers `Begun`."""

    candidate: Candidate


class Fetch(Effect, frozen=True):
    """Download. Answers `Fetched`, `Corrupt`."""

    candidate: Candidate


class Stage(Effect, frozen=True):
    """Verify, and fill the inactive slot. Answers `Staged`, `Corrupt`, `InstallFailed`."""

    candidate: Candidate


class RunProbe(Effect, frozen=True):
    """Try it in a cage. Answers `ProbePassed`, `ProbeFailed`."""

    candidate: Candidate


class Activate(Effect, frozen=True):
    """Refresh, decide again, say so, and swap between sessions. Answers `Activated`, `Withdrawn`, `Corrupt`."""

    candidate: Candidate


class BeginShadow(Effect, frozen=True):
    """Look whether it is still to be tried, and whole. Answers `ShadowBegun`, `Withdrawn`, `Corrupt`."""

    candidate: Candidate


class KeepShadow(Effect, frozen=True):
    """See to it that what apps try is whole. Answers `Corrupt`, and None as long as it is."""

    candidate: Candidate


class PointTo(Effect, frozen=True):
    """See to it that the pointer names `held`, on trial."""

    held: Held


class Commit(Effect, frozen=True):
    """See to it that the pointer says: no trial."""


class SwapBack(Effect, frozen=True):
    """Point to the other slot, or to nothing. Answers `WentBack`, `Returned`, `Emptied`, `FallbackLost`."""

    going_back: GoingBack


class Then(Effect, frozen=True):
    """Nothing is to be done in the world: `event` follows at once."""

    event: Event
