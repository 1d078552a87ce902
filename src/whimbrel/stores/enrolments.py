"""How devices are known again: credentials and keys by id; and the tokens that let new ids in, kept as hashes.

1. A row is written whole, from the `EnrolledDevice` that `flows/devices/enrol` decided on.
2. A token is counted by one conditional update, so that a single-use one lets in one device, whatever comes at once.
3. The row of a token's name is locked while a device comes in by it: the rate of all its tokens is one number.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from whimbrel.errors import Conflict, NotFound
from whimbrel.flows.devices.records import EnrolledDevice, EnrolTokenRecord, EnrolTokenTerms, NewCredential
from whimbrel.model.documents import parse
from whimbrel.policy.bucket import device_key
from whimbrel.stores import schema
from whimbrel.stores.registry import hashed
from whimbrel.stores.rows import packed, upsert

_PACKED = frozenset({"granted_labels", "claimable_labels"})
_RENAMED = {"epoch": "credential_epoch"}
_KEPT = frozenset({"device_id", "enrolled_at"})  # an enrolment again changes neither


class Enrolments:
    """The enrolments of one namespace, within one transaction."""

    def __init__(self, connection: Connection, namespace: str) -> None:
        self.connection = connection
        self.namespace = namespace

    # --- devices ---

    def known(self, device_id: str, *, lock: bool = False) -> EnrolledDevice | None:
        """What is kept of a device; None for an id that is not enrolled. `lock`: until the transaction ends."""
        table = schema.devices
        query = select(table).where(table.c.namespace == self.namespace, table.c.device_id == device_id)
        row = self.connection.execute(query.with_for_update() if lock else query).one_or_none()
        return None if row is None else _enrolled(row)

    def save(self, device: EnrolledDevice, *, labels: dict[str, str] | None, at: float) -> None:
        """Write what is kept of a device, and the labels that it told; None: it told none now."""
        values = {_RENAMED.get(name, name): _column(name, value) for name, value in _fields(device).items()}
        values |= {"namespace": self.namespace, "key": signed_key(device.cohort_key or device.device_id)}
        changing = tuple(_RENAMED.get(name, name) for name in _fields(device) if name not in _KEPT)
        changing = (*changing, "key")
        if labels is not None:
            changing = (*changing, "labels", "seen_at")
        values |= {"labels": packed(labels or {}), "seen_at": at}
        upsert(self.connection, schema.devices, values, update=changing)

    def set_recipient(self, device_id: str, recipient: str) -> None:
        """Note the key that release keys are sealed to for this device."""
        table = schema.devices
        mine = table.c.namespace == self.namespace, table.c.device_id == device_id
        self.connection.execute(update(table).where(*mine).values(recipient=recipient))

    # --- tokens ---

    def add_token(
        self, name: str, secrets: Sequence[str], *, terms: EnrolTokenTerms, actor: str = "", at: float
    ) -> None:
        """Keep tokens of one name, as hashes. Raises `Conflict` where the name is in use."""
        values = {
            "namespace": self.namespace,
            "name": name,
            "terms": packed(terms),
            "created_at": at,
            "actor": actor,
            "minute": 0,
            "minute_uses": 0,
        }
        if not upsert(self.connection, schema.enrol_tokens, values):
            raise Conflict(
                f"there is an enrolment token {name!r} already; give another name, for this one names who came"
            )
        row = {"namespace": self.namespace, "name": name, "uses": 0}
        try:
            self.connection.execute(
                insert(schema.enrol_secrets), [row | {"sha256": hashed(secret)} for secret in secrets]
            )
        except IntegrityError as error:
            raise Conflict("one of these enrolment tokens exists already; make others") from error

    def token(self, secret: str) -> EnrolTokenRecord | None:
        """The terms of a token, and its own `uses` (`tokens` is 1). None for an unknown one."""
        table = schema.enrol_secrets
        row = self.connection.execute(
            select(table).where(table.c.namespace == self.namespace, table.c.sha256 == hashed(secret))
        ).one_or_none()
        if row is None:
            return None
        names = schema.enrol_tokens
        query = select(names).where(names.c.namespace == self.namespace, names.c.name == row.name)
        return _token(self.connection.execute(query.with_for_update()).one(), tokens=1, uses=row.uses)

    def use_token(self, secret: str, *, uses_max: int | None, minute: int, minute_uses: int) -> bool:
        """Count one more device. False where the token lets in no more."""
        table, names = schema.enrol_secrets, schema.enrol_tokens
        mine = table.c.namespace == self.namespace, table.c.sha256 == hashed(secret)
        bound = [] if uses_max is None else [table.c.uses < uses_max]
        done = self.connection.execute(update(table).where(*mine, *bound).values(uses=table.c.uses + 1))
        if done.rowcount != 1:
            return False
        name = select(table.c.name).where(*mine).scalar_subquery()
        self.connection.execute(
            update(names)
            .where(names.c.namespace == self.namespace, names.c.name == name)
            .values(minute=minute, minute_uses=minute_uses)
        )
        return True

    def tokens(self) -> list[EnrolTokenRecord]:
        """All tokens by name, the newest first, with how many devices they let in."""
        secrets, names = schema.enrol_secrets, schema.enrol_tokens
        sums = {
            row.name: row
            for row in self.connection.execute(
                select(secrets.c.name, func.count().label("tokens"), func.sum(secrets.c.uses).label("uses"))
                .where(secrets.c.namespace == self.namespace)
                .group_by(secrets.c.name)
            )
        }
        rows = self.connection.execute(
            select(names).where(names.c.namespace == self.namespace).order_by(names.c.created_at.desc(), names.c.name)
        )
        return [_token(row, tokens=int(sums[row.name].tokens), uses=int(sums[row.name].uses)) for row in rows]

    def revoke_token(self, name: str, *, at: float) -> None:
        """End all tokens of a name. Raises `NotFound`, or `Conflict` where that was done before."""
        table = schema.enrol_tokens
        mine = table.c.namespace == self.namespace, table.c.name == name
        row = self.connection.execute(select(table).where(*mine)).one_or_none()
        if row is None:
            raise NotFound(f"there is no enrolment token {name!r}; see: whimbrel enrol-token list")
        if row.revoked_at is not None:
            raise Conflict(f"the enrolment token {name!r} is revoked already")
        self.connection.execute(update(table).where(*mine).values(revoked_at=at))


def new_credentials(connection: Connection, *, since: float) -> list[tuple[str, NewCredential]]:
    """The credentials of any namespace that replaced another one at `since` or later, with their namespaces."""
    table = schema.devices
    columns = table.c.namespace, table.c.device_id, table.c.credential_epoch, table.c.credential_at
    query = select(*columns).where(table.c.credential_at >= since, table.c.credential_epoch > 1)
    return [
        (row.namespace, NewCredential(device_id=row.device_id, epoch=row.credential_epoch, made_at=row.credential_at))
        for row in connection.execute(query)
    ]


def signed_key(cohort_key: str) -> int:
    """A device's key as a database stores it: two's complement, since SQL has no unsigned 64-bit number."""
    key = device_key(cohort_key)
    return key - 2**64 if key >= 2**63 else key


def _fields(device: EnrolledDevice) -> dict[str, Any]:
    return {name: getattr(device, name) for name in EnrolledDevice.__struct_fields__}


def _column(name: str, value: Any) -> Any:
    return packed(value) if name in _PACKED else value


def _enrolled(row: Row[Any]) -> EnrolledDevice:
    values = {name: getattr(row, _RENAMED.get(name, name)) for name in EnrolledDevice.__struct_fields__}
    return EnrolledDevice(
        **values
        | {
            "granted_labels": parse(dict[str, str], row.granted_labels, what="stored labels"),
            "claimable_labels": parse(dict[str, tuple[str, ...]], row.claimable_labels, what="stored labels"),
        }
    )


def _token(row: Row[Any], *, tokens: int, uses: int) -> EnrolTokenRecord:
    return EnrolTokenRecord(
        name=row.name,
        terms=parse(EnrolTokenTerms, row.terms, what="the stored terms of an enrolment token"),
        created_at=row.created_at,
        actor=row.actor,
        revoked_at=row.revoked_at,
        minute=row.minute,
        minute_uses=row.minute_uses,
        tokens=tokens,
        uses=uses,
    )
