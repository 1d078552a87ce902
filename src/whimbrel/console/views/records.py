"""The audit log, and who may do what."""

import msgspec

from whimbrel.console.views.rollout import EventLine


class AuditLine(msgspec.Struct, frozen=True, kw_only=True):
    """An entry, and what it is about."""

    event: EventLine
    about: str
    href: str
    sequence: int


class AuditPage(msgspec.Struct, frozen=True, kw_only=True):
    """The newest entries. `sequence`, `head`: of the newest of all."""

    lines: tuple[AuditLine, ...]
    model: str
    models: tuple[str, ...]
    sequence: int
    head: str


class RoleLine(msgspec.Struct, frozen=True, kw_only=True):
    """A signed role: who may sign it, and until when it is valid."""

    role: str
    expires: float | None
    threshold: str
    keys: tuple[str, ...]
    offline: bool
    warning: str


class TokenLine(msgspec.Struct, frozen=True, kw_only=True):
    """A token of a person or a machine, without its text."""

    name: str
    account: str
    kind: str
    roles: str
    until: float | None
    used_at: float | None
    mine: bool


class AccessPage(msgspec.Struct, frozen=True, kw_only=True):
    """Who may do what. `tokens` None: who looks may not see them."""

    account: str
    kind: str
    roles: str
    may: tuple[str, ...]
    signers: tuple[RoleLine, ...]
    tokens: tuple[TokenLine, ...] | None
    receivers: tuple[tuple[str, str, str], ...]
