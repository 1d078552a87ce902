"""What do sessions open now, and why, where no cycle wrote it down yet? For the status, which a cycle writes.

1. A version that was left while no cycle ran is not what runs: the durable record of it goes before `status.json`.
2. Crashes that only the next start would count are counted here as that start would, and nothing is written.
3. Why a version stays that should be left is told also where no cycle looked.

Called by `read_status`, in any process.
"""

from collections.abc import Mapping
from typing import Any

from whimbrel.agent.crash_counts import kept_count
from whimbrel.agent.departures import fallback_of, objection_of, read_orders
from whimbrel.agent.load_failures import failure_of
from whimbrel.agent.marks import dead_marks
from whimbrel.agent.places import Places, read_departures, read_pointer
from whimbrel.device.crash_loop import after_crashes, count_of, reason_to_leave
from whimbrel.device.departure import names
from whimbrel.device.slots import Held
from whimbrel.device.states import State


def open_now(places: Places, model: str, status: Mapping[str, Any]) -> dict[str, Any]:
    """What of a model's `status` is otherwise now. Raises `OSError`, `UntrustedInput`."""
    pointer, departure = read_pointer(places), read_departures(places).get(model)
    if pointer is None or pointer.active is None or status["state"] == State.GOING_BACK.value:
        return {}
    active = pointer.active
    if departure is not None and departure.serial == status["serial"] and not names(departure, active):
        return _went_back(active, left=departure.serial, reason=departure.reason)
    crashes, failure = _crashes(places, active), failure_of(places, active)
    fallback = fallback_of(places) if crashes else None
    if fallback is not None:  # the next session leaves it before it opens anything
        return _went_back(fallback, left=active.serial, reason=crashes)
    reason = failure or ("" if pointer.trial else crashes)
    return {"stays": stays_words(reason, objection_of(places))} if reason else {}


def stays_words(reason: str, objection: str) -> str:
    """Why a version is not left, though it should be."""
    return f"{reason}; it stays: {objection}"


def _went_back(held: Held, *, left: int, reason: str) -> dict[str, Any]:
    return {
        "state": State.GOING_BACK.value,
        "serial": held.serial,
        "version": held.version,
        "went_back": {"from": left, "reason": reason},
        "stays": None,
    }


def _crashes(places: Places, active: Held) -> str:
    dead = [
        name for name, mark in dead_marks(places).items() if (mark.serial, mark.slot) == (active.serial, active.slot)
    ]
    loop = after_crashes(count_of(kept_count(places), active), dead, still_there=places.disk.names(places.marks))
    return reason_to_leave(loop, most=read_orders(places).crash_loop)
