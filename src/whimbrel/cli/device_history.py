"""`whimbrel device history`: which versions were active on a device, from the server or from a proof in a file."""

from pathlib import Path
from typing import Annotated

import typer

from whimbrel import limits
from whimbrel.cli.connect import Client, connected_unless, quoted
from whimbrel.cli.output import Json
from whimbrel.cli.run_history import At, Export, Model, read_time, show_run_history
from whimbrel.errors import UntrustedInput, reason_of
from whimbrel.trust.run_history_proof import RunHistoryProof, read_proof


@connected_unless("proof")
def device_history(
    client: Client | None,
    device: Annotated[str | None, typer.Argument(help="A device's id; with --proof, none.", show_default=False)] = None,
    model: Model = None,
    at: At = None,
    proof: Annotated[
        Path | None, typer.Option("--proof", help="Check this exported proof instead; needs no server and no network.")
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", help="The device's public key (`agent status` shows it): believe no other.")
    ] = None,
    export: Export = None,
    json: Json = False,
) -> None:
    """Which versions were active on a device, since when and until when: as it signed it, and checked here.

    --at TIME answers for one moment, or says why that is not known. --export FILE writes the proof, and --proof FILE
    checks one without a server. A device that was removed keeps its history.
    """
    moment = None if at is None else read_time(at)
    if client is not None:
        if device is None:
            raise UntrustedInput("name a device (whimbrel device list), or a proof that was exported: --proof FILE")
        document = client.get(f"devices/{quoted(device)}/history", as_=RunHistoryProof)
    else:
        document = _read(proof or Path())
        if device not in {None, document.device_id}:
            raise UntrustedInput(f"{proof} is the history of {document.device_id}, and not of {device}")
    show_run_history(document, model=model, at=moment, key=key, export=export, json=json)


def _read(path: Path) -> RunHistoryProof:
    try:
        with path.open("rb") as file:
            content = file.read(limits.RUN_PROOF_BYTES + 1)
    except OSError as error:
        raise UntrustedInput(f"the proof cannot be read: {reason_of(error)}") from error
    return read_proof(content, what=str(path))
