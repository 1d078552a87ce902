"""What the admin API answers about a whole namespace: its state, its online keys, its audit log, its tokens."""

from typing import Any

import msgspec


class SentView(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that went out of the server's process since it started, without headers."""

    artifact_bytes: int
    document_bytes: int


class StatusView(msgspec.Struct, frozen=True, kw_only=True):
    """That the server works, and how much there is."""

    version: str  # of Whimbrel
    namespace: str
    models: int
    devices: int
    live_rollouts: int
    live_experiments: int
    timestamp_version: int
    sent: SentView


class KeyView(msgspec.Struct, frozen=True, kw_only=True):
    """A public key, as TUF metadata writes it (section 4.2.1), and its id."""

    keyid: str
    keytype: str
    scheme: str
    keyval: dict[str, str]


class KeysView(msgspec.Struct, frozen=True, kw_only=True):
    """The online keys that a model is delegated to."""

    policy: KeyView


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Who did what, why, and on what evidence. The evidence is of any shape: each action tells its own."""

    namespace: str
    at: float  # POSIX seconds
    actor: str
    action: str
    because: str
    model: str | None
    rollout: str | None
    device: str | None = None  # absent: the server is older
    evidence: dict[str, Any]
