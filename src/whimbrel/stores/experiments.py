"""The rows of experiments, within one transaction and one namespace."""

from typing import Any

from sqlalchemy import Connection, Row, select, update

from whimbrel.errors import Conflict, NotFound
from whimbrel.flows.records import ExperimentRecord
from whimbrel.model.documents import parse
from whimbrel.plan.experiment import Experiment
from whimbrel.plan.experiment_states import Phase
from whimbrel.stores import schema
from whimbrel.stores.rows import packed, upsert

_table = schema.experiments


class Experiments:
    """The experiments of one namespace."""

    def __init__(self, connection: Connection, namespace: str) -> None:
        self.connection = connection
        self.namespace = namespace

    def add(self, experiment: ExperimentRecord, *, plan_text: str) -> None:
        """Raises `Conflict` where the id is taken."""
        if not upsert(self.connection, _table, _values(experiment) | {"plan_text": plan_text}):
            raise Conflict(f"there is an experiment {experiment.id!r} already; give it another id")

    def one(self, identifier: str) -> ExperimentRecord:
        """Raises `NotFound`."""
        row = self.connection.execute(
            select(_table).where(_table.c.namespace == self.namespace, _table.c.id == identifier)
        ).one_or_none()
        if row is None:
            raise NotFound(f"there is no experiment {identifier!r}; see: whimbrel experiment list")
        return _experiment(row)

    def all(self, *, model: str | None = None, live: bool = False) -> list[ExperimentRecord]:
        """Experiments, oldest first."""
        query = select(_table).where(_table.c.namespace == self.namespace)
        if model is not None:
            query = query.where(_table.c.model == model)
        if live:
            query = query.where(_table.c.phase == Phase.RUNNING.value)
        rows = self.connection.execute(query.order_by(_table.c.created_at, _table.c.id))
        return [_experiment(row) for row in rows]

    def save(self, experiment: ExperimentRecord, *, before: ExperimentRecord) -> None:
        """Write its new state, when it still is as it was before. Raises `Conflict` otherwise."""
        done = self.connection.execute(
            update(_table)
            .where(
                _table.c.namespace == self.namespace,
                _table.c.id == experiment.id,
                _table.c.phase == before.phase.value,
                _table.c.stopped == packed(before.stopped),
                _table.c.without == packed(before.without),
            )
            .values(**_values(experiment))
        )
        if done.rowcount != 1:
            raise Conflict(f"experiment {experiment.id} was changed by somebody else meanwhile; look again")


def _values(experiment: ExperimentRecord) -> dict[str, Any]:
    values = {name: getattr(experiment, name) for name in ExperimentRecord.__struct_fields__}
    return values | {
        "plan": packed(experiment.plan),
        "phase": experiment.phase.value,
        "serials": packed(experiment.serials),
        "stopped": packed(experiment.stopped),
        "without": packed(experiment.without),
        "delays": packed(experiment.delays),
        "delays_by_class": packed(experiment.delays_by_class),
    }


def _experiment(row: Row[Any]) -> ExperimentRecord:
    values = {name: getattr(row, name) for name in ExperimentRecord.__struct_fields__}
    return ExperimentRecord(
        **values
        | {
            "plan": parse(Experiment, row.plan, what="a stored experiment"),
            "phase": Phase(row.phase),
            "serials": parse(dict[str, int], row.serials, what="stored serials"),
            "stopped": parse(dict[str, str], row.stopped, what="stored arms"),
            "without": parse(dict[str, tuple[str, ...]], bytes(row.without) or b"{}", what="stored slices"),
            "delays": parse(tuple[float, ...], row.delays, what="stored delays"),
            "delays_by_class": parse(
                dict[str, tuple[float, ...]], bytes(row.delays_by_class) or b"{}", what="stored delays"
            ),
        }
    )
