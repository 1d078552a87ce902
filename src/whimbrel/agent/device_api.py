"""The device API, as a client: enrolment, tokens, announcements, reports (docs/reference/http.md).

1. A 401 means: a new token; a second one: a new enrolment. Never more than once a request. Without TLS, over a network,
   anybody may answer 401: then nothing secret is sent again, and a person must say that it is meant.
2. The device proves a key of its own where it enrols and where it gets a token: it signs a challenge of the server. A
   server that gives no challenges (404) is an old one, and is told no proof. A device that enrolled without a key
   adopts its key, by its credential, when it next needs a token.
   Where the device has an attester, each enrolment brings an attestation too.
3. An enrolment tells which models the device follows, the labels that policies ask for, and no others.
4. A body that the server calls wrong (400, 413) is never sent again; anything else is tried again later.
5. Only the server's own answers count. Only 204 means that something is stored, and an error is the server's where it
   is a problem document: a captive portal that answers 200, 401 or 413 makes this device forget nothing.
"""

import gzip
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from whimbrel import limits
from whimbrel.agent.answers import Misfit, excerpt, is_problem
from whimbrel.agent.attestation import Attester, attestation_for
from whimbrel.agent.backoff import check_patience
from whimbrel.agent.device_key import DeviceKey
from whimbrel.agent.disk import Disk
from whimbrel.device.ports import Answer, Clock, Network
from whimbrel.errors import NotAllowed, Unavailable, UntrustedInput, WhimbrelError
from whimbrel.health.report import Announcement, Batch
from whimbrel.model import documents
from whimbrel.policy.decide import Profile
from whimbrel.trust.enrolment import Credential, Enrolment, SignedRecipient, Token, TokenRequest
from whimbrel.trust.possession import (
    Challenge,
    Proof,
    enrolment_text,
    prove,
    public_key_of,
    recipient_text,
    token_text,
)
from whimbrel.trust.sealing import ReleaseKeyRequest, SealedReleaseKey, release_key_text

_EARLY_S = 60.0  # a token is renewed this long before it ends
_T = TypeVar("_T")


class BadBody(UntrustedInput):
    """The server will never take this body. `status` 413: a smaller one it may."""


class TooLarge(Unavailable):
    """Somebody on the way takes no body of this size; a smaller one may pass."""


class DeviceApi:
    """The server's device interface, for one device.

    `labels`: those that may leave the device now. `models`: all that it follows.
    """

    def __init__(
        self,
        path: Path,
        *,
        url: str,
        device_id: str,
        labels: Callable[[], dict[str, str]],
        models: tuple[str, ...] = (),
        enrol_token: str | None,
        disk: Disk,
        network: Network,
        clock: Clock,
        confidential: bool = True,
        granted: Callable[[dict[str, str]], None] = lambda _labels: None,
        enrolled: Callable[[], None] = lambda: None,
        attester: Callable[[], Attester | None] = lambda: None,
        recipient: Callable[[], str | None] = lambda: None,
    ) -> None:
        """`confidential`: whether nobody on the way to `url` can answer in the server's place.

        `granted` is told the labels that the server gives the device, at the start and whenever they change.
        `enrolled` is called where the device has a new credential. `attester`: who vouches for it, if anybody does.
        `recipient`: the key that release keys are sealed to for it; None where it can open no sealed model.
        """
        self._recipient = recipient
        self._path = path
        self._key = DeviceKey(path.parent, device_id, disk=disk)
        self._granted, self._enrolled, self._attester = granted, enrolled, attester
        self._url = f"{url}/device/v1"
        self._device_id = device_id
        self._labels = labels
        self._models = models
        self._enrol_token = enrol_token.strip() if enrol_token is not None else None  # it was read from a file
        self._disk = disk
        self._network = network
        self._clock = clock
        self._confidential = confidential
        self._token: tuple[str, float] | None = None
        self._credential = kept = self._kept()
        self._cohort_key = kept.cohort_key if kept is not None else None
        self._was_enrolled = kept is not None
        if kept is not None:
            granted(kept.labels)

    @property
    def known(self) -> bool:
        """Whether the server can be told anything at all: there is a credential, or a way to get one."""
        return self._credential is not None or self._enrol_token is not None or self._key.exists

    def placed(self, profile: Profile) -> Profile:
        """The profile with what its bucket comes from. The cohort key outlasts a credential that is refused."""
        return msgspec.structs.replace(profile, cohort_key=self._cohort_key, awaits_cohort_key=self.awaits_cohort_key)

    @property
    def awaits_cohort_key(self) -> bool:
        """Whether the device is to be counted, and was never enrolled yet: until then it is in no rollout."""
        return self.known and not self._was_enrolled

    @property
    def key(self) -> Ed25519PrivateKey | None:
        """The device's key; None before one was made."""
        return self._key.get() if self._key.exists else None

    @property
    def public_key(self) -> str | None:
        """The key by which the server knows this device, or may know it; None before one was made."""
        return public_key_of(self.key) if self.key is not None else None

    def enrol(self) -> None:
        """Make the device known where it is not yet. Raises `Unavailable`, `NotAllowed`, `BadBody`."""
        if self._credential is None:
            self._enrol()

    def announce(self, announcement: Announcement) -> None:
        """Raises `Unavailable`, `NotAllowed`, `BadBody`."""
        self._say("announce", documents.encode(announcement))

    def report(self, batch: Batch) -> None:
        """Raises `Unavailable` (`TooLarge`: a smaller batch may pass), `NotAllowed`, `BadBody`."""
        self._say("reports", documents.encode(batch))

    def release_key(self, model: str, serial: int, *, recipient: str) -> SealedReleaseKey:
        """The key of a sealed release, sealed to `recipient`. Raises `Unavailable`, `NotAllowed`, `BadBody`."""
        self._bearer()  # first of all: it enrols where that is needed
        challenge = self._challenge()
        if challenge is None:
            raise NotAllowed("the server knows no keys of devices, so it hands out no release keys; upgrade it")
        public_key = public_key_of(self._key.get())
        text = release_key_text(
            challenge=challenge,
            device_id=self._device_id,
            public_key=public_key,
            model=model,
            serial=serial,
            recipient=recipient,
        )
        proof = prove(self._key.get(), text, challenge=challenge)
        asked = ReleaseKeyRequest(model=model, serial=serial, recipient=recipient, proof=proof)
        return self._parsed(SealedReleaseKey, "release-key", self._ask("release-key", documents.encode(asked)))

    def _say(self, what: str, body: bytes) -> None:
        headers = {}
        if what == "reports" and len(body) > limits.GZIP_FROM_BYTES:
            body = gzip.compress(body, compresslevel=5, mtime=0)
            headers["Content-Encoding"] = "gzip"
        answer = self._ask(what, body, headers)
        if answer.status != 204:
            raise self._refusal(what, answer)

    def _ask(self, what: str, body: bytes, headers: dict[str, str] | None = None) -> Answer:
        """A request with a token; with a new one, and with a new credential, where the server knows neither."""
        headers = headers or {}
        answer = self._post(what, body, {**headers, "Authorization": f"Bearer {self._bearer()}"})
        self._check_unknown(what, answer)
        if _is_unknown(answer):
            self._token = None
            answer = self._post(what, body, {**headers, "Authorization": f"Bearer {self._bearer()}"})
        if _is_unknown(answer):
            self._token, self._credential = None, None
            answer = self._post(what, body, {**headers, "Authorization": f"Bearer {self._bearer()}"})
        return answer

    def _check_unknown(self, what: str, answer: Answer) -> None:
        """Raise `NotAllowed` where whoever answers asks for secrets, and nothing proves who that is."""
        if answer.status == 401 and not self._confidential:
            raise NotAllowed(
                f"POST {what} answered 401 without TLS, as anybody on the way may do; nothing secret is sent again. "
                "Give the server's https:// address; or, where the network is your own, enrol anew by removing "
                f"{self._path}"
            )

    def _bearer(self) -> str:
        if self._token is not None and self._clock() < self._token[1]:
            return self._token[0]
        credential = self._credential or self._enrol()
        if credential.public_key is None:
            credential = self._adopt_key(credential)
        answer = self._ask_token(credential)
        self._check_unknown("token", answer)
        if _is_unknown(answer):
            credential = self._enrol()
            answer = self._ask_token(credential)
        token = self._parsed(Token, "token", answer)
        self._token = token.token, self._clock() + max(token.expires_in_s - _EARLY_S, token.expires_in_s / 2)
        if credential.public_key is not None and token.labels != credential.labels:
            self._keep(msgspec.structs.replace(credential, labels=token.labels))
        return token.token

    def _ask_token(self, credential: Credential) -> Answer:
        asked = TokenRequest(device_id=credential.device_id, credential=credential.credential)
        if credential.public_key is not None and (challenge := self._challenge()) is not None:
            text = token_text(
                challenge=challenge,
                device_id=self._device_id,
                public_key=public_key_of(self._key.get()),
                credential=credential.credential,
            )
            asked = msgspec.structs.replace(asked, proof=prove(self._key.get(), text, challenge=challenge))
        return self._post("token", documents.encode(asked))

    def _enrol(self) -> Credential:
        if self._enrol_token is None and not self._key.exists:
            raise NotAllowed("the server does not know this device, and there is no enrolment token; give one")
        proof = self._enrolment_proof(self._enrol_token)
        if self._enrol_token is None and proof is None:
            raise NotAllowed("the server knows no keys of devices, and there is no enrolment token; give one")
        return self._send_enrolment(Enrolment(device_id=self._device_id, enrol_token=self._enrol_token, proof=proof))

    def _adopt_key(self, credential: Credential) -> Credential:
        """Let the server know the key of a device that enrolled without one, where it can; the credential stays."""
        try:
            proof = self._enrolment_proof(None)
            if proof is None:
                return credential
            return self._send_enrolment(
                Enrolment(device_id=self._device_id, credential=credential.credential, proof=proof)
            )
        except (NotAllowed, BadBody):
            return credential  # the request for a token says what is wrong

    def _send_enrolment(self, body: Enrolment) -> Credential:
        if body.proof is not None and (attester := self._attester()) is not None:
            attestation = attestation_for(attester, body.proof, device_id=self._device_id)
            body = msgspec.structs.replace(body, attestation=attestation)
        body = msgspec.structs.replace(body, takes_cohort_key=True, labels=self._labels(), models=self._models)
        credential = self._credential_for(body)
        if credential.device_id != self._device_id:
            raise UntrustedInput(f"the server enrolled {credential.device_id!r}; expected {self._device_id!r}")
        is_new = self._credential is None or credential.credential != self._credential.credential
        self._keep(credential)
        if is_new:
            self._enrolled()
        return credential

    def _credential_for(self, body: Enrolment) -> Credential:
        """The answer to an enrolment, which names the recipient key where the server takes it."""
        recipient = self._recipient() if body.proof is not None else None
        if body.proof is not None and recipient is not None:
            named = SignedRecipient(key=recipient, signature=self._signed_recipient(body.proof, recipient))
            try:
                return self._enrolled_by(msgspec.structs.replace(body, recipient=named))
            except BadBody:
                pass  # an older server knows no such field
        return self._enrolled_by(body)

    def _enrolled_by(self, body: Enrolment) -> Credential:
        return self._parsed(Credential, "enrol", self._post("enrol", documents.encode(body)))

    def _signed_recipient(self, proof: Proof, recipient: str) -> str:
        text = recipient_text(
            challenge=proof.challenge, device_id=self._device_id, public_key=proof.public_key, recipient=recipient
        )
        return prove(self._key.get(), text, challenge=proof.challenge).signature

    def _keep(self, credential: Credential) -> None:
        self._disk.write(self._path, documents.encode(credential), mode=0o600)
        self._credential, self._was_enrolled = credential, True
        self._cohort_key = credential.cohort_key
        self._granted(credential.labels)

    def _enrolment_proof(self, enrol_token: str | None) -> Proof | None:
        """A proof of the key, for an enrolment. None for a server that gives no challenges."""
        challenge = self._challenge()
        if challenge is None:
            return None
        key = self._key.get()
        text = enrolment_text(
            challenge=challenge, device_id=self._device_id, public_key=public_key_of(key), enrol_token=enrol_token
        )
        return prove(key, text, challenge=challenge)

    def _challenge(self) -> str | None:
        answer = self._post("challenge", b"{}")
        if answer.status == 404 and is_problem(answer):
            return None
        return self._parsed(Challenge, "challenge", answer).challenge

    def _kept(self) -> Credential | None:
        content = self._disk.read(self._path)
        try:
            kept = documents.parse(Credential, content, what="the credential") if content else None
        except UntrustedInput:
            return None
        return kept if kept is not None and kept.device_id == self._device_id else None

    def _post(self, what: str, body: bytes, headers: dict[str, str] | None = None) -> Answer:
        headers = {"Content-Type": "application/json", **(headers or {})}
        try:
            return self._network.ask(
                "POST", f"{self._url}/{what}", headers=headers, body=body, bytes_max=limits.ANSWER_BYTES
            )
        except UntrustedInput as error:
            raise Misfit(f"POST {what} brought no answer of the server: {error}") from error

    def _parsed(self, kind: type[_T], what: str, answer: Answer) -> _T:
        if answer.status not in {200, 201}:
            raise self._refusal(what, answer)
        try:
            return documents.parse(kind, answer.body, what=f"the answer of POST {what}")
        except UntrustedInput as error:
            raise Misfit(
                f"POST {what} answered {answer.status}, and not as the server does: {excerpt(answer)}"
            ) from error

    def _refusal(self, what: str, answer: Answer) -> WhimbrelError:
        """Why an answer is not what was asked for. Raises `Busy` where it asks for patience."""
        detail = f"POST {what} answered {answer.status}: {excerpt(answer)}"
        if answer.status < 400:
            return Misfit(detail)
        if is_problem(answer) and answer.status in {400, 413}:
            error = BadBody(detail)
            error.status = answer.status
            return error
        if is_problem(answer) and answer.status in {401, 403}:
            return NotAllowed(f"{detail}; check the enrolment token" if answer.status == 401 else detail)
        check_patience(f"POST {what}", answer, now=time.time())
        return TooLarge(detail) if answer.status == 413 else Unavailable(detail)


def _is_unknown(answer: Answer) -> bool:
    """Whether the server itself says that it does not know who asks."""
    return answer.status == 401 and is_problem(answer)
