"""What the admin API takes and answers about devices. Times are POSIX seconds."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from whimbrel import limits
from whimbrel.health.report import Build
from whimbrel.model.documents import Document
from whimbrel.model.ids import Label
from whimbrel.server.admin.views.reason import Actor, Because
from whimbrel.trust.enrolment import Labels
from whimbrel.trust.possession import PublicKey


class NewDeviceLabels(Document, frozen=True):
    """POST labels: labels that an operator gives a device (`labels`), and those to take away (`without`)."""

    labels: Labels = {}
    without: Annotated[tuple[Label, ...], Meta(max_length=limits.LABELS)] = ()
    because: Because = ""
    actor: Actor = "admin"


class AllowAgain(Document, frozen=True):
    """POST allow-again: for how many seconds, and with which key alone (base64url); None: with any."""

    for_s: Annotated[float, Meta(gt=0, le=limits.ALLOW_AGAIN_MAX_S)] = limits.ALLOW_AGAIN_S
    public_key: PublicKey | None = None
    because: Because = ""
    actor: Actor = "admin"


class DeviceModelView(msgspec.Struct, frozen=True, kw_only=True):
    """What a device runs of a model, as it says. `serial` and `version` None: no version yet.

    `since`: when it was first heard to run it. `waits_for`: what holds its next version up, in its own words; None for
    nothing. `waits_told_at`: when it said so last. `build`: the variant that it chose, the budgets of that, and what
    its probe measured; None where it did not say.
    """

    model: str
    serial: int | None
    version: str | None
    since: float | None
    heard_at: float
    waits_for: str | None
    waits_told_at: float | None
    build: Build | None = None


class BlockView(msgspec.Struct, frozen=True, kw_only=True):
    """That a device is blocked: by whom, since when, and why."""

    since: float
    actor: str
    because: str


class DuplicateView(msgspec.Struct, frozen=True, kw_only=True):
    """Two installations report with this id. `signs`: contradictions so far; `because`: the last one."""

    signs: int
    first_at: float
    last_at: float
    noticed_at: float
    because: str


class DeviceView(msgspec.Struct, frozen=True, kw_only=True):
    """An enrolled device. `labels`: those that it told, which are the ones that policies ask for (`report_labels`).

    `operator_labels`: those that people gave it; no policy sees them. `granted_labels`: those that the server gave it.
    `admission`: how it came in, `shared`, `single_use`, `attested` or by a `person`, at `admitted_at`.
    `allowed_again_until`: until then it may enrol with another key; None where nobody said so.
    """

    device_id: str
    labels: dict[str, str]
    operator_labels: dict[str, str]
    enrolled_at: float
    heard_at: float
    blocked: BlockView | None
    duplicate: DuplicateView | None
    models: list[DeviceModelView]
    granted_labels: dict[str, str] = {}
    admission: str = "shared"
    admitted_at: float = 0.0
    enrol_token_name: str = ""
    has_key: bool = False
    credential_epoch: int = 1
    allowed_again_until: float | None = None


class DevicePageView(msgspec.Struct, frozen=True, kw_only=True):
    """Devices by id. `after`: the cursor of the next page, None for none; a page may hold fewer than `limit`."""

    devices: list[DeviceView]
    after: str | None


class CohortView(msgspec.Struct, frozen=True, kw_only=True):
    """A place of a device in a rollout or experiment that has not ended."""

    rollout: str
    stage: int
    role: Literal["treated", "control"]
    assigned_at: float
    activated_at: float | None
    reported_at: float | None
    outcome: str


class DeviceDetail(DeviceView, frozen=True, kw_only=True):
    """A device, with its places in cohorts."""

    cohorts: list[CohortView]


class RemovedDevice(msgspec.Struct, frozen=True, kw_only=True):
    """A device that was removed. `cohorts`: how many cohorts of unended rollouts it was counted in."""

    device_id: str
    cohorts: int
