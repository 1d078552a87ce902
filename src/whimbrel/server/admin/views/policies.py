"""What the admin API answers about the versions of a policy. Times are POSIX seconds."""

import msgspec

from whimbrel.policy.policy import Policy


class PolicyVersionView(msgspec.Struct, frozen=True, kw_only=True):
    """A policy that was signed. `changes`: what it says otherwise than the one before it, in words."""

    model: str
    sequence: int
    signed_at: float
    baseline_version: str | None
    changes: list[str]


class PolicyDetail(msgspec.Struct, frozen=True, kw_only=True):
    """One policy as it was signed, with the versions that its serials stand for."""

    model: str
    sequence: int
    versions: dict[str, str]  # by serial
    policy: Policy


class PolicyChanges(msgspec.Struct, frozen=True, kw_only=True):
    """What the policy `after` says otherwise than the policy `before` (sequence numbers), in words."""

    model: str
    before: int
    after: int
    changes: list[str]


class RestoredPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """A policy whose content was restored. `sequence`: the new number.

    `changes`: what devices do otherwise by now. `differs`: what that policy said and is not restored: rollouts that are
    over, and quarantines that stay.
    """

    model: str
    restored: int
    sequence: int
    changes: list[str]
    differs: list[str]
