"""`whimbrel keys show`, `sign`, `submit`: a change of keys as a file that is passed around.

1. `sign` needs no server. It shows what the draft changes, and remembers in the folder of keys the root that it saw
   (`trusted-root`): the next draft must follow from it. The first time nothing says which root is right, and it warns.
2. `submit` hands a draft to the server that all have signed; one that the server has already is refused in words.
"""

from pathlib import Path
from typing import Annotated

import typer

from whimbrel.cli.confirmation import confirm
from whimbrel.cli.connect import Client, connected
from whimbrel.cli.draft_file import read_draft_file
from whimbrel.cli.key_proposals import SHOWN
from whimbrel.cli.options import Yes
from whimbrel.cli.output import Json, note, print_json, say
from whimbrel.cli.role_signers import key_folder, proven_roles
from whimbrel.durable import write_durably
from whimbrel.errors import Conflict, NotFound, UntrustedInput
from whimbrel.server.admin.views.repository import KeyChangeView, NewKeyChange, RoleStatesView
from whimbrel.stores.key_ceremony import (
    Draft,
    Signatures,
    changes_of,
    check_before,
    documents_of,
    last_root,
    next_versions,
    root_fingerprint,
    sign_draft,
    signatures,
    write_draft,
)
from whimbrel.stores.proven_roles import PRIVATE, trusted_root_of
from whimbrel.trust.role_keys import short

DraftFile = Annotated[Path, typer.Argument(help="The draft.")]
Why = Annotated[str, typer.Option("--because", help="For the audit log.")]


def show(file: DraftFile, json: Json = False) -> None:
    """What a draft changes, who must sign it, and who did. Needs no server and no key."""
    _tell(read_draft_file(file), json=json)


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
    folder, draft = key_folder(keys.expanduser()), read_draft_file(file)
    known = trusted_root if trusted_root is not None else trusted_root_of(folder.path, draft.namespace)
    remembered = known.read_bytes() if known.exists() else None
    if trusted_root is not None and remembered is None:
        raise NotFound(f"there is no file {trusted_root}; expected the root that devices are built with")
    check_before(draft, trusted_root=remembered)
    if not json:
        _tell(draft, json=False)
    version, fingerprint = root_fingerprint(draft)
    warning, where = None, f"it starts from root version {version} ({fingerprint})"
    if remembered is None:
        warning = (
            f"nothing here says that root version {version} is yours, and who changed it could have you sign anything. "
            f"Compare {fingerprint} by voice with somebody who signed before, or name a root that you trust: "
            "--trusted-root root.json"
        )
        if not json:
            note(f"WARNING: {warning}")
        where += ", which this folder sees for the first time: compare it by voice with somebody who signed before"
    confirm("to sign this", consequence=where, yes=yes, nature="lets others act with your name")
    signed, keyids = sign_draft(draft, folder)
    write_durably((output or file).expanduser(), write_draft(signed))
    write_durably(trusted_root_of(folder.path, draft.namespace), last_root(draft), mode=PRIVATE)
    if json:
        print_json(_view(signed) | {"signed_by": keyids, "warning": warning})
        return
    say(f"signed with {', '.join(short(keyid) for keyid in keyids)}")
    _say_next(signed, output or file)


@connected
def submit(client: Client, file: DraftFile, because: Why = "", yes: Yes = False, json: Json = False) -> None:
    """Hand a signed draft to the server, which verifies it and signs the online roles anew. Devices follow at once."""
    draft = read_draft_file(file)
    _check_place(client, draft)
    _submit(client, draft, because=because, yes=yes, json=json)


def hand_on(draft: Draft, file: Path, *, json: bool) -> None:
    """Write a draft for others to sign, and say what it changes and who must sign it."""
    write_durably(file.expanduser(), write_draft(draft))
    if json:
        print_json(_view(draft) | {"draft": str(file)})
        return
    _tell(draft, json=False)
    say(f"wrote the draft {file}; nothing has changed yet")
    _say_next(draft, file)


def _check_place(client: Client, draft: Draft) -> None:
    if draft.namespace != client.namespace:
        raise UntrustedInput(f"the draft is of the namespace {draft.namespace!r}, and this is {client.namespace!r}")


def _submit(client: Client, draft: Draft, *, because: str, yes: bool, json: bool) -> None:
    lacking = [wanted for wanted in signatures(draft) if wanted.missing]
    if lacking:
        raise UntrustedInput(f"the draft is not signed yet: {'; '.join(_words(each) for each in lacking)}")
    _check_fresh(client, draft)
    if not json:
        for sentence in changes_of(draft):
            say(f"  {sentence}")
    confirm(f"to {draft.summary}", consequence="devices follow with their next refresh", yes=yes, nature="moves trust")
    send_change(client, draft, because=because, json=json)


def _check_fresh(client: Client, draft: Draft) -> None:
    """Raises `Conflict` for a draft whose next versions exist already: it can never be taken."""
    now = {state.role: state.version for state in client.get("keys/roles", as_=RoleStatesView).roles}
    late = {role: version for role, version in next_versions(draft).items() if now.get(role, 0) >= version}
    if not late:
        return
    if all(role in now and client.get_bytes(f"roles/{role}") == body for role, body in documents_of(draft).items()):
        raise Conflict(f"this draft ({draft.summary}) was submitted already, and devices follow it: nothing is to do")
    role, version = min(late.items())
    raise Conflict(
        f"the draft makes version {version} of {role}, and the server has version {now[role]}: another change came "
        "first. See `whimbrel keys status`; where something lacks, make a new draft"
    )


def send_change(client: Client, draft: Draft, *, because: str, json: bool) -> None:
    """Send a change that is signed, and say what came of it."""
    unused = set(client.get("keys/roles", as_=RoleStatesView).unused)
    body = NewKeyChange(documents=documents_of(draft), because=because or draft.summary)
    done = client.send("POST", "keys/changes", body, as_=KeyChangeView)
    if done.proposal is None:
        proven_roles(client).remember(documents_of(draft))
    if json:
        print_json(done)
        return
    if done.proposal is not None:
        say_waits(done.proposal)
        return
    say("done: devices follow with their next refresh")
    retired = [keyid for keyid in client.get("keys/roles", as_=RoleStatesView).unused if keyid not in unused]
    if retired:
        say(f"in the server's keys/online, and used by nothing from now on: {', '.join(map(short, retired))}")


def say_waits(proposal: str) -> None:
    """Say that a change waits for another person, and how that person approves it."""
    say("handed in: nothing has changed yet, as this server asks for a second person")
    say(f"Next: another person with the right to change keys runs: whimbrel keys approve {proposal[:SHOWN]}")


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
