"""Read and set a model's line: which serials may run. Only its publisher signs one, and it only grows.

Called by the admin API.
"""

from datetime import UTC, datetime

import msgspec

from whimbrel.errors import Conflict, NotFound, Refused, UntrustedInput
from whimbrel.flows.audit import audit
from whimbrel.flows.ports import PublishingPort, SignedRolesPort
from whimbrel.model.documents import parse
from whimbrel.model.release import Line
from whimbrel.trust import roles as names


def line_of(registry: PublishingPort, roles: SignedRolesPort, model: str) -> Line:
    """The line that holds now. Raises `NotFound` for a model that is not there or has none."""
    registry.model(model)
    line = _held(roles, model)
    if line is None:
        raise NotFound(f"{model} has no line yet")
    return line


def set_line(
    registry: PublishingPort,
    roles: SignedRolesPort,
    model: str,
    *,
    line: bytes,
    publisher: bytes,
    because: str,
    actor: str = "",
    now: float,
) -> Line:
    """Take the `line` document that the `publisher` role lists. `now`: POSIX seconds.

    `actor`: the account that sent it; the publisher's role where there are no accounts.

    Raises `Conflict` where its sequence is not the next, `Refused` where it lowers the floor or takes a revocation
    back, `UntrustedInput` for a line of another model or a wrong signature.
    """
    registry.model(model)
    after = parse(Line, line, what="the line")
    before = _held(roles, model)
    if after.model != model:
        raise UntrustedInput(f"the line is of {after.model!r}; expected {model!r}")
    if before is not None:
        _check_grows(before, after)
    role = names.publisher_role(model)
    roles.accept_publication(role, publisher, {names.line_path(model): line}, now=datetime.fromtimestamp(now, UTC))
    audit(
        registry,
        model=model,
        actor=actor or role,
        action="set line",
        because=because,
        now=now,
        evidence=msgspec.to_builtins(after),
    )
    return after


def _held(roles: SignedRolesPort, model: str) -> Line | None:
    content = roles.current_target(names.publisher_role(model), names.line_path(model))
    return parse(Line, content, what="the stored line") if content else None


def _check_grows(before: Line, after: Line) -> None:
    if after.sequence != before.sequence + 1:
        raise Conflict(f"line sequence {after.sequence} came, and {before.sequence + 1} is next; try again")
    if not (after.minimum_serial >= before.minimum_serial and set(after.revoked) >= set(before.revoked)):
        raise Refused("a line only grows: its floor is never lowered, and a revocation is never taken back")
