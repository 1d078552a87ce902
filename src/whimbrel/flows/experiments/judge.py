"""What is to be said of an experiment: now, and at each stored verdict again, for proof."""

from collections.abc import Sequence

from whimbrel.flows.judging import ReplayedVerdict, judge_and_store, judge_windows, replay
from whimbrel.flows.ports import ExperimentsPort, FleetPort, RegistryPort
from whimbrel.flows.quarantine import refused_serials
from whimbrel.flows.records import ExperimentRecord
from whimbrel.gate.experiment_gate import ExperimentInput, ExperimentLedger, ExperimentVerdict, judge_experiment
from whimbrel.health.tally import Cell
from whimbrel.model.documents import parse

ExperimentLedgers = dict[str, ExperimentLedger]  # by experiment: kept between windows


class ExperimentGate:
    """The gate of one experiment. (flows/judging.Gate)"""

    def __init__(self, record: ExperimentRecord) -> None:
        self.comparison = record

    def new_ledger(self, gate_input: ExperimentInput) -> ExperimentLedger:  # noqa: ARG002 (a rollout's depends on it)
        """A ledger that has folded nothing."""
        return ExperimentLedger(self.comparison.plan)

    def fits(self, ledger: ExperimentLedger, gate_input: ExperimentInput) -> bool:  # noqa: ARG002 (as above)
        """Whether a kept ledger may go on: always."""
        return True

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
    """What is to be said of an experiment at `now`; nothing is changed."""
    looked_at = experiment_input(record, registry=registry, fleet=fleet, now=now)
    kept = {} if ledgers is None else ledgers
    return judge_windows(fleet, ExperimentGate(record), looked_at, window=record.window_at(now), ledgers=kept)


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
    )


def _withdrawn(registry: RegistryPort, record: ExperimentRecord) -> dict[str, str]:
    """The live arms whose version was taken back or retired, and why."""
    refused = refused_serials(registry, record.model)
    reasons = {serial: f"was taken back ({because})" for serial, because in refused.items()}
    reasons |= {version.serial: "was retired" for version in registry.versions(record.model) if version.retired}
    return {arm.id: reasons[record.serials[arm.id]] for _, arm in record.arms if record.serials[arm.id] in reasons}
