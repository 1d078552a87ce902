"""The keys that a server signs with: it takes those that the root and the targets role name now.

1. A key is chosen by its id, so a new root changes the keys of a running server; nobody edits a file.
2. Where a key is named that is not in memory, the folder is read again: it was made a moment ago, by this process or
   another one.
3. They choose among signed versions, and cannot sign a version.
"""

from collections.abc import Callable, Iterable

from whimbrel.errors import Unavailable
from whimbrel.stores.key_folder import KeyFolder
from whimbrel.stores.signer import Key, Signer
from whimbrel.trust.role_keys import RoleKeys, short


class OnlineSigners:
    """The keys that a server holds."""

    def __init__(self, signers: Iterable[Signer], *, again: Callable[[], Iterable[Signer]] | None = None) -> None:
        """`again`: the keys that are held by now."""
        self._held = {signer.public_key.keyid: signer for signer in signers}
        self._again = again

    @classmethod
    def of(cls, folder: KeyFolder) -> "OnlineSigners":
        """The keys in a folder, read again when a key is named that was not there. Raises as `load_signer`."""

        def read() -> list[Signer]:
            return folder.signers(folder.held().keys() - signers._held.keys())

        signers = cls((), again=read)
        signers._held = {signer.public_key.keyid: signer for signer in read()}
        return signers

    def sign_for(self, role: str, keys: RoleKeys) -> list[Signer]:
        """Keys to sign `role` with, as many as must. Raises `Unavailable` where too few are held here."""
        if len(self._of(keys)) < keys.threshold:
            self.read_again()
        held = self._of(keys)
        if len(held) < keys.threshold:
            lacking = ", ".join(short(keyid) for keyid in keys.keyids if keyid not in self._held)
            raise Unavailable(
                f"{role} is signed by the key {lacking}, which this server does not hold; bring it into keys/online"
            )
        return held[: keys.threshold]

    def holds(self, keys: RoleKeys) -> bool:
        """Whether enough keys of a role are held here."""
        if len(self._of(keys)) < keys.threshold:
            self.read_again()
        return len(self._of(keys)) >= keys.threshold

    def read_again(self) -> None:
        """Take the keys that came since."""
        if self._again is not None:
            self._held |= {signer.public_key.keyid: signer for signer in self._again()}

    def first_of(self, keyids: Iterable[str]) -> Key | None:
        """The first of these keys that is held here."""
        self.read_again()
        return next((self._held[keyid].public_key for keyid in keyids if keyid in self._held), None)

    def _of(self, keys: RoleKeys) -> list[Signer]:
        return [self._held[keyid] for keyid in keys.keyids if keyid in self._held]
