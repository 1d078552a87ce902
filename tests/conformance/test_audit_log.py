"""One suite for the audit log, on every database: one chain a namespace, whoever writes, no entry without its act."""

import threading
from collections.abc import Callable

import pytest
from sqlalchemy import delete, update

from support.values import T0
from whimbrel.errors import UntrustedInput
from whimbrel.flows.audit import audit
from whimbrel.flows.audit_chain import BEFORE_THE_FIRST, check_chain
from whimbrel.stores import audit_tables, schema
from whimbrel.stores.database import Database
from whimbrel.stores.transaction import Stores, transaction


def act(stores: Stores, number: int, *, device: str | None = None) -> None:
    audit(stores.registry, device=device, actor="ana", action="x", because=f"number {number}", now=T0 + number)


def fill(database: Database, number: int, *, namespace: str = "default") -> None:
    for each in range(number):
        with transaction(database, namespace) as stores:
            act(stores, each)


def problem_of(database: Database) -> str | None:
    with transaction(database, "default") as stores:
        return check_chain(stores.audit.after(0, limit=1000)).problem


def test_entries_are_a_chain_with_a_head(database: Database) -> None:
    with transaction(database, "default") as stores:
        assert stores.audit.head() == (0, BEFORE_THE_FIRST)
    fill(database, 3)
    with transaction(database, "default") as stores:
        entries = stores.audit.after(0, limit=10)
        assert [entry.sequence for entry in entries] == [1, 2, 3]
        assert stores.audit.head() == (3, entries[-1].hash)
        assert [entry.sequence for entry in stores.audit.after(1, limit=1)] == [2]
    assert problem_of(database) is None


def test_each_namespace_has_a_chain_of_its_own(database: Database) -> None:
    fill(database, 2)
    fill(database, 1, namespace="other")
    fill(database, 1)
    with transaction(database, "other") as stores:
        assert [entry.previous for entry in stores.audit.after(0, limit=10)] == [BEFORE_THE_FIRST]
    assert problem_of(database) is None


def test_an_entry_is_read_in_its_own_transaction_and_gone_with_it(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), transaction(database, "default") as stores:  # noqa: PT012 (one block)
        act(stores, 1)
        assert [entry.because for entry in stores.audit.newest()] == ["number 1"]
        act(stores, 2)
        raise ZeroDivisionError
    with transaction(database, "default") as stores:
        assert (stores.audit.newest(), stores.audit.head()[0]) == ([], 0)
        act(stores, 3, device="dev-1")
    with transaction(database, "default") as stores:
        (entry,) = stores.audit.newest(device="dev-1")
        assert (entry.sequence, entry.because) == (1, "number 3")
        assert stores.audit.newest(action="y") == []


def test_a_text_with_a_nul_is_kept_or_refused_in_a_sentence(database: Database) -> None:
    """PostgreSQL takes none in a text: the server answered 500."""

    def write() -> None:
        with transaction(database, "default") as stores:
            audit(stores.registry, actor="ana", action="x", because="a\0b", now=T0)

    if database.kind == "SQLite":
        write()
        return
    with pytest.raises(UntrustedInput, match="holds a NUL character"):
        write()


def test_servers_that_write_at_once_make_one_chain_without_gaps(database: Database) -> None:
    """Each thread has a connection of its own, as each server has."""
    together([lambda: fill(database, 10)] * 4)
    with transaction(database, "default") as stores:
        assert [entry.sequence for entry in stores.audit.after(0, limit=100)] == list(range(1, 41))
    assert problem_of(database) is None


def test_transactions_with_entries_never_wait_for_each_other_for_ever(database: Database) -> None:
    """One writes its entry before it changes a row, the other one after it. The head is locked last in both."""
    if database.kind == "SQLite":
        fill(database, 1)  # one writer at a time: there is nothing to wait for
        return
    with transaction(database, "default") as stores:
        stores.connection.execute(schema.leases.insert().values(name="row", holder="nobody", until=0.0))
    first_has_acted, second_has_the_row = threading.Event(), threading.Event()

    def change(stores: Stores) -> None:
        stores.connection.execute(update(schema.leases).where(schema.leases.c.name == "row").values(until=T0))

    def first() -> None:
        with transaction(database, "default") as stores:
            act(stores, 1)
            first_has_acted.set()
            assert second_has_the_row.wait(10)
            change(stores)

    def second() -> None:
        assert first_has_acted.wait(10)
        with transaction(database, "default") as stores:
            change(stores)
            second_has_the_row.set()
            act(stores, 2)

    together([first, second])
    assert problem_of(database) is None


def test_what_is_done_to_the_tables_by_hand_is_seen(database: Database) -> None:
    fill(database, 4)
    table = audit_tables.audit
    with database.transaction() as connection:
        connection.execute(update(table).where(table.c.sequence == 3).values(actor="somebody else"))
    assert str(problem_of(database)).startswith("entry 3 was changed")
    with database.transaction() as connection:
        connection.execute(delete(table).where(table.c.sequence == 2))
    assert problem_of(database) == "entry 2 is missing: entry 3 follows entry 1"


def together(works: list[Callable[[], None]]) -> None:
    """Do all at once; raise what any of them raises."""
    errors: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
