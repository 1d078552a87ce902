"""How many devices are treated, and how many are controls, at each stage of a rollout?

1. Every simulated device has a key of its own. At every stage `decide_many` says what the device runs and in which
   cohorts it is counted, from the policy that `render_policy` makes of the plan. Only then are devices added up.
2. The devices of a small fleet fall differently in every rollout, so several fleets are drawn. One or two large fleets
   serve all runs.

Called by forecast.py. `policy_at` serves the benchmark of decisions too.
"""

import itertools
from collections.abc import Iterable
from typing import Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from whimbrel import limits
from whimbrel.flows.ports import FleetPort
from whimbrel.flows.records import ModelRecord, ModelSettings, RolloutRecord, VersionRecord
from whimbrel.flows.render_policy import render_policy
from whimbrel.flows.rollouts.shares import Devices, cap, share_for
from whimbrel.forecast.fleet_description import FleetDescription
from whimbrel.model.release import Line
from whimbrel.plan.plan import Plan
from whimbrel.plan.rollout_states import State
from whimbrel.policy.bucket import BUCKETS
from whimbrel.policy.decide_many import Kind, decide_many
from whimbrel.policy.policy import Policy

Array = NDArray[Any]
_SALT = 42
_BASELINE, _TARGET = 1, 2
_CHUNK = 1_000_000  # devices that are held at once
_COUNTED = 50_000  # devices of a fleet that the server's own count of a blast radius is asked about: a second
_SURE = 50  # expected devices in a stage: an empty one has a chance below e^-50, as in flows/rollouts/shares.py


class CohortSizes(msgspec.Struct, frozen=True):
    """Devices by fleet, stage and cohort. Axes: fleets, ..., hardware classes, presence groups.

    `treated[:, j]`: devices that stage j brings to the new version. `control[:, s, j]`: controls of stage j while
    stage s is entered. `bases[:, j]`: the treated by the version they come from (fleets, stages, versions).
    """

    treated: Array
    control: Array
    bases: Array
    shares: Array  # where each stage's buckets end (fleets, stages)
    decisions: int  # made by decide_many


def count_cohorts(plan: Plan, fleet: FleetDescription, *, devices: int, fleets: int, seed: int) -> CohortSizes:
    """Draw `fleets` fleets of `devices` devices, and let each device decide at each stage."""
    stages, classes = len(plan.stages), len(fleet.hardware)
    groups, versions = len(fleet.presence), len(fleet.versions)
    kinds = _kinds(fleet)
    treated = np.zeros((fleets, stages, classes, groups), dtype=np.int64)
    control = np.zeros((fleets, stages, stages, classes, groups), dtype=np.int64)
    bases = np.zeros((fleets, stages, versions), dtype=np.int64)
    shares = np.zeros((fleets, stages), dtype=np.int64)
    policies: dict[tuple[int, ...], Policy] = {}
    for number in range(fleets):
        draw = np.random.default_rng([seed, number])
        for begun in range(0, devices, _CHUNK):
            size = min(_CHUNK, devices - begun)
            keys = draw.integers(0, 2**64, size=size, dtype=np.uint64)
            kind = draw.choice(len(kinds), size=size, p=_chances(fleet)).astype(np.uint16)
            habit = draw.choice(groups, size=size, p=_normal([each.share for each in fleet.presence])).astype(np.uint8)
            base = draw.choice(versions, size=size, p=_normal([each.share for each in fleet.versions])).astype(np.uint8)
            if begun == 0:
                shares[number] = _shares(plan, fleet, keys, kind, devices=devices)
            hardware = kind // (len(kinds) // classes)
            for stage in range(stages):
                entered = tuple(int(share) for share in shares[number, : stage + 1])
                if entered not in policies:
                    policies[entered] = policy_at(plan, entered)
                decided = decide_many(policies[entered], _LINE, keys, kind, kinds)
                for place, decision in enumerate(decided.decisions):
                    mine = decided.which == place
                    if not decision.assignments or not mine.any():
                        continue
                    cells = np.bincount(
                        hardware[mine].astype(np.int64) * groups + habit[mine], minlength=classes * groups
                    ).reshape(classes, groups)
                    for each in decision.assignments:
                        if each.role == "control":
                            control[number, stage, each.stage] += cells
                        elif each.stage == stage:
                            treated[number, stage] += cells
                            bases[number, stage] += np.bincount(base[mine], minlength=versions)
    return CohortSizes(treated, control, bases, shares, decisions=fleets * devices * stages)


_LINE = Line(model="forecast", sequence=1)
_MODEL = ModelRecord(
    namespace="default", name="forecast", created_at=0.0, salt=_SALT, settings=ModelSettings(), baseline=_BASELINE
)


def policy_at(plan: Plan, shares: tuple[int, ...]) -> Policy:
    """The policy that the server writes once the stages of `shares` were entered."""
    versions = [
        VersionRecord(
            namespace="default",
            model="forecast",
            serial=serial,
            version=f"1.{serial}",
            semantic_version=f"{serial}.0.0",
            build_hash="0" * 12,
            created_at=0.0,
            size_bytes=1,
            good=serial == _BASELINE,
        )
        for serial in (_BASELINE, _TARGET)
    ]
    rollout = RolloutRecord(
        namespace="default",
        id="forecast",
        model="forecast",
        baseline=_BASELINE,
        target=_TARGET,
        plan=plan,
        state=State.RUNNING,
        stage=len(shares) - 1,
        shares=shares,
        hour_s=3600.0,
        created_at=0.0,
        stage_since=0.0,
        because="",
    )
    return render_policy(_MODEL, versions=versions, rollouts=[rollout], quarantine=[], sequence=1)


def _kinds(fleet: FleetDescription) -> list[Kind]:
    """The kinds of devices that a plan can tell apart, sorted by hardware: a kind's number tells its class."""
    return [
        Kind({key: value for key, value in zip(("hardware", "region", "user_segment"), labels, strict=True) if value})
        for labels in itertools.product(fleet.hardware, fleet.regions, fleet.user_segments)
    ]


def _chances(fleet: FleetDescription) -> Array:
    parts = [_normal(list(each.values())) for each in (fleet.hardware, fleet.regions, fleet.user_segments)]
    return np.asarray(np.einsum("i,j,k->ijk", *parts).ravel())


def _normal(shares: Iterable[float]) -> Array:
    made = np.array(list(shares), dtype=float)
    return np.asarray(made / made.sum())


class _Enrolled:
    """The part of a fleet's port that `share_for` needs. All of its devices follow the model."""

    def __init__(self, keys: Array, kind: Array, kinds: list[Kind]) -> None:
        self._keys, self._kind, self._kinds = keys, kind, kinds

    def count_devices(self, _model: str) -> int:
        return len(self._keys)

    def keys_and_labels(self, _model: str) -> Iterable[tuple[int, dict[str, str]]]:
        return ((int(key), dict(self._kinds[kind].labels)) for key, kind in zip(self._keys, self._kind, strict=True))


def _shares(plan: Plan, fleet: FleetDescription, keys: Array, kind_of: Array, *, devices: int) -> list[int]:
    """The bucket where every stage's share ends, by the server's rule: raised for few devices, capped by the plan.

    In a large fleet a cap in devices is met on average. The server counts devices instead; the two counts differ by
    about the square root of the cap.
    """
    shares: list[int] = []
    kinds, chances, begins = _kinds(fleet), _chances(fleet), plan.range.start
    for number, stage in enumerate(plan.stages):
        share, most = max([plan.share_end(number), *shares]), cap(plan, stage=number)
        eligible = devices * sum(
            p for kind, p in zip(kinds, chances, strict=True) if stage.selector.matches(kind.labels)
        )
        few = eligible * (share - begins) / BUCKETS <= _SURE * plan.min_devices
        if len(keys) == devices and (few or (most is not None and devices <= _COUNTED)):
            port = cast("FleetPort", _Enrolled(keys, kind_of, kinds))
            share = share_for(Devices(port, "", salt=_SALT), plan, stage=number, shares=shares)
        elif most is not None and eligible:
            share = max([min(share, begins + int(most / eligible * BUCKETS)), *shares])
        shares.append(share)
    return shares


def fleets_for(devices: int, runs: int) -> int:
    """How many fleets are drawn: one for each run, as far as the limit of simulated devices allows."""
    return max(1, min(runs, limits.FORECAST_DECIDED // devices))
