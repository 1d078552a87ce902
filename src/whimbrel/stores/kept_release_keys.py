"""The release keys that the database keeps: does the sealing key here open them, and how is it replaced?

It is one key for all namespaces.

1. A replacement puts the new key into the file before the old one, seals every kept key to the new one in one
   transaction, and takes the old one out of the file when nothing is sealed to it any more.
2. Killed at any point, nothing is lost: the file has both keys then, both open, and the same command goes on.
3. It works behind a lock of the table. A version that is published meanwhile waits, or is sealed anew in another round:
   `publish_version` looks that its key opens after its row is written, which is behind the same lock.
4. What the key here does not open is left as it is, and counted.
"""

import msgspec
from sqlalchemy import Connection, select, text

from whimbrel import agefile, limits
from whimbrel.errors import NotFound, Refused, Unavailable, UntrustedInput, WhimbrelError
from whimbrel.stores import schema
from whimbrel.stores.database import Database
from whimbrel.stores.sealed_versions import SealedVersions
from whimbrel.stores.sealing_key import SealingKey

_ROUNDS = 20  # each but the last because somebody published in between
_COPY = "bring back the copy that was kept"


class Replacement(msgspec.Struct, frozen=True):
    """What became of the kept keys. `unopened`: those that the sealing key before did not open."""

    recipient: str
    sealed_anew: int
    unopened: int


def replace_sealing_key(database: Database, key: SealingKey) -> Replacement:
    """Have a new sealing key take the place of the one that is there, for all kept keys.

    Raises `NotFound` where there is none, `Refused` where it opens none of the keys that are kept.
    """
    recipient, sealed_anew = "", 0
    for _ in range(_ROUNDS):
        with database.transaction() as connection:
            _lock(connection)
            _check_opens_some(connection, key)
            recipient = key.begin_replacement()
            moved, unopened = _seal_anew(connection, key, recipient)
            sealed_anew += moved
            if moved == 0:
                key.end_replacement()
                return Replacement(recipient, sealed_anew, unopened)
    raise Unavailable("versions were published all the time; both keys open everything: give the same command again")


def make_sealing_key(database: Database, key: SealingKey, *, lost: bool = False) -> str:
    """Make the first key; its public half. `lost`: the one before is lost, and the versions that it opened with it.

    Raises `Conflict` where there is a key, `Refused` where versions need one that was lost.
    """
    with database.transaction() as connection:
        _lock(connection)
        if key.recipient is None and not lost and (count := len(_newest(connection))):
            raise Refused(
                f"{_versions(count)} published with a sealing key that is not at {key.path} any more; {_COPY}. Where "
                "it is lost for good, their keys are lost with it: make another one with --lost, and publish them anew"
            )
        return key.make()


def sealing_key_trouble(database: Database, key: SealingKey) -> str | None:
    """The sentence about a sealing key that is missing, cannot be read or is another one; None where all is well.

    It looks at the newest sealed versions.
    """
    with database.transaction() as connection:
        kept = _newest(connection)
    if not kept:
        return None
    try:
        opened = sum(_opens(key, each) for each in kept)
        if opened < len(kept):
            return (
                f"the sealing key {key.path} opens {opened} of the newest {len(kept)} keys of sealed versions: the "
                f"others are sealed to another one, and no device can be given them; {_COPY}"
            )
        if key.is_replaced_now:
            return (
                f"the sealing key {key.path} is being replaced, and that did not end; both keys open everything: give "
                "`whimbrel keys make-sealing-key --replace` again"
            )
    except NotFound:
        return (
            f"{_versions(len(kept))} sealed, and there is no sealing key at {key.path}: no device can be given their "
            f"keys, and none can be published; {_COPY}"
        )
    except WhimbrelError as error:
        return f"{error}; no device can be given the key of a sealed version: {_COPY}"
    return None


def _versions(count: int) -> str:
    return f"{'a version was' if count == 1 else f'{count} or more versions were'}"


def _opens(key: SealingKey, kept: bytes) -> bool:
    try:
        key.content(kept)
    except UntrustedInput:
        _ = key.recipient  # raises where it is the file that is wrong
        return False
    return True


def _newest(connection: Connection) -> list[bytes]:
    table = schema.sealed_versions
    query = select(table.c.release_key).order_by(table.c.created_at.desc()).limit(limits.SEALED_KEYS_TRIED)
    return [bytes(each) for each in connection.execute(query).scalars()]


def _check_opens_some(connection: Connection, key: SealingKey) -> None:
    kept = _newest(connection)
    if kept and not any(_opens(key, each) for each in kept):
        raise Refused(
            f"the sealing key {key.path} opens none of the newest {len(kept)} keys of sealed versions: it is another "
            f"one; {_COPY}, and replace that"
        )


def _seal_anew(connection: Connection, key: SealingKey, recipient: str) -> tuple[int, int]:
    """How many kept keys were sealed to the new key, and how many could not be opened."""
    moved = unopened = 0
    for namespace in _namespaces(connection):
        versions = SealedVersions(connection, namespace)
        for model, serial, kept in versions.all_keys():
            if key.is_sealed_to_newest(kept):
                continue
            try:
                content = key.content(kept)
            except UntrustedInput:
                unopened += 1
                continue
            versions.set_release_key(model, serial, agefile.seal_bytes(content, recipient=recipient))
            moved += 1
    return moved, unopened


def _namespaces(connection: Connection) -> list[str]:
    return sorted(connection.execute(select(schema.sealed_versions.c.namespace).distinct()).scalars())


def _lock(connection: Connection) -> None:
    """No sealed version is added until the transaction ends. SQLite has one writer at a time as it is."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"LOCK TABLE {schema.sealed_versions.name} IN SHARE ROW EXCLUSIVE MODE"))
