"""The admin API's routes for changes of keys that wait for a second person.

`POST keys/changes` and `POST models/{model}/floor/lift` keep a change here, where whimbrel.toml has
`second_person_for_keys`. Whoever works on the repository's folder itself has its keys and its database, and waits for
nobody.
"""

import asyncio
from collections.abc import Mapping

from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from litestar.status_codes import HTTP_200_OK, HTTP_204_NO_CONTENT

from whimbrel import limits
from whimbrel.flows.accounts.permissions import Caller, Permission
from whimbrel.flows.key_records import KeyProposal
from whimbrel.flows.publishing.change_keys import change_keys
from whimbrel.flows.publishing.propose_keys import approve_keys, propose_keys, reject_keys, waiting_proposals
from whimbrel.server.admin.operations import Operations
from whimbrel.server.admin.views.reason import Reason
from whimbrel.server.admin.views.repository import KeyChangeView, KeyProposalView
from whimbrel.stores.transaction import Stores


@get("/keys/proposals", permission=Permission.READ, summary="Changes of keys that wait for a second person")
async def list_proposals(operations: NamedDependency[Operations], namespace: FromPath[str]) -> list[KeyProposalView]:
    """The changes that wait, the oldest first."""
    now = operations.now()
    waiting = await operations.do(namespace, lambda stores: waiting_proposals(stores.key_proposals, now=now))
    return [_view(each) for each in waiting]


@post(
    "/keys/proposals/{proposal:str}/approve",
    permission=Permission.KEYS,
    status_code=HTTP_200_OK,
    summary="Take a change of keys that another person handed in",
)
async def approve_proposal(
    operations: NamedDependency[Operations],
    caller: NamedDependency[Caller],
    namespace: FromPath[str],
    proposal: FromPath[str],
) -> KeyChangeView:
    """Take it, as `POST keys/changes` does without a second person. Only people approve, and none their own."""
    caller.check(Permission.APPROVE)
    signers = operations.context.signers
    await asyncio.to_thread(signers.read_again)

    def work(stores: Stores) -> KeyChangeView:
        changes = approve_keys(
            stores.registry,
            stores.keys,
            stores.key_proposals,
            proposal,
            holds=signers.holds,
            approver=caller.account,
            now=operations.now(),
        )
        return KeyChangeView(changes=changes)

    return await operations.change(namespace, work)


@post(
    "/keys/proposals/{proposal:str}/reject",
    permission=Permission.KEYS,
    status_code=HTTP_204_NO_CONTENT,
    summary="Throw a change of keys away that waits: also one's own",
)
async def reject_proposal(
    operations: NamedDependency[Operations],
    caller: NamedDependency[Caller],
    namespace: FromPath[str],
    proposal: FromPath[str],
    data: JSONBody[Reason],
) -> None:
    """Forget it. What people signed stays in their files."""
    now = operations.now()

    def work(stores: Stores) -> None:
        reject_keys(
            stores.registry, stores.key_proposals, proposal, because=data.because, actor=caller.account, now=now
        )

    await operations.do(namespace, work)


def change_or_propose(
    stores: Stores,
    documents: Mapping[str, bytes],
    *,
    operations: Operations,
    caller: Caller,
    because: str,
) -> KeyChangeView:
    """Take a change of keys; or keep it for a second person, where the repository asks for one. Raises as both."""
    signers, now = operations.context.signers, operations.now()
    if not operations.needs_second_person(caller):
        changes = change_keys(
            stores.registry,
            stores.keys,
            documents,
            holds=signers.holds,
            because=because,
            actor=caller.account,
            now=now,
        )
        return KeyChangeView(changes=changes)
    proposal = propose_keys(
        stores.registry,
        stores.keys,
        stores.key_proposals,
        documents,
        holds=signers.holds,
        because=because,
        caller=caller,
        now=now,
    )
    return KeyChangeView(changes=proposal.changes, proposal=proposal.id)


def _view(proposal: KeyProposal) -> KeyProposalView:
    return KeyProposalView(
        id=proposal.id,
        changes=proposal.changes,
        roles=sorted(proposal.documents),
        because=proposal.because,
        proposed_by=proposal.proposed_by,
        at=proposal.at,
        until=proposal.at + limits.KEY_PROPOSAL_S,
    )


KEY_PROPOSAL_ROUTES = (list_proposals, approve_proposal, reject_proposal)
