"""grow: what a device invents (models, versions, classes, epochs, labels) fills no table."""

from sqlalchemy import Table, func, select

from support.values import T0, Town, announce, devices_in, reports, rollout, town, window
from whimbrel import limits
from whimbrel.flows.reports.ingest import ingest
from whimbrel.health.report import Build
from whimbrel.stores import schema

DEVICE = devices_in(0, 50_000, 1)[0]
TABLES = (
    schema.device_models,
    schema.sequences,
    schema.participations,
    schema.tally,
    schema.health,
)


def take(here: Town, *records: object, window_number: int = 1) -> None:
    stores = here.stores
    now = T0 + 300 * window_number
    ingest(here.registry, here.fleet, records, now=now, devices=stores.inventory, health=stores.health)


def rows(here: Town, table: Table) -> int:
    return int(here.registry.connection.execute(select(func.count()).select_from(table)).scalar_one())


def test_invented_models_and_versions_have_no_rows() -> None:
    with town(running=rollout()) as here:
        here.enrol(DEVICE)
        take(here, reports(DEVICE, window(1)))
        before = {table.name: rows(here, table) for table in TABLES}
        for n in range(40):
            told = [
                window(n * 4 + k + 2, model=f"invented-{n}-{k}", serial=n * 4 + k + 1, cohorts=()) for k in range(3)
            ]
            told.append(window(n * 4 + 5, serial=10_000 + n, cohorts=()))
            builds = {f"invented-{n}": Build(serial=n + 1, variant="any")}
            said = announce(DEVICE, "activated", model=f"other-{n}", rollout=None)
            take(here, reports(DEVICE, *told, builds=builds, waiting={f"invented-{n}": "a wait"}), said)
        assert {table.name: rows(here, table) for table in TABLES} == before


def test_invented_classes_and_slices_are_one_place() -> None:
    with town(running=rollout()) as here:
        here.enrol(DEVICE)
        for n in range(1, 30):
            take(here, reports(DEVICE, window(n, hardware_class=f"class-{n}")), window_number=n)
        classes = {cell.hardware_class for cell in here.cells()}
        assert (classes, len(here.cells())) == ({"class-1"}, 29)
        assert here.fleet.classes("wake") == {"class-29": 1}  # what it says of itself now


def test_invented_epochs_are_bounded_and_the_newest_stay_known() -> None:
    with town(running=rollout()) as here:
        here.enrol(DEVICE)
        for n in range(limits.DEVICE_EPOCHS + 40):
            take(here, reports(DEVICE, window(1), at=T0 + n, epoch=f"{n:016x}"))
        assert rows(here, schema.sequences) == limits.DEVICE_EPOCHS
        kept = {epoch for _, epoch in here.fleet.sequences([DEVICE])}
        assert kept == {f"{n:016x}" for n in range(40, limits.DEVICE_EPOCHS + 40)}
        (cell,) = here.cells()
        assert cell.at_risk == 1


def test_an_epoch_that_is_used_stays_known_however_many_are_invented() -> None:
    """A board that restarts all day keeps what it told lately: no window of it counts twice."""
    with town(running=rollout()) as here:
        here.enrol(DEVICE)
        for n in range(limits.DEVICE_EPOCHS + 40):
            own = reports(DEVICE, window(n + 1), at=T0 + 2 * n + 1, epoch="f" * 16)
            take(here, reports(DEVICE, window(1), at=T0 + 2 * n, epoch=f"{n:016x}"), own)
        assert here.fleet.sequences([DEVICE])[DEVICE, "f" * 16].last == limits.DEVICE_EPOCHS + 40
