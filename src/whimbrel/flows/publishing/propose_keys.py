"""Changes of keys that need two people: one hands in what was signed, and another one with the right to agrees.

1. Where the repository asks for it, a change of keys that comes over the server is kept and not taken. It was verified
   as if it were taken, so nobody is asked to agree to what could not be done.
2. Another person takes it (`approve_keys`), or whoever may change keys throws it away. It is verified again then.
3. A machine proposes nothing and approves nothing: it is nobody's second person, and nobody's first.
4. A proposal is known by what it says. It is forgotten after some days: who signed it may have left.

Called by the admin API. Persons are compared as everywhere (flows/accounts/second_person).
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from whimbrel import limits
from whimbrel.errors import Conflict, NotFound, Refused
from whimbrel.flows.accounts.permissions import Caller
from whimbrel.flows.accounts.second_person import check_other_person
from whimbrel.flows.audit import audit
from whimbrel.flows.key_records import KeyProposal
from whimbrel.flows.ports import AuditPort, KeyChangesPort, KeyProposalsPort
from whimbrel.trust.role_keys import RoleKeys

_SHOWN = 12  # of an identifier, in sentences


def propose_keys(
    registry: AuditPort,
    keys: KeyChangesPort,
    proposals: KeyProposalsPort,
    documents: Mapping[str, bytes],
    *,
    holds: Callable[[RoleKeys], bool],
    because: str,
    caller: Caller,
    now: float,
) -> KeyProposal:
    """Keep a change of keys for another person. `holds`, `now` and what is raised: as `change_keys`.

    Raises `Refused` also for a machine, and where too many wait; `Conflict` where the same change waits already.
    """
    if caller.kind == "machine":
        raise Refused(
            f"{caller.account} is a machine's account, and here two people change keys: one hands the change in, and "
            "another one approves it; sign in as yourself"
        )
    changes = keys.preview(documents, holds=holds, now=datetime.fromtimestamp(now, UTC))
    proposals.remove_older(at=now - limits.KEY_PROPOSAL_S)
    identifier = proposals.id_of(dict(documents))
    for waiting in proposals.all():
        if waiting.id == identifier:
            raise Conflict(
                f"this change waits already, handed in by {waiting.proposed_by}; another person approves it: whimbrel "
                f"keys approve {identifier[:_SHOWN]}"
            )
    if proposals.count() >= limits.KEY_PROPOSALS:
        raise Refused(
            f"{limits.KEY_PROPOSALS} changes of keys wait already; have them approved, or: whimbrel keys reject"
        )
    proposal = KeyProposal(
        id=identifier,
        documents=dict(documents),
        changes=changes,
        because=because,
        proposed_by=caller.account,
        at=now,
    )
    proposals.add(proposal)
    audit(
        registry,
        actor=caller.account,
        action="propose keys",
        because=because,
        now=now,
        evidence=_evidence(proposal),
    )
    return proposal


def approve_keys(
    registry: AuditPort,
    keys: KeyChangesPort,
    proposals: KeyProposalsPort,
    identifier: str,
    *,
    holds: Callable[[RoleKeys], bool],
    approver: str,
    now: float,
) -> list[str]:
    """Take a change that somebody else handed in. Returns what changes, a sentence each.

    Raises `NotFound` where it does not wait (any more), `Refused` for the person who handed it in, `Conflict` where
    something else was signed since.
    """
    proposal = _waiting(proposals, identifier, now=now)
    check_other_person(proposal.proposed_by, approver, what="a change of keys")
    try:
        changes = keys.accept(proposal.documents, holds=holds, now=datetime.fromtimestamp(now, UTC))
    except Conflict as error:
        raise Conflict(
            f"something else was signed since this change was handed in ({error}); reject it, and draft it anew"
        ) from error
    proposals.remove(proposal.id)
    people = {"proposed_by": proposal.proposed_by, "approved_by": approver}
    audit(
        registry,
        actor=approver,
        action="change keys",
        because=f"handed in by {proposal.proposed_by}: {proposal.because or 'no reason given'}",
        now=now,
        evidence=_evidence(proposal) | {"changes": changes} | people,
    )
    return changes


def reject_keys(
    registry: AuditPort, proposals: KeyProposalsPort, identifier: str, *, because: str, actor: str, now: float
) -> None:
    """Throw a proposal away: also one's own. Raises `NotFound`."""
    proposal = _waiting(proposals, identifier, now=now)
    proposals.remove(proposal.id)
    evidence = _evidence(proposal) | {"proposed_by": proposal.proposed_by}
    audit(registry, actor=actor, action="reject keys", because=because, now=now, evidence=evidence)


def waiting_proposals(proposals: KeyProposalsPort, *, now: float) -> list[KeyProposal]:
    """The proposals that are not over, the oldest first."""
    return [each for each in proposals.all() if each.at >= now - limits.KEY_PROPOSAL_S]


def _waiting(proposals: KeyProposalsPort, identifier: str, *, now: float) -> KeyProposal:
    for proposal in waiting_proposals(proposals, now=now):
        if proposal.id == identifier:
            return proposal
    raise NotFound(f"no change of keys {identifier[:_SHOWN]!r} waits here; see: whimbrel keys proposals")


def _evidence(proposal: KeyProposal) -> dict[str, object]:
    return {"proposal": proposal.id, "changes": proposal.changes, "roles": sorted(proposal.documents)}
