"""Live rollouts and experiments are judged once a window, and what the verdict says is done. (Steps 16 and 17.)

Compares: the window that is open now with the window in which a rollout or experiment was judged last.
Does, where they differ, or at once after a device failed or went back: in one transaction each, devices that should
have reported are counted as silent, the delays of the treated devices are learned, and the gate is asked; its verdict
is stored with what follows from it (`flows/rollouts/advance`, `flows/experiments/advance`). Before that, users' tickets
that wait are counted.
Killed: a transaction is all or nothing, so a verdict and what it leads to are both there or both not. The next leader
judges every live comparison once more, since it does not know when they were judged last: a gate may be asked as often
as one likes, and the same windows give the same verdict.

What can go wrong, and what happens then:
1. A person moved the rollout or ended the experiment meanwhile (`Conflict`): its ledger is forgotten, and the next
   round looks again.
2. A ledger is lost with its process, or its folding was interrupted: a new one reads the windows from the first one on.
   That costs time, never a verdict.
3. One cannot be judged, for a bug or for rows that cannot be read: the others are, and then it is told (`failures`).
"""

import logging
import uuid
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any, Protocol

from whimbrel import limits
from whimbrel.errors import Conflict
from whimbrel.flows.devices.enrolment_spike import enrolment_spike, notice_spike
from whimbrel.flows.experiments.advance import advance_experiment
from whimbrel.flows.experiments.judge import ExperimentLedgers
from whimbrel.flows.judging import AnyVerdict
from whimbrel.flows.records import ExperimentRecord, RolloutRecord
from whimbrel.flows.reports.judge_silence import judge_silence
from whimbrel.flows.reports.learn_delays import ComparisonT, RecordT_contra, Save, learn_delays
from whimbrel.flows.reports.user_reports import count_reports
from whimbrel.flows.rollouts.advance import advance
from whimbrel.flows.rollouts.judge import RolloutLedgers
from whimbrel.server.controllers.failures import Failures
from whimbrel.server.controllers.leader import Leader
from whimbrel.stores.database import Database
from whimbrel.stores.transaction import Stores, transaction

log = logging.getLogger(__name__)


class _Kind(Protocol[RecordT_contra]):
    """What the loop needs to know of a kind of comparison: how one is stored, and how one is judged."""

    @property
    def word(self) -> str: ...
    @property
    def ledgers(self) -> MutableMapping[str, Any]: ...
    def save(self, stores: Stores) -> Save[RecordT_contra]: ...
    def moved_meanwhile(self, stores: Stores, comparison: RecordT_contra) -> bool: ...
    def advance(self, stores: Stores, comparison: RecordT_contra, *, now: float) -> AnyVerdict: ...


class Judging:
    """The controller that asks the gates."""

    def __init__(self, leader: Leader, database: Database, *, clock: Callable[[], float]) -> None:
        self._leader, self._database, self._clock = leader, database, clock
        self._rollouts, self._experiments = _Rollouts(), _Experiments()
        self._judged: dict[str, int] = {}  # by comparison: the window up to which it was judged
        self._spiking: dict[str, bool] = {}  # by namespace: whether people were told; a new leader tells them once more
        self._spikes_at: dict[str, float] = {}

    def judge_rollouts(self, namespace: str, *, at_once: bool) -> None:
        """Judge the live rollouts whose window closed (`at_once`: all live ones), after users' tickets were counted."""
        now = self._clock()
        with self._leader.transaction(namespace) as stores:
            count_reports(stores.registry, stores.fleet, stores.tickets, now=now)
            live = stores.registry.rollouts(live=True)
        self._judge_each(self._rollouts, namespace, live, at_once=at_once, now=now)

    def judge_experiments(self, namespace: str, *, at_once: bool) -> None:
        """Judge the live experiments whose window closed (`at_once`: all live ones)."""
        now = self._clock()
        with transaction(self._database, namespace) as stores:
            live = stores.experiments.all(live=True)
        self._judge_each(self._experiments, namespace, live, at_once=at_once, now=now)

    def look_for_spike(self, namespace: str) -> None:
        """Tell people where far more devices than usual enrol with a shared token, once a spike."""
        now = self._clock()
        if now < self._spikes_at.get(namespace, 0.0):
            return
        self._spikes_at[namespace] = now + limits.SPIKE_LOOK_S
        with self._leader.transaction(namespace) as stores:
            spike = enrolment_spike(stores.fleet.enrolment_rates(now=now))
            if spike is not None and not self._spiking.get(namespace):
                notice_spike(stores.registry, spike, now=now)
                log.warning("%s: %s", namespace, spike.words)
        self._spiking[namespace] = spike is not None

    def _judge_each(
        self, kind: _Kind[ComparisonT], namespace: str, live: Sequence[ComparisonT], *, at_once: bool, now: float
    ) -> None:
        for ended in kind.ledgers.keys() - {comparison.id for comparison in live}:
            del kind.ledgers[ended]
        failures = Failures()
        for comparison in live:
            if self._judged.get(comparison.id) == comparison.window_at(now) and not at_once:
                continue
            with failures.apart(f"judging {kind.word} {comparison.id}"):
                self._judge(kind, namespace, comparison, now=now)
        failures.raise_first()

    def _judge(self, kind: _Kind[ComparisonT], namespace: str, comparison: ComparisonT, *, now: float) -> None:
        window = comparison.window_at(now)
        with self._leader.transaction(namespace) as stores:
            looks = self._judged.get(comparison.id) != window
            verdict = _judge_one(kind, stores, comparison, now=now, looks=looks)
        if verdict is None:
            return
        self._judged[comparison.id] = window
        if verdict.move != "wait":
            log.info("%s %s: %s: %s", kind.word, comparison.id, verdict.move, verdict.because)


def _judge_one(
    kind: _Kind[ComparisonT], stores: Stores, comparison: ComparisonT, *, now: float, looks: bool
) -> AnyVerdict | None:
    """The verdict, stored with what follows from it. None: somebody changed the comparison; look again next round.

    `looks`: whether silent devices are looked for, once a window.
    """
    if kind.moved_meanwhile(stores, comparison):
        return None
    if looks:
        report_s = min(stores.registry.model(comparison.model).settings.report_s, comparison.window_s)
        judge_silence(stores.fleet, comparison, report_s=report_s, now=now)
    try:
        current = learn_delays(stores.fleet, comparison, save=kind.save(stores), now=now)
        return kind.advance(stores, current, now=now)
    except Conflict:
        kind.ledgers.pop(comparison.id, None)
        return None


class _Rollouts:
    """How rollouts are stored and judged."""

    word = "rollout"

    def __init__(self) -> None:
        self.ledgers: RolloutLedgers = {}

    def save(self, stores: Stores) -> Save[RolloutRecord]:
        return stores.registry.save_rollout

    def moved_meanwhile(self, stores: Stores, comparison: RolloutRecord) -> bool:
        """Whether the lead of a set moved this rollout in the same round."""
        return bool(comparison.lead) and stores.registry.rollout(comparison.id) != comparison

    def advance(self, stores: Stores, comparison: RolloutRecord, *, now: float) -> AnyVerdict:
        return advance(stores.registry, stores.fleet, comparison, now=now, ledgers=self.ledgers)


class _Experiments:
    """How experiments are stored and judged."""

    word = "experiment"

    def __init__(self) -> None:
        self.ledgers: ExperimentLedgers = {}

    def save(self, stores: Stores) -> Save[ExperimentRecord]:
        return stores.experiments.save

    def moved_meanwhile(self, stores: Stores, comparison: ExperimentRecord) -> bool:  # noqa: ARG002 (a rollout's asks)
        """Never by another experiment."""
        return False

    def advance(self, stores: Stores, comparison: ExperimentRecord, *, now: float) -> AnyVerdict:
        return advance_experiment(
            comparison,
            registry=stores.registry,
            fleet=stores.fleet,
            experiments=stores.experiments,
            tag=uuid.uuid4().hex[:6],
            now=now,
            ledgers=self.ledgers,
        )
