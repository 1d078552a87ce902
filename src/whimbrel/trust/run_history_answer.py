"""Which version was active on a device at a time, by a proof that was checked? One answer a model, with its reasons.

1. An answer is *known* where every branch that speaks of that time says the same, and none is unsure.
2. It is not known before a log begins, after its last head, between two looks of the device (`not_before` and `at` of
   an entry), where branches of a fork differ, and where a clock that went back makes two entries claim one time.
3. All times are those of the device's clock. `signed_time` is a bound from below that the clock cannot move: the newest
   time that a signature of the repository had taught the device when it wrote the entry.
"""

from collections.abc import Sequence

import msgspec

from whimbrel.health.run_history import RunChange, RunEntry
from whimbrel.trust.run_history_proof import CheckedBranch


class RunPeriod(msgspec.Struct, frozen=True, kw_only=True):
    """A time in which one state of a model held, POSIX seconds by the device's clock.

    `serial` None: no version was active. `began_at`: at the latest, and `began_not_before`: at the earliest.
    `ended_not_before`, `ended_at`: the same of its end; None: it had not ended at `seen_until`, the time of the newest
    head. `ended_by`, `reason`: the change that ended it, and why. `committed_at`: the end of its trial; None for none.
    `signed_time`: no part of the period is earlier than this, whatever the clock said. `entries`: their numbers.
    """

    branch: int
    model: str
    serial: int | None
    version: str
    artifact: str | None
    began: RunChange
    began_not_before: float
    began_at: float
    committed_at: float | None
    ended_not_before: float | None
    ended_at: float | None
    ended_by: RunChange | None
    reason: str
    seen_until: float
    signed_time: float
    entries: tuple[int, ...]


class RunAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What was active of a model at `at`. `period`: None where it is not known, and then `because` says why."""

    model: str
    at: float
    known: bool
    because: str
    period: RunPeriod | None = None
    possible: tuple[RunPeriod, ...] = ()


def periods_of(branches: Sequence[CheckedBranch], *, model: str | None = None) -> list[RunPeriod]:
    """All periods of all branches: by branch, then model, the oldest first. What branches share is in each of them."""
    found: list[RunPeriod] = []
    for each in branches:
        models = sorted({entry.model for entry in each.entries} if model is None else {model})
        for name in models:
            found += _periods(each, [entry for entry in each.entries if entry.model == name])
    return found


def answers_of(branches: Sequence[CheckedBranch], at: float, *, model: str | None = None) -> list[RunAnswer]:
    """What was active at `at`: of `model`, or of every model that the proof tells of."""
    names = {entry.model for each in branches for entry in each.entries} if model is None else {model}
    return [_answer(branches, name, at) for name in sorted(names)]


def _answer(branches: Sequence[CheckedBranch], model: str, at: float) -> RunAnswer:
    sure: list[RunPeriod] = []
    maybe: list[RunPeriod] = []
    silent: list[str] = []
    for each in branches:
        periods = _periods(each, [entry for entry in each.entries if entry.model == model])
        certain = [period for period in periods if _surely(period, at)]
        possible = [period for period in periods if _maybe(period, at)]
        sure += certain
        maybe += possible
        if not possible:
            silent.append(_silence(each, periods, model, at))
    states = {(period.serial, period.artifact) for period in maybe}
    if len(states) == 1 and sure:
        return RunAnswer(model=model, at=at, known=True, because="", period=sure[-1], possible=tuple(maybe))
    if not maybe:
        because = "; ".join(dict.fromkeys(silent)) or "the proof holds no history"
    elif len({period.branch for period in sure}) > 1 and len({(p.serial, p.artifact) for p in sure}) > 1:
        because = "the history forks: the same device signed two that differ here"
    elif len(sure) > 1:
        because = "the device's clock went back: two entries claim this time"
    else:
        because = "it changed between two looks of the device, and this time lies between them"
    return RunAnswer(model=model, at=at, known=False, because=because, possible=tuple(maybe))


def _silence(branch: CheckedBranch, periods: Sequence[RunPeriod], model: str, at: float) -> str:
    if not periods:
        return f"no entry tells of {model}"
    if at < periods[0].began_at:
        dropped = branch.entries[0].number > 1
        return "the log of this time was dropped, as logs are bounded" if dropped else "the log begins later"
    return "the device signed nothing after this time" if branch.head.newest == branch.head.number else (
        "later entries never came in"
    )  # fmt: skip


def _surely(period: RunPeriod, at: float) -> bool:
    end = period.ended_not_before
    return period.began_at <= at and (at < end if end is not None else at <= period.seen_until)


def _maybe(period: RunPeriod, at: float) -> bool:
    end = period.ended_at
    return min(period.began_not_before, period.began_at) <= at and (
        at < end if end is not None else at <= period.seen_until
    )


def _periods(branch: CheckedBranch, entries: Sequence[RunEntry]) -> list[RunPeriod]:
    """The periods of one model: entries in a row that say the same version is active are one."""
    head = branch.head
    last = branch.entries[-1].at if branch.entries else head.at
    seen_until = head.at if head.newest == head.number else last
    runs: list[list[RunEntry]] = []
    for entry in entries:
        if runs and (runs[-1][0].serial, runs[-1][0].artifact) == (entry.serial, entry.artifact):
            runs[-1].append(entry)
        else:
            runs.append([entry])
    ends: list[RunEntry | None] = [run[0] for run in runs[1:]]
    return [_period(branch, run, end, seen_until) for run, end in zip(runs, [*ends, None], strict=True)]


def _period(branch: CheckedBranch, run: Sequence[RunEntry], end: RunEntry | None, seen_until: float) -> RunPeriod:
    first = run[0]
    return RunPeriod(
        branch=branch.branch.branch,
        model=first.model,
        serial=first.serial,
        version=first.version,
        artifact=first.artifact,
        began=first.change,
        began_not_before=first.not_before,
        began_at=first.not_before if first.change == "still" else first.at,
        committed_at=next((entry.at for entry in run if entry.change == "committed"), None),
        ended_not_before=None if end is None else end.not_before,
        ended_at=None if end is None else end.at,
        ended_by=None if end is None else end.change,
        reason="" if end is None else end.reason,
        seen_until=seen_until,
        signed_time=first.signed_time,
        entries=tuple(entry.number for entry in run),
    )
