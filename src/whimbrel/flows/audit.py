"""The audit log: who did what to a model, a rollout, an experiment or a device, why, and on what evidence."""

from collections.abc import Mapping

from whimbrel.flows.ports import AuditPort
from whimbrel.flows.records import AuditRecord, Comparison


def audit(
    registry: AuditPort,
    comparison: Comparison,
    *,
    actor: str,
    action: str,
    because: str,
    now: float,
    evidence: dict[str, object] | None = None,
) -> None:
    """Write what happened to a rollout or an experiment into the audit log, within the same transaction."""
    registry.write_audit(
        AuditRecord(
            namespace=registry.namespace,
            at=now,
            actor=actor,
            action=action,
            because=because,
            model=comparison.model,
            rollout=comparison.id,
            evidence=evidence or {},
        )
    )


def audit_model(
    registry: AuditPort,
    model: str,
    *,
    actor: str,
    action: str,
    because: str,
    now: float,
    evidence: Mapping[str, object] | None = None,
) -> None:
    """Write what happened to a model or one of its versions into the audit log, within the same transaction."""
    registry.write_audit(
        AuditRecord(
            namespace=registry.namespace,
            at=now,
            actor=actor,
            action=action,
            because=because,
            model=model,
            evidence=dict(evidence or {}),
        )
    )


def audit_device(
    registry: AuditPort,
    device_id: str,
    *,
    actor: str,
    action: str,
    because: str,
    now: float,
    evidence: Mapping[str, object] | None = None,
) -> None:
    """Write what happened to a device into the audit log, within the same transaction."""
    registry.write_audit(
        AuditRecord(
            namespace=registry.namespace,
            at=now,
            actor=actor,
            action=action,
            because=because,
            device=device_id,
            evidence=dict(evidence or {}),
        )
    )
