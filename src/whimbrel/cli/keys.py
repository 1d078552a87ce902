"""`whimbrel keys`: who may sign what, keys that people hold, and changes of both.

The changes are drafted in cli/key_changes.py; cli/key_drafts.py has what is done with a draft.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from whimbrel.cli import key_changes, key_drafts, key_proposals
from whimbrel.cli.confirmation import confirm
from whimbrel.cli.connect import Client, connected
from whimbrel.cli.key_secrets import ask_secret, new_passphrase
from whimbrel.cli.options import Yes
from whimbrel.cli.output import Json, print_json, print_table, say, when
from whimbrel.cli.role_signers import key_folder
from whimbrel.durable import write_durably
from whimbrel.errors import Conflict, NotFound, UntrustedInput
from whimbrel.model.documents import encode, plain
from whimbrel.model.ids import check_name
from whimbrel.server.admin.views.repository import (
    KeyProposalView,
    NewSealingKey,
    NewTokenKey,
    ReplacedSealingKeyView,
    RoleStatesView,
    RoleStateView,
    SealingKeyView,
    TokenKeyView,
)
from whimbrel.stores.signer import URI_FORMS, PublicKey, import_key, make_signer, reference_of, write_reference
from whimbrel.trust import roles
from whimbrel.trust.role_keys import short

app = typer.Typer(
    help="Keys: who may sign what, and until when; make, replace and take away keys. See docs/howto/keys.md.",
    no_args_is_help=True,
    add_completion=False,
)

Kind = Literal["ed25519", "ecdsa", "rsa", "ml-dsa-44", "ml-dsa-65", "ml-dsa-87"]
KeysFolder = Annotated[Path, typer.Option("--keys", help="The folder of your keys.")]
_KEEP = "Copy this file to a safe place, and keep it out of backups of the database"
_FORMS = "  ".join(f"{form}." for form in URI_FORMS.values())


@app.command("status")
@connected
def status(client: Client, json: Json = False) -> None:
    """Each role: who may sign it, how many must, until when it is valid, and which of its keys are here.

    A warning stands below for what expires within 60 days, and for a key that the server lacks.
    """
    states = client.get("keys/roles", as_=RoleStatesView)
    if json:
        print_json(states)
        return
    mine = _held_names(client)
    print_table(
        ["role", "keys", "must sign", "version", "valid until", "signed by"],
        [
            [
                state.role,
                ", ".join(_key_words(key.keyid, key.scheme, mine) for key in state.keys),
                f"{state.threshold} of {len(state.keys)}",
                state.version,
                _until(state),
                "people" if state.offline else "the server",
            ]
            for state in states.roles
        ],
        title="roles",
    )
    if states.unused:
        say(f"in the server's keys/online, and used by nothing: {', '.join(map(short, states.unused))}")
    for each in _waiting(client):
        say(f"waits for a second person since {when(each.at)} UTC: {each.because or each.id} (whimbrel keys proposals)")
    for state in states.roles:
        if state.warning is not None:
            say(f"WARNING: {state.warning}")


@app.command("init")
def init(
    name: Annotated[str, typer.Argument(help="What the key is called here, such as root, or your own name.")],
    keys: KeysFolder,
    kind: Annotated[
        Kind, typer.Option(help="Of a new key. Devices must be able to verify it: see the how-to.")
    ] = "ed25519",
    encrypted: Annotated[
        bool, typer.Option("--encrypted", help="Ask for a passphrase (or take $WHIMBREL_KEY_PASSPHRASE).")
    ] = False,
    uri: Annotated[str | None, typer.Option(help=f"Refer to a key that lies elsewhere instead.  {_FORMS}")] = None,
    public: Annotated[Path | None, typer.Option(help="Write the public half here, to hand on.")] = None,
    json: Json = False,
) -> None:
    """Make a key of your own, or refer to one in a key service or a token. It may sign nothing until it is added.

    whimbrel keys init anna --keys ~/keys --encrypted --public anna.pub.json
    """
    try:
        check_name(name, kind="key")
    except ValueError as error:
        raise UntrustedInput(str(error)) from error
    path = keys.expanduser() / f"{name}.pem"
    if uri is not None:
        if path.exists():
            raise Conflict(f"there is a key at {path} already; it is not overwritten")
        kept, key = import_key(uri, secrets=ask_secret, beside=path.parent)
        write_reference(reference_of(path), kept, key)
    else:
        key = make_signer(path, kind=kind, passphrase=new_passphrase() if encrypted else None).public_key
    written = PublicKey.of(key)
    if public is not None:
        write_durably(public.expanduser(), encode(written) + b"\n")
    if json:
        print_json({"name": name, "folder": str(path.parent), "public": plain(written)})
        return
    say(f"made the key {name}: {short(key.keyid)} ({key.scheme}) in {path.parent}")
    say(
        f"Next: hand on its public half{f' {public}' if public else f': whimbrel keys export {name}'}; somebody adds it"
    )


@app.command("export")
@connected
def export(
    client: Client,
    name: Annotated[str, typer.Argument(help="`root`: the newest root. Else the name of a key in your folder.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file; standard output by default.")] = None,
    json: Json = False,
) -> None:
    """Write what others need: the newest root, or the public half of a key. Never a private key."""
    del json  # both are JSON
    if name == roles.ROOT:
        content = client.get_bytes("roles/root")
    else:
        content = encode(PublicKey.of(key_folder(client.keys()).named(name).public)) + b"\n"
    if output is None:
        say(content.decode().rstrip())
        return
    write_durably(output.expanduser(), content)
    say(f"wrote {output}")


@app.command("replace-token-key")
@connected
def replace_token_key(
    client: Client,
    at_once: Annotated[
        bool, typer.Option("--at-once", help="It was stolen: refuse tokens of the old key from now on.")
    ] = False,
    because: key_drafts.Why = "",
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Replace the key that the server makes device tokens with. Devices get new tokens by themselves."""
    if at_once:
        confirm(
            "to refuse all device tokens",
            consequence="every device asks for a new one at its next report",
            yes=yes,
            nature="costs a request of each device",
        )
    done = client.send("POST", "keys/device-tokens", NewTokenKey(at_once=at_once, because=because), as_=TokenKeyView)
    if json:
        print_json(done)
        return
    until = f"{datetime.fromtimestamp(done.old_until, UTC):%H:%M:%S} UTC"
    say(
        "device tokens are made with a new key; "
        + ("old ones are refused" if at_once else f"old ones are good until {until}")
    )


@app.command("make-sealing-key")
@connected
def make_sealing_key(
    client: Client,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="A new key takes the place of the one there: all is sealed anew to it."),
    ] = False,
    lost: Annotated[
        bool, typer.Option("--lost", help="The key before is lost for good: make another; older versions stay shut.")
    ] = False,
    because: key_drafts.Why = "",
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Have the server make its sealing key: it opens the keys of sealed releases, so that devices can be given them.

    The file lies on the server, outside of the database (`sealing_key` in whimbrel.toml says where). Copy it to a safe
    place: without it no device can be given a key any more. See docs/howto/seal-a-model.md.

    With --replace every release key is sealed to a new one in one transaction, and the key before is removed when
    nothing needs it. Where it is interrupted both keys stay, and the same command goes on.
    """
    if replace and lost:
        raise UntrustedInput("--replace and --lost exclude each other: a key that is lost opens nothing to seal anew")
    if not (replace or lost):
        made = client.send("POST", "keys/sealing", as_=SealingKeyView)
        if json:
            print_json(made)
            return
        say(f"made the sealing key {made.path} on the server; its public half is {made.recipient}")
        say(f"{_KEEP}: who has both opens every release")
        say("Next: whimbrel model set MODEL --sealed")
        return
    if lost:
        consequence = "no device can be given the key of a version that was sealed before"
        confirm("to give the sealing key up as lost", consequence=consequence, yes=yes)
    body = NewSealingKey(lost=lost, because=because)
    done = client.send("POST", "keys/sealing/replace", body, as_=ReplacedSealingKeyView)
    if json:
        print_json(done)
        return
    say(f"the sealing key {done.path} on the server is another one now; its public half is {done.recipient}")
    if lost:
        say("Publish anew what devices are to get: versions that were sealed before cannot be opened")
    else:
        keys = "1 release key is" if done.sealed_anew == 1 else f"{done.sealed_anew} release keys are"
        say(f"{keys} sealed to it; the key before is gone")
    if done.unopened:
        say(f"{done.unopened} kept keys were not sealed to the key before, and are as they were: nobody can open them")
    say(f"{_KEEP}; backups of the database from before need the copy of the key before")


def _waiting(client: Client) -> list[KeyProposalView]:
    """The changes that wait for a second person; none where the server is older and knows of no such thing."""
    try:
        return client.get("keys/proposals", as_=list[KeyProposalView])
    except NotFound:
        return []


def _held_names(client: Client) -> dict[str, str]:
    """The names of the keys in the person's folder, where there is one."""
    try:
        return {keyid: key.name for keyid, key in key_folder(client.keys()).held().items()}
    except NotFound:
        return {}


def _key_words(keyid: str, scheme: str, mine: dict[str, str]) -> str:
    kind = "" if scheme == "ed25519" else f" {scheme}"
    return f"{short(keyid)}{kind}{f' (here: {mine[keyid]})' if keyid in mine else ''}"


def _until(state: RoleStateView) -> str:
    return "not signed yet" if state.expires is None else f"{datetime.fromtimestamp(state.expires, UTC):%Y-%m-%d}"


for _command, _name in (
    (key_changes.rotate, "rotate"),
    (key_changes.add, "add"),
    (key_changes.revoke, "revoke"),
    (key_changes.threshold, "threshold"),
    (key_changes.renew, "renew"),
    (key_drafts.show, "show"),
    (key_drafts.sign, "sign"),
    (key_drafts.submit, "submit"),
    (key_proposals.proposals, "proposals"),
    (key_proposals.approve, "approve"),
    (key_proposals.reject, "reject"),
):
    app.command(_name)(_command)
