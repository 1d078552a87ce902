"""Enrolment tokens are made and revoked: by name, on terms, and written down in the audit log.

1. Tokens that are made together share a name, terms and one rate: a shared token is one, a production lot has many.
2. Whoever revokes a name ends all its tokens. The devices that it let in stay; they can be blocked.
"""

from collections.abc import Sequence
from typing import Protocol

from whimbrel import limits
from whimbrel.errors import Refused, UntrustedInput
from whimbrel.flows.audit import audit
from whimbrel.flows.devices.records import EnrolTokenTerms
from whimbrel.flows.ports import AuditPort
from whimbrel.model.documents import encode
from whimbrel.trust.enrolment import is_reserved


class EnrolTokensPort(Protocol):
    """The enrolment tokens, by name."""

    def add_token(
        self, name: str, secrets: Sequence[str], *, terms: EnrolTokenTerms, actor: str = "", at: float
    ) -> None: ...
    def revoke_token(self, name: str, *, at: float) -> None: ...


def create_tokens(
    tokens: EnrolTokensPort,
    registry: AuditPort,
    name: str,
    secrets: Sequence[str],
    *,
    terms: EnrolTokenTerms,
    because: str,
    actor: str,
    now: float,
) -> None:
    """Keep new tokens of one name. Raises `UntrustedInput` or `Refused` for odd terms, `Conflict` for a name in use."""
    if terms.expires_at is not None and terms.expires_at <= now:
        raise UntrustedInput("the enrolment token would be over before anybody uses it; give a time in the future")
    given = {"labels": terms.labels, "granted_labels": terms.granted_labels}
    if (size := len(encode(given))) > limits.ENROL_TERMS_BYTES:
        raise Refused(
            f"the labels of an enrolment token have {size} bytes as JSON, and every device token carries them; "
            f"at most {limits.ENROL_TERMS_BYTES} are taken"
        )
    for label in sorted({*terms.labels, *terms.granted_labels}):
        if is_reserved(label):
            raise Refused(f"the label {label} comes from a verified attestation; no enrolment token gives it")
        if label in terms.labels and label in terms.granted_labels:
            raise UntrustedInput(f"the label {label} is given by the token, so that no device claims it; name it once")
    tokens.add_token(name, secrets, terms=terms, actor=actor, at=now)
    audit(
        registry,
        actor=actor,
        action="create_enrol_token",
        because=because,
        now=now,
        evidence={"name": name, "tokens": len(secrets)},
    )


def revoke_tokens(
    tokens: EnrolTokensPort, registry: AuditPort, name: str, *, because: str, actor: str, now: float
) -> None:
    """End all tokens of a name. Raises `NotFound`, or `Conflict` where they are revoked already."""
    tokens.revoke_token(name, at=now)
    audit(registry, actor=actor, action="revoke_enrol_token", because=because, now=now, evidence={"name": name})
