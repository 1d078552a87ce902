"""What may people and their scripts ask? The admin API's routes, and OpenAPI 3.1 at `/schema`.

Offline keys never come here: `model add`, `publish` and `version revoke` sign on the caller's side and send what they
signed; the server verifies it against the delegation and stores it by compare-and-swap.
"""

import asyncio
import importlib.metadata
from typing import Annotated, Any

import msgspec
from litestar import Litestar, Request, Response, Router, get, head, patch, post, put
from litestar.connection import ASGIConnection
from litestar.exceptions import HTTPException
from litestar.handlers import BaseRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from litestar.status_codes import HTTP_200_OK, HTTP_201_CREATED, HTTP_204_NO_CONTENT

from whimbrel import limits
from whimbrel.console.charts import MEDIA_TYPES, draw, form_of
from whimbrel.console.evidence import evidence_chart
from whimbrel.errors import NotFound, WhimbrelError
from whimbrel.health.user_report import UserReports
from whimbrel.model.documents import convert, encode
from whimbrel.model.ids import Digest
from whimbrel.server import rollout_operations
from whimbrel.server.experiment_api import experiment_routes
from whimbrel.server.http import problem
from whimbrel.server.operations import (
    AdminContext,
    NewAlias,
    NewLine,
    NewModel,
    NewVersion,
    Operations,
    Reason,
    model_view,
)

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

    @get("/rollouts", summary="Rollouts, oldest first")
    async def rollouts(
        namespace: FromPath[str], model: FromQuery[str | None] = None, live: FromQuery[bool] = False
    ) -> list[dict[str, Any]]:
        return await operations.do(
            namespace,
            lambda stores: [
                rollout_operations.rollout_view(stores, r, now=operations.now())
                for r in stores.registry.rollouts(model=model, live=live)
            ],
        )

    @post("/rollouts", status_code=HTTP_201_CREATED, summary="Start a rollout from a plan")
    async def start(namespace: FromPath[str], data: JSONBody[rollout_operations.NewRollout]) -> dict[str, Any]:
        begun = await operations.change(
            namespace, lambda stores: rollout_operations.begin(stores, data=data, now=operations.now())
        )
        return await operations.do(
            namespace, lambda stores: rollout_operations.as_it_is(stores, identifier=begun["id"], now=operations.now())
        )

    @post("/plans/check", status_code=HTTP_200_OK, summary="What a plan would do, to how many devices")
    async def check_plan(namespace: FromPath[str], data: JSONBody[rollout_operations.PlanToCheck]) -> dict[str, Any]:
        return await operations.do(
            namespace, lambda stores: rollout_operations.explain(stores, data=data, now=operations.now())
        )

    @get("/rollouts/{identifier:str}", summary="One rollout, with the gate's present view")
    async def rollout(namespace: FromPath[str], identifier: FromPath[str]) -> dict[str, Any]:
        return await operations.do(
            namespace, lambda stores: rollout_operations.show(stores, identifier=identifier, now=operations.now())
        )

    @get("/rollouts/{identifier:str}/replay", summary="Every verdict, asked again of the stored windows")
    async def replay(namespace: FromPath[str], identifier: FromPath[str]) -> dict[str, Any]:
        return await operations.do(
            namespace, lambda stores: rollout_operations.ask_again(stores, identifier=identifier)
        )

    @get("/rollouts/{identifier:str}/evidence", summary="ln E after every judged window")
    async def evidence(namespace: FromPath[str], identifier: FromPath[str]) -> list[dict[str, Any]]:
        points = await operations.do(namespace, lambda stores: rollout_operations.points(stores, identifier=identifier))
        return [msgspec.to_builtins(point) for point in points]

    @get("/rollouts/{identifier:str}/evidence/{form:str}", summary="The same as a picture: png or svg")
    async def evidence_plot(
        namespace: FromPath[str], identifier: FromPath[str], form: FromPath[str]
    ) -> Response[bytes]:
        wanted = form_of(form)
        points = await operations.do(namespace, lambda stores: rollout_operations.points(stores, identifier=identifier))
        drawn = await asyncio.to_thread(lambda: draw(evidence_chart(points, title=identifier), wanted))
        return Response(drawn, media_type=MEDIA_TYPES[wanted])

    @get("/receivers", summary="Who may be told, without addresses and secrets")
    async def receivers() -> list[dict[str, Any]]:
        return operations.receivers()

    @post("/receivers/{name:str}/test", status_code=HTTP_200_OK, summary="Send a receiver a marked test alert")
    async def test_receiver(namespace: FromPath[str], name: FromPath[str]) -> dict[str, Any]:
        result = await context.alerts.test(namespace, name)
        return {"receiver": name, "ok": result.ok, "said": result.said}

    @get("/alerts", summary="What receivers were told, newest first")
    async def alerts(
        namespace: FromPath[str], limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 100
    ) -> list[dict[str, Any]]:
        return await operations.do(namespace, lambda stores: operations.alerts(stores, limit=limit))

    @post("/rollouts/{identifier:str}/{move:str}", status_code=HTTP_200_OK, summary="Move a rollout by hand")
    async def move(
        namespace: FromPath[str], identifier: FromPath[str], move: FromPath[str], data: JSONBody[Reason]
    ) -> dict[str, Any]:
        wanted = rollout_operations.person_move(move)
        moved = await operations.change(
            namespace,
            lambda stores: rollout_operations.move(
                stores, identifier=identifier, move=wanted, data=data, now=operations.now()
            ),
        )
        return await operations.do(
            namespace, lambda stores: rollout_operations.as_it_is(stores, identifier=moved["id"], now=operations.now())
        )

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

    @post("/user-reports", status_code=HTTP_200_OK, summary="Hand on tickets of users: one, or up to 1,000")
    async def user_reports(namespace: FromPath[str], data: JSONBody[UserReports]) -> dict[str, Any]:
        filed = await operations.do(
            namespace, lambda stores: rollout_operations.file_user_reports(stores, data=data, now=operations.now())
        )
        context.controllers.wake.set()
        return filed

    @get("/user-reports", summary="Tickets of a model, newest first, and what became of them")
    async def filed_reports(
        namespace: FromPath[str], model: FromQuery[str], limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 100
    ) -> list[dict[str, Any]]:
        return await operations.do(
            namespace, lambda stores: rollout_operations.user_reports(stores, model=model, limit=limit)
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
            rollouts,
            start,
            rollout,
            replay,
            move,
            audit,
            enrol_token,
            user_reports,
            filed_reports,
            check_plan,
            evidence,
            evidence_plot,
            receivers,
            test_receiver,
            alerts,
            *experiment_routes(operations),
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
