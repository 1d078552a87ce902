"""Enrolment tokens are made on terms that make sense, and revoked; the audit log says so."""

from collections.abc import Iterator

import pytest

from support.people_of_flows import tokens
from support.values import T0, Town, town
from whimbrel import limits
from whimbrel.errors import Refused, UntrustedInput
from whimbrel.flows.devices.enrol_tokens import revoke_tokens
from whimbrel.model.documents import encode

NOW = T0 + 7


@pytest.fixture
def here() -> Iterator[Town]:
    with town() as made:
        yield made


def test_tokens_are_made_and_revoked_with_what_the_audit_log_says(here: Town) -> None:
    tokens(here, "a" * 32, "b" * 32)
    revoke_tokens(here.stores.enrolments, here.registry, "lot", because="over", actor="bob", now=NOW)
    revoked, created = here.registry.audit_log()
    assert (created.action, created.actor, created.because, created.evidence) == (
        "create_enrol_token",
        "ana",
        "a lot",
        {"name": "lot", "tokens": 2},
    )
    assert (revoked.action, revoked.actor, revoked.because, revoked.evidence, revoked.at) == (
        "revoke_enrol_token",
        "bob",
        "over",
        {"name": "lot"},
        NOW,
    )


def labels_of(size: int) -> dict[str, tuple[str, ...]]:
    """Claimable labels that have, with those that are granted, so many bytes as JSON."""
    values = ("x" * 100,) * 4
    rest = size - len(encode({"labels": {"a": (*values, "")}, "granted_labels": {}}))
    return {"a": (*values, "x" * rest)}


def test_odd_terms_are_refused_each_in_its_own_words(here: Town) -> None:
    tokens(here, labels=labels_of(limits.ENROL_TERMS_BYTES))
    for terms, kind, said in (
        (
            {"labels": labels_of(limits.ENROL_TERMS_BYTES + 1)},
            Refused,
            "the labels of an enrolment token have 513 bytes as JSON, and every device token carries them; at most 512 "
            "are taken",
        ),
        (
            {"granted_labels": {"attestation.level": "tee"}},
            Refused,
            "the label attestation.level comes from a verified attestation; no enrolment token gives it",
        ),
        (
            {"labels": {"site": ("lab",)}, "granted_labels": {"site": "lab"}},
            UntrustedInput,
            "the label site is given by the token, so that no device claims it; name it once",
        ),
        (
            {"expires_at": T0},
            UntrustedInput,
            "the enrolment token would be over before anybody uses it; give a time in the future",
        ),
    ):
        with pytest.raises(kind) as refused:
            tokens(here, name="odd", **terms)
        assert str(refused.value) == said
    tokens(here, "z" * 32, name="soon", expires_at=T0 + 0.001)
    assert [each.name for each in here.stores.enrolments.tokens()] == ["lot", "soon"]
