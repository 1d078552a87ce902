"""A run history, shown: which versions were active on a device, and the proof of it. For the device and the server."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from whimbrel.cli.output import counted, print_json, print_table, say, when
from whimbrel.durable import write_durably
from whimbrel.errors import UntrustedInput
from whimbrel.model.documents import encode
from whimbrel.trust.run_history_answer import RunAnswer, RunPeriod, answers_of, periods_of
from whimbrel.trust.run_history_proof import (
    CheckedBranch,
    RunHistoryProof,
    check_run_proof,
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
_MEANS = (
    "the device said so itself, by its own clock: nobody else can have written it, and it may have lied; whoever gave "
    "this may have left out whole branches, and the oldest or newest entries"
)


class BranchShown(msgspec.Struct, frozen=True, kw_only=True):
    """A branch in JSON. `signed_until`: of its newest head. `forks_after`, `missing`: as in `CheckedBranch`.

    `received_at`: when the server got the newest part, as it says; nobody signed that.
    """

    branch: int
    log: str
    key: str
    entries: int
    missing: int
    forks_after: int | None
    signed_until: float
    received_at: float | None


class RunHistoryShown(msgspec.Struct, frozen=True):
    """The JSON of both commands. `answers`: where a time was given. `keys`: by which the branches are signed."""

    device_id: str
    keys: list[str]
    periods: list[RunPeriod]
    answers: list[RunAnswer] | None
    branches: list[BranchShown]


def read_time(text: str) -> float:
    """POSIX seconds of an ISO 8601 time, in UTC unless it says otherwise. Raises `UntrustedInput`."""
    try:
        moment = datetime.fromisoformat(text)
        seconds = (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
        datetime.fromtimestamp(seconds, UTC)  # the first and last hours of the calendar are none in UTC
        return seconds
    except (ValueError, OverflowError) as error:
        raise UntrustedInput(f"{text!r} is no time; expected one like 2026-11-30T12:00:00Z or 2026-11-30") from error


def show_run_history(
    document: RunHistoryProof,
    *,
    model: str | None,
    at: float | None,
    key: str | None,
    export: Path | None,
    json: bool,
) -> None:
    """Check a proof, and print or export it. Raises `UntrustedInput` where anything in it does not fit."""
    branches = check_run_proof(document, key=key)
    if key is not None and document.branches and not branches:
        raise UntrustedInput(f"nothing in this history is signed with the key {key}")
    if export is not None:
        write_durably(export, encode(document))
    answers = None if at is None else answers_of(branches, at, model=model)
    periods = periods_of(branches, model=model)
    keys = list(dict.fromkeys(each.head.public_key for each in branches))
    if json:
        print_json(RunHistoryShown(document.device_id, keys, periods, answers, list(map(_branch_shown, branches))))
        return
    if not branches:
        say(f"{document.device_id} has signed no history: its agent is older, has no key, or has not reported yet")
        return
    if model is not None and not any(entry.model == model for each in branches for entry in each.entries):
        known = ", ".join(sorted({entry.model for each in branches for entry in each.entries})) or "no model"
        say(f"no entry tells of {model}; the entries tell of {known}")
    elif answers is None:
        _say_periods(branches, periods)
    for answer in answers or ():
        _say_answer(answer)
    if answers is not None and not answers:
        say(f"{document.device_id} never ran a model, by its own history")
    _say_branches(document, branches, is_key_given=key is not None)
    if export is not None:
        say(f"the proof is in {export}; check it anywhere with: whimbrel device history --proof {export}")


def _branch_shown(each: CheckedBranch) -> BranchShown:
    return BranchShown(
        branch=each.branch.branch,
        log=each.head.log,
        key=each.head.public_key,
        entries=len(each.entries),
        missing=each.missing,
        forks_after=each.forks_after,
        signed_until=each.head.at,
        received_at=each.branch.received_at,
    )


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
    if period.clock_doubted:
        say("  its clock was wrong where this began or ended: the log contradicts those times")
    if period.artifact is not None:
        say(f"  artifact sha256:{period.artifact}; entries {', '.join(map(str, period.entries))}")
    if period.signed_time:
        say(f"  not earlier than {when(period.signed_time)} UTC, whatever its clock said: so new was its metadata")


def _say_branches(document: RunHistoryProof, branches: Sequence[CheckedBranch], *, is_key_given: bool) -> None:
    for each in branches:
        came = each.branch.received_at
        heard = "" if came is None else f", which the server says it got {when(came)}"
        say(
            f"checked: {counted(len(each.entries), 'entry', plural='entries')}, signed up to {when(each.head.at)} UTC"
            f"{heard}, with the key {each.head.public_key}"
        )
        if each.forks_after is not None:
            parent = f" of branch {each.branch.parent}" if each.branch.parent is not None else ""
            say(
                f"  FORK: branch {each.branch.branch} goes on otherwise after entry {each.forks_after}{parent}: the "
                "folder was restored or copied, or the device takes back what it signed"
            )
        if each.missing:
            say(
                f"  GAP: entries up to {each.missing} are not here: they were dropped from a log that was full, never "
                "came in, or were cut off"
            )
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
