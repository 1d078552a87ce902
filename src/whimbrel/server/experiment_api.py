"""Which routes has the admin API for experiments?"""

from typing import Any

from litestar import get, post
from litestar.params import FromPath, FromQuery, JSONBody
from litestar.status_codes import HTTP_200_OK, HTTP_201_CREATED
from litestar.types import ControllerRouterHandler

from whimbrel.server import experiment_operations as work
from whimbrel.server.experiment_operations import ExperimentAct, NewExperiment
from whimbrel.server.operations import Operations


def experiment_routes(operations: Operations) -> list[ControllerRouterHandler]:
    """The handlers, for the guarded router."""

    @get("/experiments", summary="Experiments, oldest first")
    async def experiments(
        namespace: FromPath[str], model: FromQuery[str | None] = None, live: FromQuery[bool] = False
    ) -> list[dict[str, Any]]:
        return await operations.do(namespace, lambda stores: work.every(stores, model=model, live=live))

    @post("/experiments", status_code=HTTP_201_CREATED, summary="Start an experiment")
    async def start_experiment(namespace: FromPath[str], data: JSONBody[NewExperiment]) -> dict[str, Any]:
        return await operations.change(namespace, lambda stores: work.start(stores, data=data, now=operations.now()))

    @post("/experiments/check", status_code=HTTP_200_OK, summary="What an experiment would do, in plain words")
    async def check_experiment(namespace: FromPath[str], data: JSONBody[NewExperiment]) -> dict[str, Any]:
        return await operations.do(namespace, lambda stores: work.check(stores, data=data))

    @get("/experiments/{identifier:str}", summary="One experiment, with the present view of it")
    async def experiment(
        namespace: FromPath[str], identifier: FromPath[str], history: FromQuery[bool] = False
    ) -> dict[str, Any]:
        return await operations.do(
            namespace, lambda stores: work.one(stores, identifier=identifier, history=history, now=operations.now())
        )

    @get("/experiments/{identifier:str}/replay", summary="Every verdict, asked again of the stored windows")
    async def replay_experiment(namespace: FromPath[str], identifier: FromPath[str]) -> dict[str, Any]:
        return await operations.do(namespace, lambda stores: work.replay(stores, identifier=identifier))

    @post("/experiments/{identifier:str}/{act:str}", status_code=HTTP_200_OK, summary="End an experiment by hand")
    async def act_on_experiment(
        namespace: FromPath[str], identifier: FromPath[str], act: FromPath[str], data: JSONBody[ExperimentAct]
    ) -> dict[str, Any]:
        wanted = work.person_act(act)
        return await operations.change(
            namespace,
            lambda stores: work.act(stores, identifier=identifier, wanted=wanted, data=data, now=operations.now()),
        )

    return [experiments, start_experiment, check_experiment, experiment, replay_experiment, act_on_experiment]
