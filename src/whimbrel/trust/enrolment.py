"""How does a device enrol, and prove later who it is? The wire types of enrolment, tokens and the thin check.

For an enrolment token (made by the operator) a device gets a credential of its own id. For the credential it gets a
token that lives for an hour. The hot path verifies the token without a database.
"""

from typing import Annotated

from msgspec import Meta

from whimbrel import limits
from whimbrel.model.documents import Document
from whimbrel.model.ids import DeviceId, Label, LabelValue, Name, Serial

Secret = Annotated[str, Meta(min_length=16, max_length=512)]
CohortKey = Annotated[str, Meta(min_length=1, max_length=128)]
Labels = Annotated[dict[Label, LabelValue], Meta(max_length=limits.LABELS)]
Models = Annotated[tuple[Name, ...], Meta(max_length=limits.DEVICE_MODELS)]


class Enrolment(Document, frozen=True):
    """POST enrol. To enrol an id again replaces its credential (a device that was wiped).

    `models`: all that the device follows. A client that leaves them out says nothing of them. `takes_cohort_key`: the
    device decides by the cohort key that the server draws. One that does not is no evidence in any rollout.
    """

    device_id: DeviceId
    enrol_token: Secret
    takes_cohort_key: bool = False
    labels: Labels = {}
    models: Models = ()


class Credential(Document, frozen=True):
    """The answer to enrol, and the body of POST token. Kept by the device, mode 0600.

    `cohort_key`: what the device's bucket comes from (policy/bucket.py), where it takes one; the same for its life.
    """

    device_id: DeviceId
    credential: Secret
    cohort_key: CohortKey | None = None


class Token(Document, frozen=True):
    """The answer to POST token. The token goes into `Authorization: Bearer`."""

    token: str
    expires_in_s: int


class Check(Document, frozen=True):
    """POST check: a client that cannot decide asks the server. `models`: the serial of each (null: it runs none).

    The device follows these models from then on.
    """

    models: Annotated[dict[Name, Serial | None], Meta(max_length=limits.DEVICE_MODELS)]
    labels: Labels = {}
