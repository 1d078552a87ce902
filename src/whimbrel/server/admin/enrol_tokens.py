"""The admin API's route for enrolment tokens."""

import secrets
from typing import Annotated

from litestar import post
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter
from litestar.status_codes import HTTP_201_CREATED

from whimbrel.flows.accounts.permissions import Caller, Permission
from whimbrel.flows.audit import audit
from whimbrel.flows.devices.records import EnrolTokenTerms
from whimbrel.server.admin.operations import Operations
from whimbrel.server.admin.views.repository import EnrolToken
from whimbrel.stores.transaction import Stores

_TOKEN_BYTES = 24


@post("/enrol-tokens", permission=Permission.ENROL, status_code=HTTP_201_CREATED, summary="Make an enrolment token")
async def create_enrol_token(
    operations: NamedDependency[Operations],
    caller: NamedDependency[Caller],
    namespace: FromPath[str],
    name: Annotated[str, QueryParameter(max_length=64)] = "more",
) -> EnrolToken:
    """Make a token with which devices enrol. It is told once, and kept as a hash."""
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    now = operations.now()

    def add(stores: Stores) -> None:
        stores.enrolments.add_token(name, [token], terms=EnrolTokenTerms(), at=now)
        because = f"devices may enrol with the token {name!r}"
        audit(
            stores.registry,
            actor=caller.account,
            action="create_enrol_token",
            because=because,
            now=now,
            evidence={"token": name},
        )

    await operations.do(namespace, add)
    return EnrolToken(name=name, token=token)


ENROL_TOKEN_ROUTES = (create_enrol_token,)
