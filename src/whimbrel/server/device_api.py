"""The requests of devices: enrol, token, announce, reports, and the thin check. The hot path: raw ASGI, no framework.

1. A message (an announcement, or a batch of reports) is read here, so that the device hears at once what is wrong with
   it. It is counted later: `intake` has it stored, then the device is answered, and `controllers/tallying` takes it.
2. Enrolment, tokens and the check ask the database, in a thread of their own each.
3. A device that is blocked gets no token, may not enrol, and is refused with a token that is still good.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from whimbrel.errors import NotFound, WhimbrelError
from whimbrel.flows.decide_for_device import PublishedModel, decide_for_device
from whimbrel.flows.device_records import DeviceMessage
from whimbrel.flows.devices.enrol import EnrolmentRequest, check_credential, enrol_device
from whimbrel.flows.devices.records import EnrolledDevice
from whimbrel.flows.reports.take_check import take_check
from whimbrel.health.report import Announcement, Batch
from whimbrel.model.documents import encode, parse
from whimbrel.model.release import Line, Release
from whimbrel.policy.policy import Policy
from whimbrel.server.auth import TOKEN_LIFE_S, DeviceTokens, Gatekeeper, check_access
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
from whimbrel.stores.database import Database
from whimbrel.stores.transaction import Stores, transaction
from whimbrel.trust import roles
from whimbrel.trust.enrolment import Check, Credential, Enrolment, Token

Handler = Callable[[Scope, bytes, str], Awaitable[tuple[int, bytes]]]


class DeviceApi:
    """Answers POST below `/{ns}/device/v1/`."""

    def __init__(
        self,
        database: Database,
        tokens: DeviceTokens,
        intake: Intake,
        *,
        clock: Callable[[], float],
        gatekeeper: Gatekeeper,
        draw_cohort_key: Callable[[str], str] = lambda _: secrets.token_hex(16),
    ) -> None:
        """`draw_cohort_key`: what the bucket of a new device comes from, which nobody can foresee."""
        self._clock, self._draw_cohort_key = clock, draw_cohort_key
        self._gatekeeper = gatekeeper
        self._database = database
        self._tokens = tokens
        self._intake = intake
        self._handlers: dict[str, Handler] = {
            "enrol": self._enrol,
            "token": self._token,
            "announce": self._announce,
            "reports": self._reports,
            "check": self._check,
        }

    async def answer(self, scope: Scope, receive: Receive, send: Send, *, namespace: str, name: str) -> None:
        """Answer one request; every error is a problem document."""
        try:
            handler = self._handlers.get(name)
            if handler is None:
                raise NotFound(f"there is no device request {name!r}; there are: {', '.join(self._handlers)}")
            if scope["method"] != "POST":
                raise Unsupported(f"{scope['method']} is not possible here; use POST")
            body = await read_body(scope, receive, limit=DEVICE_BODY_BYTES)
            status, answer = await handler(scope, body, namespace)
        except WhimbrelError as error:
            status, answer, headers = problem(error)
            await respond(send, status, answer, headers=headers, content_type=None)
            return
        await respond(send, status, answer)

    async def _enrol(self, _scope: Scope, body: bytes, namespace: str) -> tuple[int, bytes]:
        enrolment = parse(Enrolment, body, what="an enrolment")
        credential = secrets.token_urlsafe(32)

        asked = EnrolmentRequest(
            device_id=enrolment.device_id,
            labels=enrolment.labels,
            models=enrolment.models,
            secret=enrolment.enrol_token,
            takes_cohort_key=enrolment.takes_cohort_key,
        )

        def work() -> EnrolledDevice:
            with transaction(self._database, namespace) as stores:
                return enrol_device(
                    stores.enrolments,
                    stores.inventory,
                    stores.fleet,
                    stores.registry,
                    asked,
                    credential=credential,
                    cohort_key=self._draw_cohort_key(enrolment.device_id),
                    now=self._clock(),
                )

        device = await asyncio.to_thread(work)
        cohort_key = device.cohort_key if enrolment.takes_cohort_key else None
        return 201, encode(Credential(device_id=enrolment.device_id, credential=credential, cohort_key=cohort_key))

    async def _token(self, _scope: Scope, body: bytes, namespace: str) -> tuple[int, bytes]:
        credential = parse(Credential, body, what="a credential")

        def work() -> None:
            with transaction(self._database, namespace) as stores:
                check_credential(stores.enrolments.known(credential.device_id), credential.credential)
                access = stores.inventory.access([credential.device_id]).get(credential.device_id)
                check_access(access, issued=now)

        now = self._clock()
        await asyncio.to_thread(work)
        token = self._tokens.issue(namespace, credential.device_id, now=now)
        return 200, encode(Token(token=token, expires_in_s=TOKEN_LIFE_S))

    async def _announce(self, scope: Scope, body: bytes, namespace: str) -> tuple[int, bytes]:
        device = self._device(scope, namespace)
        parse(Announcement, body, what="an announcement")
        return await self._store(
            DeviceMessage(namespace=namespace, device_id=device, kind="announce", body=body, at=self._clock())
        )

    async def _reports(self, scope: Scope, body: bytes, namespace: str) -> tuple[int, bytes]:
        device = self._device(scope, namespace)
        parse(Batch, body, what="a batch of reports")
        return await self._store(
            DeviceMessage(namespace=namespace, device_id=device, kind="reports", body=body, at=self._clock())
        )

    async def _store(self, record: DeviceMessage) -> tuple[int, bytes]:
        await self._intake.put(record)
        return 204, b""

    async def _check(self, scope: Scope, body: bytes, namespace: str) -> tuple[int, bytes]:
        device = self._device(scope, namespace)
        check = parse(Check, body, what="a check")

        def work() -> dict[str, dict[str, Any]]:
            with transaction(self._database, namespace) as stores:
                policies = {model: _policy_of(stores, model) for model in check.models}
                take_check(stores.fleet, check, policies, device_id=device, now=self._clock())
                admission = stores.fleet.admissions([device]).get(device)
                return decide_for_device(
                    check.models,
                    lambda model: _published(stores, model, policies.get(model) or _policy_of(stores, model)),
                    device_id=device,
                    labels=check.labels,
                    cohort_key=None if admission is None else admission.cohort_key,
                )

        return 200, msgspec.json.encode({"models": await asyncio.to_thread(work)})

    def _device(self, scope: Scope, namespace: str) -> str:
        """The device that asks. Raises `NotAllowed`, or `Refused` for one that is blocked."""
        claims = self._tokens.verify(header(scope, b"authorization"), namespace=namespace, now=self._clock())
        self._gatekeeper.check(namespace, claims.device, issued=claims.issued)
        return claims.device


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
