"""Which inbox does a repository have? A table of its database, or a stream of NATS, by its settings."""

from whimbrel.flows.ports import Inbox
from whimbrel.stores.database import Database
from whimbrel.stores.inbox_nats import InboxNats
from whimbrel.stores.inbox_table import InboxTable


def open_inbox(place: str, *, stream: str, database: Database) -> Inbox:
    """The inbox at `place`: "table", or the URL of a NATS server, where `stream` names its JetStream stream."""
    return InboxTable(database) if place == "table" else InboxNats(place, stream=stream)
