"""The documents of health at their very limits, and what each holds that says only what it must.

A report that says nothing of a thing must never be read as if it said something.
"""

import math
from typing import Any

import msgspec
import pytest

from support.values import EPOCH
from whimbrel import limits
from whimbrel.errors import UntrustedInput
from whimbrel.gate.verdict import Counts
from whimbrel.health.device_hour import DeviceHour, HourSums, Spread
from whimbrel.health.device_window import DeviceWindow, Measured
from whimbrel.health.pairs import Pairs
from whimbrel.health.panel import Panel, Value
from whimbrel.health.report import Announcement, Batch, Build, Cohort, Summary, Window
from whimbrel.health.run_history import RunEntry, RunHead, RunHistoryPart
from whimbrel.health.shadow import ShadowSums, Units
from whimbrel.health.tally import Cell, Moments
from whimbrel.health.user_report import UserReport, UserReports
from whimbrel.model.documents import convert, encode, parse

WINDOW = {"model": "wake", "serial": None, "first": 1, "last": 2**53}
SHADOW = {"serial": 2}
HEAD = {
    "format": "whimbrel-run-head-1",
    "device_id": "dev-1",
    "public_key": "k" * 43,
    "log": "0" * 16,
    "number": 0,
    "newest": 0,
    "digest": "a" * 64,
    "heads": 1,
    "at": 0.0,
}
ENTRY = {"number": 1, "previous": "a" * 64, "model": "wake", "change": "begun", "at": 0.0, "not_before": 0.0}
LEAST: dict[type, dict[str, Any]] = {
    Window: WINDOW,
    Cohort: {"rollout": "r1", "stage": 0, "role": "treated", "age_s": 0.0},
    Summary: {"n": 0, "sum": 0.0, "sumsq": 0.0},
    Build: {"serial": 1, "variant": "any"},
    Batch: {"epoch": EPOCH},
    Announcement: {"model": "wake", "step": "begun"},
    RunEntry: ENTRY,
    RunHead: HEAD,
    RunHistoryPart: {"head": "", "signature": "s" * 86},
    UserReport: {"ticket": "T-1", "model": "wake", "version": "1"},
    UserReports: {},
    ShadowSums: SHADOW,
    Units: {},
    DeviceWindow: {"window": 0, "role": "control"},
    Measured: {"n": 0, "sum": 0.0},
    Cell: {"stage": 0, "window": 0, "role": "control"},
    Moments: {"n": 0, "sum": 0.0, "sumsq": 0.0},
    Pairs: {},
    Panel: {},
    Value: {},
    Spread: {},
    HourSums: {},
}
OPTIONAL = {  # whose default is not what is empty of its type
    (Announcement, "role"): "treated",
    (DeviceHour, "errors"): (0, 0.0),
    (HourSums, "errors"): Spread(n=0, sum=0.0, sumsq=0.0),
}
UNKNOWN = {
    "most",
    "latency_ms_max",
    "memory_mib_max",
    "latency_ms",
    "memory_mib",
    "run_history",
    "serial",
    "rollout",
    "artifact",
    "about",
    "device_id",
    "version",
    "at",
    "model",
    "shadow",
    "before",
}


@pytest.mark.parametrize("kind", LEAST, ids=lambda kind: kind.__name__)
def test_what_a_document_does_not_say_is_nothing_or_unknown(kind: type) -> None:
    made = convert(kind, LEAST[kind], what="it")
    for field in msgspec.structs.fields(kind):
        if field.name in LEAST[kind]:
            continue
        value = getattr(made, field.name)
        expected = OPTIONAL.get((kind, field.name))
        if expected is not None:
            assert value == expected, field.name
        elif value is None:
            assert field.name in UNKNOWN | {"latency"}, field.name
        else:
            assert not value, field.name


def test_a_device_and_its_counts_begin_with_nothing() -> None:
    state = DeviceHour(hour=5)
    assert [getattr(state, name) for name in state.__struct_fields__] == [
        5, "", False, False, (0, 0.0), {}, {}, 0, {},
    ]  # fmt: skip
    assert set(msgspec.structs.asdict(Counts()).values()) == {0}


COUNT = 2**40
EDGES: list[tuple[type, str, float | None, float | None]] = [
    (Window, "first", 1, None),
    (Window, "last", 1, 2**53),
    (Window, "sessions", 0, COUNT),
    (Window, "crashed", 0, 1),
    (Window, "inferences", 0, COUNT),
    (Cohort, "stage", 0, limits.STAGES - 1),
    (Cohort, "age_s", 0.0, 1e10),
    (Summary, "n", 0, COUNT),
    (Summary, "sum", -1e15, 1e15),
    (Summary, "sumsq", 0.0, 1e30),
    (Summary, "most", -1e15, 1e15),
    (Build, "latency_ms_max", math.ulp(0.0), None),
    (Build, "memory_mib_max", math.ulp(0.0), None),
    (Build, "latency_ms", 0.0, None),
    (Build, "memory_mib", 0.0, None),
    (Announcement, "stage", 0, limits.STAGES - 1),
    (Announcement, "bytes_moved", 0, COUNT),
    (RunEntry, "number", 1, 2**53 - 1),
    (RunEntry, "at", -1e12, 1e12),
    (RunEntry, "not_before", -1e12, 1e12),
    (RunEntry, "signed_time", -1e12, 1e12),
    (RunHead, "number", 0, 2**53 - 1),
    (RunHead, "newest", 0, 2**53 - 1),
    (RunHead, "heads", 1, 2**53 - 1),
    (RunHead, "at", -1e12, 1e12),
    (UserReport, "at", 0.0, 1e11),
    (ShadowSums, "dropped", 0, COUNT),
    (ShadowSums, "skipped", 0, COUNT),
    (ShadowSums, "active_ms", 0.0, 1e15),
    (ShadowSums, "candidate_ms", 0.0, 1e15),
    (ShadowSums, "agreed", 0.0, None),
    *((Units, name, 0, None) for name in Units.__struct_fields__[:12] if name != "agreed"),
    (Units, "agreed", 0.0, None),
    (DeviceWindow, "window", 0, None),
    (DeviceWindow, "age_bucket", 0, None),
    (DeviceWindow, "sessions", 0, None),
    (DeviceWindow, "crashed", 0, 1),
    (DeviceWindow, "timed", 0, None),
    (DeviceWindow, "latency", -limits.SKETCH_KEY, limits.SKETCH_KEY),
    (Measured, "n", 0, None),
    (Cell, "stage", 0, limits.STAGES - 1),
    (Cell, "window", 0, None),
    (Cell, "age_bucket", 0, 5),
    (Cell, "at_risk", 0, None),
    (Cell, "sessions", 0, None),
    (Cell, "unused", 0, None),
    (Cell, "crashed", 0, None),
    (Cell, "error_units", 0, None),
    (Cell, "error_share", 0.0, None),
    (Cell, "error_squares", 0.0, None),
    (Cell, "due", 0, None),
    (Cell, "overdue", 0, None),
    (Cell, "due_again", 0, None),
    (Cell, "overdue_again", 0, None),
    (Cell, "prediction_units", 0, None),
    (Cell, "user_reports", 0, None),
    (Cell, "version_reports", 0, None),
    (Moments, "n", 0, None),
    (Moments, "sumsq", 0.0, None),
    (Pairs, "pairs", 0, None),
    (Pairs, "squares", 0, None),
    (Panel, "n", -(2**53), 2**53),
    (Panel, "both", -(2**53), 2**53),
    (Value, "n", 0, None),
]


@pytest.mark.parametrize(("kind", "field", "least", "most"), EDGES)
def test_a_number_is_read_up_to_its_limits_and_not_beyond(
    kind: type, field: str, least: float | None, most: float | None
) -> None:
    def read(value: float) -> Any:
        return getattr(convert(kind, LEAST[kind] | {field: value}, what="it"), field)

    for edge, way in ((least, -math.inf), (most, math.inf)):
        if edge is None:
            continue
        assert read(edge) == edge
        beyond = math.nextafter(edge, way) if isinstance(edge, float) else edge + (1 if way > 0 else -1)
        with pytest.raises(UntrustedInput):
            read(beyond)
    if most is None and isinstance(least, int) and field != "first":
        assert read(2**60) == 2**60, "what bounds one report does not bound a sum"


def numbered(count: int, value: Any) -> dict[str, Any]:
    return {f"m{n}": value for n in range(count)}


@pytest.mark.parametrize(
    ("kind", "field", "most", "one"),
    [
        (Window, "metrics", 64, LEAST[Summary]),
        (Window, "slices", limits.SLICE_LABELS, "a"),
        (Cohort, "before", limits.BEFORE, 1.0),
        (Batch, "labels", limits.LABELS, "a"),
        (Batch, "waiting", limits.DEVICE_MODELS, "a"),
        (Batch, "builds", limits.DEVICE_MODELS, LEAST[Build]),
        (Batch, "runs", limits.DEVICE_MODELS, None),
        (DeviceWindow, "metrics", limits.SESSION_METRICS, LEAST[Measured]),
        (Cell, "metrics", 64, LEAST[Moments]),
        (Cell, "pairs", 68, {}),
        (Cell, "panels", limits.GUARDRAILS + 1, {}),
    ],
)
def test_so_many_names_are_read_and_no_more(kind: type, field: str, most: int, one: Any) -> None:
    assert len(getattr(convert(kind, LEAST[kind] | {field: numbered(most, one)}, what="it"), field)) == most
    with pytest.raises(UntrustedInput):
        convert(kind, LEAST[kind] | {field: numbered(most + 1, one)}, what="it")


@pytest.mark.parametrize(
    ("kind", "field", "most", "one"),
    [
        (Batch, "windows", 256, None),
        (Batch, "models", limits.DEVICE_MODELS, "wake"),
        (Window, "cohorts", limits.STAGES, LEAST[Cohort]),
        (RunHistoryPart, "entries", limits.RUN_ENTRIES_SENT, ""),
        (UserReports, "reports", limits.USER_REPORTS_A_BATCH, LEAST[UserReport]),
        (Announcement, "reason", 2000, None),
        (UserReport, "text", limits.USER_REPORT_CHARS, None),
        (UserReport, "version", 128, None),
    ],
)
def test_so_long_a_list_or_text_is_read_and_no_longer(kind: type, field: str, most: int, one: Any) -> None:
    def of(count: int) -> Any:
        if field == "windows":
            return [WINDOW | {"first": n, "last": n} for n in range(1, count + 1)]
        return "a" * count if one is None else [one] * count

    assert len(getattr(convert(kind, LEAST[kind] | {field: of(most)}, what="it"), field)) == most
    with pytest.raises(UntrustedInput):
        convert(kind, LEAST[kind] | {field: of(most + 1)}, what="it")


def test_calls_of_a_candidate_agree_at_most_as_often_as_they_were_compared() -> None:
    def read(**told: float) -> ShadowSums:
        return convert(ShadowSums, SHADOW | told, what="it")

    assert read(inputs=COUNT, compared=COUNT, agreed=float(COUNT)).agreed == COUNT
    assert read(inputs=10, compared=4, errors=3, crashed=3, agreed=4 * (1 + 1e-9)).agreed > 4
    for wrong, words in (
        ({"inputs": 10, "compared": 4, "errors": 3, "crashed": 2}, r"10 inputs are not 4 \+ 3 \+ 2"),
        ({"inputs": 4, "compared": 4, "agreed": 4.0001}, r"4.0001 of 4 agreed"),
        ({"inputs": COUNT + 1, "compared": COUNT + 1}, "inputs"),
    ):
        with pytest.raises(UntrustedInput, match=words):
            read(**wrong)


def test_bins_and_buckets_are_those_of_the_reference_and_the_sketch() -> None:
    def read(**told: Any) -> Window:
        return parse(Window, encode(WINDOW | told), what="it")

    bins, key = limits.REFERENCE_BINS, limits.SKETCH_KEY
    assert read(predictions={str(bins - 1): 1}, latency={str(-key): 1, str(key): 1}).predictions == {bins - 1: 1}
    for wrong in ({"predictions": {str(bins): 1}}, {"predictions": {"-1": 1}}, {"latency": {str(key + 1): 1}}):
        with pytest.raises(UntrustedInput):
            read(**wrong)
