"""What a device keeps in its folder: the defaults of each document, which an update must not change, and its limits.

A journal that an older agent wrote leaves out what was a default then; another default now would be read into it.
"""

import hashlib
from typing import Any

import pytest

from support.values import file
from whimbrel import limits
from whimbrel.device.crash_loop import CrashLoop
from whimbrel.device.departure import Departure, Departures, Orders
from whimbrel.device.journal import Candidate, GoingBack, Journal, Membership, Refusal, seal
from whimbrel.device.limit_checks import SessionFigures
from whimbrel.device.run_history import RunLog
from whimbrel.device.shadowing import Shadowing
from whimbrel.device.slots import Content, Held, Opened, Pointer
from whimbrel.device.states import State
from whimbrel.errors import UntrustedInput
from whimbrel.model import documents
from whimbrel.policy.shadow import Shadow

DIGEST = "a" * 64
FILE = {"name": "model.onnx", "size_bytes": 100, "sha256": DIGEST, "format": "onnx"}
HELD = {"slot": "a", "serial": 1, "version": "v1", "entry": "x", "contents": [{"name": "x", "sha256": DIGEST}]}
CANDIDATE = {
    "serial": 2, "version": "v2", "slot": "b", "files": [FILE], "policy_sequence": 1, "offered_at": 1.0,
}  # fmt: skip
LOG = {"format": "whimbrel-run-log-1", "device_id": "dev-1", "log": "0" * 16, "dropped_digest": DIGEST}

MINIMAL: list[tuple[dict[str, Any], object]] = [
    (
        {"format": "whimbrel-journal-1", "model": "m"},
        Journal(
            model="m", state=State.IDLE, candidate=None, going_back=None, refused=(), memberships=(), outbox=(),
            stopped_at=None,
        ),
    ),
    (
        CANDIDATE,
        Candidate(
            serial=2, version="v2", slot="b", files=(file(),), policy_sequence=1, offered_at=1.0, rollout=None, stage=0,
            held=None, install_attempts=0, again_at=0.0, probe_attempts=0, bytes_moved=0, moved_by={},
            healthy_sessions=0, failed_sessions=0, shadow=None, variant="",
        ),
    ),
    (
        {"leaves": 2, "to": None, "by_policy": False, "reason": "x"},
        GoingBack(leaves=2, to=None, by_policy=False, reason="x", policy_sequence=0),
    ),
    (
        {"serial": 2, "reason": "x", "policy_sequence": 1},
        Refusal(serial=2, reason="x", policy_sequence=1, overridden_by=None),
    ),
    (
        {"rollout": "r", "stage": 0, "role": "control", "assigned_at": 1.0},
        Membership(
            rollout="r", stage=0, role="control", assigned_at=1.0, permitted_at=None, since=None, before={}, serial=None
        ),
    ),
    (
        {"format": "whimbrel-pointer-1", "model": "m"},
        Pointer(model="m", active=None, fallback=None, trial=False, stopped=None),
    ),
    (
        HELD,
        Held(
            slot="a", serial=1, version="v1", entry="x", contents=(Content(name="x", sha256=DIGEST),), reference=None,
            sealed=False,
        ),
    ),
    ({"name": "x", "sha256": DIGEST}, Content(name="x", sha256=DIGEST, folder=False, opens_to=None)),
    ({"sha256": DIGEST, "size_bytes": 1}, Opened(sha256=DIGEST, size_bytes=1)),
    (
        {"format": "whimbrel-crashes-1", "serial": 2, "slot": "b"},
        CrashLoop(serial=2, slot="b", crashes=0, counted=()),
    ),
    ({"format": "whimbrel-departures-1"}, Departures(left={})),
    ({"serial": 2, "slot": "b", "reason": "x"}, Departure(serial=2, slot="b", reason="x", follows=None)),
    ({"format": "whimbrel-orders-1"}, Orders(crash_loop=3, barred=(), together={})),
    (
        {"how": {"sample_ppm": 1}},
        Shadowing(how=Shadow(sample_ppm=1), absolute_tolerance=0.0, relative_tolerance=0.0, crashes=0),
    ),
    ({}, SessionFigures(errors=None, latency_key=None, accuracy=None)),
    (
        LOG,
        RunLog(
            device_id="dev-1", log="0" * 16, dropped_digest=DIGEST, dropped=0, entries=(), public_key="",
            acknowledged=0, heads=0, head="", signature="", seen_at=0.0, refusals={},
        ),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("words", "value"), MINIMAL, ids=[type(value).__name__ for _, value in MINIMAL])
def test_what_a_kept_document_leaves_out_is_what_it_always_was(words: dict[str, Any], value: object) -> None:
    assert documents.parse(type(value), documents.encode(words), what="it") == value
    assert documents.parse(type(value), documents.encode(value), what="it") == value


def test_a_sealed_document_is_its_digest_a_new_line_and_its_text() -> None:
    text = b'{"format":"whimbrel-pointer-1","model":"m"}'
    assert seal(Pointer(model="m")) == hashlib.sha256(text).hexdigest().encode() + b"\n" + text


CONTENT = {"name": "x", "sha256": DIGEST}
ALL_LEFT = {"format": "whimbrel-departures-1"}
LOG_ENTRIES = limits.RUN_ENTRIES + limits.DEVICE_MODELS + 1
CRASHES = {"format": "whimbrel-crashes-1", "serial": 2, "slot": "b"}
ORDERS = {"format": "whimbrel-orders-1"}
JOURNAL = {"format": "whimbrel-journal-1", "model": "m"}
MEMBER = {"rollout": "r", "stage": 0, "role": "control", "assigned_at": 1.0}
REFUSAL = {"serial": 2, "reason": "x", "policy_sequence": 1}
TOLD = {"model": "m", "step": "begun"}
LEFT = {"serial": 2, "slot": "b", "reason": "x"}


def many(count: int, value: object = 1.0) -> dict[str, object]:
    return {f"n{number}": value for number in range(count)}


@pytest.mark.parametrize(
    ("kind", "words", "name", "least", "most", "too_much"),
    [
        (CrashLoop, CRASHES, "crashes", 0, None, -1),
        (CrashLoop, CRASHES, "counted", None, ["1-a"] * (2 * limits.CRASHES_IN_A_ROW), ["1-a"] * 33),
        (Orders, ORDERS, "crash_loop", 0, None, -1),
        (Orders, ORDERS, "barred", None, [1] * 8, [1] * 9),
        (Orders, ORDERS, "together", None, many(limits.SET_MODELS, 1), many(limits.SET_MODELS + 1, 1)),
        (Departures, ALL_LEFT, "left", None, many(limits.DEVICE_MODELS, LEFT), many(limits.DEVICE_MODELS + 1, LEFT)),
        (Departure, LEFT, "reason", "", "x" * limits.REASON_CHARS, "x" * (limits.REASON_CHARS + 1)),
        (Journal, JOURNAL, "refused", None, [REFUSAL] * limits.REFUSED, [REFUSAL] * (limits.REFUSED + 1)),
        (Journal, JOURNAL, "outbox", None, [TOLD] * limits.OUTBOX, [TOLD] * (limits.OUTBOX + 1)),
        (Membership, MEMBER, "before", None, many(limits.BEFORE), many(limits.BEFORE + 1)),
        (Shadowing, {"how": {"sample_ppm": 1}}, "crashes", 0, None, -1),
        (Shadowing, {"how": {"sample_ppm": 1}}, "absolute_tolerance", 0.0, 1e9, -1e-9),
        (Shadowing, {"how": {"sample_ppm": 1}}, "relative_tolerance", 0.0, 1e9, -1e-9),
        (SessionFigures, {}, "errors", 0.0, 1.0, 1.0000001),
        (SessionFigures, {}, "accuracy", 0.0, 1.0, -1e-9),
        (Held, HELD, "contents", [CONTENT], [CONTENT] * limits.FILES, [CONTENT] * (limits.FILES + 1)),
        (Held, HELD, "contents", None, None, []),
        (RunLog, LOG, "refusals", None, {"m": [[1, 1]] * limits.REFUSED}, {"m": [[1, 1]] * (limits.REFUSED + 1)}),
        (RunLog, LOG, "refusals", None, many(limits.DEVICE_MODELS, [[1, 1]]), many(limits.DEVICE_MODELS + 1, [[1, 1]])),
        (RunLog, LOG, "entries", None, ["{}"] * LOG_ENTRIES, ["{}"] * (LOG_ENTRIES + 1)),
    ],
)  # fmt: skip
def test_a_kept_document_is_read_up_to_its_limits_and_not_beyond_them(
    kind: Any, words: dict[str, Any], name: str, least: object, most: object, too_much: object
) -> None:
    for fits in (least, most):
        if fits is not None:
            documents.parse(kind, documents.encode(words | {name: fits}), what="it")
    with pytest.raises(UntrustedInput, match="it cannot be read: "):
        documents.parse(kind, documents.encode(words | {name: too_much}), what="it")
