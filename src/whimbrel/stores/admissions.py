"""How devices came in, as their evidence is weighed and as a spike of enrolments is noticed."""

from collections.abc import Sequence

from sqlalchemy import Connection, func, select, update

from whimbrel import limits
from whimbrel.flows.device_records import DeviceAdmission, EnrolmentRates
from whimbrel.stores import schema
from whimbrel.stores.rows import portions

_DEVICE = schema.devices.c
_HOUR_S = 3600.0


def read_admissions(connection: Connection, namespace: str, devices: Sequence[str]) -> dict[str, DeviceAdmission]:
    """How some devices came in, by id."""
    query = select(*(_DEVICE[name] for name in DeviceAdmission.__struct_fields__)).where(_DEVICE.namespace == namespace)
    return {
        row.device_id: DeviceAdmission(**row._mapping)
        for some in portions(devices)
        for row in connection.execute(query.where(_DEVICE.device_id.in_(some)))
    }


def read_first_admission(connection: Connection, namespace: str) -> float | None:
    """When the first device of a namespace came in; None: none is enrolled."""
    query = select(func.min(_DEVICE.admitted_at)).where(_DEVICE.namespace == namespace)
    first: float | None = connection.execute(query).scalar_one()
    return first


def read_rates(connection: Connection, namespace: str, *, now: float) -> EnrolmentRates:
    """How many devices came in by a shared token lately. What was before is read only where the last hour has many."""
    mine, shared = _DEVICE.namespace == namespace, _DEVICE.admission == "shared"
    began, until = now - _HOUR_S, now + 1
    lately = mine, shared, _DEVICE.admitted_at >= began, _DEVICE.admitted_at < until
    last_hour = connection.execute(select(func.count()).where(*lately)).scalar_one()
    if last_hour < limits.SPIKE_DEVICES:
        return EnrolmentRates(last_hour=last_hour, busiest_hour=0, enrolled_before=0, newest="")
    newest = select(_DEVICE.device_id).where(*lately).order_by(_DEVICE.admitted_at.desc(), _DEVICE.device_id).limit(1)
    before = select(func.count()).where(mine, _DEVICE.admitted_at < began)
    hour = func.floor((began - _DEVICE.admitted_at) / _HOUR_S)
    earliest = now - limits.SPIKE_USUAL_S
    hours = (
        select(func.count().label("n"))
        .where(mine, shared, _DEVICE.admitted_at < began, _DEVICE.admitted_at >= earliest)
        .group_by(hour)
        .subquery()
    )
    return EnrolmentRates(
        last_hour=last_hour,
        busiest_hour=connection.execute(select(func.max(hours.c.n))).scalar_one() or 0,
        enrolled_before=connection.execute(before).scalar_one(),
        newest=connection.execute(newest).scalar_one(),
    )


def admit(connection: Connection, namespace: str, device_id: str, *, at: float) -> None:
    """A person vouches for a device."""
    table = schema.devices
    mine = table.c.namespace == namespace, table.c.device_id == device_id
    connection.execute(update(table).where(*mine).values(admission="person", admitted_at=at))
