"""`whimbrel enrol-token`: with what devices enrol, on which terms, and until when."""

import time
from pathlib import Path
from typing import Annotated

import typer

from whimbrel import limits
from whimbrel.cli.confirmation import confirm
from whimbrel.cli.connect import Client, connected, quoted
from whimbrel.cli.device import Why, span_s
from whimbrel.cli.option_values import pair_of
from whimbrel.cli.options import Yes
from whimbrel.cli.output import Json, counted, print_json, print_table, say, when
from whimbrel.durable import write_durably
from whimbrel.errors import Conflict, NotFound, UntrustedInput
from whimbrel.server.admin.views.enrol_tokens import EnrolTokens, EnrolTokenView, NewEnrolTokens
from whimbrel.server.admin.views.reason import Reason

app = typer.Typer(
    help="Enrolment tokens: with what devices enrol, on which terms, and until when.",
    no_args_is_help=True,
    add_completion=False,
)

Named = Annotated[str, typer.Argument(help="The name that the tokens share.", show_default=False)]


@app.command("create")
@connected
def create(
    client: Client,
    name: Named,
    count: Annotated[
        int, typer.Option(min=1, max=limits.ENROL_TOKENS_AT_ONCE, help="So many tokens, of one name and rate.")
    ] = 1,
    single_use: Annotated[
        bool, typer.Option("--single-use", help="Each lets in one device, as for a factory. Such devices are proven.")
    ] = False,
    uses: Annotated[int | None, typer.Option(min=1, help="Each lets in so many devices; no bound otherwise.")] = None,
    expires: Annotated[
        str | None, typer.Option(help="They end after so long: 12h, 30d; never otherwise.", metavar="TIME")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(help="Of this label a device may claim these values alone. May come again.", metavar="KEY=A,B"),
    ] = None,
    give: Annotated[
        list[str] | None,
        typer.Option(help="Every such device gets this label, and cannot change it.", metavar="KEY=VALUE"),
    ] = None,
    rate: Annotated[
        int, typer.Option(min=1, max=limits.ENROLMENTS_A_MINUTE_MAX, help="New devices a minute, by all of them.")
    ] = limits.ENROLMENTS_A_MINUTE,
    require_key: Annotated[
        bool, typer.Option("--require-key", help="Let in only devices that prove a key, as all agents of today do.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write the tokens into this file, one a line, instead of printing them.")
    ] = None,
    because: Why = "",
    json: Json = False,
) -> None:
    """Make enrolment tokens. They are told now, and never again: the server keeps their hashes.

    A factory: whimbrel enrol-token create lot-7 --count 1000 --single-use --expires 90d --out lot-7.tokens
    """
    if single_use and uses not in {None, 1}:
        raise UntrustedInput(f"--single-use and --uses {uses} were given; a single-use token lets in one device")
    if out is None and count > 1 and not json:
        out = Path(f"{name}.tokens")
    if out is not None and out.exists():
        raise Conflict(f"{out} is there already, and may hold tokens; give another file with --out")
    body = NewEnrolTokens(
        name=name,
        count=count,
        uses_max=1 if single_use else uses,
        expires_in_s=None if expires is None else span_s(expires),
        labels={key: tuple(value.split(",")) for key, value in (pair_of(each, what="--label") for each in label or [])},
        granted_labels=dict(pair_of(each, what="--give") for each in give or []),
        rate_per_min=rate,
        requires_key=require_key,
        because=because,
    )
    made = client.send("POST", "enrol-tokens", body, as_=EnrolTokens)
    if out is not None:
        write_durably(out, "".join(f"{token}\n" for token in made.tokens).encode(), mode=0o600)
    if json:
        print_json(made if out is None else {"name": name, "count": len(made.tokens), "file": str(out)})
    elif out is not None:
        say(f"{counted(len(made.tokens), 'enrolment token')} {name!r}, one a line: {out}")
    else:
        say(made.tokens[0])


@app.command("list")
@connected
def list_tokens(client: Client, json: Json = False) -> None:
    """Enrolment tokens by name: their terms, and how many devices they let in."""
    tokens = client.get("enrol-tokens", as_=list[EnrolTokenView])
    if json:
        print_json(tokens)
        return
    rows = [
        [
            each.name,
            _state(each),
            each.tokens,
            each.uses if each.uses_max is None else f"{each.uses} of {each.uses_max * each.tokens}",
            "never" if each.expires_at is None else when(each.expires_at),
            each.rate_per_min,
            _terms(each),
            when(each.created_at),
        ]
        for each in tokens
    ]
    columns = ["name", "state", "tokens", "devices let in", "ends (UTC)", "a minute", "terms", "made (UTC)"]
    print_table(columns, rows, title="enrolment tokens")


@app.command("revoke")
@connected
def revoke(client: Client, name: Named, because: Why = "", yes: Yes = False, json: Json = False) -> None:
    """End all tokens of a name: they let no device in any more. The devices that they let in stay."""
    known = {each.name: each for each in client.get("enrol-tokens", as_=list[EnrolTokenView])}
    if name not in known:
        raise NotFound(f"there is no enrolment token {name!r}; see: whimbrel enrol-token list")
    if known[name].revoked_at is not None:
        raise Conflict(f"the enrolment tokens {name!r} are revoked already")
    confirm(f"to revoke {name}", consequence="no device enrols with its tokens any more", yes=yes)
    view = client.send("POST", f"enrol-tokens/{quoted(name)}/revoke", Reason(because=because), as_=EnrolTokenView)
    if json:
        print_json(view)
        return
    say(f"{name} is revoked. It let in {counted(view.uses, 'device')}, which stay; see: whimbrel device list")


def _state(each: EnrolTokenView) -> str:
    if each.revoked_at is not None:
        return "revoked"
    if each.expires_at is not None and each.expires_at <= time.time():
        return "over"
    if each.uses_max is not None and each.uses >= each.uses_max * each.tokens:
        return "used up"
    return "open"


def _terms(each: EnrolTokenView) -> str:
    words = ["single-use"] if each.uses_max == 1 else []
    words += ["needs a key"] if each.requires_key else []
    words += [f"{key} may be {' or '.join(values)}" for key, values in sorted(each.labels.items())]
    words += [f"gives {key}={value}" for key, value in sorted(each.granted_labels.items())]
    return "; ".join(words)
