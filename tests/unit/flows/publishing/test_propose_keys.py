"""Changes of keys: taken at once, or kept until another person agrees; and what the audit log says of each step."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from support.signed_keys import FORGED, SUPERSEDED, InMemoryKeys, InMemoryProposals
from support.values import T0, Town, town
from whimbrel import limits
from whimbrel.errors import Conflict, NotFound, Refused, UntrustedInput
from whimbrel.flows.accounts.permissions import Caller, Role
from whimbrel.flows.key_records import KeyProposal
from whimbrel.flows.publishing.change_keys import change_keys
from whimbrel.flows.publishing.propose_keys import approve_keys, propose_keys, reject_keys, waiting_proposals

ADA = Caller(account="ada", kind="person", roles=(Role.SECURITY,))
DOCUMENTS = {"targets": b"next targets", "root": b"next root"}
CHANGES = ["root: a key is added", "targets: a key is added"]
TODAY = datetime.fromtimestamp(T0, UTC)


class Safe:
    """The keys of a namespace, and what waits there."""

    def __init__(self, town: Town) -> None:
        self.registry, self.keys, self.proposals = town.registry, InMemoryKeys(), InMemoryProposals()

    def propose(
        self, *, caller: Caller = ADA, because: str = "bob left", now: float = T0, **documents: bytes
    ) -> KeyProposal:
        return propose_keys(
            self.registry,
            self.keys,
            self.proposals,
            documents or DOCUMENTS,
            holds=lambda _: True,
            because=because,
            caller=caller,
            now=now,
        )

    def approve(self, identifier: str, *, by: str = "bob", now: float = T0 + 9) -> list[str]:
        return approve_keys(
            self.registry, self.keys, self.proposals, identifier, holds=lambda _: True, approver=by, now=now
        )

    def reject(self, identifier: str, *, by: str = "ada", because: str = "", now: float = T0 + 9) -> None:
        reject_keys(self.registry, self.proposals, identifier, because=because, actor=by, now=now)

    @property
    def audited(self) -> list[tuple[str, str, str]]:
        return [(each.actor, each.action, each.because) for each in self.registry.audit_log()]


@pytest.fixture
def safe() -> Iterator[Safe]:
    with town() as made:
        yield Safe(made)


def test_a_change_by_one_person_is_taken_at_once_and_logged(safe: Safe) -> None:
    said = change_keys(
        safe.registry, safe.keys, DOCUMENTS, holds=lambda _: True, because="bob left", actor="ada", now=T0
    )
    assert said == CHANGES
    assert safe.keys.accepted == [(DOCUMENTS, TODAY)]
    (entry,) = safe.registry.audit_log()
    assert (entry.actor, entry.action, entry.because, entry.at) == ("ada", "change keys", "bob left", T0)
    assert entry.evidence == {"changes": CHANGES, "roles": ["root", "targets"]}


def test_what_is_handed_in_is_tried_and_kept_and_not_taken(safe: Safe) -> None:
    proposal = safe.propose()
    assert proposal == KeyProposal(
        id=safe.proposals.id_of(DOCUMENTS),
        documents=DOCUMENTS,
        changes=CHANGES,
        because="bob left",
        proposed_by="ada",
        at=T0,
    )
    assert waiting_proposals(safe.proposals, now=T0) == [proposal]
    assert (safe.keys.tried, safe.keys.accepted) == ([(DOCUMENTS, TODAY)], [])
    (entry,) = safe.registry.audit_log()
    assert (entry.actor, entry.action, entry.because) == ("ada", "propose keys", "bob left")
    assert entry.evidence == {"proposal": proposal.id, "changes": CHANGES, "roles": ["root", "targets"]}


def test_another_person_takes_it_and_the_log_names_both(safe: Safe) -> None:
    proposal = safe.propose()
    assert safe.approve(proposal.id) == CHANGES
    assert safe.keys.accepted == [(DOCUMENTS, datetime.fromtimestamp(T0 + 9, UTC))]
    assert safe.proposals.all() == []
    entry = safe.registry.audit_log()[0]
    assert (entry.actor, entry.action, entry.because) == ("bob", "change keys", "handed in by ada: bob left")
    assert entry.evidence == {
        "proposal": proposal.id,
        "changes": CHANGES,
        "roles": ["root", "targets"],
        "proposed_by": "ada",
        "approved_by": "bob",
    }


def test_a_change_without_a_reason_says_so(safe: Safe) -> None:
    safe.approve(safe.propose(because="").id)
    assert [because for _, _, because in safe.audited] == ["handed in by ada: no reason given", "no reason given"]


def test_who_handed_it_in_does_not_agree_to_it(safe: Safe) -> None:
    proposal = safe.propose()
    with pytest.raises(Refused) as refused:
        safe.approve(proposal.id, by="ada")
    assert str(refused.value) == "ada started it, and a change of keys needs the approval of another person"
    assert (safe.keys.accepted, safe.proposals.all()) == ([], [proposal])


def test_a_machine_hands_nothing_in(safe: Safe) -> None:
    with pytest.raises(Refused) as refused:
        safe.propose(caller=Caller(account="ci", kind="machine", roles=(Role.ADMIN,)))
    assert str(refused.value) == (
        "ci is a machine's account, and here two people change keys: one hands the change in, and another one approves "
        "it; sign in as yourself"
    )
    assert (safe.keys.tried, safe.audited) == ([], [])


def test_what_could_not_be_done_is_not_kept(safe: Safe) -> None:
    with pytest.raises(UntrustedInput):
        safe.propose(root=FORGED)
    assert (safe.proposals.all(), safe.audited) == ([], [])


def test_the_same_change_waits_once(safe: Safe) -> None:
    proposal = safe.propose()
    with pytest.raises(Conflict) as refused:
        safe.propose(caller=Caller(account="bob", kind="person", roles=(Role.SECURITY,)))
    assert str(refused.value) == (
        "this change waits already, handed in by ada; another person approves it: whimbrel keys approve "
        f"{proposal.id[:12]}"
    )
    assert safe.propose(root=b"another").id != proposal.id


def test_what_was_signed_otherwise_since_is_drafted_anew(safe: Safe) -> None:
    waiting = KeyProposal(id="a" * 64, documents={"root": SUPERSEDED}, changes=[], because="", proposed_by="ada", at=T0)
    safe.proposals.add(waiting)
    with pytest.raises(Conflict) as refused:
        safe.approve(waiting.id)
    assert str(refused.value) == (
        "something else was signed since this change was handed in (root version 3 came, 4 is next); reject it, and "
        "draft it anew"
    )
    assert (safe.proposals.all(), safe.audited) == ([waiting], [])


def test_only_so_many_wait_at_once(safe: Safe) -> None:
    for number in range(limits.KEY_PROPOSALS):
        safe.propose(root=b"%d" % number)
    with pytest.raises(Refused) as refused:
        safe.propose(root=b"more")
    assert type(refused.value) is Refused
    assert str(refused.value) == "16 changes of keys wait already; have them approved, or: whimbrel keys reject"
    safe.reject(safe.proposals.all()[0].id)
    safe.propose(root=b"more")


def test_one_waits_for_fourteen_days_and_then_makes_room(safe: Safe) -> None:
    proposal = safe.propose()
    end = T0 + limits.KEY_PROPOSAL_S
    assert waiting_proposals(safe.proposals, now=end) == [proposal]
    assert waiting_proposals(safe.proposals, now=end + 0.001) == []
    for late in (lambda: safe.approve(proposal.id, now=end + 1), lambda: safe.reject(proposal.id, now=end + 1)):
        with pytest.raises(NotFound) as absent:
            late()
        assert str(absent.value) == (f"no change of keys {proposal.id[:12]!r} waits here; see: whimbrel keys proposals")
    again = safe.propose(now=end + 1)
    assert safe.proposals.all() == [again]


def test_a_proposal_is_thrown_away_also_ones_own(safe: Safe) -> None:
    proposal = safe.propose()
    safe.propose(root=b"other")
    safe.reject(proposal.id, because="a slip")
    assert [each.documents for each in safe.proposals.all()] == [{"root": b"other"}]
    entry = safe.registry.audit_log()[0]
    assert (entry.actor, entry.action, entry.because) == ("ada", "reject keys", "a slip")
    assert entry.evidence == {
        "proposal": proposal.id,
        "changes": CHANGES,
        "roles": ["root", "targets"],
        "proposed_by": "ada",
    }
