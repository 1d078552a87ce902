"""`whimbrel model rollback`: take back what devices run, at any time."""

import shlex
from typing import Annotated

import msgspec
import typer

from whimbrel.cli.confirmation import confirm
from whimbrel.cli.connect import Client, connected, quoted
from whimbrel.cli.options import Yes
from whimbrel.cli.output import Json, print_json, say
from whimbrel.errors import UntrustedInput
from whimbrel.model.documents import plain
from whimbrel.model.selector_text import read_selector
from whimbrel.server.admin.views.models import NewWayBack, WayBackView


@connected
def rollback(
    client: Client,
    name: Annotated[str, typer.Argument(help="The model's name.")],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            help="Calendar or semantic version, serial, or alias to go back to; the version before unless given.",
        ),
    ] = "",
    selector: Annotated[
        str,
        typer.Option(
            "--selector",
            "-l",
            help='Only devices with these labels: "hardware=pi3", "os in (linux,android)"; all unless given.',
        ),
    ] = "",
    although_unknown: Annotated[
        bool,
        typer.Option("--although-unknown", help="Go on although the server knows no device with these labels."),
    ] = False,
    because: Annotated[str, typer.Option("--because", help="The reason, for the audit log and for alerts.")] = "",
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Take back what devices run, also long after its rollout was complete: they return to the version before.

    whimbrel model rollback detector --because "misses bicycles since the camera update"

    It is one new signed policy; versions that require each other go back together. The version that is left is
    quarantined; the completed rollout that brought it goes back with it, and `rollout watch` says how many devices are
    not off it yet. A rollout that is live is taken back with `whimbrel rollout rollback`.
    """
    if read_selector(selector).everyone and selector:  # the same check as the server's, before anything is asked
        raise UntrustedInput(
            f"--selector {selector!r} names no label, so it is every device; leave it out to mean that"
        )
    asked = NewWayBack(to=to, selector=selector, because=because, although_unknown=although_unknown)
    done = take_back(client, name, asked, yes=yes, quiet=json)
    if json:
        print_json(plain(done) | {"revoke_command": revoke_command(done, because=because)})


def take_back(client: Client, name: str, asked: NewWayBack, *, yes: bool, quiet: bool) -> WayBackView:
    """Say what devices of the model `name` will do, ask, and take it back; what was done. `quiet`: nothing is printed.

    Raises `Refused` where a person has to agree and nobody can be asked.
    """
    path = f"models/{quoted(name)}/rollback"
    would = client.send("POST", path, msgspec.structs.replace(asked, dry_run=True), as_=WayBackView)
    if not quiet:
        for sentence in would.sentences:
            say(sentence)
    confirm(
        f"to take {name} {would.leaves.semantic_version} back",
        consequence=f"{_devices(would)} to {would.to.semantic_version}{_others(would)}",
        nature="changes what devices run",
        yes=yes,
    )
    order = msgspec.structs.replace(asked, to=str(would.to.serial), leaves=would.leaves.serial)
    done = client.send("POST", path, order, as_=WayBackView)
    if quiet:
        return done
    says = "the signed policies say so" if done.others else "the signed policy says so"
    say(f"{name} went back to {done.to.version} ({done.to.semantic_version}){_others(done)}: {says}")
    say("To forbid the version for ever, whatever a policy says, where the publisher's key is:")
    say(f"  {revoke_command(done, because=asked.because)}")
    if done.rollout is not None and done.selector == "every device":
        say(f"Next: whimbrel rollout watch {done.rollout}")
    return done


def _devices(way: WayBackView) -> str:
    return "every device returns" if way.selector == "every device" else f"devices with {way.selector} return"


def _others(way: WayBackView) -> str:
    return "".join(f", with {other.model} to {other.to.semantic_version}" for other in way.others)


def revoke_command(way: WayBackView, *, because: str) -> str:
    """The command by which a publisher forbids what was left. It signs the model's line, which no server can."""
    words = ["whimbrel", "version", "revoke", way.leaves.version, "--model", way.model]
    return shlex.join([*words, "--because", because] if because else words)
