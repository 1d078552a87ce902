"""The requests of devices: challenge, enrol, token, announce, reports, release-key, and the thin check. Raw ASGI.

Their bodies and answers stand in one table (`device_openapi`), which describes them to whoever writes a client.

1. A message (an announcement, or a batch of reports) is read here, so that the device hears at once what is wrong with
   it. It is counted later: `intake` has it stored, then the device is answered, and `controllers/tallying` takes it.
2. Enrolment, tokens and the check ask the database, a few at once (`questions`).
3. A device that is blocked gets no token, may not enrol, and is refused with a token that is still good.
"""

import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from whimbrel.errors import NotAllowed, NotFound, UntrustedInput, WhimbrelError
from whimbrel.flows.decide_for_device import PublishedModel, decide_for_device
from whimbrel.flows.device_records import DeviceMessage
from whimbrel.flows.devices.enrol import EnrolmentRequest, audit_enrolment, check_credential, enrol_device
from whimbrel.flows.devices.records import EnrolledDevice, NewCredential
from whimbrel.flows.devices.told_labels import check_told_labels
from whimbrel.flows.reports.take_check import take_check
from whimbrel.health.report import Announcement, Batch
from whimbrel.model.documents import convert, digest_of, encode, parse
from whimbrel.model.release import Line, Release
from whimbrel.policy.policy import Policy
from whimbrel.server.attestation import Attestations
from whimbrel.server.auth import Claims, DeviceTokens, Gatekeeper, check_access
from whimbrel.server.bounded_acts import ENROL_DEVICE, FAIL_DEVICE_SIGN_IN, BoundedActs
from whimbrel.server.challenges import Challenges
from whimbrel.server.client_certificates import ClientCertificates
from whimbrel.server.device_openapi import PATH, CheckAnswer, device_openapi
from whimbrel.server.device_token_keys import TOKEN_LIFE_S
from whimbrel.server.http import (
    DEVICE_BODY_BYTES,
    Receive,
    Scope,
    Send,
    Unsupported,
    header,
    problem,
    read_body,
    respond,
)
from whimbrel.server.intake import Intake
from whimbrel.server.questions import Questions
from whimbrel.server.release_keys import ReleaseKeys
from whimbrel.stores.database import Database
from whimbrel.stores.sealing_key import SealingKey
from whimbrel.stores.transaction import Stores, transaction
from whimbrel.trust import roles
from whimbrel.trust.enrolment import Check, Credential, Enrolment, Token, TokenRequest
from whimbrel.trust.possession import (
    Challenge,
    ChallengeRequest,
    Proof,
    attestation_challenge,
    check_proof,
    enrolment_text,
    recipient_text,
    token_text,
)

_SIGN_INS = frozenset({"enrol", "token"})  # of other requests a token may just be over
Handler = Callable[[Scope, bytes, str], Awaitable[tuple[int, bytes]]]


class DeviceApi:
    """Answers POST below `/{ns}/device/v1/`, and GET of their description."""

    def __init__(
        self,
        database: Database,
        tokens: DeviceTokens,
        intake: Intake,
        *,
        clock: Callable[[], float],
        gatekeeper: Gatekeeper,
        acts: BoundedActs,
        attestations: Attestations | None = None,
        certificates: ClientCertificates | None = None,
        questions: Questions | None = None,
        draw_cohort_key: Callable[[str], str] | None = None,
        sealing_key: SealingKey | None = None,
    ) -> None:
        """`draw_cohort_key`: what the bucket of a new device comes from, by its id; None: it is drawn at random."""
        self._attestations = attestations or Attestations({})
        self._certificates = certificates
        self._questions = questions or Questions()
        self._clock = clock
        self._acts = acts
        self._draw_cohort_key = draw_cohort_key or random_cohort_key
        self._gatekeeper = gatekeeper
        self._database = database
        self._tokens = tokens
        self._challenges = Challenges(tokens)
        self._intake = intake
        self._release_keys = None
        if sealing_key is not None:
            self._release_keys = ReleaseKeys(
                database, sealing_key, self._challenges, questions=self._questions, acts=acts, clock=clock
            )
        self._handlers: dict[str, Handler] = {
            "challenge": self._challenge,
            "enrol": self._enrol,
            "token": self._token,
            "announce": self._announce,
            "reports": self._reports,
            "check": self._check,
            "release-key": self._release_key,
        }

    async def answer(self, scope: Scope, receive: Receive, send: Send, *, namespace: str, name: str) -> None:
        """Answer one request; every error is a problem document."""
        try:
            handler = self._handlers.get(name)
            if handler is None and name == PATH:
                await _describe(scope, send)
                return
            if handler is None:
                raise NotFound(f"there is no device request {name!r}; there are: {', '.join(self._handlers)}")
            if scope["method"] != "POST":
                raise Unsupported(f"{scope['method']} is not possible here; use POST")
            body = await read_body(scope, receive, limit=DEVICE_BODY_BYTES)
            status, answer = await handler(scope, body, namespace)
        except WhimbrelError as error:
            if isinstance(error, NotAllowed) and name in _SIGN_INS:
                self._acts.count(namespace, FAIL_DEVICE_SIGN_IN, by=_address(scope))
            status, answer, headers = problem(error)
            await respond(send, status, answer, headers=headers, content_type=None)
            return
        await respond(send, status, answer)

    async def _challenge(self, _scope: Scope, body: bytes, namespace: str) -> tuple[int, bytes]:
        parse(ChallengeRequest, body or b"{}", what="a request for a challenge")
        return 200, encode(Challenge(challenge=self._challenges.make(namespace, now=self._clock())))

    def _request(self, enrolment: Enrolment, *, certified: bool, namespace: str, now: float) -> EnrolmentRequest:
        """What a device asks and has proved. Raises `NotAllowed`, `Refused` or `UntrustedInput`."""
        asked = EnrolmentRequest(
            device_id=enrolment.device_id,
            labels=enrolment.labels,
            models=enrolment.models,
            secret=enrolment.enrol_token,
            takes_cohort_key=enrolment.takes_cohort_key,
            credential=enrolment.credential,
            certified=certified,
        )
        if (proof := enrolment.proof) is not None:
            challenged_at = self._challenges.made_at(proof.challenge, namespace=namespace, now=now)
            text = enrolment_text(
                challenge=proof.challenge,
                device_id=enrolment.device_id,
                public_key=proof.public_key,
                enrol_token=enrolment.enrol_token,
            )
            check_proof(proof, text)
            asked = msgspec.structs.replace(asked, public_key=proof.public_key, challenged_at=challenged_at)
        if enrolment.recipient is not None:
            asked = msgspec.structs.replace(asked, recipient=_proven_recipient(enrolment))
        if enrolment.attestation is not None:
            if proof is None:
                raise UntrustedInput("an attestation came without a proof of the device's key, which it must name")
            expected = attestation_challenge(
                challenge=proof.challenge, device_id=enrolment.device_id, public_key=proof.public_key
            )
            labels = self._attestations.verify(enrolment.attestation, challenge=expected, now=now)
            asked = msgspec.structs.replace(asked, attested=labels)
        return asked

    async def _enrol(self, scope: Scope, body: bytes, namespace: str) -> tuple[int, bytes]:
        enrolment = parse(Enrolment, body, what="an enrolment")
        certified = self._is_certified(scope, enrolment.device_id)
        credential, now = secrets.token_urlsafe(32), self._clock()

        def work() -> EnrolledDevice:
            asked = self._request(enrolment, certified=certified, namespace=namespace, now=now)
            with transaction(self._database, namespace) as stores:
                device = enrol_device(
                    stores.enrolments,
                    stores.inventory,
                    stores.fleet,
                    stores.registry,
                    asked,
                    credential=credential,
                    cohort_key=self._draw_cohort_key(enrolment.device_id),
                    now=now,
                )
                if self._acts.own_entry(namespace, ENROL_DEVICE):
                    audit_enrolment(stores.registry, device, now=now)
                else:
                    self._acts.count(namespace, ENROL_DEVICE, by=device.enrol_token_name)
                return device

        device = await self._questions.ask(work)
        if device.epoch > 1:  # this process knows it at once, the others when they look
            new = NewCredential(device_id=device.device_id, epoch=device.epoch, made_at=device.credential_at)
            self._gatekeeper.note_credentials([(namespace, new)], now=now)
        keeps = device.credential_sha256 != digest_of(credential.encode())
        answer = Credential(device_id=device.device_id, credential=enrolment.credential or "" if keeps else credential)
        if enrolment.proof is not None:  # a client without a key may be an old one, which knows no other fields
            answer = msgspec.structs.replace(answer, public_key=device.public_key, labels=device.granted_labels)
        if enrolment.takes_cohort_key:
            answer = msgspec.structs.replace(answer, cohort_key=device.cohort_key)
        return 201, encode(answer)

    async def _token(self, scope: Scope, body: bytes, namespace: str) -> tuple[int, bytes]:
        asked = parse(TokenRequest, body, what="a credential")
        self._is_certified(scope, asked.device_id)
        now = self._clock()

        def work() -> EnrolledDevice:
            with transaction(self._database, namespace) as stores:
                device = check_credential(stores.enrolments.known(asked.device_id), asked.credential)
                check_access(stores.inventory.access([asked.device_id]).get(asked.device_id), issued=now)
                return device

        device = await self._questions.ask(work)
        self._check_key(device, asked, namespace=namespace, now=now)
        token = self._tokens.issue(
            namespace,
            device.device_id,
            now=now,
            epoch=device.epoch,
            labels=device.granted_labels,
            claimable=device.claimable_labels,
        )
        labels = device.granted_labels if asked.proof is not None else {}
        return 200, encode(Token(token=token, expires_in_s=TOKEN_LIFE_S, labels=labels))

    def _check_key(self, device: EnrolledDevice, asked: TokenRequest, *, namespace: str, now: float) -> None:
        """Raise `NotAllowed` where a device that has a key does not prove it: its credential may be stolen."""
        if device.public_key is None:
            return
        proof = asked.proof
        if proof is None or proof.public_key != device.public_key:
            raise NotAllowed("this device has a key; prove it, with a challenge of POST challenge")
        self._challenges.made_at(proof.challenge, namespace=namespace, now=now)
        text = token_text(
            challenge=proof.challenge,
            device_id=device.device_id,
            public_key=proof.public_key,
            credential=asked.credential,
        )
        check_proof(proof, text)

    async def _announce(self, scope: Scope, body: bytes, namespace: str) -> tuple[int, bytes]:
        claims = self._claims(scope, namespace)
        announcement = parse(Announcement, body, what="an announcement")
        _check_told(announcement.slices, claims)
        return await self._store(
            DeviceMessage(namespace=namespace, device_id=claims.device, kind="announce", body=body, at=self._clock())
        )

    async def _reports(self, scope: Scope, body: bytes, namespace: str) -> tuple[int, bytes]:
        claims = self._claims(scope, namespace)
        batch = parse(Batch, body, what="a batch of reports")
        for told in (batch.labels, *(window.slices for window in batch.windows)):
            _check_told(told, claims)
        return await self._store(
            DeviceMessage(namespace=namespace, device_id=claims.device, kind="reports", body=body, at=self._clock())
        )

    async def _store(self, record: DeviceMessage) -> tuple[int, bytes]:
        await self._intake.put(record)
        return 204, b""

    async def _check(self, scope: Scope, body: bytes, namespace: str) -> tuple[int, bytes]:
        claims = self._claims(scope, namespace)
        device, check = claims.device, parse(Check, body, what="a check")
        _check_told(check.labels, claims)

        def work() -> dict[str, dict[str, Any]]:
            with transaction(self._database, namespace) as stores:
                policies = {model: _policy_of(stores, model) for model in check.models}
                take_check(stores.fleet, check, policies, device_id=device, now=self._clock())
                admission = stores.fleet.admissions([device]).get(device)
                return decide_for_device(
                    check.models,
                    lambda model: _published(stores, model, policies.get(model) or _policy_of(stores, model)),
                    device_id=device,
                    labels={**check.labels, **claims.labels},
                    cohort_key=None if admission is None else admission.cohort_key,
                )

        return 200, encode(convert(CheckAnswer, {"models": await self._questions.ask(work)}, what="the decision"))

    async def _release_key(self, scope: Scope, body: bytes, namespace: str) -> tuple[int, bytes]:
        claims = self._claims(scope, namespace)
        if self._release_keys is None:
            raise NotFound("this server keeps no keys of sealed releases")
        return 200, await self._release_keys.answer(body, namespace=namespace, device_id=claims.device)

    def _claims(self, scope: Scope, namespace: str) -> Claims:
        """The device that asks. Raises `NotAllowed`, or `Refused` for one that is blocked."""
        claims = self._tokens.verify(header(scope, b"authorization"), namespace=namespace, now=self._clock())
        self._is_certified(scope, claims.device)
        self._gatekeeper.check(namespace, claims.device, issued=claims.issued, epoch=claims.epoch)
        return claims

    def _is_certified(self, scope: Scope, device_id: str) -> bool:
        """Whether a trusted proxy verified a certificate of this device. Raises `NotAllowed` for another one's."""
        named = None if self._certificates is None else self._certificates.device_of(scope)
        if named is not None and named != device_id:
            raise NotAllowed(f"the TLS certificate is that of {named}, and this request is {device_id}'s")
        return named is not None


def random_cohort_key(_device_id: str) -> str:
    """What the bucket of a new device comes from: 128 random bits, which nobody can foresee or search."""
    return secrets.token_hex(16)


async def _describe(scope: Scope, send: Send) -> None:
    """Answer the description of this API."""
    if scope["method"] not in {"GET", "HEAD"}:
        raise Unsupported(f"{scope['method']} is not possible here; use GET")
    headers = [(b"cache-control", b"public, max-age=3600")]
    await respond(send, 200, device_openapi(), headers=headers, head=scope["method"] == "HEAD")


def _proven_recipient(enrolment: Enrolment) -> str | None:
    """The recipient key that a device names as it enrols. Raises where its own key did not sign it."""
    proof, named = enrolment.proof, enrolment.recipient
    if named is None:
        return None
    if proof is None:
        raise UntrustedInput("a recipient key came without a proof of the device's key, which must sign it")
    text = recipient_text(
        challenge=proof.challenge,
        device_id=enrolment.device_id,
        public_key=proof.public_key,
        recipient=named.key,
    )
    check_proof(Proof(public_key=proof.public_key, challenge=proof.challenge, signature=named.signature), text)
    return named.key


def _check_told(labels: Mapping[str, str], claims: Claims) -> None:
    if labels:
        check_told_labels(labels, granted=claims.labels, claimable=claims.claimable)


def _address(scope: Scope) -> str:
    """The address that asks; behind a proxy the proxy's."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def _policy_of(stores: Stores, model: str) -> Policy | None:
    document = stores.roles.current_target(roles.policy_role(model), roles.policy_path(model))
    return None if document is None else parse(Policy, document, what="the stored policy")


def _published(stores: Stores, model: str, policy: Policy | None) -> PublishedModel | None:
    line = stores.roles.current_target(roles.publisher_role(model), roles.line_path(model))
    if policy is None or line is None:
        return None
    releases = {
        v.serial: parse(Release, stores.registry.release_bytes(model, v.serial), what="a stored release")
        for v in stores.registry.versions(model)
    }
    return PublishedModel(policy, parse(Line, line, what="the stored line"), releases)
