"""Which version was active on a device at a time, by a proof that was checked? One answer a model, with its reasons.

1. An answer is *known* where every branch that speaks of that time says the same, and none is unsure.
2. It is not known before a log begins, after its last head, between two looks of the device (`not_before` and `at` of
   an entry), where branches of a fork differ, and where the log itself shows that the device's clock was wrong
   (`run_history_clock.py`).
3. All times are those of the device's clock. `signed_time` is a bound from below that the clock cannot move: the newest
   time that a signature of the repository had taught the device when it wrote the entry.
4. What a log does not know of the time before its beginning speaks against no other log that knows it.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from whimbrel.health.run_history import RunChange, RunEntry
from whimbrel.trust.run_history_clock import NEVER, Bounds, bounds_of
from whimbrel.trust.run_history_proof import CheckedBranch


class RunPeriod(msgspec.Struct, frozen=True, kw_only=True):
    """A time in which one state of a model held, POSIX seconds by the device's clock.

    `serial` None: no version was active. `began_at`: at the latest, and `began_not_before`: at the earliest.
    `ended_not_before`, `ended_at`: the same of its end; None: it had not ended at `seen_until`, the time of the newest
    head. `ended_by`, `reason`: the change that ended it, and why. `committed_at`: the end of its trial; None for none.
    `signed_time`: no part of the period is earlier than this, whatever the clock said. `entries`: their numbers.
    `clock_doubted`: the log shows that the clock was wrong where it began or ended.
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
    clock_doubted: bool = False


class RunAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What was active of a model at `at`. `period`: None where it is not known, and then `because` says why."""

    model: str
    at: float
    known: bool
    because: str
    period: RunPeriod | None = None
    possible: tuple[RunPeriod, ...] = ()


class _Claim(msgspec.Struct, frozen=True):
    """A period, and when it was active: surely, and perhaps. `is_first`: nothing is known of the model before it."""

    period: RunPeriod
    surely_from: float
    surely_until: float
    perhaps_from: float
    perhaps_until: float
    is_first: bool

    def is_sure(self, at: float) -> bool:
        return self.surely_from <= at and (at < self.surely_until or self._is_newest(at, self.surely_until))

    def is_possible(self, at: float) -> bool:
        return self.perhaps_from <= at and (at < self.perhaps_until or self._is_newest(at, self.perhaps_until))

    def _is_newest(self, at: float, until: float) -> bool:
        return self.period.ended_by is None and at <= until


def periods_of(branches: Sequence[CheckedBranch], *, model: str | None = None) -> list[RunPeriod]:
    """All periods of all branches: by branch, then model, the oldest first. What branches share is in each of them."""
    return [
        claim.period
        for each in branches
        for name in (sorted({entry.model for entry in each.entries}) if model is None else [model])
        for claim in _claims(each, name)
    ]


def answers_of(branches: Sequence[CheckedBranch], at: float, *, model: str | None = None) -> list[RunAnswer]:
    """What was active at `at`: of `model`, or of every model that the proof tells of."""
    names = {entry.model for each in branches for entry in each.entries} if model is None else {model}
    return [_answer(branches, name, at) for name in sorted(names)]


def _answer(branches: Sequence[CheckedBranch], model: str, at: float) -> RunAnswer:
    claims = [(each, _claims(each, model)) for each in branches]
    sure = [claim.period for _, own in claims for claim in own if claim.is_sure(at)]
    perhaps = [claim for _, own in claims for claim in own if claim.is_possible(at)]
    maybe = [claim.period for claim in perhaps if not (sure and claim.is_first and at < claim.surely_from)]
    states = {(period.serial, period.artifact) for period in maybe}
    if len(states) == 1 and sure:
        return RunAnswer(model=model, at=at, known=True, because="", period=sure[-1], possible=tuple(maybe))
    if not maybe:
        silent = (_silence(each, own, model, at) for each, own in claims)
        because = "; ".join(dict.fromkeys(silent)) or "the proof holds no history"
    elif len({period.branch for period in sure}) > 1 and len({(p.serial, p.artifact) for p in sure}) > 1:
        because = "the history forks: the same device signed two that differ here"
    elif any(period.clock_doubted for period in maybe):
        because = "the device's clock was wrong about this time: its own entries, or a signed time, contradict it"
    elif all(claim.is_first for claim in perhaps):
        because = "the log begins later: that it was active is known from a later time on"
    else:
        because = "it changed between two looks of the device, and this time lies between them"
    return RunAnswer(model=model, at=at, known=False, because=because, possible=tuple(maybe))


def _silence(branch: CheckedBranch, claims: Sequence[_Claim], model: str, at: float) -> str:
    if not claims:
        return f"no entry tells of {model}"
    if at < claims[0].perhaps_from:
        if branch.entries[0].number > 1:
            return "the entries of this time are not here: dropped from a log that was full, never sent, or cut off"
        begins = claims[0].surely_from
        return f"the log begins later{_at(claims[0].perhaps_from if begins == NEVER else begins)}"
    if branch.head.newest != branch.head.number:
        return "later entries never came in"
    if at <= branch.head.at:
        return "the device's clock was ahead: this time had not come yet when it signed that"
    return "the device signed nothing after this time"


def _at(moment: float) -> str:
    """A time with its milliseconds, rounded up: what was not known a moment before is known then."""
    try:
        shown = datetime.fromtimestamp(moment + 0.001, UTC)
    except (ValueError, OverflowError, OSError):
        return ""
    return f", at {shown:%Y-%m-%d %H:%M:%S}.{shown.microsecond // 1000:03} UTC"


def _claims(branch: CheckedBranch, model: str) -> list[_Claim]:
    """The periods of one model: entries in a row that say the same version is active are one."""
    bounds, until = bounds_of(branch)
    runs: list[list[tuple[RunEntry, Bounds]]] = []
    for entry, its in zip(branch.entries, bounds, strict=True):
        if entry.model != model:
            continue
        if runs and (runs[-1][0][0].serial, runs[-1][0][0].artifact) == (entry.serial, entry.artifact):
            runs[-1].append((entry, its))
        else:
            runs.append([(entry, its)])
    claims = []
    for index, run in enumerate(runs):
        end = runs[index + 1][0] if index + 1 < len(runs) else None
        claims.append(_claim(branch, run, end, until, is_first=index == 0))
    return claims


def _claim(
    branch: CheckedBranch,
    run: Sequence[tuple[RunEntry, Bounds]],
    end: tuple[RunEntry, Bounds] | None,
    until: float,
    *,
    is_first: bool,
) -> _Claim:
    its, newest = run[0][1], run[-1][1]
    if branch.head.newest != branch.head.number:  # others follow, and may tell of a time before the head
        until = min(until, newest.earliest if newest.latest == NEVER else newest.latest)
    period = _period(branch, [entry for entry, _ in run], None if end is None else end[0], max(until, its.earliest))
    doubted = its.is_doubted or (end is not None and end[1].is_doubted)
    return _Claim(
        period=msgspec.structs.replace(period, clock_doubted=doubted),
        surely_from=its.latest,
        surely_until=until if end is None else end[1].earliest,
        perhaps_from=its.earliest,
        perhaps_until=until if end is None else end[1].latest,
        is_first=is_first,
    )


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
