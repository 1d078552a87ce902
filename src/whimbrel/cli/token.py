"""`whimbrel token`: tokens of people and machines: make, list, change and end them."""

from pathlib import Path
from typing import Annotated

import typer

from whimbrel import limits
from whimbrel.cli.confirmation import confirm
from whimbrel.cli.connect import Client, connected, quoted
from whimbrel.cli.option_values import duration_s
from whimbrel.cli.options import Yes
from whimbrel.cli.output import Json, print_json, print_table, say, when
from whimbrel.durable import write_durably
from whimbrel.errors import UntrustedInput
from whimbrel.flows.accounts.permissions import Role
from whimbrel.flows.accounts.tokens import DAY_S
from whimbrel.server.admin.views.accounts import (
    CallerView,
    MadeToken,
    NewApiToken,
    TokenRevocation,
    TokenRotation,
    TokenView,
)

app = typer.Typer(
    help="Tokens by which people and machines use a server: make, list, rotate and revoke them.",
    no_args_is_help=True,
    add_completion=False,
)

Which = Annotated[str, typer.Argument(help="The token's name or id; see: whimbrel token list")]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Write the token into this file, which only you may read.", dir_okay=False),
]


@app.command("create")
@connected
def create(
    client: Client,
    name: Annotated[str, typer.Argument(help="Its name; without --person also the machine's.")],
    role: Annotated[
        list[Role],
        typer.Option(
            "--role",
            "--scope",
            help="What it may do. viewer: look. pipeline: publish, and write rollouts down as drafts. publisher: that, "
            "and set lines. releaser: start, stop and approve. security: stop, approve, devices, keys, tokens. admin: "
            "everything. Repeat it for several.",
        ),
    ],
    person: Annotated[
        str | None, typer.Option(help="Whose it is. Without it, it is a machine's, which approves nothing.")
    ] = None,
    length: Annotated[str, typer.Option("--for", help="How long it is good: 12h, 90d; 366d at most.")] = "90d",
    output: Output = None,
    json: Json = False,
) -> None:
    """Make a token. It is shown once, and kept as a hash.

    whimbrel token create ci --role pipeline --for 90d --output ci.token

    whimbrel token create ada-laptop --person ada --role releaser
    """
    asked = NewApiToken(name=name, roles=tuple(role), person=person, days=_days(length))
    _tell(client.send("POST", "tokens", asked, as_=MadeToken), output, json=json)


@app.command("list")
@connected
def list_tokens(
    client: Client,
    everyone: Annotated[bool, typer.Option("--all", help="Also those that are over.")] = False,
    json: Json = False,
) -> None:
    """Tokens that are good, oldest first: whose, what for, until when, and when they were used last."""
    tokens = client.get("tokens", as_=list[TokenView], all=everyone)
    if json:
        print_json(tokens)
        return
    print_table(
        ["token", "account", "roles", "made by", "until (UTC)", "used last (UTC)", "id"],
        [
            [
                each.name,
                f"{each.account} ({each.kind})",
                ", ".join(each.roles),
                each.created_by,
                f"revoked {when(each.revoked_at)}" if each.revoked_at is not None else when(each.expires_at) or "ever",
                when(each.used_at) or "never",
                each.id,
            ]
            for each in tokens
        ],
        title="tokens",
    )


@app.command("rotate")
@connected
def rotate(
    client: Client,
    token: Annotated[
        str | None, typer.Argument(help="Its name or id; without it, the token that this command shows.")
    ] = None,
    length: Annotated[
        str | None, typer.Option("--for", help="How long the new one is good; without it, as long as the old one.")
    ] = None,
    output: Output = None,
    json: Json = False,
) -> None:
    """Change a token for a new one, with the same name and roles. The old one is over at once."""
    asked = TokenRotation(days=None if length is None else _days(length))
    _tell(client.send("POST", f"tokens/{quoted(token or 'self')}/rotate", asked, as_=MadeToken), output, json=json)


@app.command("revoke")
@connected
def revoke(
    client: Client,
    token: Which,
    because: Annotated[str, typer.Option("--because", help="The reason, for the audit log.")] = "",
    although_last: Annotated[
        bool, typer.Option("--although-last", help="Also where nobody is an admin without it.")
    ] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """End a token now: nothing that shows it is answered any more. The last admin's takes --although-last."""
    path = f"tokens/{quoted(token)}"
    asked = client.get(path, as_=TokenView)
    confirm(
        f"to revoke the token {asked.name} of {asked.account}",
        consequence="whatever uses it is shut out at once",
        yes=yes,
    )
    order = TokenRevocation(because=because, although_last=although_last)
    revoked = client.send("POST", f"{path}/revoke", order, as_=TokenView)
    if json:
        print_json(revoked)
        return
    say(f"{revoked.name} of {revoked.account} is revoked")


@app.command("whoami")
@connected
def whoami(client: Client, json: Json = False) -> None:
    """As whom this command line acts, and what it may do."""
    caller = client.get("caller", as_=CallerView)
    if json:
        print_json(caller)
        return
    say(f"{caller.account}, a {caller.kind}: {', '.join(caller.roles)}")
    say(f"  may {', '.join(caller.permissions)}")


def _days(length: str) -> float:
    """Days of the option --for. Raises `UntrustedInput` for more than a token may live."""
    days = duration_s(length, what="--for") / DAY_S
    if not 0 < days <= limits.TOKEN_DAYS:
        raise UntrustedInput(
            f"--for is {length}; expected more than 0s and at most {limits.TOKEN_DAYS:g}d, the longest life of a token"
        )
    return days


def _tell(made: MadeToken, output: Path | None, *, json: bool) -> None:
    """Say what was made. The token itself goes into the file, where one is named, and is shown otherwise."""
    if output is not None:
        write_durably(output, f"{made.token}\n".encode("ascii"), mode=0o600)
    if json:
        shown = {name: getattr(made, name) for name in MadeToken.__struct_fields__}
        print_json(shown if output is None else {**shown, "token": None, "file": str(output)})
        return
    until = f"until {when(made.expires_at)} UTC" if made.expires_at is not None else "until it is revoked"
    say(f"{made.name}, a token of {made.kind} {made.account} ({', '.join(made.roles)}), {until}")
    if output is None:
        say(f"  {made.token}")
        say("It is shown this once. Use it as WHIMBREL_TOKEN, or in a file with --token-file.")
    else:
        say(f"  written to {output}, which only you may read")
