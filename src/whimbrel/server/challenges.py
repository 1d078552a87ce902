"""Challenges that devices sign: made here lately, without a row in a database.

A challenge is `base64url(payload).base64url(HMAC-SHA-256)`, the payload JSON: namespace, the moment, a nonce. Its key
follows from the key of the device tokens, and makes nothing else. That an enrolment answers a challenge once is kept
with the device (`flows/devices/enrol`).
"""

import hashlib
import hmac
import secrets

import msgspec

from whimbrel import limits
from whimbrel.errors import NotAllowed, UntrustedInput
from whimbrel.trust.possession import base64url, from_base64url

_AHEAD_S = 5.0  # between the clocks of two servers of one repository


class _Payload(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    namespace: str
    made_at: float
    nonce: str


class Challenges:
    """Makes challenges, and knows them again."""

    def __init__(self, key: bytes) -> None:
        """`key`: of the device tokens."""
        self._key = hmac.digest(key, b"whimbrel challenge 1", hashlib.sha256)

    def make(self, namespace: str, *, now: float) -> str:
        """A challenge that is good for `limits.CHALLENGE_LIFE_S`."""
        payload = msgspec.json.encode(_Payload(namespace, now, secrets.token_urlsafe(12)))
        return f"{base64url(payload)}.{base64url(self._mac(payload))}"

    def made_at(self, challenge: str, *, namespace: str, now: float) -> float:
        """When a challenge was made, POSIX seconds. Raises `NotAllowed` where it was not made here, or too long ago."""
        body, _, mac = challenge.partition(".")
        try:
            payload, given = from_base64url(body), from_base64url(mac)
            if not hmac.compare_digest(given, self._mac(payload)):
                raise NotAllowed("this challenge was not made here; get one with POST challenge")
            content = msgspec.json.decode(payload, type=_Payload)
        except (UntrustedInput, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise NotAllowed("this is no challenge; get one with POST challenge") from error
        if content.namespace != namespace or not -_AHEAD_S <= now - content.made_at <= limits.CHALLENGE_LIFE_S:
            raise NotAllowed("this challenge is over, or of another namespace; get a new one with POST challenge")
        return content.made_at

    def _mac(self, payload: bytes) -> bytes:
        return hmac.digest(self._key, payload, hashlib.sha256)
