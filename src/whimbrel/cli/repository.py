"""`whimbrel init`, `serve` and `migrate`: make a repository, run its server, bring its database up."""

import asyncio
import logging
import shlex
from pathlib import Path
from typing import Annotated

import typer

from whimbrel.cli.confirmation import confirm
from whimbrel.cli.connect import Client, connected
from whimbrel.cli.options import Yes
from whimbrel.cli.output import Json, counted, print_json, say, size_of
from whimbrel.durable import trouble
from whimbrel.errors import WhimbrelError
from whimbrel.model.documents import convert
from whimbrel.server.admin.views.artifacts import CollectedView
from whimbrel.server.app import create_repository, migrate_repository, new_event_loop, serve_until_stopped
from whimbrel.server.config import Config, Folder
from whimbrel.server.logs import LogFormat, fields, start_logging

log = logging.getLogger(__name__)


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
    log_format: Annotated[
        LogFormat, typer.Option(help="Of the log on standard error: text, or json (one object a line).")
    ] = "text",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Run the server: static metadata and artifacts, device API, admin API, controllers. Stops on Ctrl-C or SIGTERM.

    Devices reach only the first listener. Put a proxy or CDN with TLS in front of it: --listen 0.0.0.0:8470.

    A database that an older Whimbrel made is brought up first (see `whimbrel migrate`).
    """
    start_logging(log_format, verbose=verbose)

    async def run() -> None:
        opened = Folder.open(folder.resolve())
        async for listening in serve_until_stopped(opened, listen=listen, admin_listen=admin_listen):
            say(f"devices: {listening.devices}/{opened.config.namespace}   people: {listening.admin} (see /schema)")

    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(run())
    except (WhimbrelError, OSError) as error:
        if log_format == "text":
            raise
        reason = trouble(error, doing="serving") if isinstance(error, OSError) else error
        log.error("%s", reason, extra=fields(exit_status=reason.exit_code))  # what reads the log reads this, too
        raise typer.Exit(reason.exit_code) from error


def migrate(
    folder: Annotated[Path, typer.Argument(help="A repository's folder.", envvar="WHIMBREL_REPOSITORY")],
    json: Json = False,
) -> None:
    """Bring the database's schema to this program's, as `serve` does when it starts. No other command changes it.

    Back up the database before: there is no way back to an older program but the backup.
    """
    migration = migrate_repository(Folder.open(folder.resolve()))
    if json:
        print_json({"before": migration.before, "after": migration.after})
    elif migration.changed:
        say(f"brought the database from the schema {migration.before or 'none'} to {migration.after}")
    else:
        say(f"the database has the schema {migration.after} already; nothing was changed")


@connected
def collect(
    client: Client,
    older_than_hours: Annotated[float, typer.Option(min=0, help="Leave younger uploads alone.")] = 24.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be deleted, and delete nothing.")] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Delete artifacts that nothing refers to: no version, policy, rollout or device."""
    query = {"older_than_s": older_than_hours * 3600}
    unheld = client.send("POST", "collect", as_=CollectedView, **query, dry_run=True)
    amount = f"{counted(len(unheld.collected), 'artifact')}, {size_of(unheld.size_bytes)}"
    if not dry_run and unheld.collected:
        confirm(f"to delete {amount},", consequence="nothing refers to them", yes=yes)
    done = unheld if dry_run else client.send("POST", "collect", as_=CollectedView, **query)
    if json:
        print_json(done)
        return
    for digest in done.collected if dry_run else ():
        say(f"  {digest}")
    verb = "would delete" if dry_run else "deleted"
    say(f"{verb} {counted(len(done.collected), 'artifact')}, {size_of(done.size_bytes)}")
