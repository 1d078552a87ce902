"""What was played so far, in a file: so that a run of hours can stop anywhere, and go on where it stopped.

1. A part is some rollouts of one kind, numbered: every rollout has a seed of its own, so parts that were played on
   different days are the parts of one table. Neighbours that the same code played are kept as one.
2. A part names the code that played it, by a hash of its sources: the gate, the plan, the tally and the kinds. Parts of
   other code are played again, unless `--any-code` says that the verdicts are the same.
3. The file is written after every part, whole or not at all. Rows and summary in it are for readers; only parts are
   read again.

Used by harm.py.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from harm_exposure import merged_quiet, merged_regressions
from harm_rows import Outcome
from whimbrel.durable import write_durably

BENCH = Path(__file__).parent
SOURCES = BENCH.parent / "src" / "whimbrel"
_FORMAT = 1
_RUNS_NAMED = 50  # rollouts that went back, by number: more than these are a broken limit anyway


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Rollouts `first` to `first + runs - 1` of a kind. `cpu_s`: seconds of CPU; `results`: as its family tells."""

    first: int
    runs: int
    cpu_s: float
    code: str
    results: dict[str, Any]

    @property
    def end(self) -> int:
        """The number of the first rollout that is not in it."""
        return self.first + self.runs


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What all parts of a file share, and what a run that goes on with them must ask for too."""

    seed: int
    alpha: float
    any_hour: bool = False
    pooled: bool = False
    quick: bool = False


class ResultsFile(msgspec.Struct, kw_only=True):
    """The file: JSON. `rows` and `summary` are worked out of the parts."""

    format: int = _FORMAT
    settings: Settings
    parts: dict[str, list[Part]] = {}
    rows: list[dict[str, Any]] = []
    summary: dict[str, Any] = {}


def read_results(path: Path, settings: Settings, *, code: str | None) -> ResultsFile:
    """The file as it was left, with the parts that may be gone on with. `code`: None takes parts of any code.

    Raises `ValueError` where it is no such file, or was played with other settings.
    """
    if not path.exists():
        return ResultsFile(settings=settings)
    try:
        results = msgspec.json.decode(path.read_bytes(), type=ResultsFile)
    except msgspec.MsgspecError as error:
        raise ValueError(f"{path} holds no results of this benchmark ({error}); name another file") from error
    if results.settings != settings:
        raise ValueError(f"{path} was played with {results.settings}, not with {settings}; name another file")
    kept = {kind: [part for part in parts if code in (None, part.code)] for kind, parts in results.parts.items()}
    return ResultsFile(settings=settings, parts={kind: parts for kind, parts in kept.items() if parts})


def write_results(path: Path, results: ResultsFile) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = msgspec.json.encode(results, order="sorted")
    write_durably(path, msgspec.json.format(encoded, indent=1) + b"\n")


def missing_runs(parts: Iterable[Part], *, runs: int, chunk: int) -> Iterator[tuple[int, int]]:
    """What is not there of a kind's first `runs` rollouts: the first and the number of each job, of `chunk` at most."""
    first = 0
    for start, end in (*((part.first, part.end) for part in sorted(parts, key=lambda part: part.first)), (runs, runs)):
        for begin in range(first, min(start, runs), chunk):
            yield begin, min(chunk, min(start, runs) - begin)
        first = max(first, end)


def with_part(parts: Sequence[Part], new: Part) -> list[Part]:
    """The parts of a kind and a new one, in order, neighbours of the same code as one."""
    joined: list[Part] = []
    for part in sorted((*parts, new), key=lambda part: part.first):
        last = joined[-1] if joined else None
        if last is not None and last.end == part.first and last.code == part.code:
            joined[-1] = Part(
                first=last.first,
                runs=last.runs + part.runs,
                cpu_s=round(last.cpu_s + part.cpu_s, 1),
                code=part.code,
                results=merged(last.results, part.results),
            )
        else:
            joined.append(part)
    return joined


def merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The results of two parts of one kind together."""
    if "outcomes" in one:
        return {"outcomes": _counted([*one["outcomes"], *other["outcomes"]])}
    return merged_quiet(one, other) if "alarms" in one else merged_regressions(one, other)


def counted(outcomes: Iterable[Outcome], *, first: int, named: bool) -> dict[str, Any]:
    """The outcomes of some rollouts: equal ones once, with their number.

    `named`: of those that went back which ones, and the whole sentence; else what they went back by.
    """
    told = []
    for run, outcome in enumerate(outcomes, start=first):
        each = msgspec.to_builtins(outcome) | {"times": 1}
        if outcome.back is None:
            each["because"] = ""
        elif named:
            each["rollouts"] = [run]
        else:
            each["because"] = outcome.because.split(" (")[0]
        told.append({name: value for name, value in each.items() if value not in (None, "")})
    return {"outcomes": _counted(told)}


def _counted(told: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    unlike: dict[tuple[Any, ...], dict[str, Any]] = {}
    for each in told:
        key = tuple(each.get(name) for name in Outcome.__struct_fields__)
        before = unlike.get(key)
        if before is None:
            unlike[key] = dict(each)
            continue
        before["times"] += each["times"]
        if "rollouts" in before:
            before["rollouts"] = (before["rollouts"] + each["rollouts"])[:_RUNS_NAMED]
    return list(unlike.values())


def outcomes_of(results: dict[str, Any]) -> list[Outcome]:
    """Every rollout's outcome again."""
    outcomes: list[Outcome] = []
    for each in results["outcomes"]:
        fields = {name: each[name] for name in Outcome.__struct_fields__ if name in each}
        outcomes += [Outcome(**fields)] * each["times"]
    return outcomes


def code_version() -> str:
    """A hash of the sources that a verdict in this benchmark depends on."""
    files = [
        *BENCH.glob("harm_*.py"),
        *(path for room in ("gate", "plan", "health") for path in (SOURCES / room).glob("*.py")),
    ]
    hashed = hashlib.sha256()
    for path in sorted({*files, SOURCES / "flows" / "replay_windows.py"} - {Path(__file__)}):
        hashed.update(path.name.encode() + b"\0" + path.read_bytes())
    return hashed.hexdigest()[:12]
