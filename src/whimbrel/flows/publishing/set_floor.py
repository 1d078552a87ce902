"""A model's floor: devices take nothing new unless a role that lives for days says that they know the newest line.

1. The targets key delegates it, and takes it away; the floor's own key, which a pipeline may hold, signs it anew.
2. A floor names the line that holds now. What is signed for an older or a later one is refused.

Called by the admin API; what is due is read by the controller of signatures.
"""

from datetime import UTC, datetime

import msgspec

from whimbrel import limits
from whimbrel.errors import Conflict, NotFound, UntrustedInput
from whimbrel.flows.audit import audit
from whimbrel.flows.ports import PublishingPort, SignedRolesPort
from whimbrel.flows.publishing.set_line import line_of
from whimbrel.model.documents import parse
from whimbrel.model.release import Floor
from whimbrel.trust import roles as names

_DAY_S = 86400.0


class FloorState(msgspec.Struct, frozen=True, kw_only=True):
    """A model's floor as it is signed now. `line_sequence`: of the line that holds. Times in POSIX seconds."""

    model: str
    sequence: int
    line_sequence: int
    days: int
    expires_at: float

    def is_due(self, now: float) -> bool:
        """Whether it is time to sign it anew: a third of its life is left, or a newer line is there."""
        is_late = self.expires_at - now < self.days * _DAY_S * limits.FLOOR_WARNING_SHARE
        return is_late or self.sequence < self.line_sequence


def floor_of(registry: PublishingPort, roles: SignedRolesPort, model: str) -> FloorState | None:
    """The floor of a model; None where it has none. Raises `NotFound` for a model that is not there."""
    line, role = line_of(registry, roles, model), names.floor_role(model)
    if not roles.is_delegated(role):
        return None
    content, expires_at = roles.current_target(role, names.floor_path(model)), roles.expires_at(role)
    if content is None or expires_at is None:
        return None
    floor = parse(Floor, content, what="the stored floor")
    return FloorState(
        model=model,
        sequence=floor.sequence,
        line_sequence=line.sequence,
        days=floor.days,
        expires_at=expires_at,
    )


def set_floor(
    registry: PublishingPort,
    roles: SignedRolesPort,
    model: str,
    *,
    floor: bytes,
    role: bytes,
    targets: bytes | None,
    actor: str,
    now: float,
) -> FloorState:
    """Take the `floor` that its `role` lists; `targets`: the role that delegates it, where that is new.

    Raises `Conflict` where it is not of the line that holds, `UntrustedInput` for a floor of another model or a wrong
    signature, `NotFound` where no floor is delegated.
    """
    document, line = parse(Floor, floor, what="the floor"), line_of(registry, roles, model)
    if document.model != model:
        raise UntrustedInput(f"the floor is of {document.model!r}; expected {model!r}")
    if document.sequence != line.sequence:
        raise Conflict(f"the floor is of line {document.sequence}, and line {line.sequence} holds; sign it anew")
    name, today = names.floor_role(model), datetime.fromtimestamp(now, UTC)
    if targets is not None:
        roles.accept_delegation(targets, of=(name,), now=today)
    if not roles.is_delegated(name):
        raise NotFound(f"{model} has no floor; begin with: whimbrel floor require {model} --expires-days 30")
    roles.accept_publication(name, role, {names.floor_path(model): floor}, now=today)
    after = floor_of(registry, roles, model)
    if after is None or after.expires_at > now + (document.days + 1) * _DAY_S:
        raise UntrustedInput(
            f"{name} does not list the floor, or lives longer than the {document.days} days that it says"
        )
    audit(
        registry,
        model=model,
        actor=actor,
        action="require floor" if targets is not None else "renew floor",
        because=f"line {document.sequence} is the newest; signed for {document.days} days",
        now=now,
        evidence=msgspec.to_builtins(document) | {"role": name},
    )
    return after


def lift_floor(
    registry: PublishingPort,
    roles: SignedRolesPort,
    model: str,
    *,
    targets: bytes,
    because: str,
    actor: str,
    now: float,
) -> None:
    """Take `targets`, which delegates no floor of the model any more. Raises `UntrustedInput`, `Conflict`."""
    registry.model(model)
    name = names.floor_role(model)
    roles.accept_delegation(targets, of=(name,), now=datetime.fromtimestamp(now, UTC))
    if roles.is_delegated(name):
        raise UntrustedInput(f"the targets role delegates the floor of {model} still")
    audit(registry, model=model, actor=actor, action="lift floor", because=because, now=now)
