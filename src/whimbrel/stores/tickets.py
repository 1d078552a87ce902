"""Tickets of users, by their number: what became of each, and when the help desk was last heard of."""

from typing import Any

from sqlalchemy import ColumnElement, Connection, func, select, update

from whimbrel.flows.device_records import UserReportRecord
from whimbrel.health.user_report import Fate
from whimbrel.stores import schema
from whimbrel.stores.rows import upsert


class Tickets:
    """The tickets of one namespace, within one transaction."""

    def __init__(self, connection: Connection, namespace: str) -> None:
        self.connection = connection
        self.namespace = namespace

    def is_filed(self, ticket: str) -> bool:
        """Whether a ticket of this number was filed before."""
        table = schema.user_reports
        query = select(table.c.ticket).where(table.c.namespace == self.namespace, table.c.ticket == ticket)
        return self.connection.execute(query).first() is not None

    def count(self) -> int:
        """The number of tickets that are kept."""
        table = schema.user_reports
        query = select(func.count()).select_from(table).where(table.c.namespace == self.namespace)
        return self.connection.execute(query).scalar_one()

    def file(self, record: UserReportRecord) -> None:
        """Keep a ticket. Another one of the same number, which came meanwhile, stays as it is."""
        values = {name: getattr(record, name) for name in UserReportRecord.__struct_fields__}
        upsert(self.connection, schema.user_reports, values | {"namespace": self.namespace}, update=())

    def heard(self, model: str, *, at: float) -> None:
        """Note that the help desk of a model was heard of."""
        values = {"namespace": self.namespace, "model": model, "at": at}
        upsert(self.connection, schema.user_report_feeds, values, update=("at",))

    def waiting(self, *, limit: int) -> list[UserReportRecord]:
        """Tickets that nobody counted yet, the oldest first."""
        table = schema.user_reports
        return self._records(table.c.fate == "waiting", order=(table.c.at, table.c.ticket), limit=limit)

    def newest(self, *, model: str, limit: int) -> list[UserReportRecord]:
        """Tickets of a model, the newest first."""
        table = schema.user_reports
        return self._records(table.c.model == model, order=(table.c.at.desc(), table.c.ticket), limit=limit)

    def _records(
        self, condition: ColumnElement[bool], *, order: tuple[ColumnElement[Any], ...], limit: int
    ) -> list[UserReportRecord]:
        table = schema.user_reports
        query = select(table).where(table.c.namespace == self.namespace, condition).order_by(*order).limit(limit)
        return [
            UserReportRecord(**{name: getattr(row, name) for name in UserReportRecord.__struct_fields__})
            for row in self.connection.execute(query)
        ]

    def counted_since(self, device_id: str, *, model: str, since: float) -> bool:
        """Whether a ticket of a device was counted at `since` or later."""
        table = schema.user_reports
        query = select(table.c.ticket).where(
            table.c.namespace == self.namespace,
            table.c.model == model,
            table.c.device_id == device_id,
            table.c.fate == "counted",
            table.c.decided_at >= since,
        )
        return self.connection.execute(query).first() is not None

    def decide(self, ticket: str, *, fate: Fate, at: float) -> None:
        """Note what became of a ticket."""
        table = schema.user_reports
        self.connection.execute(
            update(table)
            .where(table.c.namespace == self.namespace, table.c.ticket == ticket)
            .values(fate=fate, decided_at=at)
        )
