"""What should this device run? `decide(policy, line, profile)`: pure, free of time, the same wherever it runs.

1. A pin beats the layers. The first layer with a matching entry decides; within a layer the first entry whose selector
   and range of buckets match wins. All other devices run the baseline.
2. Some versions are never the answer: those that the line forbids, that are quarantined for this device, that this
   device refused, or that have no variant for it. Then the baseline is the answer, then the newest known-good version,
   then `on_revoked`.
3. A control runs the baseline and learns in which cohorts it is counted.
4. A device of a shadow stage runs the baseline, as a control does, and tries the arm's version beside it, unless that
   version may not run on this device.
5. A device that fell back from its arm's version still counts in its arm: a failure stays in the denominator.
6. While a model has no baseline, a device without a version from an arm or a pin runs none ("stop"). So a first version
   that is taken back leaves the devices that have it.
7. A device that waits for its cohort key is in no layer until it has it: its bucket never changes.
8. An entry with `bucket_by` asks for the bucket of the label's value, and passes over a device without one.

Called by the device agent, the thin check, the controllers' forecasts and the simulator. decide_many.py decides for
millions of devices with the parts below: who adds a range of buckets to a policy adds it to `edges`.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import msgspec

from whimbrel.model.release import Line
from whimbrel.policy.bucket import bucket, device_key, label_key
from whimbrel.policy.policy import Entry, Layer, Policy
from whimbrel.policy.shadow import Shadow


class Profile(msgspec.Struct, frozen=True):
    """What a decision may know of a device. `refused`: serials that failed here and are quarantined here.

    `unfit`: serials without a variant that fits this device, as far as the device has looked. `unmet`: what serials
    require of other models that this device does not get, in words (policy/decide_set.py). `cohort_key`: what its
    bucket comes from (policy/bucket.py); None: its id, since no server drew one for it. `awaits_cohort_key`: a server
    is about to draw one.
    """

    device_id: str
    labels: Mapping[str, str] = {}
    refused: frozenset[int] = frozenset()
    unfit: frozenset[int] = frozenset()
    unmet: Mapping[int, str] = {}
    cohort_key: str | None = None
    awaits_cohort_key: bool = False

    @property
    def key(self) -> int:
        """What the device's bucket follows from, with a salt."""
        return device_key(self.device_id if self.cohort_key is None else self.cohort_key)


class Assignment(msgspec.Struct, frozen=True):
    """A cohort in which a device is counted. `before`: metrics whose mean from before the assignment it reports."""

    rollout: str
    stage: int
    arm: str
    role: Literal["treated", "control"]
    before: tuple[str, ...] = ()


class Beside(msgspec.Struct, frozen=True):
    """A version to try in the shadow, beside the one that runs. The apps never get its answers."""

    serial: int
    shadow: Shadow
    rollout: str
    stage: int


class Decision(msgspec.Struct, frozen=True):
    """The device runs `serial`. Where it is None: `offer` "keep" changes nothing, "stop" offers the apps no model."""

    serial: int | None
    offer: Literal["run", "keep", "stop"]
    because: str
    assignments: tuple[Assignment, ...] = ()
    beside: Beside | None = None


class Proposal(NamedTuple):
    """The version that the policy assigns to a device, before it is checked whether that version may run there."""

    serial: int | None
    assignments: tuple[Assignment, ...]
    because: str
    beside: Beside | None = None


def decide(policy: Policy, line: Line, profile: Profile) -> Decision:
    """Decide for the device of `profile`. Never raises: every valid policy decides for every profile."""
    proposal = pinned(policy, profile)
    if proposal is None and not profile.awaits_cohort_key:
        key = profile.key
        for layer in policy.layers:
            proposal = in_layer(policy, layer, bucket(key, salt=layer.salt), profile)
            if proposal is not None:
                break
    return settle(policy, line, profile, proposal or Proposal(policy.baseline, (), "the baseline"))


def pinned(policy: Policy, profile: Profile) -> Proposal | None:
    """The proposal of the first pin that names this device. None where no pin does."""
    for pin in policy.pins:
        if profile.device_id in pin.devices or (pin.selector is not None and pin.selector.matches(profile.labels)):
            return Proposal(pin.serial, (), "pinned")
    return None


def in_layer(policy: Policy, layer: Layer, place: int, profile: Profile) -> Proposal | None:
    """A layer's proposal for a device in bucket `place`. None where no entry matches. Constant between two `edges`."""
    for entry in layer.entries:
        own = place if entry.bucket_by is None else label_place(entry.bucket_by, profile.labels, salt=layer.salt)
        if own is not None and entry.start <= own < entry.end and entry.selector.matches(profile.labels):
            proposal = _in_entry(entry, own, profile)
            if proposal.assignments:
                return proposal if proposal.serial is not None else proposal._replace(serial=policy.baseline)
            return None
    return None


def label_place(label: str, labels: Mapping[str, str], *, salt: int) -> int | None:
    """The bucket of a device by the value of its `label`; None where it has none."""
    value = labels.get(label)
    return bucket(label_key(value), salt=salt) if value else None


def edges(layer: Layer) -> set[int]:
    """The buckets at which a layer's proposal may change."""
    own = {edge for entry in layer.entries for edge in (entry.start, entry.end)}
    return own | {edge for entry in layer.entries for arm in entry.arms for edge in (arm.start, arm.end)}


def settle(policy: Policy, line: Line, profile: Profile, proposal: Proposal) -> Decision:
    """The proposed version where it may run on this device; otherwise the newest good version that may."""
    proposed, assignments, because, beside = proposal
    if proposed is None:
        return Decision(None, "stop", "the policy names no version for this device", assignments)
    refusal = objection(policy, line, profile, proposed)
    if refusal is None:
        if beside is not None and (against := objection(policy, line, profile, beside.serial)):
            return Decision(proposed, "run", f"{because}; serial {beside.serial} is {against}", assignments)
        return Decision(proposed, "run", because, assignments, beside)
    fallbacks = [*([policy.baseline] if policy.baseline else []), *policy.known_good]
    for serial in fallbacks:
        if objection(policy, line, profile, serial) is None:
            return Decision(
                serial, "run", f"serial {proposed} is {refusal}; {serial} is the newest good one", assignments
            )
    offer = policy.on_revoked if policy.baseline is not None else "stop"
    return Decision(None, offer, f"serial {proposed} is {refusal}, and no other is allowed", assignments)


def _in_entry(entry: Entry, place: int, profile: Profile) -> Proposal:
    # The reason may leave the device, and the bucket of a label's value may not.
    where = f"bucket {place}" if entry.bucket_by is None else f"its {entry.bucket_by}"
    controls: list[Assignment] = []
    serial: int | None = None
    for arm in entry.arms:
        if arm.start <= place < arm.end and arm.selector.matches(profile.labels):
            assignment = Assignment(entry.rollout, arm.stage, arm.name, arm.role, entry.before)
            if arm.role == "treated" and arm.shadow is not None:
                beside = Beside(arm.serial, arm.shadow, entry.rollout, arm.stage)
                because = f"{where} is in {arm.name} of {entry.rollout}, which tries {arm.serial} in the shadow"
                return Proposal(None, (assignment,), because, beside)
            if arm.role == "treated":
                return Proposal(arm.serial, (assignment,), f"{where} is in {arm.name} of {entry.rollout}")
            serial = serial if serial is not None else arm.serial
            controls.append(assignment)
    return Proposal(serial, tuple(controls), f"{where} is a control of {entry.rollout}")


def objection(policy: Policy, line: Line, profile: Profile, serial: int) -> str | None:
    """Why `serial` may not run on this device, in a few words. None where it may run."""
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
    if serial in profile.unmet:
        return f"without {profile.unmet[serial]}, which it requires"
    return None
