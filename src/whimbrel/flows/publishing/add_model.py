"""Add a model: the targets role that delegates it, its first publisher role and its line are accepted together.

Called by the admin API. All of it was signed with offline keys on the caller's side.
"""

from datetime import UTC, datetime

from whimbrel.errors import UntrustedInput
from whimbrel.flows.audit import audit
from whimbrel.flows.ports import PublishingPort, SignedRolesPort
from whimbrel.flows.records import ModelRecord, ModelSettings
from whimbrel.model.documents import parse
from whimbrel.model.release import Line
from whimbrel.plan.objectives import refuse_wrong_side
from whimbrel.trust import roles as names


def add_model(
    registry: PublishingPort,
    roles: SignedRolesPort,
    name: str,
    *,
    targets: bytes,
    publisher: bytes,
    line: bytes,
    salt: int,
    settings: ModelSettings,
    actor: str = "admin",
    now: float,
) -> ModelRecord:
    """Add the model `name` with the documents that were signed for it. `now`: POSIX seconds.

    `targets` may be empty: several people signed the delegation before, as a draft of `whimbrel keys`.

    Raises `UntrustedInput` for a line of another model, a signature or an objective that is wrong, `Conflict` for a
    name or a role version that is taken, `Refused` where `targets` changes who signs another model.
    """
    document = parse(Line, line, what="the line")
    if document.model != name:
        raise UntrustedInput(f"the line is of {document.model!r}; expected {name!r}")
    try:
        refuse_wrong_side(settings.objectives)
    except ValueError as error:
        raise UntrustedInput(f"the settings cannot be taken: {error}") from error
    record = ModelRecord(namespace=registry.namespace, name=name, created_at=now, salt=salt, settings=settings)
    registry.add_model(record)
    today = datetime.fromtimestamp(now, UTC)
    if targets:
        of = (names.publisher_role(name), names.policy_role(name), names.floor_role(name))
        roles.accept_delegation(targets, of=of, now=today)
    roles.accept_publication(names.publisher_role(name), publisher, {names.line_path(name): line}, now=today)
    audit(registry, model=name, actor=actor, action="add model", because="delegated by the targets key", now=now)
    return record
