"""May this id enrol, and as what? What is kept of each way in, and the sentence of each refusal."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from support.people_of_flows import SECRET, tokens
from support.values import T0, Town, enrol, town
from whimbrel import limits
from whimbrel.errors import NotAllowed, NotFound, Refused, TooMany, UntrustedInput
from whimbrel.flows.devices.admit import admit_device
from whimbrel.flows.devices.allow_again import allow_again
from whimbrel.flows.devices.enrol import (
    EnrolmentRequest,
    admit_enrolment,
    adopts_key,
    audit_enrolment,
    check_credential,
    enrol_device,
)
from whimbrel.flows.devices.enrol_tokens import revoke_tokens
from whimbrel.flows.devices.records import DeviceAccess, EnrolledDevice
from whimbrel.flows.devices.told_labels import check_told_labels
from whimbrel.model.documents import digest_of

CREDENTIAL = "c" * 43
KEY, OTHER_KEY = "k" * 43, "n" * 43
NOW = T0 + 7


@pytest.fixture
def here() -> Iterator[Town]:
    with town() as made:
        yield made


def come(here: Town, *, at: float = NOW, credential: str = CREDENTIAL, **asked: Any) -> EnrolledDevice:
    request = EnrolmentRequest(**{"device_id": "dev-1", "secret": SECRET} | asked)
    stores = here.stores
    parts = stores.enrolments, stores.inventory, stores.fleet, stores.registry
    return enrol_device(*parts, request, credential=credential, cohort_key="drawn", now=at)


def again(here: Town, *, credential_of: str, at: float = NOW, **asked: Any) -> EnrolledDevice:
    """The device comes with the credential that it has, and without a token; it would get another credential."""
    request = EnrolmentRequest(device_id="dev-1", credential=credential_of, **asked)
    stores = here.stores
    parts = stores.enrolments, stores.inventory, stores.fleet, stores.registry
    return enrol_device(*parts, request, credential="new", now=at)


def keyed(here: Town, **changes: Any) -> EnrolledDevice:
    """A device that is enrolled with a key."""
    fields = {"public_key": KEY, "challenged_at": T0, "credential_sha256": digest_of(CREDENTIAL.encode())}
    enrol(here.stores, "dev-1", **fields | changes)
    known = here.stores.enrolments.known("dev-1")
    assert known is not None
    return known


def refusal(here: Town, kind: type[Exception], **asked: Any) -> str:
    before = here.stores.enrolments.known(asked.get("device_id", "dev-1"))
    with pytest.raises(kind) as refused:
        come(here, **asked)
    assert type(refused.value) is kind
    assert here.stores.enrolments.known(asked.get("device_id", "dev-1")) == before
    return str(refused.value)


# --- a new id ---


def test_all_that_is_kept_of_a_new_device(here: Town) -> None:
    tokens(here, granted_labels={"site": "lab"}, labels={"region": ("NZ", "AU")})
    device = come(
        here,
        labels={"region": "NZ", "os": "linux"},
        models=("wake", "sleep"),
        public_key=KEY,
        challenged_at=T0 + 3,
        takes_cohort_key=True,
        recipient="age1x",
    )
    assert device == EnrolledDevice(
        device_id="dev-1",
        credential_sha256=digest_of(CREDENTIAL.encode()),
        admission="shared",
        enrolled_at=NOW,
        admitted_at=NOW,
        enrol_token_name="lot",
        public_key=KEY,
        epoch=1,
        credential_at=NOW,
        challenged_at=T0 + 3,
        granted_labels={"site": "lab"},
        claimable_labels={"region": ("NZ", "AU")},
        cohort_key="drawn",
        recipient="age1x",
    )
    assert here.stores.enrolments.known("dev-1") == device
    record = here.stores.inventory.device("dev-1")
    assert (record.labels, record.heard_at) == ({"region": "NZ", "os": "linux"}, NOW)
    assert here.fleet.count_devices("wake") == 1
    assert here.fleet.count_undeclared() == 0


def test_a_device_that_says_nothing_more_gets_nothing_more(here: Town) -> None:
    tokens(here)
    device = come(here)
    assert (device.public_key, device.cohort_key, device.recipient, device.granted_labels) == (None, None, None, {})
    assert here.fleet.count_undeclared() == 1


def test_a_certificate_lets_in_without_a_token_and_a_token_beside_it_is_used(here: Town) -> None:
    plain = come(here, secret=None, certified=True)
    assert (plain.admission, plain.enrol_token_name) == ("attested", "")
    tokens(here, granted_labels={"site": "lab"})
    both = come(here, device_id="dev-2", certified=True)
    assert (both.admission, both.enrol_token_name, both.granted_labels) == ("attested", "lot", {"site": "lab"})


def test_an_attestation_gives_its_labels_over_those_of_the_token(here: Town) -> None:
    tokens(here, granted_labels={"site": "lab"})
    device = come(here, attested={"attestation.level": "tee"})
    assert (device.admission, device.granted_labels) == ("attested", {"site": "lab", "attestation.level": "tee"})


def test_without_a_token_nothing_is_let_in(here: Town) -> None:
    assert refusal(here, NotAllowed, secret=None) == (
        "this device is to be let in, and brings no enrolment token; give it one"
    )
    assert refusal(here, NotAllowed) == "this enrolment token is unknown here; ask the operator for a current one"


def test_a_token_that_is_over_revoked_or_used_up_says_which_it_is(here: Town) -> None:
    tokens(here, expires_at=NOW)
    assert refusal(here, NotAllowed) == "the enrolment token 'lot' is over; ask the operator for a current one"
    assert come(here, at=NOW - 0.001).enrolled_at == NOW - 0.001
    tokens(here, "r" * 32, name="desk")
    revoke_tokens(here.stores.enrolments, here.registry, "desk", because="", actor="ana", now=T0)
    assert refusal(here, NotAllowed, device_id="dev-2", secret="r" * 32) == (
        "the enrolment token 'desk' was revoked; ask the operator for a current one"
    )


@pytest.mark.parametrize(("most", "said"), [(1, "1 device"), (2, "2 devices")])
def test_a_token_lets_in_as_many_as_it_says_and_not_one_more(here: Town, most: int, said: str) -> None:
    tokens(here, uses_max=most)
    admissions = {come(here, device_id=f"dev-{number}").admission for number in range(most)}
    assert admissions == {"single_use" if most == 1 else "shared"}
    assert refusal(here, NotAllowed, device_id="late") == (
        f"this enrolment token 'lot' let in {said}, which is all; ask the operator for another"
    )


def test_a_rate_is_reached_exactly_and_begins_anew_with_the_minute(here: Town) -> None:
    tokens(here, rate_per_min=2)
    minute = T0 + 60
    come(here, device_id="a", at=minute - 0.001)
    come(here, device_id="b", at=minute)
    come(here, device_id="c", at=minute + 59.9)
    assert refusal(here, TooMany, device_id="d", at=minute + 59.9) == (
        "the enrolment token 'lot' lets in 2 new devices a minute, and these came; try again later"
    )
    come(here, device_id="d", at=minute + 60)


def test_a_token_may_ask_for_a_key(here: Town) -> None:
    tokens(here, requires_key=True)
    assert refusal(here, Refused) == (
        "the enrolment token 'lot' lets in devices that prove a key; this one brought none"
    )
    assert come(here, public_key=KEY).public_key == KEY


def test_a_label_that_the_device_may_not_tell_keeps_it_out(here: Town) -> None:
    tokens(here, granted_labels={"site": "lab"}, labels={"region": ("NZ",)})
    assert "this device has the label site=lab from the server" in refusal(here, Refused, labels={"site": "roof"})
    assert "lets a device claim region as NZ; it told 'AU'" in refusal(here, Refused, labels={"region": "AU"})


# --- labels that are told ---


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"site": "roof"}, "this device has the label site=lab from the server, and cannot tell 'roof'"),
        ({"region": "FR"}, "the enrolment token lets a device claim region as NZ, AU; it told 'FR'"),
        ({"ring": "a"}, "the enrolment token lets a device claim ring as no value; it told 'a'"),
        (
            {"attestation.level": "tee"},
            "the label attestation.level comes from a verified attestation; a device cannot claim it",
        ),
        ({"os": "linux", "region": "FR"}, "the enrolment token lets a device claim region as NZ, AU; it told 'FR'"),
    ],
)
def test_each_kind_of_label_is_refused_in_its_own_words(labels: dict[str, str], said: str) -> None:
    with pytest.raises(Refused) as refused:
        check_told_labels(labels, granted={"site": "lab"}, claimable={"region": ("NZ", "AU"), "ring": ()})
    assert str(refused.value) == said


def test_what_was_given_may_be_told_as_it_is_and_free_labels_as_one_likes() -> None:
    told = {"site": "lab", "region": "AU", "os": "anything", "attestation.level": "tee"}
    check_told_labels(
        told, granted={"site": "lab", "attestation.level": "tee"}, claimable={"region": ("NZ", "AU"), "site": ("roof",)}
    )


# --- an id that is enrolled ---


def test_a_device_with_its_key_comes_again_without_a_token(here: Town) -> None:
    before = keyed(here, allowed_again_until=NOW + 99, allowed_again_key=OTHER_KEY, recipient="age1x", cohort_key="own")
    after = come(here, secret=None, public_key=KEY, challenged_at=T0 + 1, credential="new", takes_cohort_key=True)
    assert after == msgspec.structs.replace(
        before,
        credential_sha256=digest_of(b"new"),
        credential_at=NOW,
        challenged_at=T0 + 1,
        epoch=2,
        allowed_again_until=None,
        allowed_again_key=None,
    )
    assert here.registry.audit_log() == []


def test_a_challenge_that_was_answered_is_not_taken_again(here: Town) -> None:
    keyed(here)
    said = "this challenge was answered before; get a new one with POST challenge"
    assert refusal(here, NotAllowed, public_key=KEY, challenged_at=T0) == said
    assert refusal(here, NotAllowed, public_key=OTHER_KEY, challenged_at=T0 - 1) == said
    assert come(here, public_key=KEY, challenged_at=T0 + 0.001).epoch == 2


def test_a_device_without_a_key_adopts_one_and_keeps_its_credential(here: Town) -> None:
    before = keyed(here, public_key=None, credential_at=T0 + 1)
    asked = {"credential_of": CREDENTIAL, "public_key": KEY, "challenged_at": T0 + 2}
    after = again(here, **asked)
    assert after == msgspec.structs.replace(before, public_key=KEY, challenged_at=T0 + 2)
    assert after.credential_sha256 == digest_of(CREDENTIAL.encode())


def test_a_wrong_credential_adopts_no_key(here: Town) -> None:
    known = keyed(here, public_key=None)
    with pytest.raises(Refused) as refused:
        again(here, credential_of="guess", public_key=KEY, challenged_at=T0 + 2)
    assert str(refused.value) == (
        "dev-1 is enrolled already, without a key, and this is not its credential: an enrolment token does not take "
        "over an id. Where its disk was wiped, an operator says so: whimbrel device allow-again dev-1"
    )
    right = EnrolmentRequest(device_id="dev-1", credential=CREDENTIAL, public_key=KEY)
    assert adopts_key(known, right)
    for less in ({"credential": None}, {"credential": "guess"}, {"public_key": None}):
        assert not adopts_key(known, msgspec.structs.replace(right, **less))
    assert not adopts_key(msgspec.structs.replace(known, public_key=KEY), right)


def test_a_device_without_a_key_comes_again_by_its_credential_and_gets_another(here: Town) -> None:
    before = keyed(here, public_key=None)
    after = again(here, credential_of=CREDENTIAL)
    changed = {"credential_sha256": digest_of(b"new"), "credential_at": NOW, "epoch": 2}
    assert after == msgspec.structs.replace(before, **changed)


def test_the_credential_of_a_device_with_a_key_takes_its_id_over_no_more(here: Town) -> None:
    keyed(here)
    with pytest.raises(Refused, match="dev-1 is enrolled already, with another key"):
        again(here, credential_of=CREDENTIAL, public_key=OTHER_KEY, challenged_at=T0 + 2)
    with pytest.raises(Refused, match="dev-1 is enrolled already, with another key"):
        again(here, credential_of=CREDENTIAL)


def test_a_verified_certificate_brings_a_new_key_without_a_person(here: Town) -> None:
    keyed(here, recipient="age1x")
    after = come(here, secret=None, certified=True, public_key=OTHER_KEY, challenged_at=T0 + 1)
    assert (after.public_key, after.epoch, after.admission, after.recipient) == (OTHER_KEY, 2, "shared", "age1x")


def test_a_cohort_key_is_drawn_once_and_where_it_is_taken(here: Town) -> None:
    tokens(here)
    assert come(here, public_key=KEY).cohort_key is None
    assert come(here, public_key=KEY, challenged_at=T0, takes_cohort_key=True).cohort_key == "drawn"
    stores = here.stores
    asked = EnrolmentRequest(device_id="dev-1", public_key=KEY, challenged_at=T0 + 1, takes_cohort_key=True)
    parts = stores.enrolments, stores.inventory, stores.fleet, stores.registry
    assert enrol_device(*parts, asked, credential="x", cohort_key="other", now=NOW).cohort_key == "drawn"


# --- a person lets an id come back ---


def allowed(here: Town, **more: Any) -> float:
    values = {"because": "wiped", "actor": "ana", "now": T0} | more
    return allow_again(here.stores.enrolments, here.registry, here.stores.inventory.device("dev-1"), **values)


def test_who_was_allowed_back_is_as_one_who_was_let_in_by_a_person(here: Town) -> None:
    tokens(here, granted_labels={"site": "lab"}, labels={"ring": ("a",)})
    before = keyed(here, recipient="age1x", granted_labels={"site": "old"}, enrol_token_name="first")
    assert allowed(here, for_s=60.0) == T0 + 60
    after = come(here, at=T0 + 60, public_key=OTHER_KEY, challenged_at=T0 + 1, credential="new")
    assert after == msgspec.structs.replace(
        before,
        credential_sha256=digest_of(b"new"),
        credential_at=T0 + 60,
        public_key=OTHER_KEY,
        challenged_at=T0 + 1,
        epoch=2,
        recipient=None,
        admission="person",
        admitted_at=T0 + 60,
        enrol_token_name="lot",
        granted_labels={"site": "lab"},
        claimable_labels={"ring": ("a",)},
    )
    again_, allow, _ = here.registry.audit_log()
    assert (again_.action, again_.because, again_.actor, again_.device) == (
        "enrol_again",
        "with a new key",
        "dev-1",
        "dev-1",
    )
    assert (allow.action, allow.because, allow.actor, allow.evidence) == (
        "allow_again",
        "wiped",
        "ana",
        {"until": T0 + 60, "public_key": None},
    )


def test_who_comes_back_without_a_key_is_told_so(here: Town) -> None:
    tokens(here)
    keyed(here, public_key=None)
    allowed(here)
    assert come(here, at=T0 + limits.ALLOW_AGAIN_S).public_key is None
    assert here.registry.audit_log()[0].because == "without a key"


def test_the_key_that_a_person_named_needs_no_token_and_keeps_what_the_token_gave(here: Town) -> None:
    keyed(here, enrol_token_name="first", claimable_labels={"ring": ("a",)}, granted_labels={"site": "old"})
    allowed(here, public_key=OTHER_KEY)
    after = come(here, secret=None, at=T0 + 1, public_key=OTHER_KEY, challenged_at=T0 + 1)
    assert (after.enrol_token_name, after.claimable_labels, after.granted_labels) == ("first", {"ring": ("a",)}, {})


def test_the_permission_is_over_after_its_time_and_after_one_use(here: Town) -> None:
    tokens(here)
    keyed(here)
    allowed(here, for_s=60.0)
    assert "with another key" in refusal(here, Refused, at=T0 + 60.001, public_key=OTHER_KEY, challenged_at=T0 + 1)
    come(here, at=T0 + 1, public_key=OTHER_KEY, challenged_at=T0 + 1)
    assert "with another key" in refusal(here, Refused, at=T0 + 2, public_key="d" * 43, challenged_at=T0 + 2)


def test_an_id_is_allowed_back_for_thirty_days_at_most_and_some_time_at_least(here: Town) -> None:
    keyed(here)
    assert allowed(here, for_s=limits.ALLOW_AGAIN_MAX_S) == T0 + 30 * 86400
    assert allowed(here) == T0 + 86400
    for for_s in (0.0, -1.0, limits.ALLOW_AGAIN_MAX_S + 0.001):
        with pytest.raises(UntrustedInput) as refused:
            allowed(here, for_s=for_s)
        assert str(refused.value) == "an id may be allowed back for at most 30 days"


def test_who_is_blocked_or_not_there_is_not_allowed_back(here: Town) -> None:
    keyed(here)
    device = here.stores.inventory.device("dev-1")
    here.stores.inventory.set_access(DeviceAccess(device_id="dev-1", state="blocked", since=T0))
    with pytest.raises(Refused) as refused:
        allowed(here)
    assert str(refused.value) == "dev-1 is blocked; unblock it first: whimbrel device unblock dev-1"
    gone = msgspec.structs.replace(device, device_id="gone")
    with pytest.raises(NotFound) as absent:
        allow_again(here.stores.enrolments, here.registry, gone, because="", actor="ana", now=T0)
    assert str(absent.value) == "no device 'gone' is enrolled; it may enrol as a new one"


# --- credentials, access, the audit log ---


def test_an_unknown_device_and_a_wrong_credential_are_told_the_same(here: Town) -> None:
    known = keyed(here)
    assert check_credential(known, CREDENTIAL) is known
    for device, credential in ((None, CREDENTIAL), (known, "guess")):
        with pytest.raises(NotAllowed) as refused:
            check_credential(device, credential)
        assert str(refused.value) == "this device is not enrolled with this credential; enrol it (again)"


def test_a_blocked_id_stays_out_and_a_removed_one_is_open_again(here: Town) -> None:
    inventory = here.stores.inventory
    inventory.set_access(DeviceAccess(device_id="dev-1", state="blocked", since=T0))
    with pytest.raises(Refused) as refused:
        admit_enrolment(inventory, "dev-1", now=NOW)
    assert str(refused.value) == "dev-1 is blocked by the operator, and may not enrol until it is unblocked"
    inventory.set_access(DeviceAccess(device_id="dev-1", state="removed", since=T0, not_before=T0 + 5))
    admit_enrolment(inventory, "dev-1", now=NOW)
    opened = inventory.access(["dev-1"])["dev-1"]
    assert opened == DeviceAccess(
        device_id="dev-1", state="open", since=NOW, not_before=T0 + 5, because="it enrolled again", actor="dev-1"
    )
    admit_enrolment(inventory, "dev-1", now=NOW + 9)
    assert inventory.access(["dev-1"])["dev-1"] == opened


@pytest.mark.parametrize(
    ("changes", "how"),
    [
        ({"enrol_token_name": "lot"}, "with the enrolment token 'lot'"),
        ({}, "by its certificate"),
        ({"epoch": 2}, "again, by its own key, credential or certificate"),
        ({"enrolled_at": T0 - 1}, "again, by its own key, credential or certificate"),
        ({"epoch": 2, "admission": "person", "enrol_token_name": "lot"}, "with the enrolment token 'lot'"),
    ],
)
def test_the_audit_log_says_how_a_device_came_in(here: Town, changes: dict[str, Any], how: str) -> None:
    fields = {
        "device_id": "dev-1",
        "credential_sha256": "",
        "admission": "shared",
        "enrolled_at": T0,
        "admitted_at": T0,
    }
    device = EnrolledDevice(**fields | changes)
    audit_enrolment(here.registry, device, now=T0)
    (entry,) = here.registry.audit_log()
    assert (entry.action, entry.actor, entry.device, entry.because) == ("enrol_device", "dev-1", "dev-1", how)
    assert entry.evidence == {"token": device.enrol_token_name, "admission": device.admission}


def test_a_person_admits_a_device_once(here: Town) -> None:
    here.enrol("dev-1")
    admitted = admit_device(here.stores.inventory, here.registry, "dev-1", because="mine", actor="ana", now=NOW)
    assert (admitted.admission, admitted.admitted_at) == ("person", NOW)
    (entry,) = here.registry.audit_log()
    assert (entry.action, entry.because, entry.evidence) == (
        "admit_device",
        "mine",
        {"admission": "shared", "admitted_at": T0},
    )
    again_ = admit_device(here.stores.inventory, here.registry, "dev-1", because="mine", actor="ana", now=NOW + 9)
    assert (again_.admitted_at, len(here.registry.audit_log())) == (NOW, 1)
