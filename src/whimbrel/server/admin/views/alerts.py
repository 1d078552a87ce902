"""What the admin API answers about receivers and about the alerts that they were sent."""

from typing import Literal

import msgspec

from whimbrel.plan.governance import (
    AlertOn,
    DeviceAlertOn,
    ExperimentAlertOn,
    ModelAlertOn,
    NamespaceAlertOn,
    RoleAlertOn,
)


class ReceiverView(msgspec.Struct, frozen=True, kw_only=True):
    """A receiver of `whimbrel.toml`, without its address and its secrets. `on`: what it is told of every rollout."""

    name: str
    form: str
    on: list[AlertOn | DeviceAlertOn | ExperimentAlertOn | ModelAlertOn | RoleAlertOn | NamespaceAlertOn]


class ReceiverTestView(msgspec.Struct, frozen=True, kw_only=True):
    """What a receiver answered to a test alert."""

    receiver: str
    ok: bool
    said: str


class AlertView(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an audit entry for a receiver. About a rollout, a device or a model. Times: POSIX seconds."""

    receiver: str
    audit_id: int
    rollout: str
    device: str = ""
    model: str = ""
    event: str = msgspec.field(name="moment")
    stage: int
    at: float
    state: Literal["waiting", "sent", "grouped", "given_up"]
    tries: int
    next_at: float
    said: str
