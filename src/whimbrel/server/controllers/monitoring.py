"""Versions are watched as long as they run: monitors are read, and what they say is done; hours become days.

Compares: what devices told in the hours that each monitor looks at with its objective, its past and the versions beside
it (`flows/monitors`); and the days that have rows with the days that have hours.
Does, every few seconds, for some models in turn and in one transaction each: episodes begin and end, with their audit
entries, and a model goes back where its settings say so. Once an hour: the days that are missing are made, and what is
too old goes.
Killed: a transaction is all or nothing, so an episode and what followed from it are both there or both not. What was
read of earlier hours is read again.

What can go wrong, and what happens then:
1. A person moves the model while a monitor takes it back: the model's row is locked, and the second one is refused. The
   episode says so.
2. A model cannot go back (no earlier version, a live rollout): an alert says why, and people decide.
3. There are many models: a few are looked at in turn, so that no transaction is long and no round waits for all.
   Anomalies are read every minute, since they look at two weeks; objectives at every look.
4. One model's figures cannot be read: the others are watched, and then it is told (`failures`).
"""

import logging
from collections.abc import Callable
from functools import partial

from whimbrel import limits
from whimbrel.flows.monitors.fold_days import fold_days, forget_old
from whimbrel.flows.monitors.history import HourHistory
from whimbrel.flows.monitors.read_monitors import MonitorReading
from whimbrel.flows.monitors.records import HOUR_S
from whimbrel.flows.monitors.watch import ACTOR, watch
from whimbrel.flows.publishing.set_line import line_of
from whimbrel.flows.rollouts.roll_back_model import roll_back_model
from whimbrel.flows.rollouts.way_back_words import version_words
from whimbrel.server.controllers.failures import Failures
from whimbrel.server.controllers.leader import Leader
from whimbrel.stores.transaction import Stores

log = logging.getLogger(__name__)


class _Model:
    """What is kept of a model between two looks."""

    def __init__(self, name: str) -> None:
        self.history = HourHistory(name)
        self.anomalies: dict[int, list[MonitorReading]] = {}
        self.anomalies_at = 0.0


class Monitoring:
    """The controller of standing monitors."""

    def __init__(self, leader: Leader, *, clock: Callable[[], float]) -> None:
        self._leader, self._clock = leader, clock
        self._models: dict[tuple[str, str], _Model] = {}
        self._looked_at: dict[str, float] = {}  # by namespace
        self._last: dict[str, str] = {}  # by namespace: the model that was looked at last
        self._folded: dict[str, int] = {}  # by namespace: the hour in which days were made

    def watch_models(self, namespace: str) -> None:
        """Read the monitors of the models whose turn it is, where it is time to."""
        now = self._clock()
        if 0 <= now - self._looked_at.get(namespace, -limits.MONITOR_LOOK_S) < limits.MONITOR_LOOK_S:
            return
        self._looked_at[namespace] = now
        with self._leader.transaction(namespace) as stores:
            names = [model.name for model in stores.registry.models()]
        last = self._last.get(namespace, "")
        in_turn = [name for name in names if name > last] + [name for name in names if name <= last]
        failures = Failures()
        for name in in_turn[: limits.MONITOR_MODELS_A_LOOK]:
            self._last[namespace] = name
            with failures.apart(f"watching {name}"), self._leader.transaction(namespace) as stores:
                self._watch(stores, name, now=now)
        if self._folded.get(namespace) != int(now // HOUR_S):
            for name in names:
                self._fold(namespace, name, now=now)
            with self._leader.transaction(namespace) as stores:
                forget_old(stores.health, now=now)
            self._folded[namespace] = int(now // HOUR_S)
        failures.raise_first()

    def _watch(self, stores: Stores, name: str, *, now: float) -> None:
        kept = self._models.setdefault((stores.namespace, name), _Model(name))
        hour = int(now // HOUR_S)
        kept.history.read(stores.health, hour=hour)
        if not kept.history.serials(range(hour - 24, hour + 1)) and not stores.health.episodes(name, since=now):
            return
        if not 0 <= now - kept.anomalies_at < limits.MONITOR_ANOMALIES_S:
            kept.anomalies, kept.anomalies_at = {}, now

        def roll_back(model: str, *, leaves: int, because: str, evidence: dict[str, object]) -> str:
            way = roll_back_model(
                stores.registry,
                model,
                lines=partial(line_of, stores.registry, stores.roles),
                leaves=leaves,
                because=because,
                actor=ACTOR,
                now=now,
                evidence=evidence,
            )
            log.warning("model %s goes back to %s: %s", model, way.to.semantic_version, because)
            others = "".join(f", and {other.model} to {version_words(other.to)} with it" for other in way.others)
            return f"{version_words(way.to)}{others}"

        record = stores.registry.model(name)
        watch(
            stores.registry,
            stores.health,
            record,
            kept.history,
            anomalies=kept.anomalies,
            roll_back=roll_back,
            now=now,
        )

    def _fold(self, namespace: str, name: str, *, now: float) -> None:
        more = True
        while more:
            with self._leader.transaction(namespace) as stores:
                more = fold_days(stores.health, name, now=now)
