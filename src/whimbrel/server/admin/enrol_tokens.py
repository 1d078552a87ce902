"""The admin API's routes for enrolment tokens: made on terms, listed, and revoked."""

import secrets

from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from litestar.status_codes import HTTP_200_OK, HTTP_201_CREATED

from whimbrel.flows.devices.enrol_tokens import create_tokens, revoke_tokens
from whimbrel.flows.devices.records import EnrolTokenRecord, EnrolTokenTerms
from whimbrel.server.admin.operations import Operations
from whimbrel.server.admin.views.enrol_tokens import EnrolTokens, EnrolTokenView, NewEnrolTokens
from whimbrel.server.admin.views.reason import Reason
from whimbrel.stores.transaction import Stores

_TOKEN_BYTES = 24


@post("/enrol-tokens", status_code=HTTP_201_CREATED, summary="Make enrolment tokens of one name, on terms")
async def create_enrol_tokens(
    operations: NamedDependency[Operations], namespace: FromPath[str], data: JSONBody[NewEnrolTokens]
) -> EnrolTokens:
    """Make tokens with which devices enrol. They are told once, and kept as hashes."""
    now = operations.now()
    tokens = [secrets.token_urlsafe(_TOKEN_BYTES) for _ in range(data.count)]
    terms = EnrolTokenTerms(
        expires_at=None if data.expires_in_s is None else now + data.expires_in_s,
        uses_max=data.uses_max,
        labels=data.labels,
        granted_labels=data.granted_labels,
        rate_per_min=data.rate_per_min,
        requires_key=data.requires_key,
    )

    def work(stores: Stores) -> None:
        create_tokens(
            stores.enrolments,
            stores.registry,
            data.name,
            tokens,
            terms=terms,
            because=data.because,
            actor=data.actor,
            now=now,
        )

    await operations.do(namespace, work)
    return EnrolTokens(name=data.name, tokens=tokens)


@get("/enrol-tokens", summary="Enrolment tokens by name, with their terms and how much they were used")
async def list_enrol_tokens(operations: NamedDependency[Operations], namespace: FromPath[str]) -> list[EnrolTokenView]:
    """The newest first. The tokens themselves are not kept."""
    return await operations.do(namespace, lambda stores: [_view(each) for each in stores.enrolments.tokens()])


@post("/enrol-tokens/{name:str}/revoke", status_code=HTTP_200_OK, summary="End all enrolment tokens of a name")
async def revoke_enrol_tokens(
    operations: NamedDependency[Operations], namespace: FromPath[str], name: FromPath[str], data: JSONBody[Reason]
) -> EnrolTokenView:
    """They let no device in any more. The devices that they let in stay."""

    def work(stores: Stores) -> EnrolTokenView:
        revoke_tokens(
            stores.enrolments,
            stores.registry,
            name,
            because=data.because,
            actor=data.actor,
            now=operations.now(),
        )
        return next(_view(each) for each in stores.enrolments.tokens() if each.name == name)

    return await operations.do(namespace, work)


def _view(record: EnrolTokenRecord) -> EnrolTokenView:
    return EnrolTokenView(
        name=record.name,
        created_at=record.created_at,
        actor=record.actor,
        tokens=record.tokens,
        uses=record.uses,
        expires_at=record.terms.expires_at,
        uses_max=record.terms.uses_max,
        labels=record.terms.labels,
        granted_labels=record.terms.granted_labels,
        rate_per_min=record.terms.rate_per_min,
        requires_key=record.terms.requires_key,
        revoked_at=record.revoked_at,
    )


ENROL_TOKEN_ROUTES = (create_enrol_tokens, list_enrol_tokens, revoke_enrol_tokens)
