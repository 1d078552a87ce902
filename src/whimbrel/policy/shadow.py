"""Shadow stages: the candidate runs beside the active version on real inputs, and the apps never get its answers.

1. `ShadowStage` is what a person writes in a plan; `Shadow` is the part of it that a device needs, in the policy.
2. The agreement of a call is the share of its answers that agree. `class`: the same place along the last axis is
   greatest. `values`: |candidate - active| <= absolute + tolerance |active|. `auto`: by class for floating-point
   outputs whose last axis is longer than one, and by values for other numbers (whole numbers must be equal).
"""

from typing import Annotated, Literal

from msgspec import Meta

from whimbrel.model.documents import Document

Compare = Literal["auto", "class", "values"]
PPM = 1_000_000

_SAMPLE_PERCENT = 5.0  # of the calls: a fifth of a core, where the model keeps a core busy twice over
_AGREEMENT_MIN = 0.98
_TOLERANCE = 0.05  # of the active version's value: another training gives other numbers


class ShadowStage(Document, frozen=True):
    """What a candidate must show in the shadow before it serves. Shares are of inputs. The unit is a device-window."""

    sample_percent: Annotated[float, Meta(gt=0, le=100)] = _SAMPLE_PERCENT
    agreement_min: Annotated[float, Meta(gt=0, lt=1)] = _AGREEMENT_MIN
    error_rate_max: Annotated[float, Meta(gt=0, lt=1)] = (
        0.01  # inputs that the active version answers and the candidate does not
    )
    latency_ratio_max: Annotated[float, Meta(gt=0, le=1000)] | None = None  # the candidate's time over the active one's
    min_inputs: Annotated[int, Meta(ge=1, le=10**12)] = 100  # of all devices, compared with the active version's
    compare: Compare = "auto"
    tolerance: Annotated[float, Meta(ge=0, le=1000)] = _TOLERANCE

    @property
    def order(self) -> "Shadow":
        """The part that the devices need."""
        sample_ppm = max(1, round(self.sample_percent / 100 * PPM))
        return Shadow(sample_ppm=sample_ppm, compare=self.compare, tolerance=self.tolerance)


class Shadow(Document, frozen=True):
    """How a device tries a candidate: the share of calls, and when two answers are the same."""

    sample_ppm: Annotated[int, Meta(ge=1, le=PPM)]
    compare: Compare = "auto"
    tolerance: Annotated[float, Meta(ge=0, le=1000)] = _TOLERANCE
