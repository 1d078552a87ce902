"""What the journal keeps of a version that is tried beside the active one, for the apps to read."""

from typing import Annotated

from msgspec import Meta

from whimbrel.model.documents import Document
from whimbrel.model.release import Variant
from whimbrel.policy.shadow import Shadow

Tolerance = Annotated[float, Meta(ge=0)]


class Shadowing(Document, frozen=True):
    """The policy's words, and what the candidate's own probe allows its answers to differ by.

    `crashes`: how often it ended its worker here.
    """

    how: Shadow
    absolute_tolerance: Tolerance = 0.0
    relative_tolerance: Tolerance = 0.0
    crashes: Annotated[int, Meta(ge=0)] = 0


def shadowing_of(how: Shadow, variant: Variant) -> Shadowing:
    """What to write down for a build that is to be tried so."""
    probe = variant.probe
    if probe is None:
        return Shadowing(how=how)
    return Shadowing(how=how, absolute_tolerance=probe.absolute_tolerance, relative_tolerance=probe.relative_tolerance)
