"""`whimbrel doctor`: is this machine fit for an agent, and which walls of the cage hold here?"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from whimbrel.agent.machine import Finding, examine, platform_words
from whimbrel.errors import WhimbrelError
from whimbrel.model import documents

_MARKS = {"ok": "ok", "warning": "warning", "problem": "PROBLEM"}


def doctor(
    folder: Annotated[
        Path | None, typer.Option("--folder", help="The agent's folder: its owner, its room, its settings.")
    ] = None,
    server: Annotated[
        str | None, typer.Option("--server", help="A server that should answer; else the one that the folder names.")
    ] = None,
    repository: Annotated[
        Path | None,
        typer.Option("--repository", "-R", help="A repository's folder: its sealing key, and who may read its keys."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
) -> None:
    """Look at this machine: the cage that models are tried in, the clock, the runtimes, the folder, the server.

    With --repository, where a server runs: does its sealing key open the keys of its sealed versions?

    Each line says what was looked at and what was found; where something is wrong, also what it means and what to do.
    The walls of the cage are tried from within, by a process that attacks them. Nothing is changed.

    Exit status 0: an agent works here, perhaps with warnings. 1: there is a problem.

      whimbrel doctor
      whimbrel doctor --folder /var/lib/models --server https://models.example.com
      whimbrel doctor --repository /srv/models
    """
    findings = [*examine(folder, server), *(_repository(repository) if repository is not None else ())]
    problems = [each for each in findings if each.level == "problem"]
    if json:
        document = {"machine": platform_words(), "fit": not problems, "findings": findings}
        sys.stdout.write(documents.encode(document).decode() + "\n")
    else:
        sys.stdout.write(platform_words() + "\n")
        width = max(len(each.checked) for each in findings)
        sys.stdout.writelines(_line(each, width) for each in findings)
        warnings = sum(each.level == "warning" for each in findings)
        sys.stdout.write(f"{_counted(len(problems), 'problem')}, {_counted(warnings, 'warning')}\n")
    raise typer.Exit(1 if problems else 0)


def _repository(path: Path) -> Iterator[Finding]:
    """What a server's folder has to say. Imported here: a device has no server."""
    from whimbrel.server.config import Folder
    from whimbrel.server.start_checks import exposed_files, offline_keys_beside
    from whimbrel.stores.database import Database
    from whimbrel.stores.kept_release_keys import sealing_key_trouble
    from whimbrel.stores.sealing_key import SealingKey

    try:
        folder = Folder.open(path)
        database = Database(folder.database_url)
        try:
            database.check_schema()
            trouble = sealing_key_trouble(database, SealingKey(folder.sealing_key))
        finally:
            database.close()
    except WhimbrelError as error:
        yield Finding("repository", "problem", str(error))
        return
    if trouble is not None:
        yield Finding("sealing key", "problem", trouble)
    else:
        yield Finding("sealing key", "ok", "no sealed version lacks it")
    for warning in (exposed_files(folder), offline_keys_beside(folder)):
        if warning is not None:
            yield Finding("keys", "warning", warning)


def _line(finding: Finding, width: int) -> str:
    words = f"{_MARKS[finding.level]:8}{finding.checked:{width}}  {finding.found}"
    if finding.means:
        words += f": {finding.means}"
    if finding.to_do:
        words += f"\n{'':{8 + width}}  -> {finding.to_do}"
    return words + "\n"


def _counted(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
