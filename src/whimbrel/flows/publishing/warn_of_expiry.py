"""Warn of signed roles before they expire: people have to sign them, and may be far from their keys.

Compares the newest version of every offline role with what is known of it. A new version is noted; the first look
within 60, 30, 14, 7, 3 and 1 days of its end, and the first after it, is an audit entry, from which alerts follow.
Killed at any point: the note and the entry are one transaction.

Called by the expiry controller.
"""

from datetime import UTC, datetime

import msgspec

from whimbrel import limits
from whimbrel.flows.audit import audit
from whimbrel.flows.ports import AuditPort, RoleExpiriesPort, RoleVersionsPort
from whimbrel.flows.records import RoleExpiry
from whimbrel.trust import roles
from whimbrel.trust.role_keys import expiry_warning

STEPS_S = (limits.EXPIRY_WARNING_S, *(days * 86400.0 for days in (30, 14, 7, 3, 1, 0)))


def warn_of_expiry(registry: AuditPort, signed: RoleVersionsPort, expiries: RoleExpiriesPort, *, now: float) -> None:
    """Note new versions, and write the warnings that are due. `now`: POSIX seconds."""
    known = {entry.role: entry for entry in expiries.all()}
    for role, version in signed.newest().items():
        if not roles.is_offline(role):
            continue
        before = known.get(role)
        entry = before
        if entry is None or entry.version != version:
            entry = RoleExpiry(role=role, version=version, expires=signed.expires(role))
            if before is not None and before.warned_s >= 0:
                _tell(registry, entry, action="renew_role", because=_renewed(entry), now=now)
        step_s = min((step for step in STEPS_S if entry.expires - now <= step), default=None)
        if step_s is not None and (entry.warned_s < 0 or step_s < entry.warned_s):
            entry = msgspec.structs.replace(entry, warned_s=step_s)
            because = expiry_warning(role, entry.expires, now=now) or f"{role} expires"
            _tell(registry, entry, action="notice_expiry", because=because, now=now)
        if entry != before:
            expiries.save(entry)


def _renewed(entry: RoleExpiry) -> str:
    return f"{entry.role} was signed anew, and is valid until {datetime.fromtimestamp(entry.expires, UTC):%Y-%m-%d}"


def _tell(registry: AuditPort, entry: RoleExpiry, *, action: str, because: str, now: float) -> None:
    evidence = {"role": entry.role, "version": entry.version, "expires": entry.expires, "left_s": entry.expires - now}
    audit(registry, actor="server", action=action, because=because, now=now, evidence=evidence)
