"""What kind of change is this, what should its patch cost, and what made it cost more?

1. Judged from the patch alone: which share of the bytes changed, how, and in which tensors.
2. The ratios to expect are measured (docs/reference/delta.md). A much larger patch gets the reason where it shows:
   everything requantised, names shuffled, tensors that found no ancestor, noise of f32.
3. Advice never refuses anything.

Called at publish, and by `whimbrel delta encode --advise`.
"""

from collections import defaultdict
from dataclasses import dataclass

from whimbrel.delta.dtypes import BY_NAME, Family
from whimbrel.delta.patch import Patch
from whimbrel.delta.summary import Line, summarise

# (lowest, highest) ratio of patch to target, by the dtype that most bytes have; real fine-tunes, light to strong.
_FINE_TUNE = {
    "f32": (0.28, 0.40),
    "f16": (0.14, 0.29),
    "bf16": (0.06, 0.15),
    "q8_0": (0.035, 0.12),
    "q4_0": (0.02, 0.06),
    "q5_0": (0.025, 0.1),
    "q4_k": (0.03, 0.14),
    "q6_k": (0.05, 0.18),
    "i8": (0.01, 0.08),
    "u8": (0.01, 0.08),
}
_FINE_TUNE_OTHER = (0.02, 0.15)
_PARTIAL_SHARE = 0.5  # fewer changed bytes than that: layers were frozen
_TIME_TO_TELL = 1.15  # times the highest ratio to expect


@dataclass(frozen=True, slots=True)
class Advice:
    """`expected` is the lowest and the highest ratio of a change of this kind; `because` says what made it worse."""

    kind: str
    ratio: float
    expected: tuple[float, float]
    because: tuple[str, ...]

    def __str__(self) -> str:
        low, high = (100 * bound for bound in self.expected)
        first = (
            f"This looks like {self.kind}: {100 * self.ratio:.1f}% of the file, where {low:.1f}-{high:.1f}% is usual."
        )
        return " ".join([first, *self.because])


def advise(patch: Patch) -> Advice:
    """Judge a patch. Pure, and takes no longer than reading its head."""
    lines = summarise(patch)
    total = max(1, patch.target_bytes)
    ratio = patch.size_bytes / total
    by_mode: dict[str, int] = defaultdict(int)
    changed: dict[str, int] = defaultdict(int)
    for line in lines:
        by_mode[line.mode] += line.target_bytes
        if line.mode not in ("copy", "glue", "whole"):
            changed[line.dtype] += line.target_bytes
    coded = sum(by_mode[mode] for mode in ("float", "qblock", "int8", "lowrank"))
    share = sum(changed.values()) / total
    main = max(changed, key=lambda name: changed[name]) if changed else "bytes"
    kind, expected = _kind(by_mode, coded, share, main, total)
    because = _strangers(lines, total)
    if ratio > expected[1] * _TIME_TO_TELL:
        because += _excess(changed, because)
    return Advice(kind, ratio, expected, tuple(because))


def _kind(by_mode: dict[str, int], coded: int, share: float, main: str, total: int) -> tuple[str, tuple[float, float]]:
    low, high = _FINE_TUNE.get(main, _FINE_TUNE_OTHER)
    raw = by_mode["raw"] + by_mode["rows"]
    if by_mode["whole"]:
        return "a small file, patched byte by byte", (0.0, 1.0)
    if not coded and not raw:
        return "a change of metadata only", (0.0, max(0.001, 4096 / total))
    if raw > coded and raw < total / 2:
        return "some layers made anew, the rest as it was", (0.3 * raw / total, raw / total)
    if raw > coded:
        return "a new model: most tensors have no ancestor in the base", (0.3, 1.0)
    if by_mode["lowrank"] > coded / 2:
        return "a merged low-rank adapter", (0.005 * share, 0.1 * share)
    if by_mode["rows"]:
        return "a fine-tune with a grown vocabulary", (low * share, high * share + by_mode["rows"] / total)
    if share < _PARTIAL_SHARE:
        return "a fine-tune of some layers", (low * share, high * share)
    return "a full fine-tune", (low * share, high * share)


def _strangers(lines: list[Line], total: int) -> list[str]:
    strangers = [line for line in lines if line.mode == "raw" and BY_NAME[line.dtype].family is not Family.OPAQUE]
    lost = sum(line.target_bytes for line in strangers)
    if lost <= 0.02 * total:
        return []
    names = ", ".join(f"'{line.name}'" for line in strangers[:3])
    return [
        f"{len(strangers)} tensors ({100 * lost / total:.0f}% of the bytes) have no counterpart of their name, kind "
        f"and shape in the base, or one that tells nothing about them ({names}): keep names and shapes as they were."
    ]


def _excess(changed: dict[str, int], because: list[str]) -> list[str]:
    half = 0.5 * sum(changed.values())
    quantised = sum(size for name, size in changed.items() if BY_NAME[name].family in (Family.QBLOCK, Family.INT8))
    if quantised > half and not because:
        return [
            "The quantised weights differ more than training usually makes them: were they quantised from rounded "
            "weights, or with other settings or scales than the last version? Keep the pipeline as it was."
        ]
    if changed.get("f32", 0) > half:
        return ["The low bits of f32 are noise that nothing predicts: publish f16, bf16 or a quantised variant."]
    if because:
        return []
    return ["More changed than in a usual fine-tune: a high learning rate, or a training from another start."]
