"""An experiment in memory: a file, devices that differ from one another, their reports, window by window."""

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from support.values import HOUR, SALT, T0, Town, announce, reports, town, window
from whimbrel.flows.experiments.advance import PersonAct, act_by_person, advance_experiment
from whimbrel.flows.experiments.judge import ExperimentLedgers, replay_experiment
from whimbrel.flows.experiments.start import start_experiment
from whimbrel.flows.files.experiment_file import read_experiment
from whimbrel.flows.judging import ReplayedVerdict
from whimbrel.flows.records import ExperimentRecord
from whimbrel.flows.reports.ingest import ingest
from whimbrel.gate.experiment_gate import ExperimentVerdict
from whimbrel.health.report import Cohort, Summary
from whimbrel.plan.experiment import Experiment
from whimbrel.policy.bucket import bucket, device_key
from whimbrel.stores.experiments import Experiments

TEXT = """
experiment:
  name: A larger encoder
  id: e1
  variants:
    - {id: control, model_version: "wake@1.0.0", description: today's}
    - {id: large, model_version: "wake@2.0.0", description: twice the width}
  allocation: {control: 50%, large: 0.5}
  primary_metric: watch_time
  guardrail_metrics: [crash_rate, latency_p99]
  minimum_sample_size: 60
  duration_days: 0.5
  reshuffle: false
"""


def written(**changes: Any) -> Experiment:
    """The sample with some keys changed."""
    plan = read_experiment(TEXT, what="e.yaml")
    return msgspec.convert(msgspec.to_builtins(plan) | changes, type=Experiment)


def guarded(*metrics: str) -> Experiment:
    """The sample as a file whose guardrails are plain names."""
    return read_experiment(TEXT.replace("[crash_rate, latency_p99]", f"[{', '.join(metrics)}]"), what="e.yaml")


class Village(msgspec.Struct):
    """A town with an experiment, and devices that report on it."""

    town: Town
    ledgers: ExperimentLedgers

    @property
    def experiments(self) -> Experiments:
        return self.town.stores.experiments

    @property
    def record(self) -> ExperimentRecord:
        return self.experiments.one("e1")

    def start(self, plan: Experiment | None = None) -> ExperimentRecord:
        return start_experiment(
            self.town.registry,
            self.experiments,
            plan or written(),
            plan_text=TEXT,
            tag="t",
            salt=7,
            hour_s=HOUR,
            actor="ana",
            now=T0,
        )

    def look(self, *, now: float) -> ExperimentVerdict:
        return advance_experiment(self.record, **self._ports, tag="abc123", now=now, ledgers=self.ledgers)

    def act(self, person_act: PersonAct, *, arm: str | None, because: str, now: float) -> ExperimentRecord:
        return act_by_person(
            "e1", person_act, **self._ports, tag="abc123", arm=arm, because=because, actor="ana", now=now
        )

    def replay(self) -> list[ReplayedVerdict]:
        return replay_experiment("e1", **self._ports)

    @property
    def _ports(self) -> dict[str, Any]:
        return {"registry": self.town.registry, "fleet": self.town.fleet, "experiments": self.experiments}


@contextmanager
def village(*, versions: int = 3, plan: Experiment | None = None, begun: bool = True) -> Iterator[Village]:
    with town(versions=versions) as made:
        here = Village(made, ExperimentLedgers())
        if begun:
            here.start(plan)
        yield here


class Devices:
    """Devices whose metric is their own: `itself` stays, and what an arm does comes on top.

    `classes`: the hardware classes of the devices, in turn.
    """

    def __init__(
        self, here: Village, count: int, *, seed: int = 1, known: bool = True, classes: Sequence[str] = ("",)
    ) -> None:
        self.here, self.chance = here, random.Random(seed)
        self.names = [f"dev-{index}" for index in range(1, count + 1)]
        self.hardware = {name: classes[index % len(classes)] for index, name in enumerate(self.names)}
        self.itself = {name: self.chance.gauss(10, 2) for name in self.names}
        self.before = {name: mine + self.chance.gauss(0, 0.5) for name, mine in self.itself.items()} if known else {}
        self.window, self.level = 0, 0.0

    def arm_of(self, name: str) -> tuple[str, int] | None:
        """(role, stage) by the device's bucket; None outside of all arms."""
        record = self.here.record
        place = bucket(device_key(name), salt=SALT)
        for stage, variant in record.arms:
            own = record.plan.ranges()[variant.id]
            if own.start <= place < own.end:
                return "treated", stage
        own = record.plan.ranges()[record.plan.control_id]
        return ("control", 0) if own.start <= place < own.end else None

    def report(
        self,
        *,
        gain: float = 0.0,
        crash: float = 0.0,
        silent: float = 0.0,
        metric: str = "watch_time",
        only: str | None = None,
    ) -> None:
        """One window of all devices: `gain` and `crash` are of the treated ones, `silent` a share of them.

        `only`: the hardware class that crashes; None: all.
        """
        record, at = self.here.record, T0 + 300.0 * self.window + 10
        self.window += 1
        said = []
        for name in self.names:
            arm = self.arm_of(name)
            if arm is None or (arm[0] == "treated" and self.chance.random() < silent):
                continue
            role, stage = arm
            stages = [stage] if role == "treated" else [place for place, _ in record.arms]
            told = {metric: self.before[name]} if name in self.before else {}
            cohorts = tuple(Cohort(rollout="e1", stage=each, role=role, age_s=60.0, before=told) for each in stages)
            if self.window == 1:
                step = "activated" if role == "treated" else "placebo"
                named = {"rollout": "e1", "role": role, "hardware_class": self.hardware[name]}
                said += [announce(name, step, at=at, stage=each, **named) for each in stages]
            value = self.itself[name] + self.chance.gauss(0, 1) + 3 * math.sin(self.window / 4)
            value += self.level + (gain if role == "treated" else 0.0)
            crashed = int(role == "treated" and self.chance.random() < crash)
            if only not in {None, self.hardware[name]}:
                crashed = 0
            said.append(
                reports(
                    name,
                    window(
                        self.window,
                        cohorts=cohorts,
                        hardware_class=self.hardware[name],
                        metrics={metric: Summary.of(value)},
                        crashed=crashed,
                    ),
                    at=at,
                )
            )
        live = self.here.experiments.all(live=True)
        ingest(self.here.town.registry, self.here.town.fleet, said, now=at, experiments=live)

    def run(self, windows: int, **more: Any) -> ExperimentVerdict:
        """Report and look, until it ends or the windows are over."""
        said = None
        for _ in range(windows):
            self.report(**more)
            said = self.here.look(now=T0 + 300.0 * self.window + 1)
            if not self.here.record.live:
                break
        assert said is not None
        return said
