"""Routes that do several things, by a part of their path, and the permission that each of these needs."""

from collections.abc import Mapping
from typing import Any

import msgspec

from whimbrel.flows.accounts.permissions import Permission


class PermissionByPath(msgspec.Struct, frozen=True):
    """The permission of a route by the value of its path's `parameter`; `otherwise` for a value that is not known."""

    parameter: str
    permissions: dict[str, Permission]
    otherwise: Permission = Permission.RELEASE

    def of(self, path: Mapping[str, Any]) -> Permission:
        """The permission that a path needs."""
        return self.permissions.get(path.get(self.parameter, ""), self.otherwise)


ROLLOUT_MOVES = PermissionByPath(
    "move",
    {
        "approve": Permission.APPROVE,
        "reject": Permission.STOP,
        "pause": Permission.STOP,
        "abort": Permission.STOP,
        "rollback": Permission.STOP,
        "resume": Permission.RELEASE,
        "finish": Permission.RELEASE,
    },
)
EXPERIMENT_ACTS = PermissionByPath(
    "act", {"stop": Permission.STOP, "keep": Permission.STOP, "ship": Permission.RELEASE}
)
