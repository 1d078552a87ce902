"""A file of tally windows becomes cells. (docs/reference/windows.md)

1. One cell a line, in any order; a line that is not wholly understood refuses the file, with its number.
2. Each key once: a cell that comes twice is refused, never added up. So is a field that a line has twice.
3. Sums that no devices can have told (squares below those of equal values) are refused: they would prove anything.
"""

import json
import math
from collections.abc import Iterable

import msgspec

from whimbrel import limits
from whimbrel.errors import UntrustedInput
from whimbrel.health.shadow import Units
from whimbrel.health.tally import Cell
from whimbrel.model.documents import parse
from whimbrel.plan.measures import MEASURES, SUMS, Rate
from whimbrel.plan.plan import Plan

_ROUNDED = 1e-6  # of a sum: what adding in another order, or writing few digits, may move it by
_MOST = 2**53  # a count that a float holds exactly
_RATES = [row.test for row in MEASURES.values() if isinstance(row.test, Rate)]
_WITHIN = [("unused", "at_risk"), *((rate.events, rate.exposure) for rate in _RATES if rate.within)]


def read_windows(lines: Iterable[bytes], *, plan: Plan, what: str) -> list[Cell]:
    """The cells of a file. Raises `UntrustedInput` with the line's number."""
    cells: dict[tuple[int, int, str, str, str, int], Cell] = {}
    for number, line in enumerate(lines, start=1):
        where = f"{what}, line {number}"
        if len(line) > limits.WINDOW_LINE_BYTES:
            raise UntrustedInput(f"{where} has over {limits.WINDOW_LINE_BYTES} bytes")
        if not line.strip():
            continue
        if len(cells) >= limits.WINDOW_CELLS:
            raise UntrustedInput(f"{where}: there are more than {limits.WINDOW_CELLS} cells; cut the file")
        cell = parse(Cell, line, what=where)
        _refuse_fields_twice(line, where)
        if cell.key in cells:
            raise UntrustedInput(
                f"{where}: a cell of stage {cell.stage}, window {cell.window}, {cell.role}, class "
                f"{cell.hardware_class!r}{cell.slices or ''}, age bucket {cell.age_bucket} came before; each comes once"
            )
        _check(cell, plan, where)
        cells[cell.key] = cell
    if not cells:
        raise UntrustedInput(f"{what} holds no window; expected one tally cell a line")
    return _with_use(list(cells.values()))


def _refuse_fields_twice(line: bytes, where: str) -> None:
    """Raises `UntrustedInput`. A reader of JSON takes the last of two, so nobody could tell which one was meant."""

    def fields(pairs: list[tuple[str, object]]) -> dict[str, object]:
        read = dict(pairs)
        if len(read) < len(pairs):
            twice = next(name for place, (name, _) in enumerate(pairs) if name in dict(pairs[:place]))
            raise UntrustedInput(f"{where}: the field {twice!r} comes twice; keep one of them")
        return read

    json.loads(line, object_pairs_hook=fields)


def _with_use(cells: list[Cell]) -> list[Cell]:
    """The cells of a file that tells sessions and never who had none: where there was no session, nobody used it."""
    if any(cell.unused for cell in cells) or not any(cell.sessions for cell in cells):
        return cells
    return [
        cell
        if cell.sessions
        else msgspec.structs.replace(cell, unused=cell.at_risk - min(cell.at_risk, max(cell.crashed, cell.error_units)))
        for cell in cells
    ]


def _check(cell: Cell, plan: Plan, where: str) -> None:
    if cell.stage >= len(plan.stages):
        raise UntrustedInput(f"{where}: stage {cell.stage}, and the plan has {len(plan.stages)}, counted from 0")
    for part, whole in _WITHIN:
        if getattr(cell, part) > getattr(cell, whole) * (1 + 1e-9):
            words = "at_risk less unused" if whole == "used" else whole
            raise UntrustedInput(f"{where}: {part} is {getattr(cell, part)}, over {words}, {getattr(cell, whole)}")
    if cell.shadow is not None:
        _check_shadow(cell.shadow, where)
    numbers = [cell.window, cell.sessions, *(getattr(cell, name) for name in SUMS), *cell.latency.values()]
    numbers += [cell.prediction_units, *(moments.n for moments in cell.predictions.values())]
    numbers.append(cell.version_reports)
    sums = [cell.error_share, cell.error_squares]
    for moments in cell.metrics.values():
        numbers.append(moments.n)
        sums += [moments.sum, moments.sumsq]
    for pairs in cell.pairs.values():
        numbers += [pairs.pairs, pairs.squares]
        sums += [pairs.now, pairs.then, pairs.both]
    if max(numbers) > _MOST or not all(math.isfinite(value) and abs(value) < 1e300 for value in sums):
        raise UntrustedInput(f"{where}: a number is too large to be a count or a sum of a fleet")
    for name, moments in (*cell.metrics.items(), *cell.predictions.items()):
        _check_moments(str(name), moments.n, moments.sum, moments.sumsq, where)
    if cell.error_squares:  # files of before have none
        _check_moments("error_share", cell.error_units, cell.error_share, cell.error_squares, where)
        if cell.error_squares > cell.error_share * (1 + _ROUNDED):
            raise UntrustedInput(
                f"{where}: error_squares is {cell.error_squares:g}, over error_share, {cell.error_share:g}: each "
                "share is at most 1, so its square is no greater"
            )
    if any(abs(key) > limits.SKETCH_KEY for key in cell.latency):
        raise UntrustedInput(f"{where}: latency has a bucket beyond {limits.SKETCH_KEY}")


def _check_moments(name: str, n: int, total: float, squares: float, where: str) -> None:
    """The squares of n values that add up to `total` are least where all values are equal: total² / n."""
    if n == 0:
        if total or squares:
            raise UntrustedInput(f"{where}: {name} has the sum {total:g} and the squares {squares:g} of no device")
        return
    least = total * total / n
    if squares < least * (1 - _ROUNDED):
        raise UntrustedInput(
            f"{where}: the squares of {name} add up to {squares:g}; of {n} values with the sum {total:g} they are at "
            f"least {least:g}"
        )


def _check_shadow(units: Units, where: str) -> None:
    for part, whole in (
        ("agreed", "compared"),
        ("compared", "inputs"),
        ("disagreed_share", "compared_windows"),
        ("failed_share", "windows"),
        ("crashed_windows", "windows"),
        ("compared_windows", "windows"),
        ("windows", "inputs"),
    ):
        if getattr(units, part) > getattr(units, whole) * (1 + 1e-9):
            excess = f"{part} is {getattr(units, part)}, over {whole}, {getattr(units, whole)}"
            raise UntrustedInput(f"{where}: in its shadow {excess}")
    for name, whole in (("ratios", "compared_windows"), ("disagreed", "compared_windows"), ("failed", "windows")):
        if sum(getattr(units, name).values()) > getattr(units, whole):
            raise UntrustedInput(f"{where}: in its shadow {name} holds more device-windows than {whole}")
    buckets = (units.ratios, units.disagreed, units.failed, units.active, units.candidate)
    if max(units.inputs, units.dropped, units.skipped, *(n for each in buckets for n in each.values())) > _MOST:
        raise UntrustedInput(f"{where}: a number of its shadow is too large to be a count of a fleet")
    if any(abs(key) > limits.SKETCH_KEY for each in buckets for key in each):
        raise UntrustedInput(f"{where}: its shadow has a bucket beyond {limits.SKETCH_KEY}")
