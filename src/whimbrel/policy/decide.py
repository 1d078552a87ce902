"""What should this device run? `decide(policy, line, profile)`: pure, free of time, the same wherever it runs.

1. A pin beats the layers; within a layer the first entry whose selector and range of buckets match wins; the baseline
   is the rest.
2. A version that the line forbids, the fleet quarantined (for this device), this device refused itself or that has no
   variant for it is never the answer; then the baseline is, then the newest known-good one, then `on_revoked`.
3. A control runs the baseline and learns which cohorts it stands for.
4. A device of a shadow stage runs the baseline, as a control does, and tries the arm's version beside it, unless
   something speaks against that version here.
5. A device that fell back from its arm's version is still counted in its arm: a failure stays in the denominator.

Called by the device agent, the thin check, the controllers' forecasts and the simulator. `crowd` decides for millions
at once with the parts below: whoever adds a range of buckets to a policy adds it to `edges`.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import msgspec

from whimbrel.model.release import Line
from whimbrel.policy.bucket import bucket, device_key
from whimbrel.policy.policy import Entry, Layer, Policy
from whimbrel.policy.shadow import Shadow


class Profile(msgspec.Struct, frozen=True):
    """What a decision may know of a device. `refused`: serials that failed here and are quarantined here.

    `unfit`: serials of which no variant fits it, as far as it has looked.
    """

    device_id: str
    labels: Mapping[str, str] = {}
    refused: frozenset[int] = frozenset()
    unfit: frozenset[int] = frozenset()


class Assignment(msgspec.Struct, frozen=True):
    """A cohort that a device is counted in. `before`: metrics of which it tells its mean from before."""

    rollout: str
    stage: int
    arm: str
    role: Literal["treated", "control"]
    before: tuple[str, ...] = ()


class Beside(msgspec.Struct, frozen=True):
    """A version to try beside the one that runs, and how; it answers nobody."""

    serial: int
    shadow: Shadow
    rollout: str
    stage: int


class Decision(msgspec.Struct, frozen=True):
    """`serial` is what to run. None with `offer` "keep": stay as you are; with "stop": offer the app no model."""

    serial: int | None
    offer: Literal["run", "keep", "stop"]
    because: str
    assignments: tuple[Assignment, ...] = ()
    beside: Beside | None = None


class Wanted(NamedTuple):
    """What a device is meant to run, before anybody asks whether it may."""

    serial: int | None
    assignments: tuple[Assignment, ...]
    because: str
    beside: Beside | None = None


def decide(policy: Policy, line: Line, profile: Profile) -> Decision:
    """The decision for `profile`. Never raises: every valid policy decides for every profile."""
    found = pinned(policy, profile)
    if found is None:
        key = device_key(profile.device_id)
        for layer in policy.layers:
            found = in_layer(policy, layer, bucket(key, salt=layer.salt), profile)
            if found is not None:
                break
    return settle(policy, line, profile, found or Wanted(policy.baseline, (), "the baseline"))


def pinned(policy: Policy, profile: Profile) -> Wanted | None:
    """What the first pin that means this device says; None where none does."""
    for pin in policy.pins:
        if profile.device_id in pin.devices or (pin.selector is not None and pin.selector.matches(profile.labels)):
            return Wanted(pin.serial, (), "pinned")
    return None


def in_layer(policy: Policy, layer: Layer, place: int, profile: Profile) -> Wanted | None:
    """What a layer says of a device in bucket `place`; None where it has no say. The same between two `edges`."""
    for entry in layer.entries:
        if entry.start <= place < entry.end and entry.selector.matches(profile.labels):
            found = _in_entry(entry, place, profile)
            if found.assignments:
                return found if found.serial is not None else found._replace(serial=policy.baseline)
            return None
    return None


def edges(layer: Layer) -> set[int]:
    """The buckets at which what a layer says may change."""
    own = {edge for entry in layer.entries for edge in (entry.start, entry.end)}
    return own | {edge for entry in layer.entries for arm in entry.arms for edge in (arm.start, arm.end)}


def settle(policy: Policy, line: Line, profile: Profile, found: Wanted) -> Decision:
    """What is wanted, where nothing speaks against it; else the newest good one that may run."""
    wanted, assignments, because, beside = found
    if wanted is None:
        return Decision(None, "keep", "the policy names no version yet", assignments)
    refusal = objection(policy, line, profile, wanted)
    if refusal is None:
        if beside is not None and (against := objection(policy, line, profile, beside.serial)):
            return Decision(wanted, "run", f"{because}; serial {beside.serial} is {against}", assignments)
        return Decision(wanted, "run", because, assignments, beside)
    fallbacks = [*([policy.baseline] if policy.baseline else []), *policy.known_good]
    for serial in fallbacks:
        if serial != wanted and objection(policy, line, profile, serial) is None:
            return Decision(
                serial, "run", f"serial {wanted} is {refusal}; {serial} is the newest good one", assignments
            )
    return Decision(None, policy.on_revoked, f"serial {wanted} is {refusal}, and no other is allowed", assignments)


def _in_entry(entry: Entry, place: int, profile: Profile) -> Wanted:
    controls: list[Assignment] = []
    serial: int | None = None
    for arm in entry.arms:
        if arm.start <= place < arm.end and arm.selector.matches(profile.labels):
            assignment = Assignment(entry.rollout, arm.stage, arm.name, arm.role, entry.before)
            if arm.role == "treated" and arm.shadow is not None:
                beside = Beside(arm.serial, arm.shadow, entry.rollout, arm.stage)
                because = f"bucket {place} is in {arm.name} of {entry.rollout}, which tries {arm.serial} in the shadow"
                return Wanted(None, (assignment,), because, beside)
            if arm.role == "treated":
                return Wanted(arm.serial, (assignment,), f"bucket {place} is in {arm.name} of {entry.rollout}")
            serial = serial if serial is not None else arm.serial
            controls.append(assignment)
    return Wanted(serial, tuple(controls), f"bucket {place} is a control of {entry.rollout}")


def objection(policy: Policy, line: Line, profile: Profile, serial: int) -> str | None:
    """Why `serial` may not run on this device, in a few words; None where nothing speaks against it."""
    if serial < line.minimum_serial:
        return f"below the line's floor {line.minimum_serial}"
    if serial in line.revoked:
        return "revoked by its publisher"
    if any(entry.serial == serial and entry.selector.matches(profile.labels) for entry in policy.quarantine):
        return "quarantined"
    if serial in profile.refused and serial not in policy.overrides:
        return "refused by this device, where it failed before"
    if serial in profile.unfit:
        return "without a variant that fits this device"
    return None
