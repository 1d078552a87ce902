"""What may people and their scripts ask? The admin API's routes, and OpenAPI 3.1 at `/schema`.

Offline keys never come here: `model add`, `publish` and `version revoke` sign on the caller's side and send what they
signed; the server verifies it against the delegation and stores it by compare-and-swap.
"""

import importlib.metadata
from typing import Annotated, Any

import msgspec
from litestar import Litestar, Request, Response, Router, get, head, patch, post, put
from litestar.connection import ASGIConnection
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.handlers import BaseRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from litestar.status_codes import HTTP_200_OK, HTTP_201_CREATED, HTTP_204_NO_CONTENT

from whimbrel import limits
from whimbrel.errors import NotFound, WhimbrelError
from whimbrel.model.documents import convert, encode
from whimbrel.model.ids import Digest
from whimbrel.server.admin.alerts import ALERT_ROUTES
from whimbrel.server.admin.experiments import EXPERIMENT_ROUTES
from whimbrel.server.admin.operations import (
    AdminContext,
    NewAlias,
    NewLine,
    NewModel,
    NewVersion,
    Operations,
    Reason,
    model_view,
)
from whimbrel.server.admin.rollouts import ROLLOUT_ROUTES
from whimbrel.server.admin.tickets import TICKET_ROUTES
from whimbrel.server.http import problem

COLLECT_AFTER_S = 86400.0  # an upload whose version is not published yet is safe for a day


def admin_app(context: AdminContext) -> Litestar:
    """The admin API as an ASGI application."""
    operations = Operations(context)

    @get("/status", summary="Whether it works, and how much there is")
    async def status(namespace: FromPath[str]) -> dict[str, Any]:
        return await operations.do(namespace, operations.status)

    @get("/keys", summary="The online keys that a model is delegated to")
    async def keys() -> dict[str, Any]:
        return {"policy": {"keyid": context.policy_key.keyid, **context.policy_key.to_dict()}}

    @get("/roles/{role:str}", summary="The newest signed metadata of a role", media_type="application/json")
    async def role(namespace: FromPath[str], role: FromPath[str]) -> Response[bytes]:
        content = await operations.do(namespace, lambda stores: stores.roles.role_bytes(role))
        return Response(content, media_type="application/json")

    @get("/models", summary="Models with their baseline and devices")
    async def models(namespace: FromPath[str]) -> list[dict[str, Any]]:
        return await operations.do(namespace, lambda stores: [model_view(stores, m) for m in stores.registry.models()])

    @get("/models/{model:str}", summary="One model")
    async def model(namespace: FromPath[str], model: FromPath[str]) -> dict[str, Any]:
        return await operations.do(namespace, lambda stores: model_view(stores, stores.registry.model(model)))

    @post("/models", status_code=HTTP_201_CREATED, summary="Add a model (signed by the targets key)")
    async def add_model(namespace: FromPath[str], data: JSONBody[NewModel]) -> dict[str, Any]:
        return await operations.change(namespace, lambda stores: operations.add_model(stores, data=data))

    @patch("/models/{model:str}", summary="Change a model's settings")
    async def set_model(
        namespace: FromPath[str], model: FromPath[str], data: JSONBody[dict[str, Any]]
    ) -> dict[str, Any]:
        return await operations.change(namespace, lambda stores: operations.set_model(stores, name=model, changes=data))

    @get("/models/{model:str}/versions", summary="Versions in order")
    async def versions(namespace: FromPath[str], model: FromPath[str]) -> list[dict[str, Any]]:
        return await operations.do(namespace, lambda stores: operations.versions(stores, model=model))

    @get("/models/{model:str}/versions/{version:str}", summary="One version, with its release document")
    async def one_version(namespace: FromPath[str], model: FromPath[str], version: FromPath[str]) -> dict[str, Any]:
        return await operations.do(namespace, lambda stores: operations.version(stores, model=model, name=version))

    @get("/models/{model:str}/history", summary="What its devices told in the newest rollouts, in sums: for forecasts")
    async def history(
        namespace: FromPath[str], model: FromPath[str], version: FromQuery[str | None] = None
    ) -> dict[str, Any]:
        return await operations.do(namespace, lambda stores: operations.history(stores, model=model, version=version))

    @post("/models/{model:str}/versions", status_code=HTTP_201_CREATED, summary="Publish (signed by the publisher)")
    async def publish(namespace: FromPath[str], model: FromPath[str], data: JSONBody[NewVersion]) -> dict[str, Any]:
        return await operations.change(namespace, lambda stores: operations.publish(stores, model=model, data=data))

    @get("/models/{model:str}/versions/{version:str}/deltas", summary="Patches that lead to it")
    async def deltas(namespace: FromPath[str], model: FromPath[str], version: FromPath[str]) -> dict[str, Any]:
        return await operations.do(namespace, lambda stores: operations.deltas(stores, model=model, name=version))

    @post("/models/{model:str}/deltas", status_code=HTTP_204_NO_CONTENT, summary="Make missing patches now")
    async def build_deltas(namespace: FromPath[str], model: FromPath[str]) -> None:
        await operations.build_deltas(namespace, model)

    @post("/models/{model:str}/versions/{version:str}/retire", status_code=HTTP_200_OK, summary="Offer it no more")
    async def retire(
        namespace: FromPath[str], model: FromPath[str], version: FromPath[str], data: JSONBody[Reason]
    ) -> dict[str, Any]:
        return await operations.change(
            namespace, lambda stores: operations.retire(stores, model=model, name=version, data=data)
        )

    @get("/models/{model:str}/line", summary="Which serials may run")
    async def line(namespace: FromPath[str], model: FromPath[str]) -> dict[str, Any]:
        return await operations.do(namespace, lambda stores: operations.line(stores, model=model))

    @put("/models/{model:str}/line", status_code=HTTP_200_OK, summary="Revoke versions or raise the floor (signed)")
    async def set_line(namespace: FromPath[str], model: FromPath[str], data: JSONBody[NewLine]) -> dict[str, Any]:
        return await operations.change(namespace, lambda stores: operations.set_line(stores, model=model, data=data))

    @put("/models/{model:str}/aliases/{alias:str}", status_code=HTTP_200_OK, summary="Name a version")
    async def alias(
        namespace: FromPath[str], model: FromPath[str], alias: FromPath[str], data: JSONBody[NewAlias]
    ) -> dict[str, Any]:
        return await operations.change(
            namespace, lambda stores: operations.set_alias(stores, model=model, alias=alias, name=data.version)
        )

    @head("/artifacts/{sha256:str}", summary="Whether an artifact is stored")
    async def has_artifact(namespace: FromPath[str], sha256: FromPath[str]) -> Response[None]:
        path = f"{namespace}/artifacts/{convert(Digest, sha256, what='a digest')}"
        size = await operations.do(namespace, lambda stores: stores.registry.artifact_size(sha256))
        if size is None or not await context.blobs.exists(path):
            raise NotFound("that artifact is not stored")
        return Response(None, headers={"X-Size-Bytes": str(size)})

    @put("/artifacts/{sha256:str}", status_code=HTTP_201_CREATED, summary="Store an artifact under its digest")
    async def put_artifact(
        namespace: FromPath[str], sha256: FromPath[str], request: Request[Any, Any, Any]
    ) -> dict[str, Any]:
        return await operations.store(namespace, convert(Digest, sha256, what="a digest"), request.stream())

    @post("/collect", status_code=HTTP_200_OK, summary="Delete artifacts that nothing refers to")
    async def collect(
        namespace: FromPath[str], older_than_s: Annotated[float, QueryParameter(ge=0)] = COLLECT_AFTER_S
    ) -> dict[str, Any]:
        return await operations.collect(namespace, older_than_s)

    @get("/audit", summary="Every move and decision, newest first")
    async def audit(
        namespace: FromPath[str],
        rollout: FromQuery[str | None] = None,
        model: FromQuery[str | None] = None,
        limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 100,
    ) -> list[dict[str, Any]]:
        return await operations.do(
            namespace,
            lambda stores: [
                msgspec.to_builtins(entry)
                for entry in stores.registry.audit_log(rollout=rollout, model=model, limit=limit)
            ],
        )

    @post("/enrol-tokens", status_code=HTTP_201_CREATED, summary="Make an enrolment token")
    async def enrol_token(
        namespace: FromPath[str], name: Annotated[str, QueryParameter(max_length=64)] = "more"
    ) -> dict[str, str]:
        return await operations.do(namespace, lambda stores: operations.new_enrol_token(stores, name=name))

    async def guard(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        await operations.admit(connection.path_params["namespace"], connection.headers.get("authorization"))

    guarded = Router(
        "/{namespace:str}/admin/v1",
        guards=[guard],
        dependencies={"operations": Provide(lambda: operations, sync_to_thread=False)},
        route_handlers=[
            status,
            keys,
            role,
            models,
            model,
            add_model,
            set_model,
            versions,
            one_version,
            history,
            publish,
            retire,
            line,
            deltas,
            build_deltas,
            set_line,
            alias,
            has_artifact,
            put_artifact,
            collect,
            audit,
            enrol_token,
            *ROLLOUT_ROUTES,
            *TICKET_ROUTES,
            *EXPERIMENT_ROUTES,
            *ALERT_ROUTES,
        ],
    )
    return Litestar(
        [guarded],
        openapi_config=OpenAPIConfig(
            "Whimbrel admin API", importlib.metadata.version("whimbrel"), render_plugins=[JsonRenderPlugin(path="/")]
        ),
        exception_handlers={WhimbrelError: _ours, HTTPException: _theirs, Exception: _bug},
        request_max_body_size=limits.ARTIFACT_BYTES,
        logging_config=None,
    )


def _ours(_: Request[Any, Any, Any], error: WhimbrelError) -> Response[bytes]:
    status, body, headers = problem(error)
    more = {key.decode(): value.decode() for key, value in headers if key != b"content-type"}
    return Response(body, status_code=status, media_type="application/problem+json", headers=more)


def _theirs(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    detail = error.detail
    if isinstance(error.extra, list):
        wrong = [each for each in error.extra if isinstance(each, dict)]
        detail += ": " + "; ".join(f"{each.get('key', '')} {each.get('message', each)}".strip() for each in wrong)
    elif error.status_code in {404, 405}:
        detail = f"there is no {request.method} {request.url.path}; see /schema"
    body = encode({"title": "The request cannot be accepted", "status": error.status_code, "detail": detail})
    return Response(body, status_code=error.status_code, media_type="application/problem+json")


def _bug(_: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    import logging

    logging.getLogger(__name__).error("a request failed", exc_info=error)
    body = encode({"title": "Whimbrel has a bug", "status": 500, "detail": f"{type(error).__name__}; see the log"})
    return Response(body, status_code=500, media_type="application/problem+json")
