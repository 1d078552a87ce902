"""What may people and their scripts ask? The admin API's routes, and OpenAPI 3.1 at `/schema`.

Offline keys never come here: `model add`, `publish` and `version revoke` sign on the caller's side and send what they
signed; the server verifies it against the delegation and stores it by compare-and-swap.
"""

import asyncio
from typing import Annotated, Any

import msgspec
from litestar import Litestar, Request, Response, Router, get, post
from litestar.connection import ASGIConnection
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.handlers import BaseRouteHandler
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from litestar.status_codes import HTTP_200_OK, HTTP_201_CREATED

from whimbrel import limits
from whimbrel.console.charts import MEDIA_TYPES, draw, form_of
from whimbrel.console.evidence import evidence_chart
from whimbrel.errors import WhimbrelError
from whimbrel.health.user_report import UserReports
from whimbrel.model.documents import encode
from whimbrel.server import rollout_operations
from whimbrel.server.admin.artifacts import ARTIFACT_ROUTES
from whimbrel.server.admin.audit import AUDIT_ROUTES
from whimbrel.server.admin.enrol_tokens import ENROL_TOKEN_ROUTES
from whimbrel.server.admin.models import MODEL_ROUTES
from whimbrel.server.admin.openapi import UnhashableDefaults, openapi_config
from whimbrel.server.admin.operations import AdminContext, Operations
from whimbrel.server.admin.status import STATUS_ROUTES
from whimbrel.server.admin.versions import VERSION_ROUTES
from whimbrel.server.admin.views.reason import Reason
from whimbrel.server.experiment_api import experiment_routes
from whimbrel.server.http import problem


def admin_app(context: AdminContext) -> Litestar:
    """The admin API as an ASGI application."""
    operations = Operations(context)

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

    async def guard(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        await operations.admit(connection.path_params["namespace"], connection.headers.get("authorization"))

    guarded = Router(
        "/{namespace:str}/admin/v1",
        guards=[guard],
        dependencies={"operations": Provide(lambda: operations, sync_to_thread=False)},
        route_handlers=[
            *STATUS_ROUTES,
            *MODEL_ROUTES,
            *VERSION_ROUTES,
            *ARTIFACT_ROUTES,
            *AUDIT_ROUTES,
            *ENROL_TOKEN_ROUTES,
            rollouts,
            start,
            rollout,
            replay,
            move,
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
        openapi_config=openapi_config(),
        plugins=[UnhashableDefaults()],
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
