"""The roles that say which line of a model is the newest: delegated by the targets key, signed by a key of their own.

Called by the command line, where these keys are. What a floor is for: `model/release.py`, ADR 80.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import cast

from tuf.api.metadata import DelegatedRole, Delegations, Metadata, TargetFile, Targets

from whimbrel.errors import Conflict, NotFound
from whimbrel.model.documents import encode
from whimbrel.model.release import Floor
from whimbrel.stores.signed_metadata import SERIALIZER, add_signature, expiry, read_metadata
from whimbrel.stores.signer import Key, Signer
from whimbrel.trust import roles


def delegate_floor(
    current: bytes, model: str, *, floor: Key, signers: Sequence[Signer], now: datetime, same_version: bool = False
) -> bytes:
    """The next top-level targets, which delegates the floor of `model` to the key `floor`. Raises `Conflict`.

    `same_version`: `current` was just signed and is not published yet; what comes takes its place.
    """
    metadata, listed = _delegations(current)
    role = roles.floor_role(model)
    if role in listed:
        raise Conflict(
            f"{role} is delegated already: {model} has a floor; sign it anew with: whimbrel floor renew {model}"
        )
    listed[role] = DelegatedRole(role, [], threshold=1, terminating=True, paths=[roles.floor_path(model)])
    metadata.signed.add_key(floor, role)
    metadata.signed.version -= same_version
    return _signed_anew(metadata, signers, now=now)


def lift_floor(current: bytes, model: str, *, signers: Sequence[Signer], now: datetime) -> bytes:
    """The next top-level targets, which delegates no floor of `model` any more. Raises `NotFound`."""
    metadata, listed = _delegations(current)
    role = roles.floor_role(model)
    if role not in listed:
        raise NotFound(f"{model} has no floor")
    for keyid in list(listed[role].keyids):
        metadata.signed.revoke_key(keyid, role)
    del listed[role]
    return _signed_anew(metadata, signers, now=now)


def sign_floor(floor: Floor, *, version: int, signers: Sequence[Signer], now: datetime) -> tuple[bytes, bytes]:
    """A floor's document, and its role in that version, which expires `floor.days` after `now`."""
    document, path = encode(floor), roles.floor_path(floor.model)
    signed = Targets(version=version, expires=expiry(now, timedelta(days=floor.days)))
    signed.targets[path] = TargetFile.from_data(path, document, ["sha256"])
    metadata = Metadata(signed)
    for signer in signers:
        add_signature(metadata, signer)
    return document, metadata.to_bytes(SERIALIZER)


def _delegations(current: bytes) -> tuple[Metadata[Targets], dict[str, DelegatedRole]]:
    metadata = cast("Metadata[Targets]", read_metadata(current, what=roles.TARGETS, kind=Targets))
    if metadata.signed.delegations is None or metadata.signed.delegations.roles is None:
        metadata.signed.delegations = Delegations(keys={}, roles={})
    return metadata, cast("dict[str, DelegatedRole]", metadata.signed.delegations.roles)


def _signed_anew(metadata: Metadata[Targets], signers: Sequence[Signer], *, now: datetime) -> bytes:
    metadata.signed.version += 1
    metadata.signed.expires = expiry(now, roles.TARGETS_LIFE)
    metadata.signatures.clear()
    for signer in signers:
        add_signature(metadata, signer)
    return metadata.to_bytes(SERIALIZER)
