"""How does a device enrol, and prove later who it is? The wire types of enrolment, tokens and the thin check.

For an enrolment token (made by the operator) and a proof of its key, a device gets a credential of its own id. For the
credential and another proof it gets a token that lives for an hour. The hot path verifies the token without a database.
A client without a key enrols and gets tokens without proofs, where its enrolment token allows that.
"""

from typing import Annotated

from msgspec import Meta

from whimbrel import limits
from whimbrel.model.documents import Document
from whimbrel.model.ids import DeviceId, Label, LabelValue, Name, Serial
from whimbrel.trust.possession import Proof, PublicKey, Signature
from whimbrel.trust.sealing import RecipientKey

Secret = Annotated[str, Meta(min_length=16, max_length=512)]
CohortKey = Annotated[str, Meta(min_length=1, max_length=128)]
Labels = Annotated[dict[Label, LabelValue], Meta(max_length=limits.LABELS)]
Models = Annotated[tuple[Name, ...], Meta(max_length=limits.DEVICE_MODELS)]


class Attestation(Document, frozen=True):
    """What a device's hardware says of it. `kind`: which verifier reads it. `chain`: certificates (DER in base64url).

    The leaf comes first. The verifier says what the hardware must have signed (`attestation_challenge`).
    """

    kind: Name
    chain: Annotated[
        tuple[Annotated[str, Meta(max_length=limits.ATTESTATION_CERTIFICATE_CHARS)], ...],
        Meta(min_length=1, max_length=limits.ATTESTATION_CERTIFICATES),
    ]


class SignedRecipient(Document, frozen=True):
    """The key that release keys are sealed to for a device. `signature`: by the key of the enrolment's proof, over
    `recipient_text` with the proof's challenge.
    """

    key: RecipientKey
    signature: Signature


class Enrolment(Document, frozen=True):
    """POST enrol. An id that is enrolled is enrolled again with its key (`proof`), or by a person's word.

    `models`: all that the device follows. A client that leaves them out says nothing of them. `credential`: the one
    that a device without a key has; with a proof, it adopts the key by that. `enrol_token`: not needed with its key.
    `takes_cohort_key`: the device decides by the cohort key that the server draws; one that does not is no evidence.
    `recipient`: where the device can open sealed models; so that a bundle can have keys for one that never asked.
    """

    device_id: DeviceId
    enrol_token: Secret | None = None
    takes_cohort_key: bool = False
    labels: Labels = {}
    models: Models = ()
    proof: Proof | None = None
    credential: Secret | None = None
    attestation: Attestation | None = None
    recipient: SignedRecipient | None = None


class Credential(Document, frozen=True):
    """The answer to enrol. Kept by the device, mode 0600.

    `public_key`: the key that the server knows the device by; None for none. `labels`: those that the server gives it.
    `cohort_key`: what the device's bucket comes from (policy/bucket.py), where it takes one; the same for its life.
    """

    device_id: DeviceId
    credential: Secret
    public_key: PublicKey | None = None
    labels: Labels = {}
    cohort_key: CohortKey | None = None


class TokenRequest(Credential, frozen=True):
    """POST token: the answer to enrol as it came, and a proof where the device has a key."""

    proof: Proof | None = None


class Token(Document, frozen=True):
    """The answer to POST token. The token goes into `Authorization: Bearer`.

    `labels`: those that the server gives the device now; a request without a proof is not told.
    """

    token: str
    expires_in_s: int
    labels: Labels = {}


RESERVED = "attestation"  # this label, and those that begin with it and a dot, come from a verifier alone


def is_reserved(label: str) -> bool:
    """Whether only the server gives this label, so that a device that claims it is refused."""
    return label == RESERVED or label.startswith(f"{RESERVED}.")


class Check(Document, frozen=True):
    """POST check: a client that cannot decide asks the server. `models`: the serial of each (null: it runs none).

    The device follows these models from then on.
    """

    models: Annotated[dict[Name, Serial | None], Meta(max_length=limits.DEVICE_MODELS)]
    labels: Labels = {}
