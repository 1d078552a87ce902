"""What devices told of each version by hour and by day, and the episodes in which a monitor fired.

1. An hour's row is added to while the hour is open; a day's row is made of its hours when the day is over, and replaces
   what stood there.
2. Room is bounded: rows are a model's versions times its classes (`HEALTH_CLASSES`, and one row for the others) times
   90 days of hours and three years of days.
3. Sums are kept compressed: they are names and numbers, and become a third as long.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, Row, delete, func, insert, or_, select, update

from whimbrel import limits
from whimbrel.errors import UntrustedInput
from whimbrel.flows.monitors.records import DAY_S, HOUR_S, OTHER_CLASSES, Episode, HealthRow
from whimbrel.health.device_hour import HourSums
from whimbrel.model.documents import parse
from whimbrel.stores import schema
from whimbrel.stores.rows import packed, upsert_all

_FAST = 1  # zlib's level: an hour is written again and again while it is open


class Health:
    """The figures and episodes of one namespace, within one transaction."""

    def __init__(self, connection: Connection, namespace: str) -> None:
        self.connection = connection
        self.namespace = namespace

    # --- figures ---

    def add_hour(self, model: str, serial: int, hour: int, changes: Mapping[str, HourSums]) -> None:
        """Add what changed in an hour of a version, by hardware class. A class too many is added to the others'."""
        table = schema.health
        rows = self.connection.execute(
            select(table.c.hardware_class, table.c.sums).where(
                *self._of(model, HOUR_S), table.c.start == hour, table.c.serial == serial
            )
        )
        stored = {row.hardware_class: row.sums for row in rows}
        merged: dict[str, HourSums] = {}
        known = set(stored)
        for name, sums in sorted(changes.items()):
            place = name if name in known or len(known) < limits.HEALTH_CLASSES else OTHER_CLASSES
            known.add(place)
            merged[place] = merged[place].plus(sums) if place in merged else sums
        totals = [
            HealthRow(
                serial=serial,
                hardware_class=name,
                start=hour,
                sums=_unpacked(stored[name], HourSums).plus(sums) if name in stored else sums,
            )
            for name, sums in merged.items()
        ]
        self._write(model, HOUR_S, totals)

    def hours(self, model: str, *, since: int, before: int) -> list[HealthRow]:
        """The rows of the hours from `since` on that begin before `before`, in order."""
        return self._rows(model, HOUR_S, since=since, before=before)

    def days(self, model: str, *, since: int, before: int) -> list[HealthRow]:
        """The rows of the days from `since` on that begin before `before`, in order."""
        return self._rows(model, DAY_S, since=since, before=before)

    def devices_by_hour(self, model: str, *, since: int, before: int) -> dict[int, dict[int, int]]:
        """How many devices told of each version, by hour and serial: of each row nothing else is read."""
        table = schema.health
        rows = self.connection.execute(
            select(table.c.start, table.c.serial, table.c.sums).where(
                *self._of(model, HOUR_S), table.c.start >= since, table.c.start < before
            )
        )
        hours: dict[int, dict[int, int]] = {}
        for row in rows:
            of_hour = hours.setdefault(row.start, {})
            of_hour[row.serial] = of_hour.get(row.serial, 0) + _unpacked(row.sums, _Devices).devices
        return hours

    def models(self) -> list[str]:
        """Models of which devices told anything."""
        table = schema.health
        query = select(table.c.model).where(table.c.namespace == self.namespace).distinct()
        return sorted(self.connection.execute(query).scalars())

    def newest_day(self, model: str) -> int | None:
        """The newest day that was made of its hours; None: none yet."""
        query = select(func.max(schema.health.c.start)).where(*self._of(model, DAY_S))
        return self.connection.execute(query).scalar_one_or_none()

    def oldest_hour(self, model: str, *, since: int) -> int | None:
        """The oldest hour that is kept, from `since` on; None: none."""
        query = select(func.min(schema.health.c.start)).where(*self._of(model, HOUR_S), schema.health.c.start >= since)
        return self.connection.execute(query).scalar_one_or_none()

    def save_days(self, model: str, rows: Sequence[HealthRow]) -> None:
        """Write days as they were made of their hours."""
        self._write(model, DAY_S, rows)

    def forget(self, *, hours_before: int, days_before: int) -> None:
        """Forget the hours and days of all models that began before these, and episodes that ended before."""
        table, episode = schema.health, schema.monitor_episodes
        for period_s, before in ((HOUR_S, hours_before), (DAY_S, days_before)):
            self.connection.execute(
                delete(table).where(
                    table.c.namespace == self.namespace, table.c.period_s == period_s, table.c.start < before
                )
            )
        ended = episode.c.ended_at < days_before * DAY_S
        self.connection.execute(delete(episode).where(episode.c.namespace == self.namespace, ended))

    def _of(self, model: str, period_s: int) -> tuple[Any, ...]:
        table = schema.health
        return table.c.namespace == self.namespace, table.c.model == model, table.c.period_s == period_s

    def _rows(self, model: str, period_s: int, *, since: int, before: int) -> list[HealthRow]:
        table = schema.health
        rows = self.connection.execute(
            select(table)
            .where(*self._of(model, period_s), table.c.start >= since, table.c.start < before)
            .order_by(table.c.start, table.c.serial, table.c.hardware_class)
        )
        return [
            HealthRow(
                serial=row.serial,
                hardware_class=row.hardware_class,
                start=row.start,
                sums=_unpacked(row.sums, HourSums),
            )
            for row in rows
        ]

    def _write(self, model: str, period_s: int, rows: Sequence[HealthRow]) -> None:
        values = [
            {
                "namespace": self.namespace,
                "model": model,
                "period_s": period_s,
                "start": row.start,
                "serial": row.serial,
                "hardware_class": row.hardware_class,
                "sums": zlib.compress(packed(row.sums), _FAST),
            }
            for row in rows
        ]
        upsert_all(self.connection, schema.health, values, update=("sums",))

    # --- episodes ---

    def episodes(self, model: str, *, since: float) -> list[Episode]:
        """The episodes of a model that last, or began at `since` or later; the oldest first."""
        table = schema.monitor_episodes
        rows = self.connection.execute(
            select(table)
            .where(
                table.c.namespace == self.namespace,
                table.c.model == model,
                or_(table.c.ended_at.is_(None), table.c.since >= since),
            )
            .order_by(table.c.id)
        )
        return [_episode(row) for row in rows]

    def begin_episode(self, episode: Episode) -> None:
        """A monitor fires."""
        values = msgspec.structs.asdict(episode)
        self.connection.execute(insert(schema.monitor_episodes).values(namespace=self.namespace, **values))

    def end_episode(self, episode: Episode, *, at: float) -> None:
        """It is over."""
        table = schema.monitor_episodes
        self.connection.execute(
            update(table)
            .where(
                table.c.namespace == self.namespace,
                table.c.model == episode.model,
                table.c.serial == episode.serial,
                table.c.monitor == episode.monitor,
                table.c.ended_at.is_(None),
            )
            .values(ended_at=at)
        )


def _episode(row: Row[Any]) -> Episode:
    return Episode(**{name: getattr(row, name) for name in Episode.__struct_fields__})


class _Devices(msgspec.Struct, frozen=True):
    """Of `HourSums`, the devices."""

    devices: int = 0


_Sums = TypeVar("_Sums")


def _unpacked(stored: bytes, kind: type[_Sums]) -> _Sums:
    try:
        content = zlib.decompress(stored)
    except zlib.error as error:
        raise UntrustedInput(f"stored figures cannot be read: {error}; restore the database from a backup") from error
    return parse(kind, content, what="stored figures")
