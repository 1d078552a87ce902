"""`whimbrel keys rotate`, `add`, `revoke`, `threshold`, `renew`: a change of keys is drafted.

1. Where the person's folder holds all keys that must sign, it is signed and sent at once. Where it does not, or with
   --draft FILE, the draft becomes a file that is passed around (cli/key_drafts.py).
2. The private keys of the server are made by the server: `rotate timestamp` asks it for one.
"""

import functools
import inspect
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from whimbrel import limits
from whimbrel.cli.confirmation import confirm
from whimbrel.cli.connect import Client, connected
from whimbrel.cli.key_drafts import Why, hand_on, send_change
from whimbrel.cli.options import Yes
from whimbrel.cli.output import Json, say
from whimbrel.cli.role_signers import key_folder, proven_roles
from whimbrel.errors import Conflict, NotFound, Refused, UntrustedInput
from whimbrel.model.documents import parse
from whimbrel.server.admin.views.repository import KeyView, NewOnlineKey
from whimbrel.stores.key_ceremony import (
    POLICY,
    Ceremony,
    Draft,
    changes_of,
    sign_draft,
    signatures,
)
from whimbrel.stores.key_folder import KeyFolder
from whimbrel.stores.signer import Key, PublicKey, make_signer, read_bounded
from whimbrel.trust import roles
from whimbrel.trust.role_keys import short

_ONLINE = (roles.SNAPSHOT, roles.TIMESTAMP, POLICY)

Role = Annotated[
    str, typer.Argument(help="root, targets, snapshot, timestamp, policy, publisher-MODEL or floor-MODEL.")
]
DraftTo = Annotated[
    Path | None, typer.Option("--draft", help="Write a draft for others to sign, also where your keys would do.")
]
Threshold = Annotated[int | None, typer.Option(min=1, help="How many keys must sign from then on.")]


def _drafting(command: Callable[..., Draft]) -> Callable[..., None]:
    """Give a command that drafts a change the options by which the change is made, or handed on."""

    @functools.wraps(command)
    def run(client: Client, **given: Any) -> None:
        options = {name: given.pop(name) for name in ("because", "yes", "json")}
        to = given.pop("draft")
        _finish(client, command(client, **given), to=to, **options)

    own = inspect.signature(command, eval_str=True).parameters.values()
    options = inspect.signature(_finishing, eval_str=True).parameters.values()
    run.__signature__ = inspect.Signature([*own, *options])  # type: ignore[attr-defined]
    return run


def _finishing(*, draft: DraftTo = None, because: Why = "", yes: Yes = False, json: Json = False) -> None:
    """The options of `_drafting`."""


@connected
def rotate(
    client: Client,
    role: Annotated[list[str], typer.Argument(help="One role or several: all change in one step.")],
    public: Annotated[
        Path | None, typer.Option("--to", help="The public half of the new key; by default one is made.")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option("--key", help="The key to replace, where a role has several: its id, or its beginning."),
    ] = None,
    draft: DraftTo = None,
    because: Why = "",
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Replace a key of a role by a new one. After a theft on the server: rotate timestamp snapshot policy.

    The server makes its own new keys. A new offline key is made in the folder of --keys, under the name ROLE-2.
    """
    if public is not None and len(role) > 1:
        raise UntrustedInput(f"--to names one key, and {len(role)} roles are to change; rotate them one by one")
    ceremony = begin_ceremony(client)
    made: list[Path] = []
    try:
        for name in role:
            expanded = ceremony.expand(name)
            for each in expanded:
                _replaced(ceremony, each, key)  # before a key is made
            new = _public_key(public) if public is not None else _new_key(client, name, made)
            for each in expanded:
                old = _replaced(ceremony, each, key)
                ceremony.add(each, new)
                ceremony.revoke(each, old)
        _finish(client, ceremony.draft(f"rotate {' '.join(role)}"), to=draft, because=because, yes=yes, json=json)
    except (Refused, UntrustedInput):  # nothing changed, so the keys are nobody's; after other errors that is not known
        for path in made:
            path.unlink()
        raise


@connected
@_drafting
def add(
    client: Client,
    role: Role,
    public: Annotated[Path, typer.Argument(help="The public half of the key, from `whimbrel keys export`.")],
    threshold: Threshold = None,
) -> Draft:
    """Let one more key sign a role."""
    key = _public_key(public)
    return _change_of(client, role, f"add a key to {role}", threshold, lambda each, name: each.add(name, key))


@connected
@_drafting
def revoke(
    client: Client,
    role: Role,
    key: Annotated[str, typer.Argument(help="The key's id, or its beginning: see `whimbrel keys status`.")],
    threshold: Threshold = None,
) -> Draft:
    """Take a key from a role. What that key alone had signed counts no more."""
    return _change_of(client, role, f"revoke a key of {role}", threshold, lambda each, name: each.revoke(name, key))


@connected
@_drafting
def threshold(
    client: Client,
    role: Role,
    number: Annotated[int, typer.Argument(min=1, max=limits.KEYS_OF_A_ROLE, help="How many keys must sign.")],
) -> Draft:
    """Set how many of a role's keys must sign it."""
    return _change_of(client, role, f"{number} keys must sign {role}", number, lambda _each, _name: None)


@connected
@_drafting
def renew(
    client: Client,
    role: Annotated[list[str], typer.Argument(help="root, targets, publisher-MODEL; one or several.")],
) -> Draft:
    """Sign a role anew before it expires, with the same keys."""
    ceremony = begin_ceremony(client)
    for each in role:
        ceremony.renew(each)
    return ceremony.draft(f"renew {' '.join(role)}")


def _change_of(
    client: Client, role: str, summary: str, threshold: int | None, change: Callable[[Ceremony, str], None]
) -> Draft:
    """A change of one role, or of all that its name stands for, and of how many must sign it."""
    ceremony = begin_ceremony(client)
    for each in ceremony.expand(role):
        change(ceremony, each)
        if threshold is not None:
            ceremony.set_threshold(each, threshold)
    return ceremony.draft(summary)


def begin_ceremony(client: Client) -> Ceremony:
    """What is signed now, from the server, proven: the draft may be signed at once."""
    proven = proven_roles(client)
    return Ceremony(client.namespace, proven.roots(), proven.role, now=datetime.now(UTC))


def _replaced(ceremony: Ceremony, role: str, key: str | None) -> str:
    """The id of the key to replace. Raises `UntrustedInput` where a role has several and none is named."""
    keyids = ceremony.keys_of(role).keyids
    if key is None and len(keyids) > 1:
        raise UntrustedInput(
            f"{role} has {len(keyids)} keys ({', '.join(map(short, keyids))}); say with --key which one to replace"
        )
    return ceremony.find(role, key or keyids[0])


def _new_key(client: Client, role: str, made: list[Path]) -> Key:
    """A new key for a role: of the server, or in the person's folder; then its file is noted in `made`."""
    if role in _ONLINE or role.startswith("policy-"):
        online = POLICY if role.startswith("policy-") else role
        view = client.send("POST", "keys/online", NewOnlineKey(role=online), as_=KeyView)  # type: ignore[arg-type]
        return PublicKey(keyid=view.keyid, keytype=view.keytype, scheme=view.scheme, keyval=view.keyval).key()
    folder = key_folder(client.keys())
    names, number = {key.name for key in folder.held().values()}, 2
    while f"{role}-{number}" in names:
        number += 1
    path = folder.path / f"{role}-{number}.pem"
    signer = make_signer(path)
    made.append(path)
    return signer.public_key


def _public_key(file: Path) -> Key:
    content = read_bounded(file.expanduser())
    if b"PRIVATE KEY" in content:
        raise UntrustedInput(
            f"{file} is a private key, which its owner hands to nobody; expected its public half, which its owner "
            "writes with: whimbrel keys export NAME --output FILE"
        )
    if content.lstrip().startswith(b"-----BEGIN"):
        raise UntrustedInput(f"{file} is in PEM form; expected the JSON that `whimbrel keys export NAME` writes")
    return parse(PublicKey, content, what=str(file)).key()


def _finish(client: Client, draft: Draft, *, to: Path | None, because: str, yes: bool, json: bool) -> None:
    """Sign and submit, where the folder's keys are enough; else write the file."""
    folder = _folder_of(client)
    if to is None and folder is not None and _would_do(draft, folder):
        if not json:
            for sentence in changes_of(draft):
                say(f"  {sentence}")
        confirm(
            f"to {draft.summary}", consequence="devices follow with their next refresh", yes=yes, nature="moves trust"
        )
        signed, _ = sign_draft(draft, folder)
        send_change(client, signed, because=because, json=json)
        return
    file = to or Path(f"{draft.summary.replace(' ', '-')}.draft.json")
    if to is None and file.exists():
        raise Conflict(f"there is a draft {file} already; name another file with --draft")
    hand_on(draft, file, json=json)


def _folder_of(client: Client) -> KeyFolder | None:
    try:
        return key_folder(client.keys())
    except NotFound:
        return None


def _would_do(draft: Draft, folder: KeyFolder) -> bool:
    held = set(folder.held())
    return all(wanted.keys.signed_by(held | wanted.signed) for wanted in signatures(draft))
