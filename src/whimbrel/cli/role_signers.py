"""The keys of a person's folder that may sign a role now, by their ids, and what they sign on top of, proven."""

from pathlib import Path

from whimbrel.cli.connect import Client, quoted
from whimbrel.cli.key_secrets import ask_secret
from whimbrel.cli.output import note
from whimbrel.errors import NotFound, Refused, UntrustedInput
from whimbrel.model.documents import encode
from whimbrel.model.release import Line, Release
from whimbrel.stores.key_folder import KeyFolder
from whimbrel.stores.proven_roles import ProvenRoles
from whimbrel.stores.signed_metadata import read_metadata
from whimbrel.stores.signer import Signer
from whimbrel.trust import roles
from whimbrel.trust.role_keys import short


def proven_roles(client: Client) -> ProvenRoles:
    """What people signed before, as the server of `client` tells it, proven with what the folder of keys remembers."""
    try:
        folder = client.keys()
    except NotFound:  # a draft needs no key
        folder = None
    return ProvenRoles(
        lambda role: client.get_bytes(f"roles/{role}"), folder=folder, namespace=client.namespace, note=note
    )


def proven_line(client: Client, proven: ProvenRoles, model: str) -> Line:
    """The line of a model, as its publisher signed it last. Raises `UntrustedInput` where the server tells another."""
    line = client.get(f"models/{quoted(model)}/line", as_=Line)
    proven.check_document(roles.publisher_role(model), roles.line_path(model), encode(line))
    return line


def role_signers(client: Client, proven: ProvenRoles, role: str) -> list[Signer]:
    """As many keys as must sign `role`. Raises `NotFound` where the folder holds none, `Refused` where too few."""
    keys, folder = proven.keys_of(role), key_folder(client.keys())
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


def check_next_serial(proven: ProvenRoles, release: Release) -> None:
    """Raises `UntrustedInput` unless the serial of a release, which the server gave, follows on what was signed."""
    role = roles.publisher_role(release.model)
    listed = read_metadata(proven.role(role), what=role).signed.targets
    names = (path.removeprefix(f"models/{release.model}/").removesuffix(".json") for path in listed)
    last = max((int(name) for name in names if name.isdecimal()), default=0)
    if release.serial != last + 1:
        raise UntrustedInput(
            f"the server gives this version the serial {release.serial}, and {role} has signed serials up to {last}: "
            "nothing is signed, and somebody may have changed the server's database"
        )


def key_folder(path: Path) -> KeyFolder:
    """A folder of keys, whose passphrases are asked for on the terminal."""
    return KeyFolder(path, secrets=ask_secret)
