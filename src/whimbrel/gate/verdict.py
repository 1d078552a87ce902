"""What a gate looks at and what it answers: the windows of a stage, the counts of its devices, the verdict.

Values of the gates and of everything that asks them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from whimbrel.health.tally import Cell

Move = Literal["wait", "hold", "advance", "finish", "roll_back", "slice_back"]
ExperimentMove = Literal["wait", "hold", "stop_arm", "stop_slice", "ship", "keep", "end"]


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Distinct devices of one stage, from their announcements and reports."""

    assigned_t: int = 0
    assigned_c: int = 0
    activated_t: int = 0
    placebo_c: int = 0
    reported_t: int = 0  # of those activated, with at least one report since
    reported_c: int = 0
    silent_t: int = 0  # of those reported: heard no more when they should have been, and not since
    silent_c: int = 0
    unused_t: int = 0  # of those reported: never with a session
    failed_t: int = 0  # could not install or did not pass the probe
    went_back_t: int = 0  # activated, and went back by themselves
    went_back_c: int = 0  # took a placebo, and left the version before by themselves
    shadowed_t: int = 0  # of those in the shadow: told of at least one input
    gave_up_t: int = 0  # of these: refused it, since what tried it died again and again

    def as_evidence(self) -> dict[str, int]:
        """The counts that a verdict's evidence holds: what not every rollout has only where not 0."""
        where_told = {"shadowed_t", "gave_up_t", "silent_t", "silent_c", "unused_t", "went_back_c"}
        return {name: n for name in self.__struct_fields__ if (n := getattr(self, name)) or name not in where_told}

    def plus(self, other: "Counts") -> "Counts":
        """Both together."""
        return Counts(**{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__})


class Verdict(msgspec.Struct, frozen=True):
    """What to do, why in one sentence, and the figures behind it. `classes`: the slice that `slice_back` is about."""

    move: Move
    because: str
    evidence: dict[str, Any]
    classes: tuple[str, ...] = ()


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the version before, where no device can be a control: what a limit is compared with instead.

    `version`: the baseline, as people name it; None: there was no version before. `device_windows` and `estimates`:
    what the judged devices themselves told while they ran it, as one arm's estimates. `released` and
    `target_released`: the metrics that the baseline and the target were published with.
    """

    version: str | None = None
    device_windows: int = 0
    estimates: Mapping[str, float | None] = {}
    released: Mapping[str, float] = {}
    target_released: Mapping[str, float] = {}


class Unproven(msgspec.Struct, frozen=True, kw_only=True):
    """What unproven devices did (flows/reports/proven.py): counts by stage. `window`: theirs are closed before it."""

    counts: Mapping[int, Counts]
    window: int

    @property
    def devices(self) -> int:
        """How many they are: at each stage, those treated so far and its controls are all."""
        treated, devices = 0, 0
        for _, counts in sorted(self.counts.items()):
            treated += counts.assigned_t
            devices = max(devices, treated + counts.assigned_c)
        return devices


class GateInput(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate looks at: closed windows only, and the counts of each stage so far.

    `cohort`: the stage whose devices speak for the present one; itself, unless none of a small fleet falls in it.
    `shares`: the buckets of each stage entered; none, and the sample ratio is not tested. `without`: slices that went
    back. `devices`: the enrolled devices that the judged stage is for, counted where none of them was heard of yet.
    `past`: there where no enrolled device can be a control of the judged stage. `unproven`: what devices did that prove
    nothing; None where there is none.
    """

    stage: int
    soaked_s: float
    cells: Sequence[Cell] = ()
    counts: Mapping[int, Counts]
    hour_s: float = 3600.0
    cohort: int | None = None
    shares: tuple[int, ...] = ()
    without: tuple[str, ...] = ()
    users_heard: bool = False  # whether tickets of users, or the news that there are none, came since it began
    devices: int | None = None
    past: Past | None = None
    natural_go_back: float | None = None  # the share of devices that left the baseline by themselves, where known
    unproven: Unproven | None = None

    @property
    def judged(self) -> int:
        """The stage whose estimates and counts promotion looks at."""
        return self.stage if self.cohort is None else self.cohort
