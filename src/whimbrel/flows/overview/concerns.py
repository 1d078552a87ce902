"""What needs a person's attention first? Each concern is one sentence, about one thing, with how urgent it is.

1. Urgent: harm, or what stops the whole namespace soon: versions that monitors fail, a rollout that goes back, metadata
   that expires. Then what waits for a person, or is in doubt; then what a person should know.
2. A sentence says what is so, since when, and why. What to do stands on the page that it leads to.
3. Pure: who calls it brings the rows. Called by the console's fleet page.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from whimbrel import limits
from whimbrel.flows.monitors.records import Episode
from whimbrel.flows.records import RoleExpiry, RolloutRecord
from whimbrel.flows.wording import devices_words, duration_words
from whimbrel.plan.rollout_states import State
from whimbrel.trust.role_keys import expiry_warning
from whimbrel.trust.roles import TIMESTAMP_LIFE

Urgency = Literal["urgent", "waits", "note"]
Subject = Literal["rollout", "model", "devices", "keys", "server"]

_RECENT_S = 86400.0  # a rollout that went back so lately is told of
_ORDER: tuple[Urgency, ...] = ("urgent", "waits", "note")


class Concern(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to look at. `title`: a few words; `sentence`: the rest. `name`: of the rollout, model or role."""

    urgency: Urgency
    subject: Subject
    name: str
    title: str
    sentence: str
    since: float | None = None  # POSIX seconds


class Named(msgspec.Struct, frozen=True):
    """A rollout, and how people name its target."""

    rollout: RolloutRecord
    target: str


def in_order(concerns: Iterable[Concern]) -> list[Concern]:
    """The most urgent first, then the newest."""
    return sorted(concerns, key=lambda each: (_ORDER.index(each.urgency), -(each.since or 0.0), each.name))


def of_rollouts(rollouts: Sequence[Named], *, missing: Mapping[str, int], now: float) -> list[Concern]:
    """What rollouts wait for, or went through lately. `missing`: approvals that are missing, by rollout."""
    concerns = []
    for each in rollouts:
        rollout = each.rollout
        told = _told(rollout, missing.get(rollout.id, 0), now=now)
        if told is not None and not rollout.lead:
            urgency, words = told
            title = f"{rollout.model} {each.target} {words}"
            concerns.append(
                Concern(
                    urgency=urgency,
                    subject="rollout",
                    name=rollout.id,
                    title=title,
                    sentence=rollout.because,
                    since=rollout.state_since or rollout.created_at,
                )
            )
    return concerns


def _told(rollout: RolloutRecord, missing: int, *, now: float) -> tuple[Urgency, str] | None:
    stage = rollout.plan.stages[rollout.stage].name
    match rollout.state:
        case State.ROLLING_BACK:
            return "urgent", "goes back now"
        case State.HOLDING:
            return "waits", f"holds at stage {stage}"
        case State.PAUSED:
            return "waits", f"is paused at stage {stage}"
        case State.WAITING_FOR_APPROVAL | State.DRAFT:
            people = "one more person" if missing == 1 else f"{missing} more people"
            return "waits", f"waits for {people}" if missing else "was approved, and waits for its time"
        case State.ROLLED_BACK | State.ABORTED if (rollout.ended_at or 0.0) > now - _RECENT_S:
            return "note", "was taken back" if rollout.state is State.ROLLED_BACK else "was ended"
    return None


def of_monitors(episodes: Iterable[Episode], *, names: Mapping[tuple[str, int], str]) -> list[Concern]:
    """Versions that fail outside of rollouts. `names`: of versions, by model and serial."""
    return [
        Concern(
            urgency="urgent" if each.outcome != "taken_back" else "note",
            subject="model",
            name=each.model,
            title=f"{each.model} {names.get((each.model, each.serial), f'serial {each.serial}')} fails a monitor",
            sentence=each.because,
            since=each.since,
        )
        for each in episodes
        if each.ended_at is None
    ]


def of_devices(*, enrolled: int, silent: int, silent_for_s: float, duplicates: int) -> list[Concern]:
    """Devices that were not heard of, and ids that two installations use."""
    concerns = []
    if silent:
        share = 100 * silent / max(1, enrolled)
        concerns.append(
            Concern(
                urgency="waits" if share >= limits.CONSOLE_SILENT_PERCENT else "note",
                subject="devices",
                name="silent",
                title=f"{devices_words(silent)} not heard of for {duration_words(silent_for_s / 3600)}",
                sentence=f"that is {share:.2g}% of {enrolled:,}: off, out of reach, or lost",
            )
        )
    if duplicates:
        ids = "id is" if duplicates == 1 else "ids are"
        concerns.append(
            Concern(
                urgency="waits",
                subject="devices",
                name="duplicate",
                title=f"{duplicates:,} device {ids} used by two installations",
                sentence="a copied disk image or folder: what such a device reports proves nothing",
            )
        )
    return concerns


def of_keys(roles: Iterable[RoleExpiry], *, now: float) -> list[Concern]:
    """Signed roles that expire soon, or did."""
    concerns = []
    for each in roles:
        if (words := expiry_warning(each.role, each.expires, now=now)) is not None:
            over = each.expires <= now
            concerns.append(
                Concern(
                    urgency="urgent" if over else "waits",
                    subject="keys",
                    name=each.role,
                    title=f"{each.role} {'expired' if over else 'expires soon'}",
                    sentence=words,
                )
            )
    return concerns


def of_timestamp(expires: float, *, now: float) -> list[Concern]:
    """A timestamp that was not signed anew: devices hear of no news. `expires`: POSIX seconds."""
    signed_at = expires - TIMESTAMP_LIFE.total_seconds()
    if now - signed_at <= limits.CONSOLE_STALE_S:
        return []
    over = expires <= now
    until = "it is over: devices take no news" if over else f"it is over in {duration_words((expires - now) / 3600)}"
    return [
        Concern(
            urgency="urgent",
            subject="server",
            name="timestamp",
            title="The timestamp is stale",
            sentence=f"it was signed {duration_words((now - signed_at) / 3600)} ago, and should be every hour; {until};"
            " the log of whimbrel serve says why",
            since=signed_at,
        )
    ]
