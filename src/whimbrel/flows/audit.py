"""The audit log: who did what to a model, a rollout, an experiment or a device, why, and on what evidence."""

from collections.abc import Mapping

from whimbrel.flows.ports import AuditPort
from whimbrel.flows.records import AuditRecord, Comparison


def audit(
    registry: AuditPort,
    subject: Comparison | None = None,
    *,
    model: str | None = None,
    device: str | None = None,
    actor: str,
    action: str,
    because: str,
    now: float,
    evidence: Mapping[str, object] | None = None,
) -> None:
    """Write what happened into the audit log, within the same transaction.

    It is about `subject`, a rollout or an experiment; or about a `model`, one of its versions among them; or about a
    `device`.
    """
    registry.write_audit(
        AuditRecord(
            namespace=registry.namespace,
            at=now,
            actor=actor,
            action=action,
            because=because or "no reason given",
            model=model if subject is None else subject.model,
            rollout=None if subject is None else subject.id,
            device=device,
            evidence=dict(evidence or {}),
        )
    )
