"""The keys of a person's folder that may sign a role now: chosen by their ids, whatever their files are called."""

from pathlib import Path

from whimbrel.cli.connect import Client
from whimbrel.cli.key_secrets import ask_secret
from whimbrel.errors import NotFound, Refused
from whimbrel.stores.key_folder import KeyFolder
from whimbrel.stores.signed_metadata import role_keys
from whimbrel.stores.signer import Signer
from whimbrel.trust import roles
from whimbrel.trust.role_keys import short


def role_signers(client: Client, role: str) -> list[Signer]:
    """As many keys as must sign `role`. Raises `NotFound` where the folder holds none, `Refused` where too few."""
    delegator = roles.ROOT if role in {roles.ROOT, roles.TARGETS} else roles.TARGETS
    named = role_keys(client.get_bytes(f"roles/{delegator}"))
    if role not in named:
        raise NotFound(f"there is no role {role!r}; see: whimbrel keys status")
    keys, folder = named[role], key_folder(client.keys())
    held = [keyid for keyid in folder.held() if keyid in keys.keyids]
    wanted = ", ".join(short(keyid) for keyid in keys.keyids)
    if not held:
        raise NotFound(
            f"there is no key at {folder.path} that may sign {role} (one of {wanted} may); bring it here, or name its "
            "folder with --keys"
        )
    if len(held) < keys.threshold:
        others = "have the others sign a draft (--draft FILE, of `whimbrel keys` and `whimbrel model add`)"
        if role not in {roles.ROOT, roles.TARGETS}:
            others = "bring the others into this folder"
        raise Refused(
            f"{keys.threshold} of the keys {wanted} must sign {role}, and {folder.path} holds {len(held)}; {others}"
        )
    return folder.signers(held[: keys.threshold])


def key_folder(path: Path) -> KeyFolder:
    """A folder of keys, whose passphrases are asked for on the terminal."""
    return KeyFolder(path, secrets=ask_secret)
