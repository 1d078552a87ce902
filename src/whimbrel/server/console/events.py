"""What was done, as pages tell it: an entry of the audit log in a person's words."""

from whimbrel.console.views.rollout import EventLine
from whimbrel.console.words import plain_name
from whimbrel.flows.audit_chain import ChainedEntry

_ACTS = {
    "start": "Started",
    "advance": "Went to the next stage",
    "hold": "Holds",
    "await_approval": "Waits for people",
    "approve": "Approved",
    "reject": "Rejected",
    "pause": "Paused",
    "resume": "Resumed",
    "finish": "Completed",
    "abort": "Ended",
    "roll_back": "Taken back",
    "rolled_back": "Every device is off it",
    "slice_back": "A slice went back",
    "queue": "Queued",
    "schedule": "Scheduled",
    "fail_to_begin": "Could not begin",
    "draft": "Written down",
}


def event_line(entry: ChainedEntry) -> EventLine:
    """An entry of the audit log, for people."""
    bad = entry.action in {"roll_back", "slice_back", "abort", "fail_to_begin", "reject"}
    good = entry.action in {"finish", "approve"}
    return EventLine(
        at=entry.at,
        actor=entry.actor,
        action=_ACTS.get(entry.action, plain_name(entry.action).capitalize()),
        because=entry.because,
        tone="bad" if bad else "good" if good else "",
    )
