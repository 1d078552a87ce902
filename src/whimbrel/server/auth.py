"""Who is asking? Device tokens, which the hot path verifies without a database, and the bearer token of a person.

Which devices are blocked or were removed is kept in memory (`Gatekeeper`), since a token outlives such a decision.

A device token is `base64url(payload).base64url(HMAC-SHA-256)`, the payload JSON: namespace, device, expiry. The key
is a file of 32 random bytes beside the online keys.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Iterable
from pathlib import Path

import msgspec

from whimbrel.durable import write_durably
from whimbrel.errors import NotAllowed, Refused
from whimbrel.flows.devices.records import DeviceAccess

TOKEN_LIFE_S = 3600
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

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def open(cls, path: Path) -> "DeviceTokens":
        """The key at `path`, made on first use."""
        if not path.exists():
            write_durably(path, secrets.token_bytes(32), mode=0o600)
        return cls(path.read_bytes())

    def issue(self, namespace: str, device: str, *, now: float) -> str:
        """A token for an hour."""
        payload = msgspec.json.encode(Claims(namespace, device, now + TOKEN_LIFE_S))
        return f"{_text(payload)}.{_text(self._mac(payload))}"

    def verify(self, authorization: str | None, *, namespace: str, now: float) -> Claims:
        """What the token of an Authorization header says. Raises `NotAllowed`."""
        token = bearer(authorization)
        if token is None:
            raise NotAllowed("this needs a device token: Authorization: Bearer ...; get one with POST token")
        body, _, mac = token.partition(".")
        try:
            payload, given = _bytes(body), _bytes(mac)
            if len(token) > _TOKEN_CHARS or not hmac.compare_digest(given, self._mac(payload)):
                raise NotAllowed("this device token was not made here; get a new one with POST token")
            claims = msgspec.json.decode(payload, type=Claims)
        except (ValueError, binascii.Error, msgspec.DecodeError) as error:
            raise NotAllowed("this is no device token; get one with POST token") from error
        if claims.namespace != namespace:
            raise NotAllowed(f"this device token is for namespace {claims.namespace!r}")
        if claims.expires < now:
            raise NotAllowed("this device token is over; get a new one with POST token")
        return claims

    def _mac(self, payload: bytes) -> bytes:
        return hmac.digest(self._key, payload, hashlib.sha256)


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
