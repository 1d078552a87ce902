"""Who receives which alerts: what is due, from the audit log and from who asked for it.

1. An alert is due for each audit entry of a rollout that says something a receiver asked for, once a receiver: for all
   rollouts in the receiver's own settings, for one in its plan. What is about an experiment, a device or a monitor is
   asked for in the settings.
2. The same said again soon (a rollout that holds, moves and holds at the same stage) is grouped with what was said. Of
   devices, whichever: a disk image that was copied to a thousand machines is told once an hour. A monitor is told of
   once an episode (flows/monitors), and never grouped with another; nor is an experiment: each arm stops once.
3. What ends well, or goes on, clears what was said before: receivers that keep incidents close them.
4. An alert is told at least once, with a key by which a receiver knows it again.

Pure. Called by the server's alert loop.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

from whimbrel import limits
from whimbrel.flows.records import AuditRecord
from whimbrel.plan.governance import (
    AlertOn,
    DeviceAlertOn,
    ExperimentAlertOn,
    ModelAlertOn,
    NamespaceAlertOn,
    RoleAlertOn,
)
from whimbrel.plan.plan import Plan

Event = AlertOn | DeviceAlertOn | ExperimentAlertOn | ModelAlertOn | RoleAlertOn | NamespaceAlertOn
Severity = Literal["critical", "warning", "info"]
Status = Literal["firing", "resolved", "note"]

# What an audit entry says, in the words that plans and receivers use.
SAID: dict[str, AlertOn] = {
    "schedule": "scheduled",
    "queue": "queued",
    "start": "started",
    "await_approval": "waiting_for_approval",
    "advance": "advanced",
    "hold": "held",
    "pause": "paused",
    "slice_back": "slice_back",
    "roll_back": "rolled_back",
    "finish": "completed",
    "abort": "aborted",
    "reject": "aborted",
    "fail_to_begin": "aborted",
}
SAID_OF_EXPERIMENTS: dict[str, ExperimentAlertOn] = {
    "start experiment": "experiment_started",
    "experiment stop arm": "arm_stopped",
    "experiment stop slice": "arm_stopped_in_slice",
    "experiment ship": "experiment_shipped",
    "experiment keep": "experiment_kept",
    "experiment end": "experiment_inconclusive",
    "experiment stop": "experiment_stopped",
}
SAID_OF_DEVICES: dict[str, DeviceAlertOn] = {
    "notice_duplicate": "duplicate_identity",
    "notice_enrolments": "enrolment_spike",
}
SAID_OF_MODELS: dict[str, ModelAlertOn] = {
    "break_objective": "objective_broken",
    "notice_anomaly": "anomaly",
    "recover": "recovered",
    "floor_expires": "floor_expires",
    "draft_revocation": "revocation_drafted",
}
SAID_OF_ROLES: dict[str, RoleAlertOn] = {"notice_expiry": "metadata_expires", "renew_role": "metadata_renewed"}
SAID_OF_NAMESPACES: dict[str, NamespaceAlertOn] = {
    "anchor_audit_log": "audit_anchor",
    "propose keys": "keys_proposed",
    "change keys": "keys_decided",
    "reject keys": "keys_decided",
}
_SEVERITY: dict[Event, Severity] = {
    "metadata_expires": "warning",
    "keys_proposed": "warning",
    "duplicate_identity": "warning",
    "enrolment_spike": "warning",
    "objective_broken": "warning",
    "anomaly": "warning",
    "floor_expires": "warning",
    "revocation_drafted": "warning",
    "arm_stopped": "critical",
    "arm_stopped_in_slice": "critical",
    "slice_back": "critical",
    "rolled_back": "critical",
    "held": "warning",
    "paused": "warning",
    "waiting_for_approval": "warning",
}
_CLEARS: frozenset[Event] = frozenset(
    {
        "advanced",
        "completed",
        "aborted",
        "recovered",
        "metadata_renewed",
        "keys_decided",
        "experiment_shipped",
        "experiment_kept",
        "experiment_inconclusive",
        "experiment_stopped",
    }
)
_WORDS: dict[Event, str] = {
    "slice_back": "takes a slice back",
    "waiting_for_approval": "waits for approval",
    "rolled_back": "is taken back",
    "held": "holds",
}


_OF_EXPERIMENTS: dict[Event, str] = {
    "experiment_started": "is started",
    "arm_stopped": "stops the arm",
    "arm_stopped_in_slice": "stops a slice of the arm",
    "experiment_shipped": "ships",
    "experiment_kept": "keeps its control",
    "experiment_inconclusive": "ends, and nothing is decided",
    "experiment_stopped": "is stopped without a decision",
}
_OF_MONITORS: dict[Event, str] = {
    "objective_broken": "is not kept",
    "anomaly": "is an anomaly",
    "recovered": "is well again, or watched no more",
    "floor_expires": "must be signed anew",
    "revocation_drafted": "waits for the publisher's key",
}


_OF_NAMESPACES: dict[Event, str] = {"audit_anchor": "audit", "keys_proposed": "keys", "keys_decided": "keys"}


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """What a receiver is told. `key` names it for ever; `thread` is the same for all alerts of one thing.

    It is about a rollout; or about an `experiment` (and one `arm`, whose version is the target), a `device`, a
    `monitor` of a model, a signed `role`, or the whole namespace: then what belongs to a rollout is empty.
    """

    key: str
    namespace: str
    receiver: str
    event: Event
    at: float  # POSIX seconds
    because: str
    actor: str
    device: str = ""
    monitor: str = ""
    role: str = ""
    experiment: str = ""
    arm: str = ""
    model: str = ""
    rollout: str = ""
    stage: int = 0
    stage_name: str = ""
    baseline: str = ""  # versions, for people
    target: str = ""
    evidence: dict[str, Any] = {}
    test: bool = False

    @property
    def is_of_namespace(self) -> bool:
        """Whether it is about the namespace as a whole."""
        return self.event in _OF_NAMESPACES

    @property
    def thread(self) -> str:
        """What groups, at the receiver, alerts of one rollout, experiment, device, role, or monitor of a version."""
        if self.event == "enrolment_spike":
            return f"{self.namespace}/enrolments"
        if self.event in _OF_NAMESPACES:
            return f"{self.namespace}/{_OF_NAMESPACES[self.event]}"
        if self.device:
            return f"{self.namespace}/device/{self.device}"
        if self.role:
            return f"{self.namespace}/role/{self.role}"
        if self.monitor:
            return f"{self.namespace}/model/{self.model}/{self.target}/{self.monitor}"
        return f"{self.namespace}/{f'experiment/{self.experiment}' if self.experiment else self.rollout}"

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        if self.monitor and self.evidence.get("outcome") in {"taken_back", "not_taken_back"}:
            return "critical"
        if self.event == "metadata_expires" and self.evidence.get("left_s", 0.0) <= limits.EXPIRY_URGENT_S:
            return "critical"
        return _SEVERITY.get(self.event, "info")

    @property
    def status(self) -> Status:
        """Whether it opens something, or clears what was open."""
        if self.severity != "info":
            return "firing"
        return "resolved" if self.event in _CLEARS else "note"

    @property
    def title(self) -> str:
        """One line."""
        test = "TEST: " if self.test else ""
        if self.event == "enrolment_spike":
            return f"{test}{self.evidence.get('devices', 'many')} devices enrolled within an hour, far more than usual"
        if self.event == "audit_anchor":
            return f"{test}anchor of the audit log of {self.namespace}: entry {self.evidence.get('sequence', '')}"
        if self.event == "keys_proposed":
            return f"{test}a change of keys of {self.namespace} waits for a second person"
        if self.event == "keys_decided":
            return f"{test}a change of keys of {self.namespace} was taken, or rejected"
        if self.device:
            return f"{test}device {self.device}: two installations report with this id"
        if self.role:
            return f"{test}the signed role {self.role} {'expires' if self.status == 'firing' else 'was signed anew'}"
        if self.monitor:
            what = _OF_MONITORS.get(self.event, "is told of")
            return f"{test}{' '.join(filter(None, [self.model, self.target]))}: {self.monitor} {what}"
        if self.experiment:
            what = " ".join(each for each in (_OF_EXPERIMENTS.get(self.event, "is told of"), self.arm) if each)
            return f"{test}{self.model}: the experiment {self.experiment} {what}"
        what_happened = _WORDS.get(self.event, f"is {self.event.replace('_', ' ')}")
        return f"{test}{self.model} {self.target}: the rollout {what_happened} (stage {self.stage_name})"


class EarlierAlert(msgspec.Struct, frozen=True, kw_only=True):
    """An alert that was due before: what must be known of it to group a new one with it."""

    receiver: str
    event: Event
    stage: int
    at: float


def wants(rules: Plan | None, receiver: str, *, on: Iterable[Event], event: Event) -> bool:
    """Whether a receiver asked for an event: always (`on`), or in the rollout's plan (None: it is about no rollout)."""
    if event in frozenset(on):
        return True
    return rules is not None and any(rule.to == receiver and event in rule.on for rule in rules.alerts)


def event_of(entry: AuditRecord) -> Event | None:
    """What an audit entry says to a receiver; None for entries that say nothing to any."""
    if entry.rollout:
        return SAID.get(entry.action) or SAID_OF_EXPERIMENTS.get(entry.action)
    if entry.device:
        return SAID_OF_DEVICES.get(entry.action)
    if entry.model:
        return SAID_OF_MODELS.get(entry.action)
    return SAID_OF_ROLES.get(entry.action) or SAID_OF_NAMESPACES.get(entry.action)


def grouped(event: Event, stage: int, *, at: float, before: Sequence[EarlierAlert], within_s: float) -> bool:
    """Whether the same was told to this receiver so short a time ago that it is no news."""
    return any(
        earlier.event == event and earlier.stage == stage and 0 <= at - earlier.at < within_s for earlier in before
    )
