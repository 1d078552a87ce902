"""Change who may sign: the server's part of a ceremony. People signed it offline; the store verifies it.

Called by the admin API.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from whimbrel.flows.audit import audit
from whimbrel.flows.ports import AuditPort, KeyChangesPort
from whimbrel.trust.role_keys import RoleKeys


def change_keys(
    registry: AuditPort,
    keys: KeyChangesPort,
    documents: Mapping[str, bytes],
    *,
    holds: Callable[[RoleKeys], bool],
    because: str,
    actor: str,
    now: float,
) -> list[str]:
    """Take the next versions of root, targets and publishers, all or none. `now`: POSIX seconds.

    `holds`: whether this server has enough keys of an online role. Returns what changes, a sentence each. Raises
    `UntrustedInput` for a wrong signature, `Refused` for a change after which something could not be signed, `Conflict`
    where somebody was first.
    """
    changes = keys.accept(documents, holds=holds, now=datetime.fromtimestamp(now, UTC))
    audit(
        registry,
        actor=actor,
        action="change keys",
        because=because,
        now=now,
        evidence={"changes": changes, "roles": sorted(documents)},
    )
    return changes
