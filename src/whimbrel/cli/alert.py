"""`whimbrel alert`: who is told of what happens to rollouts, and what became of it."""

from typing import Annotated

import typer

from whimbrel.cli.connect import Client, connected, quoted
from whimbrel.cli.output import Json, print_json, print_table, say, when

app = typer.Typer(
    help="Alerts: who is told of what happens to rollouts. Receivers stand in the file whimbrel.toml; plans name them.",
    no_args_is_help=True,
    add_completion=False,
)


@app.command("receivers")
@connected
def receivers(client: Client, json: Json = False) -> None:
    """Who may be told. Addresses and secrets are not shown."""
    known = client.get("receivers")
    if json:
        print_json(known)
        return
    print_table(
        ["name", "form", "of every rollout"],
        [[each["name"], each["form"], ", ".join(each["on"]) or "nothing: only what plans ask for"] for each in known],
        title="receivers",
    )


@app.command("test")
@connected
def send_test(client: Client, name: Annotated[str, typer.Argument(help="A receiver.")], json: Json = False) -> None:
    """Send a receiver a marked test alert now, and print what it answered. The exit status is 0 when it took it."""
    answered = client.send("POST", f"receivers/{quoted(name)}/test")
    if json:
        print_json(answered)
    else:
        say(f"{name} {'took it' if answered['ok'] else 'did NOT take it'}: {answered['said'] or 'no words'}")
    if not answered["ok"]:
        raise typer.Exit(1)


@app.command("list")
@connected
def list_alerts(
    client: Client,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The newest so many.")] = 30,
    json: Json = False,
) -> None:
    """What receivers were told, newest first: sent, waiting for another try, grouped with the same, or given up."""
    rows = client.get("alerts", limit=limit)
    if json:
        print_json(rows)
        return
    print_table(
        ["at (UTC)", "receiver", "rollout", "what", "state", "tries", "the receiver's words"],
        [[when(r["at"]), r["receiver"], r["rollout"], r["moment"], r["state"], r["tries"], r["said"]] for r in rows],
        title="alerts",
    )
