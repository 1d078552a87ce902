"""`whimbrel device history` and `whimbrel agent history`: which versions were active on a device, and the proof of it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from whimbrel import limits
from whimbrel.agent.disk import RealDisk
from whimbrel.agent.run_history import FILE, read_log
from whimbrel.agent.settings import kept
from whimbrel.cli.connect import Client, connected_unless, quoted
from whimbrel.cli.output import Json, counted, print_json, print_table, say, when
from whimbrel.durable import write_durably
from whimbrel.errors import NotFound, UntrustedInput
from whimbrel.model.documents import encode
from whimbrel.trust.run_history_answer import RunAnswer, RunPeriod, answers_of, periods_of
from whimbrel.trust.run_history_proof import (
    CheckedBranch,
    ProofBranch,
    RunHistoryProof,
    check_run_proof,
    read_proof,
)

Model = Annotated[str | None, typer.Option("--model", "-m", help="Only of this model.")]
At = Annotated[
    str | None,
    typer.Option(
        "--at", help="What was active then: 2026-11-30T12:00:00Z (UTC unless it says otherwise).", metavar="TIME"
    ),
]
Export = Annotated[Path | None, typer.Option("--export", help="Write the proof into a file, to be checked elsewhere.")]
_BY_SERVER = "that the key is the device's is the server's word; give its public key with --key to check that too"
_MEANS = "the device said so itself, by its own clock: nobody else can have written it, and it may have lied"


class RunHistoryShown(msgspec.Struct, frozen=True):
    """The JSON of both commands. `answers`: where a time was given. `keys`: by which the branches are signed."""

    device_id: str
    keys: list[str]
    periods: list[RunPeriod]
    answers: list[RunAnswer] | None


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
    _show(document, model=model, at=moment, key=key, export=export, json=json)


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
            f"{folder} has no signed history yet: a device signs it once it is enrolled, and with its reports; its log has "
            f"{counted(0 if log is None else log.newest, 'entry', plural='entries')}"
        )
    number = msgspec.json.decode(log.head)["number"]
    branch = ProofBranch(branch=1, head=log.head, signature=log.signature, entries=log.texts(log.dropped, number))
    document = RunHistoryProof(
        device_id=log.device_id, made_at=log.seen_at, public_key=log.public_key, branches=(branch,)
    )
    moment = None if at is None else read_time(at)
    _show(document, model=model, at=moment, key=log.public_key, export=export, json=json)
    if not json and log.newest > number:
        say(f"{counted(log.newest - number, 'further entry', plural='further entries')}: signed with the next reports")


def read_time(text: str) -> float:
    """POSIX seconds of an ISO 8601 time, in UTC unless it says otherwise. Raises `UntrustedInput`."""
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        raise UntrustedInput(f"{text!r} is no time; expected one like 2026-11-30T12:00:00Z or 2026-11-30") from error


def _read(path: Path) -> RunHistoryProof:
    try:
        with path.open("rb") as file:
            content = file.read(limits.RUN_PROOF_BYTES + 1)
    except OSError as error:
        raise UntrustedInput(f"the proof cannot be read: {error}") from error
    return read_proof(content, what=str(path))


def _show(
    document: RunHistoryProof,
    *,
    model: str | None,
    at: float | None,
    key: str | None,
    export: Path | None,
    json: bool,
) -> None:
    branches = check_run_proof(document, key=key)
    if key is not None and document.branches and not branches:
        raise UntrustedInput(f"nothing in this history is signed with the key {key}")
    if export is not None:
        write_durably(export, encode(document))
    answers = None if at is None else answers_of(branches, at, model=model)
    periods = periods_of(branches, model=model)
    keys = list(dict.fromkeys(each.head.public_key for each in branches))
    if json:
        print_json(RunHistoryShown(document.device_id, keys, periods, answers))
        return
    if not branches:
        say(f"{document.device_id} has signed no history: its agent is older, has no key, or has not reported yet")
        return
    if answers is None:
        _say_periods(branches, periods)
    for answer in answers or ():
        _say_answer(answer)
    if answers is not None and not answers:
        say(f"{document.device_id} never ran a model, by its own history")
    _say_branches(document, branches, is_key_given=key is not None)
    if export is not None:
        say(f"the proof is in {export}; check it anywhere with: whimbrel device history --proof {export}")


def _say_periods(branches: Sequence[CheckedBranch], periods: Sequence[RunPeriod]) -> None:
    forked = len(branches) > 1
    rows = [
        [
            *([each.branch] if forked else []),
            each.model,
            _version(each),
            _span(each.began_not_before, each.began_at),
            each.began,
            _until(each),
            each.ended_by or "",
            each.reason,
        ]
        for each in periods
    ]
    columns = ["model", "version", "active from (UTC)", "by", "until (UTC)", "ended by", "because"]
    print_table(["branch", *columns] if forked else columns, rows, title="was active")


def _say_answer(answer: RunAnswer) -> None:
    period, moment = answer.period, f"{when(answer.at)} UTC"
    if period is None:
        say(f"{answer.model} at {moment}: NOT KNOWN: {answer.because}")
        if answer.possible:
            say(f"  one of: {'; '.join(dict.fromkeys(_version(each) for each in answer.possible))}")
        return
    say(f"{answer.model} at {moment}: {_version(period)}")
    trial = "" if period.committed_at is None else f", committed {when(period.committed_at)}"
    say(f"  active since {_span(period.began_not_before, period.began_at)} UTC ({period.began}{trial})")
    ended = "" if period.ended_by is None else f": {period.ended_by}{f', {period.reason}' if period.reason else ''}"
    say(f"  until {_until(period)} UTC{ended}")
    if period.artifact is not None:
        say(f"  artifact sha256:{period.artifact}; entries {', '.join(map(str, period.entries))}")
    if period.signed_time:
        say(
            f"  not earlier than {when(period.signed_time)} UTC, whatever its clock said: so new was the metadata it had"
        )


def _say_branches(document: RunHistoryProof, branches: Sequence[CheckedBranch], *, is_key_given: bool) -> None:
    for each in branches:
        came = each.branch.received_at
        heard = "" if came is None else f", which the server got {when(came)}"
        say(
            f"checked: {counted(len(each.entries), 'entry', plural='entries')}, signed up to {when(each.head.at)} UTC"
            f"{heard}, with the key {each.head.public_key}"
        )
        if each.branch.origin == "fork":
            parent = f" of branch {each.branch.parent}" if each.branch.parent is not None else ""
            say(
                f"  FORK: branch {each.branch.branch} goes on otherwise after entry {each.branch.after}{parent}: the "
                "folder was restored or copied, or the device takes back what it signed"
            )
        elif each.branch.origin == "gap":
            say(f"  GAP: entries up to {each.branch.after} never came in")
    others = {each.head.public_key for each in branches} - {document.public_key}
    if document.public_key is not None and others and not is_key_given:
        say(
            f"  the device has another key today ({document.public_key}): what an earlier key signed is an epoch before"
        )
    say(_MEANS + ("" if is_key_given else f"; {_BY_SERVER}"))


def _version(period: RunPeriod) -> str:
    return "no version" if period.serial is None else f"{period.version} (serial {period.serial})"


def _span(earliest: float, latest: float) -> str:
    if earliest >= latest:
        return when(latest)
    return f"before {when(latest)}" if earliest <= 0 else f"{when(earliest)} to {when(latest)}"


def _until(period: RunPeriod) -> str:
    if period.ended_at is None or period.ended_not_before is None:
        return f"{when(period.seen_until)} or later"
    return _span(period.ended_not_before, period.ended_at)
