"""One server leads: who takes the lease, who keeps it, and what a server without it may do."""

from collections.abc import Iterator

import pytest
from sqlalchemy import select

from whimbrel.errors import Unavailable
from whimbrel.server.controllers.leader import Leader, LeadLost
from whimbrel.stores import schema
from whimbrel.stores.database import Database
from whimbrel.stores.registry import take_lease
from whimbrel.stores.transaction import transaction

T0 = 1_800_000_000.0
LIFE_S = 10.0  # of a lease, as controllers/leader.py says


class Clock:
    """A clock that tests set."""

    now = T0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def database() -> Iterator[Database]:
    opened = Database("sqlite://")
    with opened.transaction() as connection:
        schema.metadata.create_all(connection)
    yield opened
    opened.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def lease_until(database: Database) -> float | None:
    with database.transaction() as connection:
        until: float | None = connection.execute(select(schema.leases.c.until)).scalar()
        return until


def two(database: Database, clock: Clock) -> tuple[Leader, Leader]:
    return Leader(database, clock=clock), Leader(database, clock=clock)


def test_one_of_two_servers_leads(database: Database, clock: Clock) -> None:
    first, second = two(database, clock)
    assert not first.leads_now()
    assert (first.take(), second.take()) == (True, False)
    assert (first.leads_now(), second.leads_now()) == (True, False)
    assert lease_until(database) == T0 + LIFE_S


def test_a_leader_knows_that_it_leads_until_its_lease_is_over(database: Database, clock: Clock) -> None:
    leader = Leader(database, clock=clock)
    leader.take()
    clock.now = T0 + LIFE_S - 0.001
    assert leader.leads_now()
    clock.now = T0 + LIFE_S
    assert not leader.leads_now()


def test_a_leader_with_nothing_to_write_renews_when_half_of_the_life_is_over(database: Database, clock: Clock) -> None:
    leader = Leader(database, clock=clock)
    leader.take()
    clock.now = T0 + LIFE_S / 2 - 0.001
    assert leader.take()
    assert lease_until(database) == T0 + LIFE_S  # nothing was asked of the database
    clock.now = T0 + LIFE_S / 2
    assert leader.take()
    assert lease_until(database) == T0 + LIFE_S * 1.5
    assert leader.leads_now()


def test_another_server_leads_only_when_the_lease_is_over(database: Database, clock: Clock) -> None:
    first, second = two(database, clock)
    first.take()
    clock.now = T0 + LIFE_S  # still the first one's
    assert not second.take()
    clock.now = T0 + LIFE_S + 0.001
    assert second.take()
    assert not first.take()
    assert (first.leads_now(), second.leads_now()) == (False, True)


def test_every_transaction_of_the_leader_renews_its_lease(database: Database, clock: Clock) -> None:
    first, second = two(database, clock)
    first.take()
    clock.now = T0 + 4
    with first.transaction("default"):
        pass
    assert lease_until(database) == T0 + 4 + LIFE_S
    clock.now = T0 + 4 + LIFE_S - 0.001
    assert first.leads_now()
    assert not second.take()


def test_a_leader_that_woke_up_too_late_changes_no_row(database: Database, clock: Clock) -> None:
    """Each of its transactions asks for the lease before it writes."""
    first, second = two(database, clock)
    first.take()
    clock.now = T0 + LIFE_S + 1
    second.take()

    def work(leader: Leader) -> None:
        with leader.transaction("default") as stores:
            stores.registry.add_artifact("a" * 64, size_bytes=1, at=T0)

    def worked() -> bool:
        with transaction(database, "default") as stores:
            return stores.registry.artifact_size("a" * 64) is not None

    with pytest.raises(LeadLost, match="another server leads now, and does the rest") as lost:
        work(first)
    assert isinstance(lost.value, Unavailable)  # a round ends there, and is tried again
    assert not first.leads_now()
    assert not worked()
    work(second)
    assert worked()


def test_a_leader_that_loses_the_lead_within_its_life_asks_the_database_at_once(
    database: Database, clock: Clock
) -> None:
    """Its own memory says that it leads for seconds yet: the row is what counts."""
    first, second = two(database, clock)
    first.take()
    with database.transaction() as connection:
        connection.execute(schema.leases.update().values(holder="another", until=T0 + 60))
    assert first.leads_now()
    with pytest.raises(LeadLost), first.transaction("default"):
        pass
    assert not first.leads_now()
    assert not first.take()
    assert not second.take()


def test_a_late_leader_goes_on_where_nobody_else_led(database: Database, clock: Clock) -> None:
    leader = Leader(database, clock=clock)
    leader.take()
    clock.now = T0 + 100 * LIFE_S
    with leader.transaction("default"):
        pass
    assert leader.leads_now()
    assert lease_until(database) == T0 + 101 * LIFE_S


def test_a_transaction_that_fails_renews_nothing(database: Database, clock: Clock) -> None:
    leader = Leader(database, clock=clock)
    leader.take()
    clock.now = T0 + 3
    with pytest.raises(ZeroDivisionError), leader.transaction("default"):
        raise ZeroDivisionError
    assert lease_until(database) == T0 + LIFE_S


def test_a_server_that_stops_hands_the_lead_over_at_once(database: Database, clock: Clock) -> None:
    first, second = two(database, clock)
    first.take()
    first.resign()
    assert not first.leads_now()
    assert lease_until(database) is None
    assert second.take()


def test_a_follower_that_stops_leaves_the_leaders_lease(database: Database, clock: Clock) -> None:
    first, second = two(database, clock)
    first.take()
    second.resign()
    assert lease_until(database) == T0 + LIFE_S
    assert not second.take()


def test_a_server_stops_in_good_order_where_the_database_is_gone(database: Database, clock: Clock) -> None:
    leader = Leader(database, clock=clock)
    leader.take()
    with database.transaction() as connection:
        schema.leases.drop(connection)
    leader.resign()
    assert not leader.leads_now()


def test_a_lease_of_another_name_is_another_lead(database: Database, clock: Clock) -> None:
    with database.transaction() as connection:
        assert take_lease(connection, "backup", holder="another", now=T0, life_s=LIFE_S)
    assert Leader(database, clock=clock).take()
