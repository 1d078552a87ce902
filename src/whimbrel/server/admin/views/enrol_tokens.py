"""What the admin API takes and answers about enrolment tokens. Times are POSIX seconds."""

from typing import Annotated

import msgspec
from msgspec import Meta

from whimbrel import limits
from whimbrel.model.documents import Document
from whimbrel.model.ids import Label, LabelValue, Name
from whimbrel.server.admin.views.reason import Actor, Because


class NewEnrolTokens(Document, frozen=True):
    """POST enrol-tokens. `count`: how many tokens of this name and these terms.

    `expires_in_s`: seconds until they end. `uses_max`: devices that each token lets in; 1: single-use. `labels`: values
    that a device may claim for these labels. `granted_labels`: labels that every such device gets. `rate_per_min`: new
    devices a minute, by all of them. `requires_key`: only devices that prove a key.
    """

    name: Name
    count: Annotated[int, Meta(ge=1, le=limits.ENROL_TOKENS_AT_ONCE)] = 1
    expires_in_s: Annotated[float, Meta(gt=0, le=3650 * 86400)] | None = None
    uses_max: Annotated[int, Meta(ge=1, le=limits.ENROL_TOKEN_USES)] | None = None
    labels: Annotated[dict[Label, tuple[LabelValue, ...]], Meta(max_length=limits.LABELS)] = {}
    granted_labels: Annotated[dict[Label, LabelValue], Meta(max_length=limits.LABELS)] = {}
    rate_per_min: Annotated[int, Meta(ge=1, le=limits.ENROLMENTS_A_MINUTE_MAX)] = limits.ENROLMENTS_A_MINUTE
    requires_key: bool = False
    because: Because = ""
    actor: Actor = "admin"


class EnrolTokens(msgspec.Struct, frozen=True, kw_only=True):
    """New enrolment tokens. They are told once, and kept as hashes."""

    name: str
    tokens: list[str]


class EnrolTokenView(msgspec.Struct, frozen=True, kw_only=True):
    """The enrolment tokens of one name: their terms, how many there are, and how many devices they let in."""

    name: str
    created_at: float
    actor: str
    tokens: int
    uses: int
    expires_at: float | None
    uses_max: int | None
    labels: dict[str, tuple[str, ...]]
    granted_labels: dict[str, str]
    rate_per_min: int
    requires_key: bool
    revoked_at: float | None
