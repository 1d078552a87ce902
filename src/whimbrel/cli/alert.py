"""`whimbrel alert`: who is told of what happens to rollouts, and what became of it."""

from typing import Annotated

import typer

from whimbrel.cli.connect import Client, connected, quoted
from whimbrel.cli.output import Json, print_json, print_table, say, when
from whimbrel.server.admin.views.alerts import AlertView, ReceiverTestView, ReceiverView

app = typer.Typer(
    help="Alerts: who is told of what happens to rollouts. Receivers stand in the file whimbrel.toml; plans name them.",
    no_args_is_help=True,
    add_completion=False,
)


@app.command("receivers")
@connected
def receivers(client: Client, json: Json = False) -> None:
    """Who may be told. Addresses and secrets are not shown."""
    all_receivers = client.get("receivers", as_=list[ReceiverView])
    if json:
        print_json(all_receivers)
        return
    print_table(
        ["name", "form", "of every rollout"],
        [[each.name, each.form, ", ".join(each.on) or "nothing: only what plans ask for"] for each in all_receivers],
        title="receivers",
    )


@app.command("test")
@connected
def send_test(client: Client, name: Annotated[str, typer.Argument(help="A receiver.")], json: Json = False) -> None:
    """Send a receiver a marked test alert now, and print what it answered. The exit status is 0 when it took it."""
    answered = client.send("POST", f"receivers/{quoted(name)}/test", as_=ReceiverTestView)
    if json:
        print_json(answered)
    else:
        say(f"{name} {'took it' if answered.ok else 'did NOT take it'}: {answered.said or 'no words'}")
    if not answered.ok:
        raise typer.Exit(1)


@app.command("list")
@connected
def list_alerts(
    client: Client,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The newest so many.")] = 30,
    json: Json = False,
) -> None:
    """What receivers were told, newest first: sent, waiting for another try, grouped with the same, or given up."""
    alerts = client.get("alerts", as_=list[AlertView], limit=limit)
    if json:
        print_json(alerts)
        return
    print_table(
        ["at (UTC)", "receiver", "rollout, device or model", "what", "state", "tries", "the receiver's words"],
        [[when(a.at), a.receiver, a.rollout or a.device or a.model, a.event, a.state, a.tries, a.said] for a in alerts],
        title="alerts",
    )
