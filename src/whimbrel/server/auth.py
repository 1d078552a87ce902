"""Who is asking? Device tokens, which the hot path verifies without a database, and the bearer token of a person.

Which devices are blocked or were removed is kept in memory (`Gatekeeper`), since a token outlives such a decision.

A device token is `base64url(payload).base64url(HMAC-SHA-256)`, the payload JSON (`Claims`). The key is a file of 32
random bytes beside the online keys. A token has one valid spelling.
"""

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from whimbrel.durable import write_durably
from whimbrel.errors import NotAllowed, Refused, UntrustedInput
from whimbrel.flows.devices.records import DeviceAccess, NewCredential
from whimbrel.trust.possession import base64url, from_base64url

TOKEN_LIFE_S = 3600
_TOKEN_CHARS = 4096


class Claims(msgspec.Struct, frozen=True, omit_defaults=True):
    """The payload of a token. `expires`: POSIX seconds. `epoch`: of its credential; 0: an old token.

    `labels`: those that the server gives the device. `claimable`: the values that it may tell of some labels.
    """

    namespace: str
    device: str
    expires: float
    epoch: int = 0
    labels: dict[str, str] = {}
    claimable: dict[str, tuple[str, ...]] = {}

    @property
    def issued(self) -> float:
        """When it was made."""
        return self.expires - TOKEN_LIFE_S


class DeviceTokens:
    """Makes and verifies device tokens."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def open(cls, path: Path) -> "DeviceTokens":
        """The key at `path`, made on first use."""
        if not path.exists():
            write_durably(path, secrets.token_bytes(32), mode=0o600)
        return cls(path.read_bytes())

    @property
    def key(self) -> bytes:
        """The key, from which that of the challenges follows."""
        return self._key

    def issue(
        self,
        namespace: str,
        device: str,
        *,
        now: float,
        epoch: int = 0,
        labels: Mapping[str, str] | None = None,
        claimable: Mapping[str, tuple[str, ...]] | None = None,
    ) -> str:
        """A token for an hour."""
        claims = Claims(namespace, device, now + TOKEN_LIFE_S, epoch, dict(labels or {}), dict(claimable or {}))
        payload = msgspec.json.encode(claims)
        return f"{base64url(payload)}.{base64url(self._mac(payload))}"

    def verify(self, authorization: str | None, *, namespace: str, now: float) -> Claims:
        """What the token of an Authorization header says. Raises `NotAllowed`."""
        token = bearer(authorization)
        if token is None:
            raise NotAllowed("this needs a device token: Authorization: Bearer ...; get one with POST token")
        body, _, mac = token.partition(".")
        try:
            payload, given = from_base64url(body), from_base64url(mac)
            if len(token) > _TOKEN_CHARS or not hmac.compare_digest(given, self._mac(payload)):
                raise NotAllowed("this device token was not made here; get a new one with POST token")
            claims = msgspec.json.decode(payload, type=Claims)
        except (UntrustedInput, ValueError, msgspec.DecodeError) as error:
            raise NotAllowed("this is no device token; get one with POST token") from error
        if claims.namespace != namespace:
            raise NotAllowed(f"this device token is for namespace {claims.namespace!r}")
        if claims.expires < now:
            raise NotAllowed("this device token is over; get a new one with POST token")
        return claims

    def _mac(self, payload: bytes) -> bytes:
        return hmac.digest(self._key, payload, hashlib.sha256)


class Gatekeeper:
    """The devices whose tokens are refused though they are good: blocked ones, removed ones, and former epochs.

    It holds only such devices, of all namespaces. `server/device_access` keeps it as new as the database.
    """

    def __init__(self) -> None:
        self._access: dict[tuple[str, str], DeviceAccess] = {}
        self._credentials: dict[tuple[str, str], NewCredential] = {}

    def note(self, changes: Iterable[tuple[str, DeviceAccess]], *, now: float) -> None:
        """Take what devices may do from now on, with their namespaces; what refuses no token any more is forgotten."""
        for namespace, access in changes:
            key = namespace, access.device_id
            if access.state == "open" and access.not_before + TOKEN_LIFE_S < now:
                self._access.pop(key, None)
            else:
                self._access[key] = access

    def note_credentials(self, new: Iterable[tuple[str, NewCredential]], *, now: float) -> None:
        """Take credentials that replaced others, with their namespaces; what refuses no token any more is forgotten."""
        over = [key for key, kept in self._credentials.items() if kept.made_at + TOKEN_LIFE_S < now]
        for key in over:
            del self._credentials[key]
        for namespace, credential in new:
            key = namespace, credential.device_id
            known = self._credentials.get(key)
            if known is None or known.epoch < credential.epoch or known.made_at < credential.made_at:
                self._credentials[key] = credential

    def check(self, namespace: str, device_id: str, *, issued: float, epoch: int = 0) -> None:
        """Raise `Refused` for a device that is blocked.

        Raises `NotAllowed` for a token from before the device was removed, or of a credential that was replaced since.
        """
        access = self._access.get((namespace, device_id))
        if access is not None:
            check_access(access, issued=issued)
        credential = self._credentials.get((namespace, device_id))
        if credential is not None and epoch < credential.epoch:
            raise NotAllowed("this device enrolled again, and got another credential; get a token for that one")


def check_access(access: DeviceAccess | None, *, issued: float) -> None:
    """The same, of what is known of one device. `issued`: when its token was made, or is made now."""
    if access is None:
        return
    if access.state == "blocked":
        raise Refused("the operator has blocked this device: nothing that it sends is taken, until it is unblocked")
    if issued < access.not_before:
        raise NotAllowed("this device was removed by the operator; enrol it again")


def bearer(authorization: str | None) -> str | None:
    """The token of an Authorization header. None where it holds no bearer token."""
    scheme, _, token = (authorization or "").partition(" ")
    return token if scheme == "Bearer" and token else None
