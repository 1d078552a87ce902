"""A device as an attacker or a stranger's client would write it: plain requests, and a key of its own."""

from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from whimbrel.model.documents import plain
from whimbrel.trust.possession import enrolment_text, prove, public_key_of, token_text


class KeyedDevice:
    """A device with a key, that speaks to `http`, whose base is a namespace's address."""

    def __init__(self, http: httpx.Client, device_id: str, *, key: Ed25519PrivateKey | None = None) -> None:
        self.http, self.device_id = http, device_id
        self.key = key or Ed25519PrivateKey.generate()
        self.public_key = public_key_of(self.key)

    def challenge(self) -> str:
        text: str = self.http.post("/device/v1/challenge", json={}).raise_for_status().json()["challenge"]
        return text

    def enrolment(self, enrol_token: str | None = None, *, challenge: str | None = None, **more: Any) -> dict[str, Any]:
        """The body of an enrolment."""
        challenge = challenge or self.challenge()
        text = enrolment_text(
            challenge=challenge, device_id=self.device_id, public_key=self.public_key, enrol_token=enrol_token
        )
        token = {} if enrol_token is None else {"enrol_token": enrol_token}
        proof = plain(prove(self.key, text, challenge=challenge))
        return {"device_id": self.device_id, "proof": proof} | token | more

    def enrol(self, enrol_token: str | None = None, **more: Any) -> httpx.Response:
        return self.http.post("/device/v1/enrol", json=self.enrolment(enrol_token, **more))

    def ask_token(self, credential: str, *, challenge: str | None = None) -> httpx.Response:
        challenge = challenge or self.challenge()
        text = token_text(
            challenge=challenge, device_id=self.device_id, public_key=self.public_key, credential=credential
        )
        body = {"device_id": self.device_id, "credential": credential}
        return self.http.post(
            "/device/v1/token", json=body | {"proof": plain(prove(self.key, text, challenge=challenge))}
        )

    def bearer(self, credential: str) -> dict[str, str]:
        """The header with a device token."""
        token = self.ask_token(credential).raise_for_status().json()["token"]
        return {"authorization": f"Bearer {token}"}
