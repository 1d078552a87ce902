"""When offline roles expire, and of what was warned: a row a role."""

import msgspec
from sqlalchemy import Connection, select

from whimbrel.flows.records import RoleExpiry
from whimbrel.stores import schema
from whimbrel.stores.rows import upsert

_TABLE = schema.role_expiry


class RoleExpiries:
    """The rows of one namespace, within one transaction."""

    def __init__(self, connection: Connection, namespace: str) -> None:
        self.connection = connection
        self.namespace = namespace

    def all(self) -> list[RoleExpiry]:
        """What is known, the role that expires first before the others."""
        query = select(_TABLE).where(_TABLE.c.namespace == self.namespace).order_by(_TABLE.c.expires, _TABLE.c.role)
        return [_entry(row) for row in self.connection.execute(query)]

    def first(self) -> RoleExpiry | None:
        """The role that expires first."""
        query = select(_TABLE).where(_TABLE.c.namespace == self.namespace).order_by(_TABLE.c.expires).limit(1)
        row = self.connection.execute(query).one_or_none()
        return None if row is None else _entry(row)

    def save(self, entry: RoleExpiry) -> None:
        """Write what is known of a role."""
        values = {"namespace": self.namespace, **msgspec.structs.asdict(entry)}
        upsert(self.connection, _TABLE, values, update=("version", "expires", "warned_s"))


def _entry(row: object) -> RoleExpiry:
    return RoleExpiry(**{name: getattr(row, name) for name in RoleExpiry.__struct_fields__})
