"""What is to be said of an experiment: now, and at each stored verdict again, for proof."""

from collections.abc import Sequence

from whimbrel.flows.judging import ReplayedVerdict, judge_and_store, judge_windows, replay
from whimbrel.flows.ports import ExperimentsPort, FleetPort, RegistryPort
from whimbrel.flows.quarantine import refused_serials
from whimbrel.flows.records import ExperimentRecord
from whimbrel.gate.experiment_gate import ExperimentInput, ExperimentVerdict, judge_experiment
from whimbrel.gate.experiment_ledger import ExperimentLedger
from whimbrel.health.tally import Cell
from whimbrel.model.documents import parse

ExperimentLedgers = dict[str, ExperimentLedger]  # by experiment: kept between windows


class ExperimentGate:
    """The gate of one experiment. (flows/judging.Gate)"""

    def __init__(self, record: ExperimentRecord) -> None:
        self.comparison = record

    def new_ledger(self, gate_input: ExperimentInput) -> ExperimentLedger:
        """A ledger that has folded nothing."""
        return ExperimentLedger(self.comparison.plan, without=gate_input.without)

    def fits(self, ledger: ExperimentLedger, gate_input: ExperimentInput) -> bool:
        """Whether a kept ledger left out the slices in which arms were stopped by now."""
        return ledger.without == {arm: frozenset(slices) for arm, slices in gate_input.without.items()}

    def judge(self, gate_input: ExperimentInput, ledger: ExperimentLedger, cells: Sequence[Cell]) -> ExperimentVerdict:
        """The verdict, with `cells` folded into the ledger."""
        return judge_experiment(self.comparison.plan, gate_input, ledger, cells)

    def parse_input(self, stored: bytes) -> ExperimentInput:
        """An input as it was stored with its verdict."""
        return parse(ExperimentInput, stored, what="a stored sighting")


def experiment_verdict_for(
    record: ExperimentRecord,
    *,
    registry: RegistryPort,
    fleet: FleetPort,
    now: float,
    ledgers: ExperimentLedgers | None = None,
) -> ExperimentVerdict:
    """What is to be said of an experiment at `now`, or at its end, where it is over; nothing is changed."""
    until = record.ended_at if record.ended_at is not None else now
    looked_at = experiment_input(record, registry=registry, fleet=fleet, now=until)
    kept = {} if ledgers is None else ledgers
    return judge_windows(fleet, ExperimentGate(record), looked_at, window=record.window_at(until), ledgers=kept)


def judge_and_store_experiment(
    record: ExperimentRecord,
    *,
    registry: RegistryPort,
    fleet: FleetPort,
    now: float,
    ledgers: ExperimentLedgers,
) -> ExperimentVerdict:
    """What is to be said of an experiment at `now`, stored so that it can be asked for again."""
    looked_at = experiment_input(record, registry=registry, fleet=fleet, now=now)
    return judge_and_store(registry, fleet, ExperimentGate(record), looked_at, now=now, ledgers=ledgers)


def replay_experiment(
    identifier: str, *, registry: RegistryPort, fleet: FleetPort, experiments: ExperimentsPort
) -> list[ReplayedVerdict]:
    """Ask again about every verdict of an experiment, from the stored windows alone."""
    return replay(registry, fleet, ExperimentGate(experiments.one(identifier)))


def experiment_input(
    record: ExperimentRecord, *, registry: RegistryPort, fleet: FleetPort, now: float
) -> ExperimentInput:
    """What is looked at, except the windows."""
    return ExperimentInput(
        elapsed_s=now - record.created_at,
        hour_s=record.hour_s,
        counts=fleet.counts(record.id),
        stopped=tuple(sorted(record.stopped)),
        withdrawn=_withdrawn(registry, record),
        without=record.without,
    )


def _withdrawn(registry: RegistryPort, record: ExperimentRecord) -> dict[str, str]:
    """The live arms whose version was taken back or retired, and why."""
    refused = refused_serials(registry, record.model)
    reasons = {serial: f"was taken back ({because})" for serial, because in refused.items()}
    reasons |= {version.serial: "was retired" for version in registry.versions(record.model) if version.retired}
    return {arm.id: reasons[record.serials[arm.id]] for _, arm in record.arms if record.serials[arm.id] in reasons}
