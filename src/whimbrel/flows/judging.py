"""How a gate is asked about closed windows: once, again, and later for proof. For rollouts and experiments alike.

1. Only closed windows are judged. A ledger that is kept between windows has folded the earlier ones already; they are
   not read again.
2. A ledger that is forgotten costs time, never a verdict. One whose folding was interrupted is forgotten.
3. A verdict is stored with the input that it was given on: the stored windows must give the move and all figures again,
   byte for byte. The sentence is that of the software that gave the verdict: a later one may say the same better.

Called by rollouts/judge and experiments/judge, which bring the gate and its ledger.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Generic, Protocol, TypeVar

import msgspec

from whimbrel.errors import InvariantBroken
from whimbrel.flows.ports import TallyPort, VerdictsPort
from whimbrel.flows.records import Comparison, VerdictRecord
from whimbrel.health.tally import Cell
from whimbrel.model.documents import encode


class AnyLedger(Protocol):
    """What a comparison's windows add up to. `last`: the newest window that was folded; -1 before any."""

    @property
    def last(self) -> int: ...


class AnyVerdict(Protocol):
    """What any gate says: what to do, and why."""

    @property
    def move(self) -> str: ...
    @property
    def because(self) -> str: ...


InputT = TypeVar("InputT", bound=msgspec.Struct)
LedgerT = TypeVar("LedgerT", bound=AnyLedger)
VerdictT = TypeVar("VerdictT", bound=AnyVerdict)
VerdictT_co = TypeVar("VerdictT_co", bound=AnyVerdict, covariant=True)


class Gate(Protocol[InputT, LedgerT, VerdictT_co]):
    """The gate of one comparison. An input is everything that the gate looks at, except the windows."""

    @property
    def comparison(self) -> Comparison: ...
    def new_ledger(self, gate_input: InputT) -> LedgerT: ...
    def fits(self, ledger: LedgerT, gate_input: InputT) -> bool: ...
    def judge(self, gate_input: InputT, ledger: LedgerT, cells: Sequence[Cell]) -> VerdictT_co: ...
    def parse_input(self, stored: bytes) -> InputT: ...


class Rejudged(msgspec.Struct, Generic[InputT, VerdictT], frozen=True):
    """A stored verdict, the input that it was given on, and what the gate says to both now."""

    stored: VerdictRecord
    gate_input: InputT
    verdict: VerdictT


class ReplayedVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """A stored verdict, and whether the stored windows gave it again, byte for byte."""

    at: float
    window: int
    move: str
    because: str
    sha256: str
    same: bool


def judge_windows(
    fleet: TallyPort,
    gate: Gate[InputT, LedgerT, VerdictT],
    gate_input: InputT,
    *,
    window: int,
    ledgers: dict[str, LedgerT],
) -> VerdictT:
    """The verdict over the windows before `window`. `ledgers`: by comparison; this one's is kept there."""
    identifier = gate.comparison.id
    ledger = ledgers.pop(identifier, None)
    if ledger is None or ledger.last >= window or not gate.fits(ledger, gate_input):
        ledger = gate.new_ledger(gate_input)
    cells = fleet.cells(identifier, before_window=window, from_window=ledger.last + 1)
    verdict = gate.judge(gate_input, ledger, cells)
    ledgers[identifier] = ledger
    return verdict


def judge_and_store(
    registry: VerdictsPort,
    fleet: TallyPort,
    gate: Gate[InputT, LedgerT, VerdictT],
    gate_input: InputT,
    *,
    now: float,
    ledgers: dict[str, LedgerT],
) -> VerdictT:
    """The verdict over the windows that are closed at `now`, stored so that it can be asked for again."""
    window = gate.comparison.window_at(now)
    verdict = judge_windows(fleet, gate, gate_input, window=window, ledgers=ledgers)
    registry.write_verdict(
        VerdictRecord(
            rollout=gate.comparison.id,
            at=now,
            window=window,
            situation=encode(gate_input),
            move=verdict.move,
            because=verdict.because,
            sha256=_digest(verdict),
        )
    )
    return verdict


def judge_again(
    registry: VerdictsPort, fleet: TallyPort, gate: Gate[InputT, LedgerT, VerdictT]
) -> Iterator[Rejudged[InputT, VerdictT]]:
    """Every stored verdict, oldest first, and what the gate says again, from the stored inputs and windows alone."""
    ledgers: dict[str, LedgerT] = {}
    for stored in registry.verdicts(gate.comparison.id):
        gate_input = gate.parse_input(stored.situation)
        verdict = judge_windows(fleet, gate, gate_input, window=stored.window, ledgers=ledgers)
        yield Rejudged(stored, gate_input, verdict)


def replay(registry: VerdictsPort, fleet: TallyPort, gate: Gate[InputT, LedgerT, VerdictT]) -> list[ReplayedVerdict]:
    """Every stored verdict, oldest first, and whether it comes out the same."""
    return [
        ReplayedVerdict(
            at=each.stored.at,
            window=each.stored.window,
            move=each.stored.move,
            because=each.stored.because,
            sha256=each.stored.sha256,
            same=_is_given_again(each.verdict, each.stored),
        )
        for each in judge_again(registry, fleet, gate)
    ]


def _is_given_again(verdict: AnyVerdict, stored: VerdictRecord) -> bool:
    """Whether a verdict is the stored one, in everything but the words of its sentence."""
    if not isinstance(verdict, msgspec.Struct):
        raise InvariantBroken(f"a verdict is a struct, and a {type(verdict).__name__} came")
    return _digest(msgspec.structs.replace(verdict, because=stored.because)) == stored.sha256


def _digest(verdict: AnyVerdict | msgspec.Struct) -> str:
    return hashlib.sha256(encode(verdict)).hexdigest()
