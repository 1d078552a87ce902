"""What waits for an offline key is told: floors that expire soon, and versions that were taken back and not revoked.

Compares: the floors of all models with the time and with their lines; the drafts of revocations with what the audit log
says was told.
Does, once a minute: an audit entry for each floor that is due, once for each time that it was signed, and for each new
draft. Receivers of alerts hear of both.
Killed: an entry is written with what it tells of, in one transaction, so nothing is told twice or never.

What can go wrong, and what happens then:
1. The audit log of a model is long: only its newest entries are looked at, so a floor that nobody signs may be told
   again.
"""

from collections.abc import Callable
from datetime import UTC, datetime

from whimbrel import limits
from whimbrel.flows.audit import audit
from whimbrel.flows.publishing.draft_revocations import draft_revocations
from whimbrel.flows.publishing.set_floor import floor_of
from whimbrel.flows.publishing.set_line import line_of
from whimbrel.server.controllers.leader import Leader
from whimbrel.stores.transaction import Stores
from whimbrel.trust import roles

ACTOR = "signatures"


class Signatures:
    """The controller of what waits for an offline key."""

    def __init__(self, leader: Leader, *, clock: Callable[[], float]) -> None:
        self._leader, self._clock = leader, clock
        self._looked_at: dict[str, float] = {}  # by namespace

    def remind(self, namespace: str) -> None:
        """Tell what waits, where it is time to look."""
        now = self._clock()
        if 0 <= now - self._looked_at.get(namespace, -limits.SIGNATURES_LOOK_S) < limits.SIGNATURES_LOOK_S:
            return
        self._looked_at[namespace] = now
        with self._leader.transaction(namespace) as stores:
            floors = {model for role in stores.roles.newest() if (model := roles.model_of_floor(role)) is not None}
            refusing = [each.name for each in stores.registry.models() if stores.registry.quarantines(each.name)]
        for model in sorted(floors):
            with self._leader.transaction(namespace) as stores:
                _remind_of_floor(stores, model, now=now)
        for model in refusing:
            with self._leader.transaction(namespace) as stores:
                _tell_drafts(stores, model, now=now)


def _remind_of_floor(stores: Stores, model: str, *, now: float) -> None:
    floor = floor_of(stores.registry, stores.roles, model)
    if floor is None or not floor.is_due(now):
        return
    day = datetime.fromtimestamp(floor.expires_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    evidence = {"monitor": "floor", "expires_at": floor.expires_at, "line": floor.line_sequence}
    if any(
        entry.action == "floor_expires" and entry.evidence == evidence
        for entry in stores.registry.audit_log(model=model)
    ):
        return
    if floor.sequence < floor.line_sequence:
        why = f"the floor of {model} is of line {floor.sequence}, and line {floor.line_sequence} holds"
    else:
        why = f"the floor of {model} {'expired' if floor.expires_at <= now else 'expires'} on {day}"
    because = f"{why}; without a fresh one devices take no new version; sign it anew with: whimbrel floor renew {model}"
    audit(
        stores.registry, model=model, actor=ACTOR, action="floor_expires", because=because, now=now, evidence=evidence
    )


def _tell_drafts(stores: Stores, model: str, *, now: float) -> None:
    drafts = draft_revocations(stores.registry, model, line=line_of(stores.registry, stores.roles, model))
    if not drafts:
        return
    told = [entry.evidence for entry in stores.registry.audit_log(model=model) if entry.action == "draft_revocation"]
    for draft in drafts:
        evidence = {"monitor": "revocation", "version": draft.version, "serial": draft.serial, "at": draft.at}
        if evidence in told:
            continue
        because = (
            f"{draft.semantic_version} was taken back ({draft.because}), and only the server's policy forbids it; sign "
            f"its revocation with: whimbrel version revoke {draft.version} --model {model}"
        )
        audit(
            stores.registry,
            model=model,
            actor=ACTOR,
            action="draft_revocation",
            because=because,
            now=now,
            evidence=evidence,
        )
