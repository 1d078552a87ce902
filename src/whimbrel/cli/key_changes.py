"""`whimbrel keys rotate`, `add`, `revoke`, `threshold`, `renew`: a change of keys. `show`, `sign`, `submit`: its file.

1. A verb drafts the change. Where the person's folder holds all keys that must sign, it is signed and sent at once.
   Where it does not, or with --draft FILE, the draft becomes a file that is passed around.
2. `sign` needs no server. It shows what the draft changes, and remembers in the folder of keys the root that it saw
   (`trusted-root`): the next draft must follow from it.
3. The private keys of the server are made by the server: `rotate timestamp` asks it for one.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from whimbrel import limits
from whimbrel.cli.confirmation import confirm
from whimbrel.cli.connect import Client, connected
from whimbrel.cli.options import Yes
from whimbrel.cli.output import Json, print_json, say
from whimbrel.cli.role_signers import key_folder, proven_roles
from whimbrel.durable import write_durably
from whimbrel.errors import Conflict, NotFound, Refused, UntrustedInput
from whimbrel.model.documents import parse
from whimbrel.server.admin.views.repository import KeyChangeView, KeyView, NewKeyChange, NewOnlineKey, RoleStatesView
from whimbrel.stores.key_ceremony import (
    POLICY,
    Ceremony,
    Draft,
    Signatures,
    changes_of,
    check_before,
    documents_of,
    last_root,
    next_versions,
    read_draft,
    root_fingerprint,
    sign_draft,
    signatures,
    write_draft,
)
from whimbrel.stores.key_folder import KeyFolder
from whimbrel.stores.proven_roles import PRIVATE, trusted_root_of
from whimbrel.stores.signer import Key, PublicKey, make_signer, read_bounded
from whimbrel.trust import roles
from whimbrel.trust.role_keys import short

_ONLINE = (roles.SNAPSHOT, roles.TIMESTAMP, POLICY)

Role = Annotated[str, typer.Argument(help="root, targets, snapshot, timestamp, policy, or publisher-MODEL.")]
DraftFile = Annotated[Path, typer.Argument(help="The draft.")]
DraftTo = Annotated[
    Path | None, typer.Option("--draft", help="Write a draft for others to sign, also where your keys would do.")
]
Why = Annotated[str, typer.Option("--because", help="For the audit log.")]


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
def add(
    client: Client,
    role: Role,
    public: Annotated[Path, typer.Argument(help="The public half of the key, from `whimbrel keys export`.")],
    threshold: Annotated[int | None, typer.Option(min=1, help="How many keys must sign from then on.")] = None,
    draft: DraftTo = None,
    because: Why = "",
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Let one more key sign a role."""
    ceremony = begin_ceremony(client)
    for each in ceremony.expand(role):
        ceremony.add(each, _public_key(public))
        if threshold is not None:
            ceremony.set_threshold(each, threshold)
    _finish(client, ceremony.draft(f"add a key to {role}"), to=draft, because=because, yes=yes, json=json)


@connected
def revoke(
    client: Client,
    role: Role,
    key: Annotated[str, typer.Argument(help="The key's id, or its beginning: see `whimbrel keys status`.")],
    threshold: Annotated[int | None, typer.Option(min=1, help="How many keys must sign from then on.")] = None,
    draft: DraftTo = None,
    because: Why = "",
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Take a key from a role. What that key alone had signed counts no more."""
    ceremony = begin_ceremony(client)
    for each in ceremony.expand(role):
        ceremony.revoke(each, key)
        if threshold is not None:
            ceremony.set_threshold(each, threshold)
    _finish(client, ceremony.draft(f"revoke a key of {role}"), to=draft, because=because, yes=yes, json=json)


@connected
def threshold(
    client: Client,
    role: Role,
    number: Annotated[int, typer.Argument(min=1, max=limits.KEYS_OF_A_ROLE, help="How many keys must sign.")],
    draft: DraftTo = None,
    because: Why = "",
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Set how many of a role's keys must sign it."""
    ceremony = begin_ceremony(client)
    for each in ceremony.expand(role):
        ceremony.set_threshold(each, number)
    _finish(client, ceremony.draft(f"{number} keys must sign {role}"), to=draft, because=because, yes=yes, json=json)


@connected
def renew(
    client: Client,
    role: Annotated[list[str], typer.Argument(help="root, targets, publisher-MODEL; one or several.")],
    draft: DraftTo = None,
    because: Why = "",
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Sign a role anew before it expires, with the same keys."""
    ceremony = begin_ceremony(client)
    for each in role:
        ceremony.renew(each)
    _finish(client, ceremony.draft(f"renew {' '.join(role)}"), to=draft, because=because, yes=yes, json=json)


def show(file: DraftFile, json: Json = False) -> None:
    """What a draft changes, who must sign it, and who did. Needs no server and no key."""
    _tell(_read(file), json=json)


def sign(
    file: DraftFile,
    keys: Annotated[Path, typer.Option("--keys", help="The folder of your keys.")],
    trusted_root: Annotated[
        Path | None, typer.Option(help="A root that you trust, such as the root.json that devices are built with.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The signed draft; FILE itself by default.")
    ] = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Sign a draft with your keys, after it showed what it changes. Then pass the file on, or submit it.

    It needs no server: do it on a machine without a network.
    """
    folder, draft = key_folder(keys.expanduser()), _read(file)
    known = trusted_root if trusted_root is not None else trusted_root_of(folder.path, draft.namespace)
    remembered = known.read_bytes() if known.exists() else None
    if trusted_root is not None and remembered is None:
        raise NotFound(f"there is no file {trusted_root}; expected the root that devices are built with")
    check_before(draft, trusted_root=remembered)
    if not json:
        _tell(draft, json=False)
    version, fingerprint = root_fingerprint(draft)
    where = f"it starts from root version {version} ({fingerprint})"
    if remembered is None:
        where += ", which this folder sees for the first time: compare it by voice with somebody who signed before"
    confirm("to sign this", consequence=where, yes=yes, nature="lets others act with your name")
    signed, keyids = sign_draft(draft, folder)
    write_durably((output or file).expanduser(), write_draft(signed))
    write_durably(trusted_root_of(folder.path, draft.namespace), last_root(draft), mode=PRIVATE)
    if json:
        print_json(_view(signed) | {"signed_by": keyids})
        return
    say(f"signed with {', '.join(short(keyid) for keyid in keyids)}")
    _say_next(signed, output or file)


@connected
def submit(client: Client, file: DraftFile, because: Why = "", yes: Yes = False, json: Json = False) -> None:
    """Hand a signed draft to the server, which verifies it and signs the online roles anew. Devices follow at once."""
    draft = _read(file)
    _check_place(client, draft)
    _submit(client, draft, because=because, yes=yes, json=json)


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
    return parse(PublicKey, read_bounded(file.expanduser()), what=str(file)).key()


def _read(file: Path) -> Draft:
    try:
        if file.stat().st_size > limits.CEREMONY_BYTES:
            raise UntrustedInput(f"{file} is larger than a draft may be ({limits.CEREMONY_BYTES} bytes)")
        return read_draft(file.read_bytes())
    except FileNotFoundError:
        raise NotFound(
            f"there is no draft {file}; make one with --draft, such as: whimbrel keys rotate root --draft FILE"
        ) from None


def _check_place(client: Client, draft: Draft) -> None:
    if draft.namespace != client.namespace:
        raise UntrustedInput(f"the draft is of the namespace {draft.namespace!r}, and this is {client.namespace!r}")


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
        _send(client, signed, because=because, json=json)
        return
    file = to or Path(f"{draft.summary.replace(' ', '-')}.draft.json")
    if to is None and file.exists():
        raise Conflict(f"there is a draft {file} already; name another file with --draft")
    hand_on(draft, file, json=json)


def hand_on(draft: Draft, file: Path, *, json: bool) -> None:
    """Write a draft for others to sign, and say what it changes and who must sign it."""
    write_durably(file.expanduser(), write_draft(draft))
    if json:
        print_json(_view(draft) | {"draft": str(file)})
        return
    _tell(draft, json=False)
    say(f"wrote the draft {file}; nothing has changed yet")
    _say_next(draft, file)


def _folder_of(client: Client) -> KeyFolder | None:
    try:
        return key_folder(client.keys())
    except NotFound:
        return None


def _would_do(draft: Draft, folder: KeyFolder) -> bool:
    held = set(folder.held())
    return all(wanted.keys.signed_by(held | wanted.signed) for wanted in signatures(draft))


def _submit(client: Client, draft: Draft, *, because: str, yes: bool, json: bool) -> None:
    lacking = [wanted for wanted in signatures(draft) if wanted.missing]
    if lacking:
        raise UntrustedInput(f"the draft is not signed yet: {'; '.join(_words(each) for each in lacking)}")
    _check_fresh(client, draft)
    if not json:
        for sentence in changes_of(draft):
            say(f"  {sentence}")
    confirm(f"to {draft.summary}", consequence="devices follow with their next refresh", yes=yes, nature="moves trust")
    _send(client, draft, because=because, json=json)


def _check_fresh(client: Client, draft: Draft) -> None:
    """Raises `Conflict` for a draft whose next versions exist already: it can never be taken."""
    now = {state.role: state.version for state in client.get("keys/roles", as_=RoleStatesView).roles}
    for role, version in next_versions(draft).items():
        if now.get(role, 0) >= version:
            raise Conflict(
                f"the draft makes version {version} of {role}, and the server has version {now[role]}: it was "
                "submitted already, or another change came first. See `whimbrel keys status`; where something "
                "lacks, make a new draft"
            )


def _send(client: Client, draft: Draft, *, because: str, json: bool) -> None:
    unused = set(client.get("keys/roles", as_=RoleStatesView).unused)
    body = NewKeyChange(documents=documents_of(draft), because=because or draft.summary)
    done = client.send("POST", "keys/changes", body, as_=KeyChangeView)
    proven_roles(client).remember(documents_of(draft))
    if json:
        print_json(done)
        return
    say("done: devices follow with their next refresh")
    retired = [keyid for keyid in client.get("keys/roles", as_=RoleStatesView).unused if keyid not in unused]
    if retired:
        say(f"in the server's keys/online, and used by nothing from now on: {', '.join(map(short, retired))}")


def _tell(draft: Draft, *, json: bool) -> None:
    if json:
        print_json(_view(draft))
        return
    version, fingerprint = root_fingerprint(draft)
    say(
        f"{draft.summary} (namespace {draft.namespace}, drafted {draft.created}, from root version {version}, "
        f"{fingerprint})"
    )
    for sentence in changes_of(draft):
        say(f"  {sentence}")
    say("signatures")
    for wanted in signatures(draft):
        say(f"  {_words(wanted)}")


def _words(wanted: Signatures) -> str:
    role, keys, signed, whose = wanted
    missing = wanted.missing
    of = ", ".join(f"{short(keyid)}{' signed' if keyid in signed else ''}" for keyid in keys.keyids)
    state = f"{missing} more must sign" if missing else "complete"
    return f"{role}{f' by {whose}' if whose else ''}: {len(signed)} of {keys.threshold} ({of}): {state}"


def _view(draft: Draft) -> dict[str, object]:
    version, fingerprint = root_fingerprint(draft)
    return {
        "summary": draft.summary,
        "root_version": version,
        "root_fingerprint": fingerprint,
        "changes": changes_of(draft),
        "signatures": [
            {
                "role": each.role,
                "whose": each.whose,
                "keys": list(each.keys.keyids),
                "threshold": each.keys.threshold,
                "signed": sorted(each.signed),
                "missing": each.missing,
            }
            for each in signatures(draft)
        ],
        "complete": not any(each.missing for each in signatures(draft)),
    }


def _say_next(draft: Draft, file: Path) -> None:
    if any(wanted.missing for wanted in signatures(draft)):
        say(f"Next: whoever holds a key runs: whimbrel keys sign {file} --keys DIR")
    else:
        say(f"Next: whimbrel keys submit {file}")
