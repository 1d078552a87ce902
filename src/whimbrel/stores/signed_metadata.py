"""Signed metadata as bytes: read within bounds, signed, and verified against who may sign it. (The Update Framework.)

Of the server's memory and of people's commands: nothing here knows a database.
"""

import functools
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from securesystemslib.exceptions import StorageError, UnverifiedSignatureError
from tuf.api.exceptions import DownloadError, RepositoryError, UnsignedMetadataError
from tuf.api.metadata import Metadata, Root, Signed, Targets
from tuf.api.serialization import DeserializationError
from tuf.api.serialization.json import JSONSerializer

from whimbrel import limits
from whimbrel.errors import InvariantBroken, Unavailable, UntrustedInput, WhimbrelError
from whimbrel.stores.signer import Key, Signer
from whimbrel.trust import roles
from whimbrel.trust.role_keys import RoleKeys

SERIALIZER = JSONSerializer(compact=False)


def read_metadata(content: bytes, *, what: str, kind: type[Signed] = Signed) -> Metadata[Any]:
    """Decode signed metadata. Raises `UntrustedInput`."""
    if len(content) > limits.DOCUMENT_BYTES:
        raise UntrustedInput(f"{what} has {len(content)} bytes; at most {limits.DOCUMENT_BYTES} are read")
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(content)
    except (DeserializationError, RepositoryError, StorageError, DownloadError) as error:
        raise UntrustedInput(f"{what} is no TUF metadata: {error}") from error
    if not isinstance(metadata.signed, kind):
        raise UntrustedInput(f"{what} is {metadata.signed.type} metadata; expected {kind.__name__.lower()}")
    return metadata


def role_keys(content: bytes) -> dict[str, RoleKeys]:
    """The keys of every role that a root or a targets role names. Raises `UntrustedInput`."""
    return dict(_role_keys(content))


@functools.lru_cache(maxsize=8)  # a server asks in every round, and a targets role of a thousand models is a megabyte
def _role_keys(content: bytes) -> tuple[tuple[str, RoleKeys], ...]:
    signed = read_metadata(content, what="a role").signed
    named: Mapping[str, Any] = signed.roles if isinstance(signed, Root) else {}
    if isinstance(signed, Targets) and signed.delegations is not None:
        named = signed.delegations.roles or {}
    return tuple((name, RoleKeys(tuple(role.keyids), role.threshold)) for name, role in named.items())


def role_public_keys(content: bytes) -> dict[str, Key]:
    """The public keys that a root or a targets role names, by their ids. Raises `UntrustedInput`."""
    signed = read_metadata(content, what="a role").signed
    if isinstance(signed, Root):
        return dict(signed.keys)
    return dict(signed.delegations.keys) if isinstance(signed, Targets) and signed.delegations is not None else {}


def add_signature(metadata: Metadata[Any], signer: Signer) -> None:
    """Sign, and keep the signatures that are there. Raises `Unavailable` where the key's place does not do it well."""
    try:
        signature = metadata.sign(signer, append=True)
        signer.public_key.verify_signature(signature, metadata.signed_bytes)  # a reference may name another key
    except (UnsignedMetadataError, UnverifiedSignatureError) as error:
        metadata.signatures.pop(signer.public_key.keyid, None)
        cause = error.__cause__ if isinstance(error, UnsignedMetadataError) else error
        if isinstance(cause, WhimbrelError):
            raise cause from error
        words = " ".join(str(cause or error).split())
        raise Unavailable(
            f"the key {signer.public_key.keyid[:8]} did not sign: {words}; does its place answer, and may you use it?"
        ) from error


def verify(delegator: Root | Targets, role: str, metadata: Metadata[Any], *, now: datetime | None) -> None:
    """Raises `UntrustedInput` where `metadata` is not signed by enough keys that `delegator` names, or expired.

    `now` None: whether it expired is not asked.
    """
    try:
        delegator.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except ValueError as error:
        raise UntrustedInput(f"{role} is not delegated in this repository; add the model first") from error
    except RepositoryError as error:
        raise UntrustedInput(
            f"{role} is not signed by a key that it is delegated to, or by too few of them ({error}); `whimbrel keys "
            "status` names the keys that sign it"
        ) from error
    if now is not None and metadata.signed.is_expired(now):
        raise UntrustedInput(f"{role} expired on {metadata.signed.expires:%Y-%m-%d}; check the clock and sign it anew")


def delegations_beyond_their_own(targets: Targets) -> list[str]:
    """What a targets role delegates that is not a model's own, a sentence each: nothing, in an honest one.

    The first role whose paths match a document is asked for it, so a further role could shadow a publisher.
    """
    words = []
    delegations = targets.delegations
    if delegations is not None and delegations.succinct_roles is not None:
        words.append("targets delegates to a row of roles by hashes, which no model has")
    for name, delegated in ((delegations.roles if delegations else None) or {}).items():
        try:
            own = roles.paths_of(name)
        except ValueError:
            own = None
        if own is None or delegated.paths != own or not delegated.terminating:
            shown = ", ".join((delegated.paths or delegated.path_hash_prefixes or ())[:3])
            words.append(f"{name} may sign {shown}, which is not what a role of that name signs")
    return words


def expiry(now: datetime, life: timedelta) -> datetime:
    """When a role that is signed now expires, in whole seconds."""
    if now.tzinfo is None:
        raise InvariantBroken("times are in UTC, with their zone")
    return (now + life).replace(microsecond=0)
