"""Looks at which devices of a comparison are silent: counted where they are, in the database.

1. A look reads the rows of one comparison once and brings back one line a group, however many devices there are. It
   writes the rows of those that fell silent, and of no others.
2. Those that fall silent are written first and counted after, by the time of the look: what is counted is what was
   written, also while reports come in.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, and_, case, func, literal, select, update

from whimbrel.flows.device_records import SilenceLook
from whimbrel.model.documents import parse
from whimbrel.stores import schema

_HABIT = 2.0  # times its longest silence so far: a device that is out of reach every night is not missed by night
_GROUP = (
    schema.participations.c.stage,
    schema.participations.c.role,
    schema.participations.c.hardware_class,
    schema.participations.c.slices,
    schema.participations.c.proven,
)


def first_looks(connection: Connection, namespace: str, rollout: str, *, activated_before: float) -> list[SilenceLook]:
    """Devices whose first report was due, each of which is looked at once. Their age groups are not told."""
    table = schema.participations
    mine = (
        table.c.namespace == namespace,
        table.c.rollout == rollout,
        table.c.silence_judged.is_(False),
        table.c.activated_at < activated_before,
    )
    overdue = func.sum(case((table.c.reported_at.is_(None), 1), else_=0))
    rows = connection.execute(select(*_GROUP, func.count(), overdue).where(*mine).group_by(*_GROUP)).all()
    if rows:
        connection.execute(update(table).where(*mine).values(silence_judged=True))
    return [_look(row, age_bucket=0) for row in rows]


def later_looks(
    connection: Connection, namespace: str, rollout: str, *, now: float, patience_s: float, age_edges_s: Sequence[float]
) -> list[SilenceLook]:
    """Devices that were heard since the last look that missed them, and those among them that are silent by now."""
    table = schema.participations
    mine = table.c.namespace == namespace, table.c.rollout == rollout, table.c.silence_judged.is_(True)
    patience = case((_HABIT * table.c.gap_s > patience_s, _HABIT * table.c.gap_s), else_=patience_s)
    connection.execute(
        update(table)
        .where(*mine, table.c.hearing == "heard", table.c.heard_at + patience < now)
        .values(hearing="missed", missed_at=now)
    )
    missed = and_(table.c.hearing == "missed", table.c.missed_at == now)
    age: Any = literal(0)
    for edge in age_edges_s:
        age = age + case((now - table.c.activated_at >= edge, 1), else_=0)
    looked = (
        select(*_GROUP, age.label("age"), case((missed, 1), else_=0).label("overdue"))
        .where(*mine, (table.c.hearing == "heard") | missed)
        .subquery()
    )
    group = [looked.c[column.name] for column in _GROUP]
    rows = connection.execute(
        select(*group, func.count(), func.sum(looked.c.overdue), looked.c.age).group_by(*group, looked.c.age)
    )
    return [_look(row, age_bucket=row[7]) for row in rows]


def _look(row: Any, *, age_bucket: int) -> SilenceLook:
    return SilenceLook(
        stage=row[0],
        role=row[1],
        hardware_class=row[2],
        slices=parse(dict[str, str], row[3], what="stored slices"),
        proven=bool(row[4]),
        due=int(row[5]),
        overdue=int(row[6]),
        age_bucket=int(age_bucket),
    )
