"""What the inventory keeps of devices, besides what the fleet needs to count them."""

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from whimbrel import limits
from whimbrel.health.report import Build
from whimbrel.model.documents import Document
from whimbrel.model.ids import Label, LabelValue
from whimbrel.model.selector import EVERYONE, Selector

AccessState = Literal["open", "blocked", "removed"]

# How an id came in: by a token that many devices share, by one that lets a single device in, by a proof that the
# operator's roots vouch for (a certificate, an attestation), or by a person who allowed it to come back.
Admission = Literal["shared", "single_use", "attested", "person"]


class EnrolledDevice(msgspec.Struct, frozen=True, kw_only=True):
    """What the server keeps of a device to know it again. Times are POSIX seconds.

    `enrolled_at`: when the id came in first. `admitted_at`: when it came in by its `admission`. `enrol_token_name`: the
    token that let it in; "" where none was needed. `public_key`: its Ed25519 key as base64url; None where it has none.
    `epoch`: how many credentials it got so far. `challenged_at`: when the challenge was made that it answered last, to
    enrol. `allowed_again_until`: until then a person lets the id enrol with another key, or with
    `allowed_again_key` alone. `granted_labels`: labels
    that the server gives it. `claimable_labels`: the values that it may claim for a label; a label that is not among
    them is free. `cohort_key`: what its bucket comes from, drawn once and for its life; None: it took none, so its id
    stands in and it is no evidence (flows/reports/proven.py). `recipient`: the X25519 key that release keys are sealed
    to; None: it asked for none yet.
    """

    device_id: str
    credential_sha256: str
    admission: Admission
    enrolled_at: float
    admitted_at: float
    enrol_token_name: str = ""
    public_key: str | None = None
    epoch: int = 1
    credential_at: float = 0.0
    challenged_at: float = 0.0
    allowed_again_until: float | None = None
    allowed_again_key: str | None = None
    granted_labels: dict[str, str] = {}
    claimable_labels: dict[str, tuple[str, ...]] = {}
    cohort_key: str | None = None
    recipient: str | None = None


class DeviceAccess(msgspec.Struct, frozen=True, kw_only=True):
    """What a device that was once blocked or removed may do now. Any other device is open.

    `since`: when it came to be so. `not_before`: a token from before this time is over, since the device was removed.
    """

    device_id: str
    state: AccessState
    since: float
    not_before: float = 0.0
    because: str = ""
    actor: str = ""


class NewCredential(msgspec.Struct, frozen=True, kw_only=True):
    """A device got another credential: tokens of a former `epoch` are over. `made_at`: POSIX seconds."""

    device_id: str
    epoch: int
    made_at: float


class EnrolTokenTerms(Document, frozen=True):
    """On which terms the tokens of one name let devices in. Without a field, there is no such bound.

    `expires_at`: POSIX seconds. `uses_max`: devices that each token lets in; 1 makes it single-use. `labels`: values
    that a device may claim for these labels. `granted_labels`: labels that every such device has, whatever it claims.
    `rate_per_min`: new devices a minute, over all tokens of the name. `requires_key`: only devices that prove a key.
    """

    expires_at: float | None = None
    uses_max: Annotated[int, Meta(ge=1, le=limits.ENROL_TOKEN_USES)] | None = None
    labels: dict[Label, tuple[LabelValue, ...]] = {}
    granted_labels: dict[Label, LabelValue] = {}
    rate_per_min: Annotated[int, Meta(ge=1, le=limits.ENROLMENTS_A_MINUTE_MAX)] = limits.ENROLMENTS_A_MINUTE
    requires_key: bool = False

    @property
    def admission(self) -> Admission:
        """How a device that such a token let in came in."""
        return "single_use" if self.uses_max == 1 else "shared"


class EnrolTokenRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The enrolment tokens of one name. `tokens`: how many there are. `uses`: devices that they let in.

    `minute`: the last minute in which they let any in (since 1970), with `minute_uses` of them.
    """

    name: str
    terms: EnrolTokenTerms
    created_at: float
    actor: str
    revoked_at: float | None = None
    minute: int = 0
    minute_uses: int = 0
    tokens: int = 0
    uses: int = 0


class ModelOnDevice(msgspec.Struct, frozen=True, kw_only=True):
    """What a device runs of a model, as it says. `serial` None: no version yet. `since`: when that was first heard.

    `waits_for`: what holds the next version up, in the device's words; "" for nothing. `build`: of what it runs, where
    it said so.
    """

    device_id: str
    model: str
    serial: int | None
    since: float | None
    at: float
    waits_for: str = ""
    waits_told_at: float | None = None
    build: Build | None = None


class BuildOnDevice(msgspec.Struct, frozen=True, kw_only=True):
    """The build of a model that a device says it runs."""

    device_id: str
    model: str
    build: Build


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """What a device says that it waits for with a model; "": for nothing any more."""

    device_id: str
    model: str
    waits_for: str
    at: float


RunOrigin = Literal["log", "fork", "gap"]


class RunBranch(msgspec.Struct, frozen=True, kw_only=True):
    """A chain of entries of one device's run history, with the newest head that vouches for it.

    `origin`: why it is one of its own: it is a `log` from its beginning, a `fork` of another branch (`parent`) that
    goes on otherwise after entry `after`, or it begins behind a `gap` of entries that never came. `first` and `last`:
    the numbers of its entries that are kept; `last` is less than `first` where it has none. `heads`: how many heads its
    log had signed. `began_at`, `received_at`: when the server got its first and its newest part, POSIX seconds.
    """

    device_id: str
    branch: int
    public_key: str
    log: str
    origin: RunOrigin
    parent: int | None
    after: int
    first: int
    last: int
    last_digest: str
    head: str
    signature: str
    heads: int
    began_at: float
    received_at: float


class RunRow(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of a branch, as the device wrote it."""

    branch: int
    number: int
    digest: str
    entry: str


class DuplicateIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """Two installations report with one device id. `noticed_at` None: there are too few signs to say so."""

    device_id: str
    signs: int
    first_at: float
    last_at: float
    noticed_at: float | None = None
    because: str = ""


class DeviceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An enrolled device. `labels`: those that it told; `operator_labels`: those that people gave it.

    `granted_labels`: those that the server gives it. The others are told of in `EnrolledDevice`.
    """

    device_id: str
    labels: dict[str, str]
    operator_labels: dict[str, str]
    enrolled_at: float
    heard_at: float
    admission: Admission = "shared"
    admitted_at: float = 0.0
    enrol_token_name: str = ""
    has_key: bool = False
    credential_epoch: int = 1
    allowed_again_until: float | None = None
    granted_labels: dict[str, str] = {}
    access: DeviceAccess | None = None
    duplicate: DuplicateIdentity | None = None  # that was noticed

    @property
    def is_blocked(self) -> bool:
        """Whether its messages are refused."""
        return self.access is not None and self.access.state == "blocked"


def all_labels(labels: Mapping[str, str], operator_labels: Mapping[str, str]) -> dict[str, str]:
    """What a filter looks at. Where both name a label, the device's own word holds: its decisions go by that."""
    return {**operator_labels, **labels}


class DeviceFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which devices are asked for; all conditions must hold.

    `model`: it follows this model. `runs`: it runs one of these serials of it (None: no version). `heard_before`: it
    was not heard since.
    """

    selector: Selector = EVERYONE
    model: str | None = None
    runs: tuple[int | None, ...] | None = None
    heard_before: float | None = None
    blocked: bool = False
    duplicate: bool = False


class DevicePortion(msgspec.Struct, frozen=True):
    """The devices that match among those that were looked at, by id. `last`: the last id that was looked at."""

    devices: list[DeviceRecord]
    looked_at: int
    last: str
