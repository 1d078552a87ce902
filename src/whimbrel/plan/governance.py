"""How a rollout is governed: who must agree, how many devices may be at risk, what follows, and who gets alerts."""

from typing import Annotated, Literal

from msgspec import Meta

from whimbrel import limits
from whimbrel.model.documents import Document
from whimbrel.model.ids import Name
from whimbrel.plan.schedule import Note

AlertOn = Literal[
    "scheduled",
    "queued",
    "started",
    "waiting_for_approval",
    "advanced",
    "held",
    "paused",
    "slice_back",
    "rolled_back",
    "completed",
    "aborted",
]
# What a receiver may ask for besides, of devices and not of a rollout: no plan can.
DeviceAlertOn = Literal["duplicate_identity", "enrolment_spike"]
# And of models: by their standing monitors, and of what waits for an offline key.
ModelAlertOn = Literal["objective_broken", "anomaly", "recovered", "floor_expires", "revocation_drafted"]
# And of signed roles that people must sign again.
RoleAlertOn = Literal["metadata_expires", "metadata_renewed"]
# And of a whole namespace: an anchor of its audit log, and a change of keys that waits for a second person, or no more.
NamespaceAlertOn = Literal["audit_anchor", "keys_proposed", "keys_decided"]
# And of experiments: no plan of a rollout can.
ExperimentAlertOn = Literal[
    "experiment_started",
    "arm_stopped",
    "arm_stopped_in_slice",
    "experiment_shipped",
    "experiment_kept",
    "experiment_inconclusive",
    "experiment_stopped",
]


class Approval(Document, frozen=True):
    """How many people must agree before a stage begins. Each of them counts once."""

    count: Annotated[int, Meta(ge=1, le=limits.APPROVERS)] = 1
    note: Note = ""  # what the approvers should look at


class BlastRadius(Document, frozen=True):
    """The most devices that may run the new version in any stage but the last."""

    percent: Annotated[float, Meta(gt=0, le=100)] | None = None
    devices: Annotated[int, Meta(ge=1, le=10**10)] | None = None

    def __post_init__(self) -> None:
        if self.percent is None and self.devices is None:
            raise ValueError("it caps nothing; say percent, devices, or both")


class OnSuccess(Document, frozen=True):
    """What follows when the rollout is complete. Its version becomes the baseline and `champion` in any case."""

    alias: Name | None = None  # an alias that the new baseline gets too
    retire_previous: bool = False  # the version before is offered no more, also not to go back to


class OnFailure(Document, frozen=True):
    """What follows when the rollout is taken back. Its version is quarantined in any case."""

    alias: Name | None = None  # an alias of the version that was taken back
    retire_target: bool = False  # it is offered no more, also not by an override
    abort_queued: bool = False  # rollouts of this model that wait for their turn end unbegun


class AlertRule(Document, frozen=True):
    """Who receives which alerts. `to` is a receiver that the server's operator configured."""

    to: Name
    on: Annotated[tuple[AlertOn, ...], Meta(min_length=1, max_length=32)]
