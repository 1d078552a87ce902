"""The admin API's routes for receivers and alerts."""

from typing import Annotated

import msgspec
from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter
from litestar.status_codes import HTTP_200_OK

from whimbrel.flows.accounts.permissions import Caller, Permission
from whimbrel.flows.audit import audit
from whimbrel.server.admin.operations import Operations
from whimbrel.server.admin.views.alerts import AlertView, ReceiverTestView, ReceiverView
from whimbrel.stores.transaction import Stores


@get("/receivers", permission=Permission.READ, summary="Who may be told, without addresses and secrets")
async def list_receivers(operations: NamedDependency[Operations]) -> list[ReceiverView]:
    """The receivers of `whimbrel.toml`, as it is now."""
    receivers = operations.context.alerts.receivers().values()
    return [ReceiverView(name=each.name, form=each.form, on=list(each.on)) for each in receivers]


@post(
    "/receivers/{name:str}/test",
    permission=Permission.CONFIGURE,
    status_code=HTTP_200_OK,
    summary="Send a receiver a marked test alert",
)
async def send_test(
    operations: NamedDependency[Operations],
    caller: NamedDependency[Caller],
    namespace: FromPath[str],
    name: FromPath[str],
) -> ReceiverTestView:
    """Send a receiver a test alert now, and return what it answered."""
    result = await operations.context.alerts.test(namespace, name, actor=caller.account)

    def note(stores: Stores) -> None:
        because = f"{name} {'took it' if result.ok else 'did not take it'}"
        audit(stores.registry, actor=caller.account, action="test_receiver", because=because, now=operations.now())

    await operations.do(namespace, note)
    return ReceiverTestView(receiver=name, ok=result.ok, said=result.said)


@get("/alerts", permission=Permission.READ, summary="What receivers were told, newest first")
async def list_alerts(
    operations: NamedDependency[Operations],
    namespace: FromPath[str],
    limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 100,
) -> list[AlertView]:
    """What became of the newest alerts."""

    def work(stores: Stores) -> list[AlertView]:
        return [AlertView(**msgspec.structs.asdict(row)) for row in stores.alerts.newest(limit=limit)]

    return await operations.do(namespace, work)


ALERT_ROUTES = (list_receivers, send_test, list_alerts)
