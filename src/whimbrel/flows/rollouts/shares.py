"""Which buckets does a stage get, and which devices are in it? The plan's share, fitted to the model's fleet.

1. A share is raised until at least `min_devices` devices that follow the model fall in it: 20 devices at 5% would else
   leave an empty canary in 36 of 100 rollouts. Devices of other models count for nothing.
2. The blast radius caps every stage but the last: in percent of all buckets always, in devices by those that follow
   the model when the stage begins. The cap wins over 1.
3. Devices of a shadow stage are not on the new version: they count in no cap, and bound no share of those that are.
4. The holdback is kept from a raised share, but for the first device.
5. A device that no variant of the version fits counts for nothing: a canary of such devices would be empty. A device of
   which that is not known counts. Of a set, a variant of every version must fit.
6. What one person started is raised no further than the share above which the model needs a second (`one_word`).
"""

import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Self

from whimbrel.flows.ports import FleetPort, ModelsPort, RegistryPort
from whimbrel.flows.records import RolloutRecord
from whimbrel.flows.rollouts.one_word import bounded_end, one_word
from whimbrel.flows.rollouts.rollout_set import set_of
from whimbrel.flows.version_fit import release_of, runs_where
from whimbrel.plan.plan import Plan
from whimbrel.policy.bucket import BUCKETS, bucket

DevicePlace = tuple[int, Mapping[str, str]]  # a bucket, and the labels of a device in it


class Devices:
    """The devices that a share is counted by: those that follow a model, and that its version may run on."""

    def __init__(
        self, fleet: FleetPort, model: str, *, salt: int, can_run: Callable[[Mapping[str, str]], bool] | None = None
    ) -> None:
        """`can_run`: of a device with these labels; None: all of them can."""
        self._fleet, self._model, self._salt, self._can_run = fleet, model, salt, can_run

    @classmethod
    def of_versions(
        cls, registry: ModelsPort, fleet: FleetPort, model: str, versions: Mapping[str, int], *, salt: int | None = None
    ) -> Self:
        """The devices of `model` that may run all `versions`. `salt`: where it is not the model's own."""
        salt = salt if salt is not None else registry.model(model).salt
        return cls(fleet, model, salt=salt, can_run=runs_all(registry, versions))

    @classmethod
    def of_rollout(cls, registry: RegistryPort, fleet: FleetPort, rollout: RolloutRecord) -> Self:
        """The devices that may run the target of a rollout, with its set."""
        versions = {each.model: each.target for each in set_of(registry, rollout)}
        return cls.of_versions(registry, fleet, rollout.model, versions, salt=rollout.salt)

    def count(self) -> int:
        """How many they are."""
        if self._can_run is None:
            return self._fleet.count_devices(self._model)
        return sum(count for labels, count in self._fleet.label_sets(self._model) if self._can_run(labels))

    def places(self) -> Iterator[DevicePlace]:
        """The bucket and labels of each."""
        for key, labels in self._fleet.keys_and_labels(self._model):
            if self._can_run is None or self._can_run(labels):
                yield bucket(key, salt=self._salt), labels


def runs_all(registry: ModelsPort, versions: Mapping[str, int]) -> Callable[[Mapping[str, str]], bool] | None:
    """Whether variants of all `versions` (serials by model) may fit a device with some labels; None: of any device."""
    asked = [
        runs_where(release_of(registry, name, serial).variants, told=registry.model(name).settings.report_labels)
        for name, serial in versions.items()
    ]
    needed = [each for each in asked if each is not None]
    return (lambda labels: all(each(labels) for each in needed)) if needed else None


def share_for(devices: Devices, plan: Plan, *, stage: int, shares: Sequence[int] = ()) -> int:
    """The bucket where the share of a stage ends. `shares`: those of the stages before it, which it never undercuts."""
    share = max([plan.share_end(stage), *_before(plan, stage=stage, shares=shares)])
    expected = devices.count() * (share - plan.range.start) / BUCKETS
    if plan.stages[stage].selector.everyone and expected > 50 * plan.min_devices and cap(plan, stage=stage) is None:
        return share  # a larger fleet: an empty canary has a chance below e^-50
    return share_among(list(devices.places()), plan, stage=stage, shares=shares)


def share_ends(devices: Devices, plan: Plan) -> list[int]:
    """Where the share of each stage would end, by the devices that are there now."""
    ends: list[int] = []
    for stage in range(len(plan.stages)):
        ends.append(share_for(devices, plan, stage=stage, shares=ends))
    return ends


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


def over_the_cap(devices: Devices, plan: Plan, *, shares: Sequence[int]) -> str | None:
    """Why the last of `shares` would put more devices at stake than the plan's blast radius; None where it would not.

    A share that is right for one selector may be too large for a wider one, and it never shrinks.
    """
    most = cap(plan, stage=len(shares) - 1)
    if most is None:
        return None
    count = count_treated(plan, shares, devices.places())
    if count <= most:
        return None
    return f"{count} devices would be on the new version, and the plan's blast radius is {most}"


def next_share(registry: RegistryPort, fleet: FleetPort, rollout: RolloutRecord) -> int:
    """The bucket where the share of a rollout's next stage ends."""
    return _next_share(registry, Devices.of_rollout(registry, fleet, rollout), rollout)


def present_share(registry: RegistryPort, fleet: FleetPort, rollout: RolloutRecord) -> int:
    """The bucket where the share of a rollout's present stage would end, by the devices that are there now."""
    devices = Devices.of_rollout(registry, fleet, rollout)
    return _share(registry, devices, rollout, stage=rollout.stage, before=rollout.shares[:-1])


def next_over_the_cap(registry: RegistryPort, fleet: FleetPort, rollout: RolloutRecord) -> str | None:
    """Why the next stage would pass the plan's blast radius; None where it would not."""
    devices = Devices.of_rollout(registry, fleet, rollout)
    return over_the_cap(devices, rollout.plan, shares=(*rollout.shares, _next_share(registry, devices, rollout)))


def _next_share(registry: RegistryPort, devices: Devices, rollout: RolloutRecord) -> int:
    return _share(registry, devices, rollout, stage=rollout.stage + 1, before=rollout.shares)


def _share(
    registry: RegistryPort, devices: Devices, rollout: RolloutRecord, *, stage: int, before: Sequence[int]
) -> int:
    """Where the share of a stage ends, raised no further than one person's word reaches."""
    together = set_of(registry, rollout)
    word = one_word(registry, [each.model for each in together], but={each.id for each in together})
    end = share_for(devices, rollout.plan, stage=stage, shares=before)
    return bounded_end(rollout.plan, end, stage=stage, before=before, word=word)


def count_treated(plan: Plan, shares: Sequence[int], places: Iterable[DevicePlace]) -> int:
    """How many of the devices at `places` are on the new version."""
    return sum(stage_of(plan, shares, place, labels) is not None for place, labels in places)


def stage_of(plan: Plan, shares: Sequence[int], place: int, labels: Mapping[str, str]) -> int | None:
    """The stage in which a device in bucket `place` is on the new version; None where it is on none."""
    for stage in range(plan.shadows, len(shares)):
        if plan.range.start <= place < shares[stage] and plan.stages[stage].selector.matches(labels):
            return stage
    return None
