"""Which routes has the admin API for experiments?"""

from typing import Any

from litestar import get, post
from litestar.params import FromPath, FromQuery, JSONBody
from litestar.status_codes import HTTP_200_OK, HTTP_201_CREATED
from litestar.types import ControllerRouterHandler

from whimbrel.server import experiment_desk as work
from whimbrel.server.desk import Desk
from whimbrel.server.experiment_desk import ExperimentAct, NewExperiment


def experiment_routes(desk: Desk) -> list[ControllerRouterHandler]:
    """The handlers, for the guarded router."""

    @get("/experiments", summary="Experiments, oldest first")
    async def experiments(
        namespace: FromPath[str], model: FromQuery[str | None] = None, live: FromQuery[bool] = False
    ) -> list[dict[str, Any]]:
        return await desk.do(namespace, lambda *parts: work.every(*parts, model=model, live=live))

    @post("/experiments", status_code=HTTP_201_CREATED, summary="Start an experiment")
    async def start_experiment(namespace: FromPath[str], data: JSONBody[NewExperiment]) -> dict[str, Any]:
        return await desk.change(namespace, lambda *parts: work.start(*parts, data=data))

    @post("/experiments/check", status_code=HTTP_200_OK, summary="What an experiment would do, in plain words")
    async def check_experiment(namespace: FromPath[str], data: JSONBody[NewExperiment]) -> dict[str, Any]:
        return await desk.do(namespace, lambda *parts: work.check(*parts, data=data))

    @get("/experiments/{identifier:str}", summary="One experiment, with the present view of it")
    async def experiment(
        namespace: FromPath[str], identifier: FromPath[str], history: FromQuery[bool] = False
    ) -> dict[str, Any]:
        return await desk.do(namespace, lambda *parts: work.one(*parts, identifier=identifier, history=history))

    @get("/experiments/{identifier:str}/replay", summary="Every verdict, asked again of the stored windows")
    async def replay_experiment(namespace: FromPath[str], identifier: FromPath[str]) -> dict[str, Any]:
        return await desk.do(namespace, lambda *parts: work.replay(*parts, identifier=identifier))

    @post("/experiments/{identifier:str}/{act:str}", status_code=HTTP_200_OK, summary="End an experiment by hand")
    async def act_on_experiment(
        namespace: FromPath[str], identifier: FromPath[str], act: FromPath[str], data: JSONBody[ExperimentAct]
    ) -> dict[str, Any]:
        wanted = work.person_act(act)
        return await desk.change(
            namespace, lambda *parts: work.act(*parts, identifier=identifier, wanted=wanted, data=data)
        )

    return [experiments, start_experiment, check_experiment, experiment, replay_experiment, act_on_experiment]
