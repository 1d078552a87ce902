"""What a transaction writes last: rows under a lock that every transaction of a namespace wants for a moment.

The head of the audit log's chain is such a row. Were it locked when the first entry comes, the lock would be held
while the rest of the transaction waits for other rows, and two transactions could wait for each other for ever. So
entries wait here, in the order in which they came, and are written when all else is done. `Database.transaction` calls
`finish`.
"""

from collections.abc import Callable

from sqlalchemy import Connection

_WAITING = "whimbrel.last_writes"


def write_last(connection: Connection, write: Callable[[], None]) -> None:
    """Have `write` called just before the transaction of `connection` is committed; never, where it is rolled back."""
    connection.info.setdefault(_WAITING, []).append(write)


def finish(connection: Connection) -> None:
    """Do what waits. Whoever reads what was to be written last calls it first."""
    for write in connection.info.pop(_WAITING, []):
        write()


def forget(connection: Connection) -> None:
    """Drop what waits: the transaction is rolled back."""
    connection.info.pop(_WAITING, None)
