"""Which buckets does a stage get, and which devices are in it? The plan's share, fitted to the devices enrolled.

1. A share is raised until at least `min_devices` enrolled devices fall in it: 20 devices at 5% would else leave an
   empty canary in 36 of 100 rollouts.
2. The blast radius caps every stage but the last: in percent of all buckets always, in devices by those that are
   enrolled when the stage begins. The cap wins over 1.
3. Devices of a shadow stage are not on the new version: they count in no cap, and bound no share of those that are.
4. The holdback is kept from a raised share, but for the first device.
"""

import heapq
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from whimbrel.flows.ports import FleetPort, RegistryPort
from whimbrel.flows.records import RolloutRecord
from whimbrel.plan.plan import Plan
from whimbrel.policy.bucket import BUCKETS, bucket

DevicePlace = tuple[int, Mapping[str, str]]  # a bucket, and the labels of a device in it


def share_for(fleet: FleetPort, plan: Plan, *, stage: int, salt: int, shares: Sequence[int] = ()) -> int:
    """The bucket where the share of a stage ends. `shares`: those of the stages before it, which it never undercuts."""
    share = max([plan.share_end(stage), *_before(plan, stage=stage, shares=shares)])
    devices = fleet.count_devices() * (share - plan.range.start) / BUCKETS
    if plan.stages[stage].selector.everyone and devices > 50 * plan.min_devices and cap(plan, stage=stage) is None:
        return share  # a larger fleet: an empty canary has a chance below e^-50
    return share_among(list(device_places(fleet, salt)), plan, stage=stage, shares=shares)


def share_percent(plan: Plan, share: int) -> float:
    """How much of the rollout's own range a share is that ends at the bucket `share`, in percent."""
    return round(100 * (share - plan.range.start) / plan.range.buckets, 4)


def share_among(
    places: Sequence[DevicePlace], plan: Plan, *, stage: int, shares: Sequence[int] = (), stands_for: float = 1.0
) -> int:
    """The same for known places. `stands_for`: how many devices each of them is, in a fleet that is imagined."""
    own, selector = plan.range, plan.stages[stage].selector
    before = _before(plan, stage=stage, shares=shares)
    share = max([plan.share_end(stage), *before])
    in_range = [(place, labels) for place, labels in places if own.start <= place < own.end]
    selected = [(place, labels) for place, labels in in_range if selector.matches(labels)]
    lowest = heapq.nsmallest(math.ceil(plan.min_devices / stands_for), (place for place, _ in selected))
    if lowest:
        share = max(share, min(lowest[-1] + 1, max(plan.ceiling, lowest[0] + 1)))
    most = cap(plan, stage=stage)
    if most is None:
        return share
    room = max(0, int(most / stands_for) - count_treated(plan, shares, in_range))
    fresh = (place for place, labels in selected if stage_of(plan, shares, place, labels) is None)
    nearest = heapq.nsmallest(room + 1, fresh)
    if len(nearest) > room:  # the next device would be one too many
        share = min(share, nearest[-1])
    return max([share, own.start, *before])


def _before(plan: Plan, *, stage: int, shares: Sequence[int]) -> Sequence[int]:
    """The shares that a stage never undercuts: shadow shares bind no stage that serves."""
    return shares if plan.stages[stage].shadow is not None else shares[plan.shadows :]


def cap(plan: Plan, *, stage: int) -> int | None:
    """The most devices that may be on the new version in a stage; None where the plan caps none."""
    radius = plan.blast_radius
    capped = stage < len(plan.stages) - 1 and plan.stages[stage].shadow is None
    return radius.devices if radius is not None and capped else None


def over_the_cap(fleet: FleetPort, plan: Plan, *, shares: Sequence[int], salt: int) -> str | None:
    """Why the last of `shares` would put more devices at stake than the plan's blast radius; None where it would not.

    A share that is right for one selector may be too large for a wider one, and it never shrinks.
    """
    most = cap(plan, stage=len(shares) - 1)
    if most is None:
        return None
    count = count_treated(plan, shares, device_places(fleet, salt))
    if count <= most:
        return None
    return f"{count} devices would be on the new version, and the plan's blast radius is {most}"


def next_share(fleet: FleetPort, rollout: RolloutRecord, *, salt: int) -> int:
    """The bucket where the share of a rollout's next stage ends."""
    return share_for(fleet, rollout.plan, stage=rollout.stage + 1, salt=salt, shares=rollout.shares)


def present_share(fleet: FleetPort, rollout: RolloutRecord, *, salt: int) -> int:
    """The bucket where the share of a rollout's present stage would end, by the devices that are enrolled now."""
    before = rollout.shares[:-1]
    return share_for(fleet, rollout.plan, stage=rollout.stage, salt=salt, shares=before)


def next_over_the_cap(registry: RegistryPort, fleet: FleetPort, rollout: RolloutRecord) -> str | None:
    """Why the next stage would pass the plan's blast radius; None where it would not."""
    salt = registry.model(rollout.model).salt
    shares = (*rollout.shares, next_share(fleet, rollout, salt=salt))
    return over_the_cap(fleet, rollout.plan, shares=shares, salt=salt)


def count_treated(plan: Plan, shares: Sequence[int], places: Iterable[DevicePlace]) -> int:
    """How many of the devices at `places` are on the new version."""
    return sum(stage_of(plan, shares, place, labels) is not None for place, labels in places)


def stage_of(plan: Plan, shares: Sequence[int], place: int, labels: Mapping[str, str]) -> int | None:
    """The stage in which a device in bucket `place` is on the new version; None where it is on none."""
    for stage in range(plan.shadows, len(shares)):
        if plan.range.start <= place < shares[stage] and plan.stages[stage].selector.matches(labels):
            return stage
    return None


def device_places(fleet: FleetPort, salt: int) -> Iterator[DevicePlace]:
    """The bucket and labels of every enrolled device."""
    return ((bucket(key, salt=salt), labels) for key, labels in fleet.keys_and_labels())
