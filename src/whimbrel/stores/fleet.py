"""The devices: what each runs, cohorts and sequence marks, and the tally of their reports.

A model's fleet is the enrolled devices that follow it: those with a row of the model in `device_model`, which names the
serial they run or none. A device without a row of any model has not said what it follows, and counts for every model.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    Connection,
    Select,
    and_,
    bindparam,
    delete,
    exists,
    func,
    or_,
    select,
    tuple_,
    update,
)

from whimbrel.errors import UntrustedInput
from whimbrel.flows.device_records import (
    DeviceAdmission,
    EnrolmentRates,
    FollowedModels,
    HeardDevice,
    Participation,
    RunningVersion,
    SequenceMark,
    SilenceLook,
)
from whimbrel.gate.verdict import Counts
from whimbrel.health.device_hour import DeviceHour
from whimbrel.health.tally import Cell, add, settled
from whimbrel.model.document_errors import sentence
from whimbrel.model.documents import parse
from whimbrel.stores import schema
from whimbrel.stores.admissions import read_admissions, read_first_admission, read_rates
from whimbrel.stores.cohorts import (
    count_devices,
    first_begun,
    has_reported,
    read_delays,
    read_participations,
    write_participations,
)
from whimbrel.stores.inventory import note_running
from whimbrel.stores.rows import NAMES_A_QUERY, packed, portions, upsert_all
from whimbrel.stores.silence import first_looks, later_looks

_KEY = ("window", "stage", "role", "hardware_class", "slices", "age_bucket")  # the columns of `Cell.key`
_THIS_DEVICE = (schema.devices.c.namespace == bindparam("of"), schema.devices.c.device_id == bindparam("who"))
_DROP_MODEL = delete(schema.device_models).where(
    schema.device_models.c.namespace == bindparam("of"),
    schema.device_models.c.device_id == bindparam("who"),
    schema.device_models.c.model == bindparam("which"),
)
_DROP_SEQUENCE = delete(schema.sequences).where(
    schema.sequences.c.namespace == bindparam("of"),
    schema.sequences.c.device_id == bindparam("who"),
    schema.sequences.c.epoch == bindparam("which"),
)
_HOURS = msgspec.json.Decoder(dict[str, dict[int, DeviceHour]])
_HEARD = update(schema.devices).where(*_THIS_DEVICE).values(seen_at=bindparam("at"))


class Fleet:
    """The devices of one namespace, within one transaction."""

    def __init__(self, connection: Connection, namespace: str) -> None:
        self.connection = connection
        self.namespace = namespace

    # --- devices ---

    def is_enrolled(self, device_id: str) -> bool:
        """Whether a device of this name was ever enrolled."""
        table = schema.devices
        query = select(table.c.key).where(table.c.namespace == self.namespace, table.c.device_id == device_id)
        return self.connection.execute(query).first() is not None

    def user_reports_heard_at(self, model: str) -> float | None:
        """When tickets, or the news that there are none, last came for a model; None: never."""
        table = schema.user_report_feeds
        query = select(table.c.at).where(table.c.namespace == self.namespace, table.c.model == model)
        return self.connection.execute(query).scalar_one_or_none()

    def note_heard(self, *sights: HeardDevice) -> None:
        """Note that devices were heard of, and the labels that they told. A device that is not enrolled is left out."""
        without_labels = [_sight(self.namespace, sight) for sight in sights if sight.labels is None]
        with_labels = [
            _sight(self.namespace, sight) | {"new_labels": packed(sight.labels)}
            for sight in sights
            if sight.labels is not None
        ]
        set_labels = _HEARD.values(labels=bindparam("new_labels"))
        for statement, rows in ((_HEARD, without_labels), (set_labels, with_labels)):
            if rows:
                self.connection.execute(statement, rows)

    def count_enrolled(self) -> int:
        """Enrolled devices, whatever they follow."""
        query = select(func.count()).where(schema.devices.c.namespace == self.namespace)
        return self.connection.execute(query).scalar_one()

    def count_devices(self, model: str) -> int:
        """Devices of the fleet of `model`."""
        following = self.connection.execute(self._following(model, func.count())).scalar_one()
        return int(following) + self.count_undeclared()

    def count_undeclared(self) -> int:
        """Enrolled devices that never said which models they follow."""
        return int(self.connection.execute(self._undeclared(func.count())).scalar_one())

    def keys_and_labels(self, model: str) -> Iterable[tuple[int, dict[str, str]]]:
        """The bucket key and labels of every device of the fleet of `model`."""
        columns = schema.devices.c.key, schema.devices.c.labels
        for query in (self._following(model, *columns), self._undeclared(*columns)):
            for row in self.connection.execute(query):
                yield row.key % 2**64, parse(dict[str, str], row.labels, what="stored labels")

    def label_sets(self, model: str) -> Iterable[tuple[dict[str, str], int]]:
        """The sets of labels that devices of the fleet of `model` told, with their numbers. A set may come twice."""
        labels = schema.devices.c.labels
        for query in (self._following(model, labels, func.count()), self._undeclared(labels, func.count())):
            for row in self.connection.execute(query.group_by(labels)):
                yield parse(dict[str, str], row[0], what="stored labels"), row[1]

    # Two queries, not one with an `or` in it: PostgreSQL counts 200,000 devices in 0.8 s, where it took 6.8 s.

    def _following(self, model: str, *columns: Any) -> Select[Any]:
        device, table = schema.devices, schema.device_models
        both = and_(device.c.namespace == table.c.namespace, device.c.device_id == table.c.device_id)
        query = select(*columns).select_from(table.join(device, both))
        return query.where(table.c.namespace == self.namespace, table.c.model == model)

    def _undeclared(self, *columns: Any) -> Select[Any]:
        device, table = schema.devices, schema.device_models
        says = exists().where(table.c.namespace == device.c.namespace, table.c.device_id == device.c.device_id)
        query = select(*columns).select_from(device)
        return query.where(device.c.namespace == self.namespace, ~says.correlate(device))

    def running_of(self, device_id: str) -> dict[str, RunningVersion]:
        """What one device runs, by the model that it follows."""
        table = schema.device_models
        query = select(table).where(table.c.namespace == self.namespace, table.c.device_id == device_id)
        return {
            row.model: RunningVersion(**{name: getattr(row, name) for name in RunningVersion.__struct_fields__})
            for row in self.connection.execute(query)
        }

    def note_running(self, *running: RunningVersion) -> None:
        """Note which versions devices say that they run: they follow these models."""
        note_running(self.connection, self.namespace, running)

    def note_followed(self, *told: FollowedModels) -> None:
        """Note which models devices follow. What a device does not name it follows no more."""
        table = schema.device_models
        query = select(table.c.device_id, table.c.model).where(table.c.namespace == self.namespace)
        kept = {
            (row.device_id, row.model)
            for some in portions([each.device_id for each in told])
            for row in self.connection.execute(query.where(table.c.device_id.in_(some)))
        }
        followed = {(each.device_id, model): each.at for each in told for model in each.models}
        new = [
            {
                "namespace": self.namespace,
                "device_id": device_id,
                "model": model,
                "serial": None,
                "hardware_class": "",
                "at": at,
            }
            for (device_id, model), at in followed.items()
            if (device_id, model) not in kept
        ]
        upsert_all(self.connection, table, new)
        dropped = kept - followed.keys()
        if dropped:
            rows = [{"of": self.namespace, "who": device, "which": model} for device, model in sorted(dropped)]
            self.connection.execute(_DROP_MODEL, rows)

    def inventory(self, model: str) -> dict[int | None, int]:
        """Devices that follow `model`, by the serial they run; None: they run none."""
        table = schema.device_models
        rows = self.connection.execute(
            select(table.c.serial, func.count())
            .where(table.c.namespace == self.namespace, table.c.model == model)
            .group_by(table.c.serial)
        )
        return {row[0]: row[1] for row in rows}

    def classes(self, model: str) -> dict[str, int]:
        """Devices by the hardware class that they tell of `model`, but for those that run nothing and told none."""
        table = schema.device_models
        told = or_(table.c.serial.is_not(None), table.c.hardware_class != "")
        rows = self.connection.execute(
            select(table.c.hardware_class, func.count())
            .where(table.c.namespace == self.namespace, table.c.model == model, told)
            .group_by(table.c.hardware_class)
        )
        return {row[0]: row[1] for row in rows}

    def variants_running(self, model: str, serial: int) -> dict[tuple[str, str], int]:
        """Devices by hardware class and by the build of a version that they say they run."""
        table = schema.device_models
        rows = self.connection.execute(
            select(table.c.hardware_class, table.c.variant, func.count())
            .where(
                table.c.namespace == self.namespace,
                table.c.model == model,
                table.c.serial == serial,
                table.c.build_serial == serial,
            )
            .group_by(table.c.hardware_class, table.c.variant)
        )
        return {(row[0], row[1]): row[2] for row in rows}

    def is_held_by_at_most(self, model: str, *, devices: int) -> bool:
        """Whether so many devices at most told that they hold `model`. Reads no more rows than that."""
        table = schema.device_models
        held = select(table.c.device_id).where(table.c.namespace == self.namespace, table.c.model == model)
        return len(self.connection.execute(held.limit(devices + 1)).all()) <= devices

    def still_on(self, model: str, serial: int, *, heard_since: float) -> int:
        """Devices that ran `serial` of `model` when they were last heard from, which is not before `heard_since`."""
        table = schema.device_models
        return self.connection.execute(
            select(func.count())
            .select_from(table)
            .where(
                table.c.namespace == self.namespace,
                table.c.model == model,
                table.c.serial == serial,
                table.c.at >= heard_since,
            )
        ).scalar_one()

    def admissions(self, devices: Sequence[str]) -> dict[str, DeviceAdmission]:
        """How some devices came in, by id."""
        return read_admissions(self.connection, self.namespace, devices)

    def first_admitted_at(self) -> float | None:
        """When the first device of the namespace came in; None: none is enrolled."""
        return read_first_admission(self.connection, self.namespace)

    def enrolment_rates(self, *, now: float) -> EnrolmentRates:
        """How many devices came in lately by a shared token."""
        return read_rates(self.connection, self.namespace, now=now)

    # --- windows that were counted ---

    def sequences(self, devices: Sequence[str]) -> dict[tuple[str, str], SequenceMark]:
        """How far the windows of some devices were tallied, by installation: (device, epoch)."""
        table = schema.sequences
        query = select(table).where(table.c.namespace == self.namespace)
        return {
            (row.device_id, row.epoch): SequenceMark(
                row.last,
                row.at,
                parse(dict[int, str], row.digests, what="stored digests"),
                _hours(row.hours),
            )
            for some in portions(devices)
            for row in self.connection.execute(query.where(table.c.device_id.in_(some)))
        }

    def set_sequences(self, marks: Mapping[tuple[str, str], SequenceMark]) -> None:
        """Note how far the windows of installations were tallied."""
        rows = [
            {"namespace": self.namespace, "device_id": device, "epoch": epoch}
            | {
                "last": mark.last,
                "at": mark.at,
                "digests": packed(mark.digests),
                "hours": msgspec.json.encode(mark.hours),
            }
            for (device, epoch), mark in marks.items()
        ]
        upsert_all(self.connection, schema.sequences, rows, update=("last", "at", "digests", "hours"))

    def forget_sequences(self, installations: Sequence[tuple[str, str]]) -> None:
        """Forget how far some installations were tallied: (device, epoch)."""
        if installations:
            rows = [{"of": self.namespace, "who": device, "which": epoch} for device, epoch in installations]
            self.connection.execute(_DROP_SEQUENCE, rows)

    # --- cohorts ---

    def participations(self, rollouts: Iterable[str], devices: Sequence[str]) -> list[Participation]:
        """The places of some devices in the cohorts of some rollouts: a control stands in several stages at once."""
        return read_participations(self.connection, self.namespace, rollouts, devices)

    def save_participation(self, *entries: Participation) -> None:
        """Write places in cohorts."""
        write_participations(self.connection, self.namespace, *entries)

    def counts(self, rollout: str, *, without: Sequence[str] = ()) -> dict[int, Counts]:
        """Distinct proven devices of each stage, by what became of them. `without`: slices that are left out."""
        return count_devices(self.connection, self.namespace, rollout, without=without, proven=True)

    def unproven_counts(self, rollout: str) -> dict[int, Counts]:
        """The same of devices that are not proven (flows/reports/proven.py)."""
        return count_devices(self.connection, self.namespace, rollout, without=(), proven=False)

    def begun(self, rollout: str, *, a_stage: int) -> list[tuple[float, float | None, str]]:
        """When treated devices began and activated, and their hardware class: the first `a_stage` of each stage."""
        return first_begun(self.connection, self.namespace, rollout, a_stage=a_stage)

    def has_reported(self, rollout: str, *, stage: int) -> bool:
        """Whether any proven device that a stage put on the new version has reported since."""
        return has_reported(self.connection, self.namespace, rollout, stage=stage)

    def delays(self, rollout: str, *, least_s: float) -> list[float | None]:
        """Seconds from assignment to activation of proven treated devices; None of those that did not activate."""
        return read_delays(self.connection, self.namespace, rollout, least_s=least_s)

    def first_silence(self, rollout: str, *, activated_before: float) -> list[SilenceLook]:
        """Devices whose first report was due, each of which is looked at once."""
        return first_looks(self.connection, self.namespace, rollout, activated_before=activated_before)

    def later_silence(
        self, rollout: str, *, now: float, patience_s: float, age_edges_s: Sequence[float]
    ) -> list[SilenceLook]:
        """Devices that were heard, and those among them that fell silent: these are written down as missed at `now`."""
        return later_looks(
            self.connection, self.namespace, rollout, now=now, patience_s=patience_s, age_edges_s=age_edges_s
        )

    # --- the tally ---

    def tally(self, rollout: str, cells: Iterable[Cell]) -> None:
        """Add cells to a rollout's sums."""
        merged: dict[tuple[int, int, str, str, str, int], Cell] = {}
        for cell in cells:
            merged[cell.key] = add(merged[cell.key], cell) if cell.key in merged else cell
        stored = self._stored_cells(rollout, list(merged))
        rows = []
        for key, cell in merged.items():
            total = settled(add(parse(Cell, stored[key], what="a stored cell"), cell) if key in stored else cell)
            place = dict(zip(_KEY, key, strict=True))
            rows.append({"namespace": self.namespace, "rollout": rollout, **place, "cell": packed(total)})
        upsert_all(self.connection, schema.tally, rows, update=("cell",))

    def _stored_cells(self, rollout: str, keys: Sequence[tuple[Any, ...]]) -> dict[tuple[Any, ...], bytes]:
        table = schema.tally
        columns = [table.c[name] for name in _KEY]
        query = select(*columns, table.c.cell).where(table.c.namespace == self.namespace, table.c.rollout == rollout)
        return {
            tuple(row[:-1]): row.cell
            for some in portions(keys, NAMES_A_QUERY // len(_KEY))
            for row in self.connection.execute(query.where(tuple_(*columns).in_(some)))
        }

    def cells(self, rollout: str, *, before_window: int, from_window: int = 0) -> list[Cell]:
        """The cells of closed windows, in order."""
        table = schema.tally
        rows = self.connection.execute(
            select(table.c.cell).where(
                table.c.namespace == self.namespace,
                table.c.rollout == rollout,
                table.c.window < before_window,
                table.c.window >= from_window,
            )
        )
        return sorted((parse(Cell, row.cell, what="a stored cell") for row in rows), key=lambda cell: cell.key)


def _sight(namespace: str, sight: HeardDevice) -> dict[str, Any]:
    return {"of": namespace, "who": sight.device_id, "at": sight.at}


def _hours(stored: bytes) -> dict[str, dict[int, DeviceHour]]:
    """By a decoder that is made once: every message of a device reads one."""
    try:
        return _HOURS.decode(stored)
    except msgspec.DecodeError as error:
        raise UntrustedInput(
            f"stored hours cannot be read: {sentence(str(error))}; restore the database from a backup"
        ) from error
