"""What may a device ask, in OpenAPI 3.1? One table of the device API's requests, and the document that is made of it.

1. Bodies and answers are described by the structs that the code reads and writes, with all their bounds.
2. Nothing of a repository is in it, so it is the same for every server of a version, and public:
   `GET /{ns}/device/v1/openapi.json`. docs/reference/device-openapi.json is a copy.
3. Static files (metadata, targets, artifacts) are no part of it: what they are is the specification of TUF, and
   docs/reference/http.md.

Called by the device API, which answers exactly these requests.
"""

import functools
import inspect
from typing import Any, Literal

import msgspec

from whimbrel import limits
from whimbrel.errors import (
    DiskFull,
    NotAllowed,
    NotFound,
    Refused,
    TooMany,
    Unavailable,
    UntrustedInput,
    WhimbrelError,
)
from whimbrel.health.report import Announcement, Batch
from whimbrel.model.ids import NAME_PATTERN
from whimbrel.server.admin.views.problem import Problem
from whimbrel.server.http import TooLarge
from whimbrel.trust.enrolment import Check, Credential, Enrolment, Token, TokenRequest
from whimbrel.trust.possession import Challenge, ChallengeRequest
from whimbrel.trust.sealing import ReleaseKeyRequest, SealedReleaseKey

PATH = "openapi.json"
DEVICE_TOKEN, CLIENT_CERTIFICATE = "deviceToken", "clientCertificate"
_EVERY = (UntrustedInput, TooLarge, Unavailable, DiskFull)
_KNOWN = (NotAllowed, Refused)  # of a device that must be let in


class DecidedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a version: `name` is its path below the version's folder; its bytes are at `artifacts/<sha256>`."""

    name: str
    size_bytes: int
    sha256: str
    format: str


class RequiredVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A version of another model that goes with this one: change all of them at once."""

    model: str
    serial: int


class DeviceDecision(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a device should do with one model, and why. With a `serial`: the version, and what it is made of.

    `offer`: run `serial`; keep what there is; or stop, and offer the apps no model.
    """

    offer: Literal["run", "keep", "stop"]
    serial: int | None
    because: str
    version: str | None = None
    semantic_version: str | None = None
    variant: str | None = None
    files: tuple[DecidedFile, ...] = ()  # the first is the one to open
    requires: tuple[RequiredVersion, ...] = ()


class CheckAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to POST check: the decision for each model that was asked after."""

    models: dict[str, DeviceDecision]


class DeviceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request of devices. `answer` None: the answer has no body. `signed_in`: it shows a device's token."""

    name: str
    summary: str
    body: type[msgspec.Struct]
    status: int
    answer: type[msgspec.Struct] | None = None
    signed_in: bool = False
    errors: tuple[type[WhimbrelError], ...] = ()


REQUESTS = (
    DeviceRequest(
        name="challenge",
        summary="Get a text to sign, which proves the device's key in `enrol` and `token`",
        body=ChallengeRequest,
        status=200,
        answer=Challenge,
    ),
    DeviceRequest(
        name="enrol",
        summary="Let a device in: with an enrolment token, or with its key again",
        body=Enrolment,
        status=201,
        answer=Credential,
        errors=(*_KNOWN, TooMany),
    ),
    DeviceRequest(
        name="token",
        summary="Get a device's token, for the credential and a proof of the key",
        body=TokenRequest,
        status=200,
        answer=Token,
        errors=_KNOWN,
    ),
    DeviceRequest(
        name="announce",
        summary="Say that the device is about to change its version, or has",
        body=Announcement,
        status=204,
        signed_in=True,
        errors=_KNOWN,
    ),
    DeviceRequest(
        name="reports",
        summary="Hand on windows of reports; sent again, they count once",
        body=Batch,
        status=204,
        signed_in=True,
        errors=_KNOWN,
    ),
    DeviceRequest(
        name="check",
        summary="Ask what to run, for a client that cannot decide by itself",
        body=Check,
        status=200,
        answer=CheckAnswer,
        signed_in=True,
        errors=_KNOWN,
    ),
    DeviceRequest(
        name="release-key",
        summary="Get the key of a sealed version, sealed to the device",
        body=ReleaseKeyRequest,
        status=200,
        answer=SealedReleaseKey,
        signed_in=True,
        errors=(*_KNOWN, NotFound, TooMany),
    ),
)


@functools.cache
def device_openapi() -> bytes:
    """The document, as JSON with an indent."""
    structs = [Problem, *(each for row in REQUESTS for each in (row.body, row.answer) if each is not None)]
    _, schemas = msgspec.json.schema_components(
        sorted(dict.fromkeys(structs), key=lambda each: each.__name__), ref_template="#/components/schemas/{name}"
    )
    for schema in schemas.values():
        if "description" in schema:
            schema["description"] = inspect.cleandoc(schema["description"])
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "Whimbrel device API",
            "version": "1",
            "description": "What devices ask of a server, besides static files: enrolment, tokens, reports, and "
            "decisions for clients that cannot decide. docs/reference/http.md says what each request means.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "The listener of devices"}],
        "paths": {
            **{f"/{{namespace}}/device/v1/{row.name}": {**_namespace(), "post": _operation(row)} for row in REQUESTS},
            f"/{{namespace}}/device/v1/{PATH}": {**_namespace(), "get": _own_operation()},
        },
        "components": {"schemas": dict(sorted(schemas.items())), "securitySchemes": _SCHEMES},
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"


_PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
_SCHEMES: dict[str, dict[str, str]] = {
    DEVICE_TOKEN: {
        "type": "http",
        "scheme": "bearer",
        "description": "A device's token, from POST token. It is good for an hour, and has one spelling.",
    },
    CLIENT_CERTIFICATE: {
        "type": "mutualTLS",
        "description": "Where the server is set up so ([client_certificates] in whimbrel.toml): the device's "
        "certificate, which the server's proxy verified. It must be that of the device that asks.",
    },
}


def _namespace() -> dict[str, Any]:
    return {
        "parameters": [
            {
                "name": "namespace",
                "in": "path",
                "required": True,
                "description": "`default`, unless the server was set up with another one.",
                "schema": {"type": "string", "pattern": NAME_PATTERN},
            }
        ]
    }


def _operation(row: DeviceRequest) -> dict[str, Any]:
    token: dict[str, list[str]] = {DEVICE_TOKEN: []} if row.signed_in else {}
    responses: dict[str, Any] = {str(row.status): {"description": "It is done."}}
    if row.answer is not None:
        responses[str(row.status)]["content"] = _json(row.answer)
    errors: list[type[WhimbrelError]] = [*_EVERY, *row.errors]
    for error in sorted(errors, key=lambda each: each.status):
        responses[str(error.status)] = _problem(error)
    responses["default"] = {"description": "Anything else.", "content": _PROBLEM}
    return {
        "operationId": row.name,
        "summary": row.summary,
        "security": [token, {**token, CLIENT_CERTIFICATE: []}],
        "parameters": [
            {
                "name": "Content-Encoding",
                "in": "header",
                "description": f"Of the body, whose size is at most {limits.DEVICE_BODY_BYTES} bytes, also unpacked.",
                "schema": {"enum": ["gzip", "identity"]},
            }
        ],
        "requestBody": {"required": row.body is not ChallengeRequest, "content": _json(row.body)},
        "responses": responses,
    }


def _own_operation() -> dict[str, Any]:
    return {
        "operationId": "openapi",
        "summary": "This document",
        "security": [{}],
        "responses": {
            "200": {"description": "OpenAPI 3.1.", "content": {"application/json": {"schema": {"type": "object"}}}}
        },
    }


def _json(struct: type[msgspec.Struct]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{struct.__name__}"}}}


def _problem(error: type[WhimbrelError]) -> dict[str, Any]:
    described: dict[str, Any] = {"description": error.title, "content": _PROBLEM}
    if issubclass(error, Unavailable):
        described["headers"] = {
            "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}}
        }
    return described
