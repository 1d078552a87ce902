"""The admin API's route for enrolment tokens."""

import secrets
from typing import Annotated

from litestar import post
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter
from litestar.status_codes import HTTP_201_CREATED

from whimbrel.flows.devices.records import EnrolTokenTerms
from whimbrel.server.admin.operations import Operations
from whimbrel.server.admin.views.repository import EnrolToken

_TOKEN_BYTES = 24


@post("/enrol-tokens", status_code=HTTP_201_CREATED, summary="Make an enrolment token")
async def create_enrol_token(
    operations: NamedDependency[Operations],
    namespace: FromPath[str],
    name: Annotated[str, QueryParameter(max_length=64)] = "more",
) -> EnrolToken:
    """Make a token with which devices enrol. It is told once, and kept as a hash."""
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    await operations.do(
        namespace,
        lambda stores: stores.enrolments.add_token(name, [token], terms=EnrolTokenTerms(), at=operations.now()),
    )
    return EnrolToken(name=name, token=token)


ENROL_TOKEN_ROUTES = (create_enrol_token,)
