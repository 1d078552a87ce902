"""Standing monitors: how often they are wrong, how soon they see harm, and what they cost at intake.

    python bench/monitors.py [--runs N] [--quick] [--json FILE]

1. *False alarms*: models whose versions are all well, for a month after two weeks of history. Devices have crash rates
   of their own (gamma), report by day and night, and are used less on one day of the week. The share of months with any
   alarm should keep the budget of 5%.
2. *Harm*: a completed version whose errors or crashes rise; hours until the anomaly, and the objective, fires.
3. *Intake*: seconds that `ingest` takes for one window of each device, without and with hours, in the same run.

The monitors are the real ones (flows/monitors/read_monitors); devices are drawn as arrays. One seed, which is printed.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from whimbrel.flows.device_records import DeviceMessage
from whimbrel.flows.monitors.history import HourHistory
from whimbrel.flows.monitors.read_monitors import MonitorReading, read_monitors
from whimbrel.flows.monitors.records import HealthRow
from whimbrel.flows.records import ModelRecord, ModelSettings, VersionRecord
from whimbrel.flows.reports.ingest import ingest
from whimbrel.gate.monitor import ALPHA
from whimbrel.health.device_hour import HourSums, Spread
from whimbrel.health.pairs import Pairs
from whimbrel.health.report import Batch, Summary, Window
from whimbrel.model.documents import encode
from whimbrel.plan.objectives import read_objective
from whimbrel.stores import schema
from whimbrel.stores.database import Database
from whimbrel.stores.transaction import Stores

SEED = 20261130
HISTORY_H, MONTH_H = 14 * 24, 31 * 24
FLEETS = (  # devices, shape of the gamma of own crash rates, mean crash rate of a device-hour in use
    (1000, 1.0, 0.01),
    (1000, 0.25, 0.01),
    (100, 0.1, 0.02),
    (20, 0.25, 0.02),
)
OBJECTIVES = ("crash_rate < 5% daily", "error_rate < 5% hourly", "usage > 5% weekly")


class Fleet:
    """Devices of one version, hour by hour."""

    def __init__(self, rng: np.random.Generator, devices: int, *, shape: float, crash: float) -> None:
        self.rng, self.devices = rng, devices
        self.crash = np.minimum(0.9, rng.gamma(shape, crash / shape, devices))
        self.error = np.minimum(0.9, rng.gamma(shape, 0.01 / shape, devices))
        names = ("crash", "error", "usage")
        self.last = {name: np.zeros(devices) for name in names}
        self.total = {name: np.zeros(devices) for name in names}
        self.hours = {name: np.zeros(devices) for name in names}
        self.heard = {name: np.zeros(devices, dtype=bool) for name in names}

    def hour(self, number: int, *, worse: float = 1.0) -> HourSums:
        """The sums of an hour. `worse`: its crashes and errors are so many times as many."""
        if number % 24 == 0:
            for name in self.last:
                self.total[name][:], self.hours[name][:], self.heard[name][:] = 0, 0, False
        night, rest_day = number % 24 < 7, number // 24 % 7 == 6
        told = self.rng.random(self.devices) < (0.3 if night else 0.8)
        used = told & (self.rng.random(self.devices) < (0.2 if night else 0.7) * (0.6 if rest_day else 1.0))
        rate = np.minimum(0.95, self.crash * worse * (2.0 if night else 1.0))
        crashed = used & (self.rng.random(self.devices) < rate)
        errors = np.where(used, np.minimum(1.0, self.error * worse), 0.0)
        pairs = {
            "crash": self._pairs("crash", told, crashed.astype(float)),
            "usage": self._pairs("usage", told, used.astype(float)),
            "error": self._pairs("error", used, errors),
        }
        spread = Spread(n=int(used.sum()), sum=float(errors.sum()), sumsq=float((errors * errors).sum()))
        return HourSums(
            devices=int(told.sum()), used=int(used.sum()), crashed=int(crashed.sum()), errors=spread, pairs=pairs
        )

    def _pairs(self, name: str, told: np.ndarray, values: np.ndarray) -> Pairs:
        """Each device's hour before this one, with those before that of the day; then this hour is the last."""
        total, hours, last = self.total[name], self.hours[name], self.last[name]
        over = told & self.heard[name]
        before, then, y = hours[over], total[over], last[over]
        total[over] += y
        hours[over] += 1
        last[told] = values[told]
        self.heard[name] |= told
        return Pairs(
            pairs=int(before.sum()),
            squares=int((before * before).sum()),
            now=float((before * y).sum()),
            then=float(then.sum()),
            both=float((then * y).sum()),
        )


class Memory:
    """Hours, as the store keeps them."""

    def __init__(self) -> None:
        self.rows: list[HealthRow] = []

    def hours(self, model: str, *, since: int, before: int) -> list[HealthRow]:  # noqa: ARG002
        return [row for row in self.rows[-(before - since) :] if since <= row.start < before]


def model(*objectives: str) -> tuple[ModelRecord, VersionRecord]:
    settings = ModelSettings(objectives=tuple(map(read_objective, objectives)))
    record = ModelRecord(namespace="default", name="wake", created_at=0.0, salt=1, settings=settings, baseline=1)
    version = VersionRecord(
        namespace="default",
        model="wake",
        serial=1,
        version="2026.01.01.1",
        semantic_version="1.0.0",
        build_hash="0" * 12,
        created_at=0.0,
        size_bytes=1,
        good=True,
    )
    return record, version


def fired(record: ModelRecord, version: VersionRecord, history: HourHistory, *, hour: int) -> list[MonitorReading]:
    """The monitors that fire in an hour."""
    (readings,) = read_monitors(None, record, history, [version], episodes=[], anomalies={}, hour=hour)  # type: ignore[arg-type]
    return [each for each in readings if each.fires]


def month_with_alarm(seed: int, devices: int, shape: float, crash: float, *, look_h: int) -> list[str]:
    """The monitors that fired in a month of a model that is well."""
    fleet = Fleet(np.random.default_rng(seed), devices, shape=shape, crash=crash)
    record, version = model(*OBJECTIVES)
    memory, history = Memory(), HourHistory("wake")
    names: set[str] = set()
    for hour in range(HISTORY_H + MONTH_H):
        memory.rows.append(HealthRow(serial=1, hardware_class="", start=hour, sums=fleet.hour(hour)))
        if hour >= HISTORY_H and hour % look_h == look_h - 1:
            history.read(memory, hour=hour)  # type: ignore[arg-type]
            names |= {each.monitor for each in fired(record, version, history, hour=hour)}
    return sorted(names)


def hours_until(seed: int, devices: int, *, worse: float, what: str) -> int | None:
    """Hours from the onset of harm until the anomaly of `what` fires; None: not within two days."""
    fleet = Fleet(np.random.default_rng(seed), devices, shape=1.0, crash=0.01)
    record, version = model()
    memory, history = Memory(), HourHistory("wake")
    onset = HISTORY_H + 10
    for hour in range(onset + 48):
        sums = fleet.hour(hour, worse=worse if hour >= onset else 1.0)
        memory.rows.append(HealthRow(serial=1, hardware_class="", start=hour, sums=sums))
        if hour >= onset:
            history.read(memory, hour=hour)  # type: ignore[arg-type]
            if any(each.monitor.startswith(what) for each in fired(record, version, history, hour=hour)):
                return hour - onset + 1
    return None


def intake_s(devices: int, *, with_hours: bool) -> float:
    """Seconds to count one window of each device: the third of an hour, as most are."""
    database = Database("sqlite://")
    record, version = model()
    body = [
        encode(
            Batch(
                epoch=f"{device:016x}",
                windows=(
                    Window(
                        model="wake",
                        serial=1,
                        first=number,
                        last=number,
                        hardware_class=f"class-{device % 5}",
                        sessions=3,
                        inferences=100,
                        errors=1,
                        latency={120 + device % 40: 60, 160: 40},
                        metrics={"accuracy": Summary(n=10, sum=8.0, sumsq=8.0), "battery": Summary.of(3.0)},
                    ),
                ),
            )
        )
        for number in (1, 2, 3)
        for device in range(devices)
    ]
    try:
        with database.engine.begin() as connection:
            schema.metadata.create_all(connection)
            stores = Stores(connection, "default")
            stores.registry.add_model(record)
            stores.registry.add_version(version, release=b"{}", digests=())
            took = 0.0
            for turn in range(3):
                part = body[turn * devices : (turn + 1) * devices]
                messages = [
                    DeviceMessage(
                        namespace="default", device_id=f"dev-{device}", kind="reports", body=each, at=400.0 + 300 * turn
                    )
                    for device, each in enumerate(part)
                ]
                began = time.perf_counter()
                for first in range(0, devices, 2000):
                    ingest(
                        stores.registry,
                        stores.fleet,
                        messages[first : first + 2000],
                        now=400.0 + 300 * turn,
                        health=stores.health if with_hours else None,
                    )
                took = time.perf_counter() - began
            return took
    finally:
        database.close()


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(arguments)
    runs, look_h = (10, 24) if asked.quick else (asked.runs, 6)
    print(f"seed {asked.seed}, {runs} runs each, monitors read every {look_h} h")
    results: dict[str, Any] = {"seed": asked.seed, "runs": runs, "months": [], "harm": [], "intake": {}}
    print(f"\n{'months of a well model':<44}{'with an alarm':>14}   (budget {ALPHA:.0%})")
    for devices, shape, crash in FLEETS:
        alarms = [month_with_alarm(asked.seed + run, devices, shape, crash, look_h=look_h) for run in range(runs)]
        share = sum(bool(each) for each in alarms) / runs
        names = sorted({name for each in alarms for name in each})
        results["months"].append({"devices": devices, "shape": shape, "share": share, "monitors": names})
        print(
            f"{devices:>5} devices, shape {shape:<5} crash rate {crash:<12}{share:>14.1%}   {', '.join(names)}",
            flush=True,
        )
    print(f"\n{'harm in a completed version, 1% of it before':<44}{'median hours':>14}   seen within 2 days")
    for devices, worse, what in (
        (1000, 2.0, "crash"),
        (1000, 3.0, "crash"),
        (10_000, 2.0, "crash"),
        (100, 50.0, "error"),
    ):
        delays = [hours_until(asked.seed + run, devices, worse=worse, what=what) for run in range(max(5, runs // 10))]
        seen = [each for each in delays if each is not None]
        median = statistics.median(seen) if seen else None
        results["harm"].append({"devices": devices, "worse": worse, "what": what, "median_h": median})
        words = "never" if median is None else f"{median:g}"
        print(f"{devices:>6} devices, {what} x{worse:<23g}{words:>14}   {len(seen)}/{len(delays)}", flush=True)
    devices = 2000 if asked.quick else 10_000
    times: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(3):
        for with_hours, measured in times.items():
            measured.append(intake_s(devices, with_hours=with_hours))
    before, after = (min(times[each]) / devices * 1e6 for each in (False, True))
    results["intake"] = {"before_us": before, "after_us": after}
    print(f"\nintake: {before:.0f} us a window without hours, {after:.0f} us with them ({after / before - 1:+.0%})")
    if asked.json:
        asked.json.write_bytes(msgspec.json.encode(results))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
