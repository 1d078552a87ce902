"""Who is asking? Device tokens, which the hot path verifies without a database, and the bearer token of a person.

Which devices are blocked or were removed is kept in memory (`Gatekeeper`), since a token outlives such a decision.

A device token is `base64url(payload).base64url(HMAC-SHA-256)`, the payload JSON: namespace, device, expiry. The key
is a file of 32 random bytes beside the online keys.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable
from pathlib import Path

import msgspec

from whimbrel.errors import NotAllowed, Refused
from whimbrel.flows.devices.records import DeviceAccess
from whimbrel.server.device_token_keys import TOKEN_LIFE_S, DeviceTokenKeys

_TOKEN_CHARS = 2048


class Claims(msgspec.Struct, frozen=True):
    """The payload of a token. `expires`: POSIX seconds."""

    namespace: str
    device: str
    expires: float

    @property
    def issued(self) -> float:
        """When it was made."""
        return self.expires - TOKEN_LIFE_S


class DeviceTokens:
    """Makes and verifies device tokens."""

    def __init__(self, keys: bytes | DeviceTokenKeys) -> None:
        self._keys = keys

    @classmethod
    def open(cls, path: Path) -> "DeviceTokens":
        """The key at `path`, made on first use, and the one before it (server/device_token_keys.py)."""
        keys = DeviceTokenKeys(path)
        keys.current(0.0)
        return cls(keys)

    def issue(self, namespace: str, device: str, *, now: float) -> str:
        """A token for an hour."""
        payload = msgspec.json.encode(Claims(namespace, device, now + TOKEN_LIFE_S))
        return f"{_text(payload)}.{_text(_mac(payload, self._current(now)))}"

    def verify(self, authorization: str | None, *, namespace: str, now: float) -> Claims:
        """What the token of an Authorization header says. Raises `NotAllowed`."""
        token = bearer(authorization)
        if token is None:
            raise NotAllowed("this needs a device token: Authorization: Bearer ...; get one with POST token")
        body, _, mac = token.partition(".")
        try:
            payload, given = _bytes(body), _bytes(mac)
            right = any(hmac.compare_digest(given, _mac(payload, key)) for key in self._accepted(now))
            if len(token) > _TOKEN_CHARS or not right:
                raise NotAllowed("this device token was not made here; get a new one with POST token")
            claims = msgspec.json.decode(payload, type=Claims)
        except (ValueError, binascii.Error, msgspec.DecodeError) as error:
            raise NotAllowed("this is no device token; get one with POST token") from error
        if claims.namespace != namespace:
            raise NotAllowed(f"this device token is for namespace {claims.namespace!r}")
        if claims.expires < now:
            raise NotAllowed("this device token is over; get a new one with POST token")
        return claims

    def _current(self, now: float) -> bytes:
        return self._keys if isinstance(self._keys, bytes) else self._keys.current(now)

    def _accepted(self, now: float) -> tuple[bytes, ...]:
        return (self._keys,) if isinstance(self._keys, bytes) else self._keys.accepted(now)


def _mac(payload: bytes, key: bytes) -> bytes:
    return hmac.digest(key, payload, hashlib.sha256)


class Gatekeeper:
    """The devices whose tokens are refused though they are good: blocked ones, and those that were removed.

    It holds only such devices, of all namespaces. `server/device_access` keeps it as new as the database.
    """

    def __init__(self) -> None:
        self._access: dict[tuple[str, str], DeviceAccess] = {}

    def note(self, changes: Iterable[tuple[str, DeviceAccess]], *, now: float) -> None:
        """Take what devices may do from now on, with their namespaces; what refuses no token any more is forgotten."""
        for namespace, access in changes:
            key = namespace, access.device_id
            if access.state == "open" and access.not_before + TOKEN_LIFE_S < now:
                self._access.pop(key, None)
            else:
                self._access[key] = access

    def check(self, namespace: str, device_id: str, *, issued: float) -> None:
        """Raise `Refused` for a device that is blocked, `NotAllowed` for a token from before the device was removed."""
        access = self._access.get((namespace, device_id))
        if access is not None:
            check_access(access, issued=issued)


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


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
