"""The places of devices in the cohorts of rollouts: who stands in which arm of which stage, and what became of them.

A row is one device in one stage of one rollout. `Fleet` (stores/fleet.py) asks these functions, for its namespace.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, case, func, select

from whimbrel import limits
from whimbrel.flows.device_records import Participation
from whimbrel.gate.verdict import Counts
from whimbrel.health.device_window import DeviceWindow
from whimbrel.health.panel import Value
from whimbrel.health.slices import slices_of
from whimbrel.model.documents import parse
from whimbrel.stores import schema
from whimbrel.stores.rows import packed, portions, upsert_all

_CHANGING = tuple(
    name for name in Participation.__struct_fields__ if name not in {"rollout", "stage", "device_id", "role"}
)


def read_participations(
    connection: Connection, namespace: str, rollouts: Iterable[str], devices: Sequence[str]
) -> list[Participation]:
    """The places of some devices in the cohorts of some rollouts: a control stands in several stages at once."""
    table, identifiers = schema.participations, list(rollouts)
    if not identifiers:
        return []
    of_rollouts = table.c.namespace == namespace, table.c.rollout.in_(identifiers)
    query = select(table).where(*of_rollouts).order_by(table.c.rollout, table.c.stage)
    return [
        _participation(row)
        for some in portions(devices)
        for row in connection.execute(query.where(table.c.device_id.in_(some)))
    ]


def write_participations(connection: Connection, namespace: str, *entries: Participation) -> None:
    """Write places in cohorts."""
    rows = [
        {name: getattr(entry, name) for name in Participation.__struct_fields__}
        | {"namespace": namespace, "slices": packed(entry.slices), "values": packed(entry.values)}
        | {"device_window": None if entry.device_window is None else packed(entry.device_window)}
        for entry in entries
    ]
    upsert_all(connection, schema.participations, rows, update=_CHANGING)


def count_devices(
    connection: Connection, namespace: str, rollout: str, *, without: Sequence[str], proven: bool
) -> dict[int, Counts]:
    """Distinct devices of each stage, by what became of them: the proven ones, or the others (flows/reports/proven.py).

    `without`: slices that are left out.
    """
    table = schema.participations
    treated, control = table.c.role == "treated", table.c.role == "control"
    activated = table.c.activated_at.is_not(None)

    def number(*conditions: Any) -> Any:
        return func.coalesce(func.sum(case((and_(*conditions), 1), else_=0)), 0)

    rows = connection.execute(
        select(
            table.c.stage,
            table.c.hardware_class,
            table.c.slices,
            number(treated).label("assigned_t"),
            number(control).label("assigned_c"),
            number(treated, activated).label("activated_t"),
            number(control, activated).label("placebo_c"),
            number(treated, activated, table.c.reported_at.is_not(None)).label("reported_t"),
            number(control, activated, table.c.reported_at.is_not(None)).label("reported_c"),
            number(treated, activated, table.c.hearing == "missed").label("silent_t"),
            number(control, activated, table.c.hearing == "missed").label("silent_c"),
            number(treated, activated, table.c.reported_at.is_not(None), table.c.used_at.is_(None)).label("unused_t"),
            number(treated, table.c.shadowed_at.is_not(None)).label("shadowed_t"),
            number(treated, table.c.shadowed_at.is_not(None), table.c.outcome == "failed").label("gave_up_t"),
            number(treated, table.c.outcome == "failed").label("failed_t"),
            number(treated, table.c.outcome == "went_back").label("went_back_t"),
            number(control, activated, table.c.outcome == "went_back").label("went_back_c"),
        )
        .where(table.c.namespace == namespace, table.c.rollout == rollout, table.c.proven.is_(proven))
        .group_by(table.c.stage, table.c.hardware_class, table.c.slices)
    )
    left_out, by_stage = frozenset(without), {}  # type: frozenset[str], dict[int, Counts]
    for row in rows:
        counts = Counts(**{name: int(getattr(row, name)) for name in Counts.__struct_fields__})
        if left_out.isdisjoint(slices_of(row.hardware_class, _slices(row.slices)).values()):
            by_stage[row.stage] = by_stage.get(row.stage, Counts()).plus(counts)
        else:
            by_stage.setdefault(row.stage, Counts())
    return dict(sorted(by_stage.items()))


def first_begun(
    connection: Connection, namespace: str, rollout: str, *, a_stage: int
) -> list[tuple[float, float | None, str]]:
    """When treated devices began and activated (None: not yet), and their hardware class: the first proven ones of
    each stage, no failed ones.
    """
    table = schema.participations
    mine = (table.c.namespace == namespace) & (table.c.rollout == rollout) & table.c.proven.is_(True)
    stages = connection.execute(select(table.c.stage).where(mine).distinct()).scalars().all()
    times: list[tuple[float, float | None, str]] = []
    for stage in sorted(stages):
        rows = connection.execute(
            select(table.c.begun_at, table.c.activated_at, table.c.hardware_class)
            .where(
                mine,
                table.c.stage == stage,
                table.c.begun_at.is_not(None),
                table.c.role == "treated",
                table.c.outcome != "failed",
            )
            .order_by(table.c.begun_at)
            .limit(a_stage)
        )
        times += [(row.begun_at, row.activated_at, row.hardware_class) for row in rows]
    return times


def has_reported(connection: Connection, namespace: str, rollout: str, *, stage: int) -> bool:
    """Whether any proven device that a stage put on the new version has reported since."""
    table = schema.participations
    rows = connection.execute(
        select(table.c.device_id)
        .where(
            table.c.namespace == namespace,
            table.c.rollout == rollout,
            table.c.stage == stage,
            table.c.role == "treated",
            table.c.proven.is_(True),
            table.c.reported_at.is_not(None),
        )
        .limit(1)
    )
    return rows.first() is not None


def read_delays(connection: Connection, namespace: str, rollout: str, *, least_s: float) -> list[float | None]:
    """Seconds from assignment to activation of proven treated devices; None of those that did not activate.

    Of devices assigned `least_s` before the last one of their rollout was heard of: the others had no time.
    """
    table = schema.participations
    mine = (table.c.namespace == namespace) & (table.c.rollout == rollout) & table.c.proven.is_(True)
    last = select(func.max(func.coalesce(table.c.reported_at, table.c.assigned_at))).where(mine).scalar_subquery()
    rows = connection.execute(
        select(table.c.assigned_at, table.c.activated_at)
        .where(mine, table.c.role == "treated", table.c.assigned_at <= last - least_s)
        .limit(limits.HISTORY_DELAYS)
    )
    return [None if row.activated_at is None else max(0.0, row.activated_at - row.assigned_at) for row in rows]


def _participation(row: Row[Any]) -> Participation:
    values = {name: getattr(row, name) for name in Participation.__struct_fields__}
    device_values = parse(dict[str, Value], row.values, what="stored values")
    told = row.device_window
    window = None if told is None else parse(DeviceWindow, told, what="a stored device-window")
    return Participation(**values | {"slices": _slices(row.slices), "values": device_values, "device_window": window})


def _slices(stored: bytes) -> dict[str, str]:
    return parse(dict[str, str], stored, what="stored slices")
