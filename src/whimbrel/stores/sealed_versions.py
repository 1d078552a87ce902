"""Sealed versions: the key of each release as the registry keeps it, and the patches that its publisher made.

The key is an age file to the server's sealing key (`sealing_key`), which lies outside of the database. So whoever has
the database alone can open none.
"""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, select, update

from whimbrel.errors import NotFound
from whimbrel.model.documents import parse
from whimbrel.model.ways import Step
from whimbrel.stores import schema
from whimbrel.stores.rows import packed, upsert

_TABLE = schema.sealed_versions


class SealedVersions:
    """The sealed versions of one namespace, within one transaction."""

    def __init__(self, connection: Connection, namespace: str) -> None:
        self.connection = connection
        self.namespace = namespace

    def add(self, model: str, serial: int, *, release_key: bytes, steps: Sequence[Step], at: float) -> None:
        """Keep the key of a release, and the steps that its delta index is to list."""
        values = {
            "namespace": self.namespace,
            "model": model,
            "serial": serial,
            "release_key": release_key,
            "steps": packed(tuple(steps)),
            "listed": not steps,
            "created_at": at,
        }
        upsert(self.connection, _TABLE, values)

    def release_key(self, model: str, serial: int) -> bytes:
        """The key of a release, sealed to the server's sealing key. Raises `NotFound` for one that is not sealed."""
        key = self.connection.execute(
            select(_TABLE.c.release_key).where(*self._of(model), _TABLE.c.serial == serial)
        ).scalar_one_or_none()
        if key is None:
            raise NotFound(f"{model} has no sealed version with serial {serial}; whoever has its files can open them")
        return bytes(key)

    def steps(self, model: str) -> dict[int, tuple[Step, ...]]:
        """The patches to each sealed version of a model, by its serial."""
        rows = self.connection.execute(select(_TABLE.c.serial, _TABLE.c.steps).where(*self._of(model)))
        return {row.serial: parse(tuple[Step, ...], row.steps, what="the stored patches") for row in rows}

    def unlisted_models(self) -> list[str]:
        """Models with patches that the signed index does not list yet."""
        rows = self.connection.execute(
            select(_TABLE.c.model).where(_TABLE.c.namespace == self.namespace, _TABLE.c.listed.is_(False)).distinct()
        )
        return sorted(rows.scalars())

    def set_listed(self, model: str) -> None:
        """Note that the signed index lists them."""
        self.connection.execute(update(_TABLE).where(*self._of(model)).values(listed=True))

    def all_keys(self) -> list[tuple[str, int, bytes]]:
        """Model, serial and kept key of each sealed version, for a change of the sealing key."""
        rows = self.connection.execute(
            select(_TABLE.c.model, _TABLE.c.serial, _TABLE.c.release_key).where(_TABLE.c.namespace == self.namespace)
        )
        return [(row.model, row.serial, bytes(row.release_key)) for row in rows]

    def set_release_key(self, model: str, serial: int, release_key: bytes) -> None:
        """Keep the key of a release sealed to another sealing key."""
        this = update(_TABLE).where(*self._of(model), _TABLE.c.serial == serial)
        self.connection.execute(this.values(release_key=release_key))

    def _of(self, model: str) -> tuple[ColumnElement[bool], ...]:
        return _TABLE.c.namespace == self.namespace, _TABLE.c.model == model
