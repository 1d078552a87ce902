"""`whimbrel agent history`: which versions were active on this device, by its own log."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from whimbrel.agent.disk import RealDisk
from whimbrel.agent.run_history import FILE, read_log
from whimbrel.agent.settings import kept
from whimbrel.cli.output import Json, counted, say
from whimbrel.cli.run_history import At, Export, Model, read_time, show_run_history
from whimbrel.errors import NotFound
from whimbrel.trust.run_history_proof import ProofBranch, RunHistoryProof


def agent_history(
    folder: Annotated[Path, typer.Option("--folder", help="The agent's folder.")],
    model: Model = None,
    at: At = None,
    export: Export = None,
    json: Json = False,
) -> None:
    """Which versions were active here, by this device's own log. Reads the folder only.

    What its key has signed so far is shown. Without an enrolment the device has no key, and signs nothing.
    """
    disk = RealDisk()
    settings, log = kept(folder, disk=disk), read_log(folder / FILE, disk=disk)
    if settings is None:
        raise NotFound(f"{folder} is no agent's folder; see: whimbrel agent run --help")
    if log is None or not log.head:
        raise NotFound(
            f"{folder} has no signed history yet: an enrolled device signs it with its reports; its log has "
            f"{counted(0 if log is None else log.newest, 'entry', plural='entries')}"
        )
    number = msgspec.json.decode(log.head)["number"]
    branch = ProofBranch(branch=1, head=log.head, signature=log.signature, entries=log.texts(log.dropped, number))
    document = RunHistoryProof(
        device_id=log.device_id, made_at=log.seen_at, public_key=log.public_key, branches=(branch,)
    )
    moment = None if at is None else read_time(at)
    show_run_history(document, model=model, at=moment, key=log.public_key, export=export, json=json)
    if not json and log.newest > number:
        say(f"{counted(log.newest - number, 'further entry', plural='further entries')}: signed with the next reports")
