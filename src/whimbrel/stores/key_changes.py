"""Accept a change of keys: new versions of root, targets and publishers that people signed, all of them or none.

1. The next root is signed by the old keys and the new ones; each other role by the keys that its delegator names.
2. Afterwards everything that is signed offline is signed by keys that may sign it, or the change is refused: a device
   would find roles that nobody may have signed.
3. The server holds enough keys of every online role, or the change is refused: it could sign nothing any more.
4. A key's id is its hash, a threshold is reached with keys that are there, and no role or path is lost.

Verified against the database within the transaction that stores it. Called by flows/publishing/change_keys.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, cast

from tuf.api.metadata import Metadata, Root, Targets

from whimbrel import limits
from whimbrel.errors import NotFound, Refused, UntrustedInput
from whimbrel.stores.signed_metadata import read_metadata, role_keys, verify
from whimbrel.stores.signer import check_id
from whimbrel.stores.tuf_repository import SignedRoles
from whimbrel.trust import roles
from whimbrel.trust.role_keys import RoleKeys, key_changes


class KeyChanges:
    """The keys of one namespace, within one transaction."""

    def __init__(self, signed_roles: SignedRoles) -> None:
        self._roles = signed_roles

    def accept(self, documents: Mapping[str, bytes], *, holds: Callable[[RoleKeys], bool], now: datetime) -> list[str]:
        """Take the next versions of roles. `holds`: whether the server has enough keys of a role.

        Returns what changes, a sentence each. Raises `UntrustedInput` for a wrong signature, `Refused`
        for a change after which something could not be signed, `Conflict` where somebody was first.
        """
        if not documents or len(documents) > limits.CEREMONY_ROLES:
            raise UntrustedInput(
                f"the change has {len(documents)} signed roles; expected 1 to {limits.CEREMONY_ROLES} of them"
            )
        before = self._keys()
        left = dict(documents)
        if roles.ROOT in left:
            self._accept_root(left.pop(roles.ROOT), now=now)
        if roles.TARGETS in left:
            self._accept_targets(left.pop(roles.TARGETS), now=now)
        for role, content in left.items():
            if not roles.is_offline(role):
                raise Refused(f"{role} is signed by the server; people sign root, targets and publishers")
            self._roles.accept_publication(role, content, {}, now=now)
        after = self._keys()
        self._check_offline()
        for role, keys in after.items():
            if roles.is_servers(role) and not holds(keys):
                raise Refused(
                    f"this server does not hold {keys.threshold} of the new keys of {role}, and could not sign it any "
                    "more; bring them into its keys/online first, or have it make one: whimbrel keys rotate"
                )
        return key_changes(before, after) or [f"{' and '.join(documents)} signed anew"]

    def _keys(self) -> dict[str, RoleKeys]:
        named = (role_keys(self._roles.role_bytes(role)) for role in (roles.ROOT, roles.TARGETS))
        return {name: keys for each in named for name, keys in each.items()}

    def _accept_root(self, content: bytes, *, now: datetime) -> None:
        after = cast("Metadata[Root]", read_metadata(content, what=roles.ROOT, kind=Root))
        before = cast("Metadata[Root]", read_metadata(self._roles.role_bytes(roles.ROOT), what=roles.ROOT))
        for delegator in (before, after):
            verify(delegator.signed, roles.ROOT, after, now=now)
        if not after.signed.consistent_snapshot:
            raise Refused("the new root takes the version numbers from file names; devices would find nothing")
        _check_keys(after.signed.keys, after.signed.roles)
        self._roles.add_role(roles.ROOT, after, content=content)

    def _accept_targets(self, content: bytes, *, now: datetime) -> None:
        before = self._roles.targets_role(roles.TARGETS).signed
        after = self._roles.accept_delegation(content, now=now).signed
        old, new = (side.delegations.roles or {} if side.delegations else {} for side in (before, after))
        lost = [name for name in old if name not in new]
        if lost:
            raise Refused(f"the new targets role drops {', '.join(lost[:3])}; devices would lose these models")
        if after.targets != before.targets:
            raise Refused("the new targets role lists other documents; a change of keys changes keys alone")
        if after.delegations is not None:
            _check_keys(after.delegations.keys, new)

    def _check_offline(self) -> None:
        root = cast("Metadata[Root]", read_metadata(self._roles.role_bytes(roles.ROOT), what=roles.ROOT)).signed
        targets = self._roles.targets_role(roles.TARGETS)
        verify(root, roles.TARGETS, targets, now=None)
        for role in _offline_in(targets.signed):
            try:
                metadata = self._roles.targets_role(role)
            except NotFound:  # it is delegated, and signs for the first time when its model is added
                continue
            try:
                verify(targets.signed, role, metadata, now=None)
            except UntrustedInput as error:
                raise Refused(
                    f"the change needs the next version of {role}, too, signed by its new keys: {error}"
                ) from error


def _offline_in(targets: Targets) -> list[str]:
    named = targets.delegations.roles or {} if targets.delegations else {}
    return [name for name in named if roles.is_offline(name)]


def _check_keys(keys: Mapping[str, Any], named: Mapping[str, Any]) -> None:
    for key in keys.values():
        check_id(key)
    for name, role in named.items():
        count = len(role.keyids)
        if not 1 <= role.threshold <= count or count > limits.KEYS_OF_A_ROLE:
            raise Refused(
                f"{role.threshold} of {count} keys would have to sign {name}; expected a threshold from 1 to the "
                f"number of its keys, which are at most {limits.KEYS_OF_A_ROLE}"
            )
