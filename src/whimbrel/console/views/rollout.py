"""The page of a rollout, the list of rollouts, and the page that asks before one is moved."""

import msgspec

from whimbrel.console.graphics import RatioChart


class StageStep(msgspec.Struct, frozen=True, kw_only=True):
    """A stage on the track. `state`: done, now, next or missed. `progress`: of its time, 0 to 100."""

    name: str
    share: str
    state: str
    note: str
    progress: float
    treated: int
    active: int
    reported: int
    control: int
    silent: int
    failed: int
    went_back: int
    shadow: bool


class GuardrailLine(msgspec.Struct, frozen=True, kw_only=True):
    """What one guardrail shows. `tone`: harm, doubt, good or none. `evidence`: of what proves harm, 0 to 100."""

    name: str
    effect: str
    tone: str
    state: str
    evidence: float
    evidence_words: str
    severity: str
    chart: RatioChart | None
    small: str


class SliceLine(msgspec.Struct, frozen=True, kw_only=True):
    """A slice of the devices: a hardware class, or a value of another label."""

    name: str
    state: str
    tone: str
    before: str
    after: str


class EventLine(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the audit log."""

    at: float
    actor: str
    action: str
    because: str
    tone: str


class Button(msgspec.Struct, frozen=True, kw_only=True):
    """A move that a person may make now, and where it is asked. `tone`: plain, primary or danger."""

    label: str
    href: str
    tone: str


class MemberLine(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout of the same set."""

    model: str
    words: str
    href: str


class RolloutPage(msgspec.Struct, frozen=True, kw_only=True):
    """One rollout. `tone`: of its state: good, busy, waits or bad. `not_judged`: who, and why.

    `guardrails`: those to look at; `quiet`: the others that see no harm; `untold`: those of which nothing was told.
    """

    id: str
    model: str
    baseline: str
    target: str
    state: str
    tone: str
    state_since: float
    answer: str
    because: str
    waits_for: str
    started_by: str
    created_at: float
    ended_at: float | None
    stages: tuple[StageStep, ...]
    guardrails: tuple[GuardrailLine, ...]
    quiet: tuple[GuardrailLine, ...]
    untold: tuple[str, ...]
    judged_stage: str
    evidence: float
    evidence_words: str
    slices: tuple[SliceLine, ...]
    not_judged: tuple[str, ...]
    members: tuple[MemberLine, ...]
    events: tuple[EventLine, ...]
    buttons: tuple[Button, ...]
    devices: tuple[tuple[str, int], ...]
    no_buttons: str  # why there are none; "" where there are some


class RolloutLine(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout in the list."""

    id: str
    model: str
    versions: str
    state: str
    tone: str
    stage: str
    since: float
    because: str


class MoveQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """What a person is asked before a move. `touches`: how many devices, in a sentence. `seen`: the state looked at."""

    id: str
    model: str
    target: str
    move: str
    title: str
    touches: str
    then: tuple[str, ...]
    button: str
    danger: bool
    seen: str
    because: str = ""
