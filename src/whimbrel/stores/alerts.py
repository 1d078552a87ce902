"""Alerts that are due, sent or given up: rows made from the audit log, within one transaction.

The audit log says what happened. A row says what became of one entry of the log for one receiver. An entry without a
row is looked at again, so nothing is lost wherever a process ends.
"""

from collections.abc import Collection, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, and_, exists, insert, or_, select, update

from whimbrel import limits
from whimbrel.flows.alerts import (
    SAID,
    SAID_OF_DEVICES,
    SAID_OF_EXPERIMENTS,
    SAID_OF_MODELS,
    SAID_OF_NAMESPACES,
    SAID_OF_ROLES,
    EarlierAlert,
)
from whimbrel.flows.records import AuditRecord
from whimbrel.model.documents import parse
from whimbrel.stores import audit_tables, schema
from whimbrel.stores.rows import upsert


class AlertDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an audit entry for a receiver. `state`: waiting, sent, grouped, given_up."""

    receiver: str
    audit_id: int
    rollout: str  # a rollout or an experiment; "" for what is about a device or a model
    device: str = ""
    model: str = ""  # of what is about a model, and no rollout
    event: str = msgspec.field(name="moment")  # its name in the table, and for clients
    stage: int
    at: float
    state: str
    tries: int
    next_at: float
    said: str


class AlertDeliveries:
    """The alerts of one namespace."""

    def __init__(self, connection: Connection, namespace: str) -> None:
        self.connection = connection
        self.namespace = namespace

    def introduce(self, receivers: Collection[str], *, now: float) -> None:
        """Note new receivers: they get alerts of what happens after `now`."""
        for name in receivers:
            upsert(self.connection, schema.alert_receivers, {"namespace": self.namespace, "name": name, "since": now})

    def since(self) -> dict[str, float]:
        """The time at which each receiver was first noted, by its name."""
        table = schema.alert_receivers
        rows = self.connection.execute(select(table).where(table.c.namespace == self.namespace))
        return {row.name: row.since for row in rows}

    def entries(self, *, now: float, without: Collection[int]) -> list[tuple[int, AuditRecord]]:
        """Audit entries that may be alerts, oldest first; without those looked at."""
        table = audit_tables.audit
        ids = self.connection.execute(
            select(table.c.id)
            .where(
                table.c.namespace == self.namespace,
                table.c.at > now - limits.ALERT_HORIZON_S,
                or_(
                    and_(table.c.rollout.is_not(None), table.c.action.in_([*SAID, *SAID_OF_EXPERIMENTS])),
                    and_(table.c.device.is_not(None), table.c.action.in_(list(SAID_OF_DEVICES))),
                    and_(table.c.model.is_not(None), table.c.action.in_(list(SAID_OF_MODELS))),
                    table.c.action.in_([*SAID_OF_ROLES, *SAID_OF_NAMESPACES]),
                ),
            )
            .order_by(table.c.id)
        ).scalars()
        new = [number for number in ids if number not in without][: limits.ALERTS_A_ROUND]
        if not new:
            return []
        rows = self.connection.execute(select(table).where(table.c.id.in_(new)).order_by(table.c.id))
        return [(row.id, _entry(row)) for row in rows]

    def entry(self, audit_id: int) -> AuditRecord:
        """One entry of the audit log, by its number."""
        return _entry(
            self.connection.execute(select(audit_tables.audit).where(audit_tables.audit.c.id == audit_id)).one()
        )

    def has(self, receiver: str, audit_id: int) -> bool:
        """Whether there is a row for an audit entry and a receiver."""
        table = schema.alerts
        row_exists = exists().where(
            table.c.namespace == self.namespace, table.c.receiver == receiver, table.c.audit_id == audit_id
        )
        return bool(self.connection.execute(select(row_exists)).scalar_one())

    def earlier(self, receiver: str, rollout: str) -> list[EarlierAlert]:
        """The alerts of a rollout ("": of all devices) that the receiver got, or will get."""
        table = schema.alerts
        rows = self.connection.execute(
            select(table).where(
                table.c.namespace == self.namespace, table.c.receiver == receiver, table.c.rollout == rollout
            )
        )
        return [EarlierAlert(receiver=receiver, event=row.moment, stage=row.stage, at=row.at) for row in rows]

    def add(self, row: AlertDelivery) -> None:
        """Add the row of an entry and a receiver."""
        self.connection.execute(insert(schema.alerts).values(namespace=self.namespace, **msgspec.to_builtins(row)))

    def waiting(self, *, now: float) -> list[AlertDelivery]:
        """Alerts that are due at `now`, the oldest first."""
        table = schema.alerts
        rows = self.connection.execute(
            select(table)
            .where(table.c.namespace == self.namespace, table.c.state == "waiting", table.c.next_at <= now)
            .order_by(table.c.audit_id)
            .limit(limits.ALERTS_A_ROUND)
        )
        return [_alert(row) for row in rows]

    def save(self, row: AlertDelivery) -> None:
        """Write what became of a try."""
        table = schema.alerts
        self.connection.execute(
            update(table)
            .where(
                table.c.namespace == self.namespace,
                table.c.receiver == row.receiver,
                table.c.audit_id == row.audit_id,
            )
            .values(state=row.state, tries=row.tries, next_at=row.next_at, said=row.said)
        )

    def newest(self, *, limit: int) -> Sequence[AlertDelivery]:
        """The newest alerts, newest first."""
        table = schema.alerts
        rows = self.connection.execute(
            select(table)
            .where(table.c.namespace == self.namespace)
            .order_by(table.c.audit_id.desc(), table.c.receiver)
            .limit(limit)
        )
        return [_alert(row) for row in rows]


def _alert(row: Row[Any]) -> AlertDelivery:
    columns = zip(AlertDelivery.__struct_fields__, AlertDelivery.__struct_encode_fields__, strict=True)
    return AlertDelivery(**{field: getattr(row, column) for field, column in columns})


def _entry(row: Row[Any]) -> AuditRecord:
    values = {name: getattr(row, name) for name in AuditRecord.__struct_fields__}
    return AuditRecord(**values | {"evidence": parse(dict[str, Any], row.evidence, what="stored evidence")})
