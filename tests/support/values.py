"""Small valid things, so that a test says only what it is about."""

import functools
import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from whimbrel.flows.device_records import DeviceMessage, FollowedModels
from whimbrel.flows.devices.records import EnrolledDevice
from whimbrel.flows.publishing.publish import build_hash
from whimbrel.flows.records import ModelRecord, ModelSettings, QuarantineRecord, RolloutRecord, VersionRecord
from whimbrel.gate.verdict import Counts, GateInput
from whimbrel.health.report import Announcement, Batch, Cohort, Window
from whimbrel.health.shadow import ShadowSums, Units
from whimbrel.health.tally import Cell, Moments
from whimbrel.model.documents import encode
from whimbrel.model.release import File, Line, Release, Variant
from whimbrel.model.selector import Selector
from whimbrel.plan.criteria import SuccessCriteria
from whimbrel.plan.plan import Plan, Stage
from whimbrel.plan.rollout_states import State
from whimbrel.policy.bucket import BUCKETS, bucket, device_key
from whimbrel.policy.policy import Arm, Entry, Layer, Policy
from whimbrel.policy.shadow import ShadowStage
from whimbrel.stores import schema
from whimbrel.stores.database import Database
from whimbrel.stores.fleet import Fleet
from whimbrel.stores.registry import Registry
from whimbrel.stores.transaction import Stores

T0 = 1_767_225_600.0  # 2026-01-01T00:00:00Z
SALT = 42
EPOCH = "0123456789abcdef"
HOUR = 3600.0


def devices_in(start: int, end: int, count: int, *, salt: int = SALT) -> list[str]:
    """`count` device ids whose bucket lies in [start, end)."""
    names = (f"dev-{index}" for index in itertools.count(1))
    return list(itertools.islice((n for n in names if start <= bucket(device_key(n), salt=salt) < end), count))


def selector(**labels: str) -> Selector:
    return Selector(match_labels=labels)


def stage(name: str = "canary", percent: float = 5, *, hours: float = 24, **more: Any) -> Stage:
    criteria = {key: more.pop(key) for key in SuccessCriteria.__struct_fields__ if key in more}
    return Stage(
        name=name,
        target_percent=percent,
        duration_hours=hours,
        success_criteria=SuccessCriteria(**criteria),
        **more,
    )


def plan(*stages: Stage, **changes: Any) -> Plan:
    """Canary 5% for a day, a quarter for two, everyone: the field's sample."""
    sample = (stage(), stage("early", 25, hours=48), stage("general", 100, hours=0))
    return Plan(**{"model_version": "wake@2.0.0", "stages": stages or sample} | changes)


def arm(role: str, start: int, end: int, *, serial: int, stage: int = 0, **more: Any) -> Arm:
    return Arm(
        role=role,
        name="canary" if role == "treated" else role,
        stage=stage,
        serial=serial,
        start=start,
        end=end,
        **more,
    )


def policy(**changes: Any) -> Policy:
    """Baseline 1; a rollout of 2 to 5% of the buckets, all others its control."""
    entry = Entry(rollout="r1", arms=(arm("treated", 0, 50_000, serial=2), arm("control", 50_000, BUCKETS, serial=1)))
    values: dict[str, Any] = {
        "model": "wake",
        "sequence": 1,
        "baseline": 1,
        "known_good": (1,),
        "layers": (Layer(salt=SALT, entries=(entry,)),),
    }
    return Policy(**values | changes)


def line(**changes: Any) -> Line:
    return Line(**{"model": "wake", "sequence": 1} | changes)


def file(sha256: str = "a" * 64, **changes: Any) -> File:
    return File(**{"name": "model.onnx", "size_bytes": 100, "sha256": sha256, "format": "onnx"} | changes)


def release(serial: int = 1, *, variants: tuple[Variant, ...] | None = None, **changes: Any) -> Release:
    builds = variants or (Variant(name="any", files=(file(),)),)
    values: dict[str, Any] = {
        "model": "wake",
        "serial": serial,
        "version": f"2026.01.01.{serial}",
        "semantic_version": f"{serial}.0.0",
        "build_hash": build_hash(builds),
        "created": "2026-01-01T00:00:00Z",
        "variants": builds,
    }
    return Release(**values | changes)


def version(serial: int = 1, **changes: Any) -> VersionRecord:
    values: dict[str, Any] = {
        "namespace": "default",
        "model": "wake",
        "serial": serial,
        "version": f"2026.01.01.{serial}",
        "semantic_version": f"{serial}.0.0",
        "build_hash": "0" * 12,
        "created_at": T0,
        "size_bytes": 100,
        "good": serial == 1,
    }
    return VersionRecord(**values | changes)


def model(**changes: Any) -> ModelRecord:
    values: dict[str, Any] = {
        "namespace": "default",
        "name": "wake",
        "created_at": T0,
        "salt": SALT,
        "settings": ModelSettings(),
        "baseline": 1,
    }
    return ModelRecord(**values | changes)


def rollout(**changes: Any) -> RolloutRecord:
    values: dict[str, Any] = {
        "namespace": "default",
        "id": "r1",
        "model": "wake",
        "baseline": 1,
        "target": 2,
        "plan": plan(),
        "state": State.RUNNING,
        "stage": 0,
        "shares": (50_000,),
        "hour_s": HOUR,
        "created_at": T0,
        "stage_since": T0,
        "because": "started",
    }
    return RolloutRecord(**values | changes)


def quarantined(serial: int, **changes: Any) -> QuarantineRecord:
    values: dict[str, Any] = {"namespace": "default", "model": "wake", "serial": serial, "at": T0, "because": "harm"}
    return QuarantineRecord(**values | changes)


# --- what the gate sees ---


def cell(role: str, window: int, *, n: int, crashed: int = 0, errors: float = 0.0, **more: Any) -> Cell:
    """`n` device-windows of one arm."""
    values: dict[str, Any] = {
        "stage": 0,
        "window": window,
        "role": role,
        "at_risk": n,
        "sessions": n,
        "crashed": crashed,
        "error_units": n,
        "error_share": errors,
    }
    return Cell(**values | more)


def accuracy(mean: float, n: int, *, spread: float = 0.1) -> dict[str, Moments]:
    """The metric of `n` devices around `mean`, with that standard deviation."""
    return {"accuracy": Moments(n=n, sum=mean * n, sumsq=n * (mean * mean + spread * spread))}


def gate_input(*cells: Cell, **changes: Any) -> GateInput:
    """100 devices in the canary, all of them reporting, soaked long enough."""
    counts = Counts(assigned_t=100, assigned_c=1900, activated_t=100, placebo_c=1900, reported_t=100)
    values: dict[str, Any] = {"stage": 0, "soaked_s": 25 * HOUR, "cells": cells, "counts": {0: counts}}
    return GateInput(**values | changes)


def healthy(windows: int = 20, **more: Any) -> list[Cell]:
    """100 treated and 1900 control devices a window; 1% crash in both."""
    each = [
        (cell("treated", w, n=100, crashed=1, **more), cell("control", w, n=1900, crashed=19, **more))
        for w in range(windows)
    ]
    return list(itertools.chain.from_iterable(each))


def shadow_plan(*, percent: float = 50, **asked: Any) -> Plan:
    """Half of the devices try it in the shadow for a day, then 5% run it, then everyone."""
    tried = stage("shadow", percent, shadow=ShadowStage(**asked))
    return plan(tried, stage(), stage("general", 100, hours=0))


def seen(inputs: int = 100, *, agreed: float | None = None, ratio: float = 1.0, **changes: Any) -> ShadowSums:
    """What one device saw of serial 2 in the shadow; 10 ms an input on the active version."""
    failed = changes.get("errors", 0) + changes.get("crashed", 0)
    compared = inputs - failed
    values: dict[str, Any] = {
        "serial": 2,
        "inputs": inputs,
        "compared": compared,
        "agreed": compared if agreed is None else agreed,
        "active_ms": 10.0 * compared,
        "candidate_ms": 10.0 * ratio * compared,
    }
    return ShadowSums(**values | changes)


def shadowed(windows: int = 10, *, devices: int = 10, one: ShadowSums | None = None, **more: Any) -> list[Cell]:
    """So many devices in the shadow a window that all saw the same, and as many controls."""
    each = Units.of(one or seen())
    told = functools.reduce(Units.plus, [each] * devices)
    made: list[Cell] = []
    for w in range(windows):
        made.append(cell("treated", w, n=devices, shadow=told, **more))
        made.append(cell("control", w, n=devices, **more))
    return made


# --- what devices say ---


def cohort(role: str = "treated", *, stage: int = 0, age_s: float = 60.0, rollout: str = "r1") -> Cohort:
    return Cohort(rollout=rollout, stage=stage, role=role, age_s=age_s)


def window(first: int = 1, last: int | None = None, **changes: Any) -> Window:
    values: dict[str, Any] = {
        "model": "wake",
        "serial": 2,
        "first": first,
        "last": last or first,
        "cohorts": (cohort(),),
        "sessions": 1,
        "inferences": 10,
    }
    return Window(**values | changes)


def reports(device: str, *windows: Window, at: float = T0 + 400, **changes: Any) -> DeviceMessage:
    body = encode(Batch(**{"epoch": EPOCH, "windows": windows} | changes))
    return DeviceMessage(namespace="default", device_id=device, kind="reports", body=body, at=at)


def announce(device: str, step: str, *, at: float = T0 + 10, **changes: Any) -> DeviceMessage:
    said = Announcement(**{"model": "wake", "step": step, "serial": 2, "rollout": "r1"} | changes)
    return DeviceMessage(namespace="default", device_id=device, kind="announce", body=encode(said), at=at)


# --- the registry and the fleet, in memory ---


def enrol(
    stores: Stores,
    device_id: str,
    *,
    labels: Mapping[str, str] | None = None,
    models: tuple[str, ...] = (),
    at: float = T0,
    **changes: Any,
) -> None:
    """A device that is enrolled. `changes`: fields of its `EnrolledDevice`, such as how it came in."""
    before = stores.enrolments.known(device_id)
    fields: dict[str, Any] = {
        "credential_sha256": "0" * 64,
        "admission": "shared",
        "enrolled_at": at,
        "admitted_at": at,
        "cohort_key": device_id,  # as of a device from before there were cohort keys: names tell buckets
    }
    device = before or EnrolledDevice(device_id=device_id, **fields)
    stores.enrolments.save(msgspec.structs.replace(device, **changes), labels=dict(labels or {}), at=at)
    if models:
        stores.fleet.note_followed(FollowedModels(device_id=device_id, models=models, at=at))


class Town(msgspec.Struct):
    """One namespace, inside one transaction."""

    stores: Stores

    @property
    def registry(self) -> Registry:
        return self.stores.registry

    @property
    def fleet(self) -> Fleet:
        return self.stores.fleet

    def enrol(
        self,
        *devices: str,
        labels: Mapping[str, str] | None = None,
        models: tuple[str, ...] = (),
        **changes: Any,
    ) -> None:
        for device in devices:
            enrol(self.stores, device, labels=labels, models=models, **changes)

    def publish(self, serial: int, **changes: Any) -> VersionRecord:
        record = version(serial, **changes)
        document = release(serial, version=record.version, semantic_version=record.semantic_version)
        self.registry.add_version(record, release=encode(document), digests=document.digests)
        return record

    def cells(self, *, before_window: int = 10**6) -> list[Cell]:
        return self.fleet.cells("r1", before_window=before_window)


def database_in_memory() -> Database:
    """An empty database with all tables: a copy, since to make the tables costs more than most tests that use them."""
    database = Database("sqlite://")
    raw = database.engine.raw_connection()
    raw.driver_connection.deserialize(_all_tables())
    raw.close()
    return database


@functools.cache
def _all_tables() -> bytes:
    database = Database("sqlite://")
    try:
        with database.engine.begin() as connection:
            schema.metadata.create_all(connection)
        raw = database.engine.raw_connection()
        content: bytes = raw.driver_connection.serialize()
        raw.close()
        return content
    finally:
        database.close()


@contextmanager
def town(*, versions: int = 2, running: RolloutRecord | None = None) -> Iterator[Town]:
    """A model with some versions, 1 its baseline; `running` its live rollout."""
    database = database_in_memory()
    try:
        with database.engine.begin() as connection:
            made = Town(Stores(connection, "default"))
            made.registry.add_model(model())
            for serial in range(1, versions + 1):
                made.publish(serial)
            if running is not None:
                made.registry.add_rollout(running, plan_text="")
            yield made
    finally:
        database.close()
