"""`whimbrel init` and `whimbrel serve`: make a repository, and run its server."""

import asyncio
import logging
import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.logging import RichHandler

from whimbrel.cli.connect import Client, connected
from whimbrel.cli.output import Json, print_json, print_table, say, size_of, stderr, when
from whimbrel.model.documents import convert
from whimbrel.server.admin.views.artifacts import CollectedView
from whimbrel.server.admin.views.repository import AuditEntry
from whimbrel.server.app import create_repository, new_event_loop, serve_until_stopped
from whimbrel.server.config import Config, Folder


def init(
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    database: Annotated[
        str, typer.Option(help="SQLAlchemy URL; a relative path is in the folder.")
    ] = Config().database,
    artifacts: Annotated[str, typer.Option(help="A folder, or s3://bucket/prefix and the like.")] = Config().artifacts,
    inbox: Annotated[str, typer.Option(help="Where reports wait: table, or nats://host:4222.")] = Config().inbox,
    inbox_stream: Annotated[
        str, typer.Option(help="The JetStream stream of a NATS inbox: one a database.")
    ] = Config().inbox_stream,
    namespace: Annotated[str, typer.Option(help="The namespace's name.")] = Config().namespace,
    json: Json = False,
) -> None:
    """Make a repository: keys, signed metadata, database, tokens.

    keys/offline holds the keys that sign versions: move that folder to a safe place; `serve` starts without it.
    """
    settings = {
        "database": database,
        "artifacts": artifacts,
        "inbox": inbox,
        "inbox_stream": inbox_stream,
        "namespace": namespace,
    }
    created = create_repository(folder.resolve(), convert(Config, settings, what="the settings"))
    if json:
        print_json(
            {"folder": str(created.path), "root": str(created.root), "admin_token_file": str(created.admin_token)}
        )
        return
    say(f"Made {created.path}")
    say(f"  {created.root.name}      what devices are built with (trust starts here)")
    say("  keys/offline   signs versions: keep it away from the server")
    say("  keys/online    what the server needs")
    say("  admin.token, enrol.token   for people, and for new devices")
    say(
        f"Next: export WHIMBREL_REPOSITORY={shlex.quote(str(folder))}; "
        "whimbrel model add NAME; whimbrel publish --model NAME FILE"
    )


def serve(
    folder: Annotated[Path, typer.Argument(help="A repository's folder.", envvar="WHIMBREL_REPOSITORY")],
    listen: Annotated[str, typer.Option(help="host:port for devices and static files.")] = "127.0.0.1:8470",
    admin_listen: Annotated[str, typer.Option(help="host:port for people; keep it on loopback.")] = "127.0.0.1:8471",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Run the server: static metadata and artifacts, device API, admin API, controllers. Stops on Ctrl-C or SIGTERM.

    Devices reach only the first listener. Put a proxy or CDN with TLS in front of it: --listen 0.0.0.0:8470.
    """
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(message)s",
        handlers=[RichHandler(console=stderr, show_path=False)],
    )
    for noisy in ("alembic", "uvicorn", "httpx", "nats", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)

    async def run() -> None:
        opened = Folder.open(folder.resolve())
        async for listening in serve_until_stopped(opened, listen=listen, admin_listen=admin_listen):
            say(f"devices: {listening.devices}/{opened.config.namespace}   people: {listening.admin} (see /schema)")

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(run())


@connected
def collect(
    client: Client,
    older_than_hours: Annotated[float, typer.Option(min=0, help="Leave younger uploads alone.")] = 24.0,
    json: Json = False,
) -> None:
    """Delete artifacts that nothing refers to: no version, policy, rollout or device."""
    collected = client.send("POST", "collect", as_=CollectedView, older_than_s=older_than_hours * 3600)
    if json:
        print_json(collected)
        return
    say(f"collected {len(collected.collected)} artifacts, {size_of(collected.size_bytes)}")


@connected
def audit(
    client: Client,
    model: Annotated[str | None, typer.Option(help="Only this model's entries.")] = None,
    rollout: Annotated[str | None, typer.Option(help="Only this rollout's entries.")] = None,
    device: Annotated[str | None, typer.Option(help="Only this device's entries.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    json: Json = False,
) -> None:
    """Who did what, when, why and on what evidence. Newest first."""
    entries = client.get("audit", as_=list[AuditEntry], model=model, rollout=rollout, device=device, limit=limit)
    if json:
        print_json(entries)
        return
    rows = [
        [when(entry.at), entry.actor, entry.action, entry.model, entry.rollout or entry.device, entry.because]
        for entry in entries
    ]
    print_table(["when (UTC)", "who", "what", "model", "rollout or device", "because"], rows)
