"""`whimbrel keys proposals`, `approve`, `reject`: changes of keys that one person handed in, and another one takes."""

from pathlib import Path
from typing import Annotated

import typer

from whimbrel.cli.confirmation import confirm
from whimbrel.cli.connect import Client, connected, quoted
from whimbrel.cli.draft_file import read_draft_file
from whimbrel.cli.options import Yes
from whimbrel.cli.output import Json, print_json, say, when
from whimbrel.errors import NotFound, UntrustedInput
from whimbrel.server.admin.views.reason import Reason
from whimbrel.server.admin.views.repository import KeyChangeView, KeyProposalView
from whimbrel.stores.key_ceremony import changes_of, documents_of
from whimbrel.stores.key_proposals import proposal_id

SHOWN = 12  # characters of a proposal's id that people read

Named = Annotated[
    str, typer.Argument(metavar="DRAFT", help="The file that was passed around, or the proposal's id or its beginning.")
]


@connected
def proposals(client: Client, json: Json = False) -> None:
    """Changes of keys that wait for a second person, where the server asks for one."""
    waiting = client.get("keys/proposals", as_=list[KeyProposalView])
    if json:
        print_json(waiting)
        return
    for each in waiting:
        say(f"{each.id[:SHOWN]}, handed in by {each.proposed_by} on {when(each.at)} UTC, until {when(each.until)} UTC")
        if each.because:
            say(f"  because: {each.because}")
        for sentence in each.changes:
            say(f"  {sentence}")
    if not waiting:
        say("no change of keys waits")


@connected
def approve(client: Client, draft: Named, yes: Yes = False, json: Json = False) -> None:
    """Agree to a change of keys that another person handed in. It is taken at once, and devices follow.

    whimbrel keys approve two-of-three.json

    With the file you approve what it says, and nothing else. With an id, read what the server says that it changes.
    """
    proposal, changes = _find(client, draft)
    if not json:
        say(f"handed in by {proposal.proposed_by} on {when(proposal.at)} UTC: {proposal.because or 'no reason given'}")
        for sentence in changes:
            say(f"  {sentence}")
    confirm("to approve this", consequence="devices follow with their next refresh", yes=yes, nature="moves trust")
    done = client.send("POST", f"keys/proposals/{quoted(proposal.id)}/approve", as_=KeyChangeView)
    if json:
        print_json(done)
        return
    say("done: devices follow with their next refresh")


@connected
def reject(
    client: Client,
    draft: Named,
    because: Annotated[str, typer.Option("--because", help="For the audit log.")] = "",
    json: Json = False,
) -> None:
    """Throw a change of keys away that waits: somebody else's, or your own. Nothing has changed."""
    proposal, _ = _find(client, draft)
    client.send("POST", f"keys/proposals/{quoted(proposal.id)}/reject", Reason(because=because))
    if json:
        print_json({"proposal": proposal.id, "rejected": True})
        return
    say(f"rejected: nothing has changed, and {proposal.id[:SHOWN]} waits no more")


def _find(client: Client, draft: str) -> tuple[KeyProposalView, list[str]]:
    """The proposal that is meant, and what it changes. Raises `NotFound`, or `UntrustedInput` for several."""
    waiting, file = client.get("keys/proposals", as_=list[KeyProposalView]), Path(draft).expanduser()
    if file.is_file():
        content = read_draft_file(file)
        identifier, changes = proposal_id(documents_of(content)), changes_of(content)
        for each in waiting:
            if each.id == identifier:
                return each, changes
        raise NotFound(f"what {draft} says does not wait here; hand it in first: whimbrel keys submit {draft}")
    matching = [each for each in waiting if each.id.startswith(draft)]
    if not matching:
        raise NotFound(
            f"no change of keys {draft[:80]!r} waits here, and there is no such file; see: whimbrel keys proposals"
        )
    if len(matching) > 1:
        raise UntrustedInput(f"{len(matching)} changes of keys begin with {draft!r}; give more of the id")
    return matching[0], matching[0].changes
