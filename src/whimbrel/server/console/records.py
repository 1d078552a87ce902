"""What was done, and who may do what: the audit log, signed roles, tokens and receivers of alerts."""

from typing import Annotated

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from whimbrel import limits
from whimbrel.console.views.records import AccessPage, AuditLine, AuditPage, RoleLine, TokenLine
from whimbrel.console.words import counted
from whimbrel.flows.accounts.permissions import Caller, Permission
from whimbrel.flows.audit_chain import ChainedEntry
from whimbrel.server.admin.keys import role_states
from whimbrel.server.console.events import event_line
from whimbrel.server.console.visit import AnyRequest, Console, frame_for, page, visit_of
from whimbrel.stores.transaction import Stores
from whimbrel.trust.role_keys import short


@get("/{namespace:str}/audit", permission=Permission.READ)
async def show_audit(
    request: AnyRequest,
    console: NamedDependency[Console],
    *,
    model: Annotated[str, QueryParameter(max_length=128)] = "",
) -> Response[bytes]:
    """The newest entries of the audit log."""
    visit, now = visit_of(request), console.operations.now()

    def work(stores: Stores) -> AuditPage:
        name = stores.registry.model(model).name if model else None
        entries = stores.audit.newest(model=name, limit=limits.CONSOLE_ROWS)
        sequence, head = stores.audit.head()
        return AuditPage(
            lines=tuple(_line(each, visit.namespace) for each in entries),
            model=model,
            models=tuple(each.name for each in stores.registry.models()),
            sequence=sequence,
            head=head,
        )

    view = await console.operations.do(visit.namespace, work)
    return page("audit", frame_for(request, "Audit", now=now, section="audit"), page=view)


@get("/{namespace:str}/access", permission=Permission.READ)
async def show_access(request: AnyRequest, console: NamedDependency[Console]) -> Response[bytes]:
    """Who looks, who signs, whose tokens are good, and who is told."""
    visit, now = visit_of(request), console.operations.now()
    receivers = console.operations.context.alerts.receivers().values()

    def work(stores: Stores) -> AccessPage:
        return access_page(
            console,
            stores,
            visit.caller,
            receivers=tuple((each.name, each.form, ", ".join(each.on)) for each in receivers),
            now=now,
        )

    view = await console.operations.do(visit.namespace, work)
    return page("access", frame_for(request, "Access", now=now, section="access"), page=view)


RECORD_PAGES = (show_audit, show_access)


def _line(entry: ChainedEntry, namespace: str) -> AuditLine:
    about, href = "", ""
    if entry.rollout is not None:
        about, href = entry.rollout, f"/{namespace}/rollouts/{entry.rollout}"
    elif entry.device is not None:
        about, href = entry.device, f"/{namespace}/devices/{entry.device}"
    elif entry.model is not None:
        about, href = entry.model, f"/{namespace}/models/{entry.model}"
    return AuditLine(event=event_line(entry), about=about, href=href, sequence=entry.sequence)


def access_page(
    console: Console, stores: Stores, caller: Caller, *, receivers: tuple[tuple[str, str, str], ...], now: float
) -> AccessPage:
    """What the page shows, as far as the one who looks may see it."""
    states = role_states(stores, folder=console.operations.context.online_keys, now=now)
    tokens = [each for each in stores.accounts.tokens() if each.live(now=now)]
    may_see = caller.may(Permission.TOKENS)
    return AccessPage(
        account=caller.account,
        kind=caller.kind,
        roles=", ".join(caller.roles),
        may=tuple(each.value for each in Permission if caller.may(each)),
        signers=tuple(
            RoleLine(
                role=each.role,
                expires=each.expires,
                threshold=f"{each.threshold} of {counted(len(each.keys), 'key')}",
                keys=tuple(short(key.keyid) for key in each.keys),
                offline=each.offline,
                warning=each.warning or "",
            )
            for each in states.roles
        ),
        tokens=tuple(
            TokenLine(
                name=each.name,
                account=each.account,
                kind=each.kind,
                roles=", ".join(each.roles),
                until=each.expires_at,
                used_at=each.used_at,
                mine=each.id == caller.token,
            )
            for each in tokens
        )
        if may_see
        else None,
        receivers=receivers,
    )
