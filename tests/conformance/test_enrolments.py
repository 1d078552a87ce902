"""How devices are known again, and what lets new ones in, on every database."""

import pytest

from support.values import T0, enrol
from whimbrel import limits
from whimbrel.errors import Conflict, NotAllowed, NotFound, Refused, TooMany, UntrustedInput
from whimbrel.flows.devices.allow_again import allow_again
from whimbrel.flows.devices.enrol import EnrolmentRequest, enrol_device
from whimbrel.flows.devices.enrol_tokens import create_tokens, revoke_tokens
from whimbrel.flows.devices.records import EnrolledDevice, EnrolTokenTerms
from whimbrel.stores.database import Database
from whimbrel.stores.enrolments import new_credentials
from whimbrel.stores.transaction import Stores, transaction

TOKEN = "t" * 32


def make(stores: Stores, *secrets: str, name: str = "lot", at: float = T0, **terms: object) -> None:
    create_tokens(
        stores.enrolments,
        stores.registry,
        name,
        secrets or (TOKEN,),
        terms=EnrolTokenTerms(**terms),
        because="",
        actor="ana",
        now=at,
    )


def come(stores: Stores, device: str, *, at: float = T0, secret: str | None = TOKEN, **more: object) -> EnrolledDevice:
    asked = EnrolmentRequest(device_id=device, secret=secret, **more)
    parts = stores.enrolments, stores.inventory, stores.fleet, stores.registry
    return enrol_device(*parts, asked, credential="c" * 43, now=at)


def test_what_is_kept_of_a_device_comes_back_whole(database: Database) -> None:
    kept = EnrolledDevice(
        device_id="dev-1",
        credential_sha256="0" * 64,
        admission="attested",
        enrolled_at=T0,
        admitted_at=T0 + 1,
        enrol_token_name="lot",
        public_key="k" * 43,
        epoch=3,
        credential_at=T0 + 2,
        challenged_at=T0 + 3,
        allowed_again_until=T0 + 4,
        allowed_again_key="n" * 43,
        granted_labels={"site": "lab"},
        claimable_labels={"region": ("NZ", "AU")},
    )
    with transaction(database, "default") as stores:
        stores.enrolments.save(kept, labels={"os": "linux"}, at=T0)
        assert stores.enrolments.known("dev-1", lock=True) == kept
        stores.enrolments.save(kept, labels=None, at=T0 + 60)
        record = stores.inventory.device("dev-1")
        assert (record.labels, record.heard_at, record.has_key) == ({"os": "linux"}, T0, True)
        assert stores.enrolments.known("dev-2") is None
    with transaction(database, "other") as stores:
        assert stores.enrolments.known("dev-1") is None


def test_a_single_use_token_lets_in_one_device_and_its_name_counts_all(database: Database) -> None:
    with transaction(database, "default") as stores:
        make(stores, "a" * 32, "b" * 32, uses_max=1)
        assert come(stores, "dev-1", secret="a" * 32).admission == "single_use"
        with pytest.raises(NotAllowed, match="let in 1 device, which is all"):
            come(stores, "dev-2", secret="a" * 32)
        come(stores, "dev-2", secret="b" * 32)
        (listed,) = stores.enrolments.tokens()
        assert (listed.tokens, listed.uses, listed.actor) == (2, 2, "ana")


def test_a_token_ends_by_its_time_and_by_a_person(database: Database) -> None:
    with transaction(database, "default") as stores:
        make(stores, expires_at=T0 + 60)
        come(stores, "dev-1", at=T0 + 59)
        with pytest.raises(NotAllowed, match="is over"):
            come(stores, "dev-2", at=T0 + 60)
        make(stores, "x" * 32, name="desk")
        revoke_tokens(stores.enrolments, stores.registry, "desk", because="", actor="ana", now=T0)
        with pytest.raises(NotAllowed, match="was revoked"):
            come(stores, "dev-2", secret="x" * 32)
        with pytest.raises(Conflict, match="revoked already"):
            revoke_tokens(stores.enrolments, stores.registry, "desk", because="", actor="ana", now=T0)
        with pytest.raises(NotFound, match="no enrolment token 'none'"):
            revoke_tokens(stores.enrolments, stores.registry, "none", because="", actor="ana", now=T0)
        with pytest.raises(UntrustedInput, match="over before anybody uses it"):
            make(stores, "y" * 32, name="late", expires_at=T0)
        with pytest.raises(Conflict, match="already"):
            make(stores, "z" * 32, name="desk")


def test_the_rate_is_one_of_all_tokens_of_a_name_and_begins_anew_each_minute(database: Database) -> None:
    with transaction(database, "default") as stores:
        make(stores, "a" * 32, "b" * 32, rate_per_min=2)
        minute = T0 - T0 % 60
        come(stores, "dev-1", secret="a" * 32, at=minute)
        come(stores, "dev-2", secret="b" * 32, at=minute + 59)
        with pytest.raises(TooMany, match="lets in 2 new devices a minute"):
            come(stores, "dev-3", secret="a" * 32, at=minute + 59)
        come(stores, "dev-3", secret="a" * 32, at=minute + 60)
        assert come(stores, "dev-1", secret=None, credential="c" * 43, at=minute + 60).epoch == 2  # not a new one


def test_a_person_lets_an_id_back_in_once_within_a_time_and_with_the_key_that_is_named(database: Database) -> None:
    with transaction(database, "default") as stores:
        make(stores)
        enrol(stores, "dev-1", public_key="a" * 43)
        moment = {"public_key": "b" * 43, "challenged_at": T0}

        def allowed(**more: object) -> None:
            device = stores.inventory.device("dev-1")
            parts = stores.enrolments, stores.registry, device
            allow_again(*parts, because="", actor="ana", now=T0, **more)

        with pytest.raises(Refused, match="does not take over an id"):
            come(stores, "dev-1", **moment)
        allowed(for_s=60)
        with pytest.raises(Refused, match="does not take over an id"):
            come(stores, "dev-1", at=T0 + 61, **moment)
        allowed(for_s=60, public_key="n" * 43)
        with pytest.raises(Refused, match="does not take over an id"):
            come(stores, "dev-1", **moment)
        assert come(stores, "dev-1", secret=None, public_key="n" * 43, challenged_at=T0 - 1).admission == "person"
        allowed(for_s=60)
        with pytest.raises(NotAllowed, match="brings no enrolment token"):
            come(stores, "dev-1", secret=None, **moment)
        back = come(stores, "dev-1", at=T0 + 60, **moment)
        assert (back.admission, back.admitted_at, back.epoch) == ("person", T0 + 60, 3)
        with pytest.raises(Refused, match="does not take over an id"):
            come(stores, "dev-1", at=T0 + 60, public_key="d" * 43, challenged_at=T0 + 60)
        with pytest.raises(UntrustedInput, match="at most 30 days"):
            allowed(for_s=limits.ALLOW_AGAIN_MAX_S + 1)


def test_only_a_credential_that_replaced_another_is_new(database: Database) -> None:
    with transaction(database, "default") as stores:
        make(stores)
        come(stores, "dev-1")
        come(stores, "dev-2")
        come(stores, "dev-2", secret=None, credential="c" * 43, at=T0 + 10)
        ((namespace, new),) = new_credentials(stores.connection, since=T0 + 10)
        assert (namespace, new.device_id, new.epoch, new.made_at) == ("default", "dev-2", 2, T0 + 10)
        assert new_credentials(stores.connection, since=T0 + 11) == []
