"""Rollouts on a server in memory: how one begins, what devices tell of it, and what became of it."""

from collections.abc import Iterable
from typing import Any

from support.server_in_memory import MODEL, ServerInMemory
from support.values import HOUR, enrol, plan
from whimbrel.flows.device_records import DeviceMessage
from whimbrel.flows.records import AuditRecord, RolloutRecord
from whimbrel.flows.rollouts.start import start_rollout
from whimbrel.health.tally import Cell
from whimbrel.model.documents import parse
from whimbrel.policy.policy import Policy
from whimbrel.trust import roles


def start(server: ServerInMemory, version: str = "2.0.0", *, model: str = MODEL, **changes: Any) -> str:
    """Begin a rollout of 5%, 25% and all; its id. The next round publishes it."""
    asked = plan(model_version=f"{model}@{version}", **changes)
    with server.stores() as stores:
        record = start_rollout(
            stores.registry,
            stores.fleet,
            asked,
            plan_text="",
            tag="t",
            hour_s=HOUR,
            actor="ana",
            now=server.clock.now,
        )
    return record.id


def running(server: ServerInMemory, **changes: Any) -> str:
    """A rollout whose policy is out."""
    identifier = start(server, **changes)
    server.round()
    return identifier


def rollout(server: ServerInMemory, identifier: str) -> RolloutRecord:
    with server.stores() as stores:
        return stores.registry.rollout(identifier)


def policy(server: ServerInMemory, model: str = MODEL) -> Policy:
    """The signed policy, as it is in the database."""
    with server.stores() as stores:
        signed = stores.roles.current_target(roles.policy_role(model), roles.policy_path(model))
    assert signed is not None
    return parse(Policy, signed, what="the policy")


def cells(server: ServerInMemory, identifier: str) -> list[Cell]:
    with server.stores() as stores:
        return stores.fleet.cells(identifier, before_window=10**9)


def enrolled(
    server: ServerInMemory, *devices: str, model: str = MODEL, at: float | None = None, **changes: Any
) -> None:
    """Devices that follow a model, and whose names tell their buckets. They came a day ago, or `at`."""
    with server.stores() as stores:
        for device in devices:
            enrol(stores, device, models=(model,), at=server.clock.now - 86400.0 if at is None else at, **changes)


def send(server: ServerInMemory, messages: Iterable[DeviceMessage]) -> None:
    """Store messages, as the intake does."""
    server.run(server.inbox.write(list(messages)))


def audited(server: ServerInMemory, *actions: str) -> list[AuditRecord]:
    """The entries of these actions, the oldest first."""
    with server.stores() as stores:
        return [entry for entry in reversed(stores.registry.audit_log(limit=1000)) if entry.action in actions]
