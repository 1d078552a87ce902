"""`whimbrel init`, `migrate`, `collect` and `audit`: make a repository, and look after it."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from whimbrel.cli.confirmation import confirm
from whimbrel.cli.connect import Client, connected
from whimbrel.cli.options import Yes
from whimbrel.cli.output import Json, counted, print_json, say, size_of
from whimbrel.model.documents import convert
from whimbrel.server.admin.views.artifacts import CollectedView
from whimbrel.server.app import create_repository, migrate_repository
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
