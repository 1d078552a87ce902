"""How a device gets in and proves later who it is: POST challenge, enrol and token, and as what each is refused."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support.device_problems import problem_of
from support.enrolling import KeyedDevice
from support.server_in_memory import ADDRESS, ServerInMemory, server_in_memory
from whimbrel import limits
from whimbrel.flows.devices.records import DeviceAccess, EnrolledDevice, EnrolTokenTerms
from whimbrel.flows.records import AuditRecord
from whimbrel.model.documents import digest_of, plain
from whimbrel.policy.bucket import device_key
from whimbrel.server.client_certificates import ClientCertificates
from whimbrel.trust.possession import prove, recipient_text

BOARD = "board-1"
RECIPIENT = "A" * 42 + "E"  # 32 bytes in base64url


@pytest.fixture
def server() -> Iterator[ServerInMemory]:
    with server_in_memory(versions=0) as here:
        yield here


@pytest.fixture
def http(server: ServerInMemory) -> httpx.Client:
    return server.public()


@pytest.fixture
def board(http: httpx.Client) -> KeyedDevice:
    """A device with a key."""
    return KeyedDevice(http, BOARD)


def made_token(server: ServerInMemory, name: str = "batch", **terms: Any) -> str:
    """An enrolment token on these terms."""
    secret = f"enrol-token-of-{name}"
    with server.stores() as stores:
        stores.enrolments.add_token(name, [secret], terms=EnrolTokenTerms(**terms), at=server.clock.now)
    return secret


def enrol(http: httpx.Client, device: str, token: str | None, **more: Any) -> httpx.Response:
    """A device without a key enrols."""
    secret = {} if token is None else {"enrol_token": token}
    return http.post("/device/v1/enrol", json={"device_id": device} | secret | more)


def known(server: ServerInMemory, device: str = BOARD) -> EnrolledDevice:
    with server.stores() as stores:
        record = stores.enrolments.known(device)
    assert record is not None
    return record


def audited(server: ServerInMemory, action: str) -> list[AuditRecord]:
    with server.stores() as stores:
        return [entry for entry in stores.registry.audit_log() if entry.action == action]


# --- enrolment by a token ---


def test_a_device_without_a_key_is_answered_what_old_clients_know(server: ServerInMemory, http: httpx.Client) -> None:
    answer = enrol(http, BOARD, server.enrol_token)
    assert (answer.status_code, answer.headers["content-type"]) == (201, "application/json")
    assert answer.json().keys() == {"device_id", "credential"}
    assert (answer.json()["device_id"], len(answer.json()["credential"])) == (BOARD, 43)
    record = known(server)
    assert record == EnrolledDevice(
        device_id=BOARD,
        credential_sha256=digest_of(answer.json()["credential"].encode()),
        admission="shared",
        enrolled_at=server.clock.now,
        admitted_at=server.clock.now,
        enrol_token_name="first",
        credential_at=server.clock.now,
    )


def test_a_device_that_takes_a_cohort_key_is_told_it_and_keeps_it(server: ServerInMemory, http: httpx.Client) -> None:
    answer = enrol(http, BOARD, server.enrol_token, takes_cohort_key=True)
    assert answer.json()["cohort_key"] == BOARD  # as this server draws it; others draw at random
    assert known(server).cohort_key == BOARD
    again = enrol(http, BOARD, None, credential=answer.json()["credential"])
    assert "cohort_key" not in again.json()
    assert known(server).cohort_key == BOARD


def test_a_device_with_a_key_is_told_its_key_and_its_labels(server: ServerInMemory, board: KeyedDevice) -> None:
    token = made_token(server, granted_labels={"site": "oslo"})
    answer = board.enrol(token)
    assert answer.status_code == 201
    assert answer.json().keys() == {"device_id", "credential", "public_key", "labels"}
    assert (answer.json()["public_key"], answer.json()["labels"]) == (board.public_key, {"site": "oslo"})
    assert known(server).public_key == board.public_key


def test_the_labels_and_models_that_a_device_tells_are_kept(server: ServerInMemory, http: httpx.Client) -> None:
    enrol(http, BOARD, server.enrol_token, labels={"ring": "beta"}, models=["wake"])
    with server.stores() as stores:
        assert stores.inventory.device(BOARD).labels == {"ring": "beta"}
        assert [each.model for each in stores.inventory.models_of([BOARD])] == ["wake"]


def test_an_enrolment_is_in_the_audit_log_with_its_token(server: ServerInMemory, http: httpx.Client) -> None:
    enrol(http, BOARD, server.enrol_token)
    (entry,) = audited(server, "enrol_device")
    assert (entry.device, entry.actor, entry.because) == (BOARD, BOARD, "with the enrolment token 'first'")
    assert entry.evidence == {"token": "first", "admission": "shared"}


def test_a_flood_of_enrolments_has_some_entries_of_its_own_and_one_that_counts(
    server: ServerInMemory, http: httpx.Client
) -> None:
    for number in range(limits.AUDIT_BOUNDED_OWN + 3):
        assert enrol(http, f"dev-{number}", server.enrol_token).status_code == 201
    assert len(audited(server, "enrol_device")) == limits.AUDIT_BOUNDED_OWN
    server.acts.write()
    entries = audited(server, "enrol_device")
    assert len(entries) == limits.AUDIT_BOUNDED_OWN + 1
    (counts,) = (entry for entry in entries if entry.actor == "anybody")
    assert counts.because == "3 further devices enrolled, with the token first"
    assert (counts.evidence["count"], counts.evidence["most_by"]) == (3, {"first": 3})


@pytest.mark.parametrize(
    ("terms", "later_s", "sentence"),
    [
        ({"expires_at": 100.0}, 100.0, "the enrolment token 'batch' is over; ask the operator for a current one"),
        ({"expires_at": 100.0}, 99.999, None),
        ({}, 10**7, None),
    ],
)
def test_a_token_lets_devices_in_until_it_is_over(
    server: ServerInMemory, http: httpx.Client, terms: dict[str, float], later_s: float, sentence: str | None
) -> None:
    token = made_token(server, **{name: server.clock.now + value for name, value in terms.items()})
    server.clock.now += later_s
    answer = enrol(http, BOARD, token)
    if sentence is None:
        assert answer.status_code == 201
    else:
        assert problem_of(answer) == (401, "Not allowed", sentence)


def test_a_token_that_was_revoked_lets_nobody_in(server: ServerInMemory, http: httpx.Client) -> None:
    token = made_token(server)
    with server.stores() as stores:
        stores.enrolments.revoke_token("batch", at=server.clock.now)
    sentence = "the enrolment token 'batch' was revoked; ask the operator for a current one"
    assert problem_of(enrol(http, BOARD, token)) == (401, "Not allowed", sentence)


def test_a_token_that_nobody_made_lets_nobody_in(http: httpx.Client) -> None:
    sentence = "this enrolment token is unknown here; ask the operator for a current one"
    assert problem_of(enrol(http, BOARD, "x" * 16)) == (401, "Not allowed", sentence)


def test_a_device_without_a_token_is_told_to_bring_one(http: httpx.Client) -> None:
    sentence = "this device is to be let in, and brings no enrolment token; give it one"
    assert problem_of(enrol(http, BOARD, None)) == (401, "Not allowed", sentence)


@pytest.mark.parametrize(("uses_max", "words"), [(1, "1 device"), (2, "2 devices")])
def test_a_token_lets_in_so_many_devices(server: ServerInMemory, http: httpx.Client, uses_max: int, words: str) -> None:
    token = made_token(server, uses_max=uses_max)
    for number in range(uses_max):
        assert enrol(http, f"dev-{number}", token).status_code == 201
    sentence = f"this enrolment token 'batch' let in {words}, which is all; ask the operator for another"
    assert problem_of(enrol(http, BOARD, token)) == (401, "Not allowed", sentence)
    assert known(server, "dev-0").admission == ("single_use" if uses_max == 1 else "shared")


def test_an_enrolment_that_is_refused_uses_no_token_up(server: ServerInMemory, http: httpx.Client) -> None:
    token = made_token(server, uses_max=1, labels={"ring": ("beta",)})
    assert enrol(http, BOARD, token, labels={"ring": "all"}).status_code == 403
    assert enrol(http, BOARD, token, labels={"ring": "beta"}).status_code == 201


def test_a_token_lets_in_so_many_devices_a_minute(server: ServerInMemory, http: httpx.Client) -> None:
    token = made_token(server, rate_per_min=2)
    for device in ("dev-0", "dev-1"):
        assert enrol(http, device, token).status_code == 201
    answer = enrol(http, BOARD, token)
    sentence = "the enrolment token 'batch' lets in 2 new devices a minute, and these came; try again later"
    assert problem_of(answer) == (429, "Too many at once", sentence)
    assert answer.headers["retry-after"] == "5"
    server.clock.now += 60
    assert enrol(http, BOARD, token).status_code == 201


def test_a_token_for_devices_with_a_key_lets_no_other_in(
    server: ServerInMemory, http: httpx.Client, board: KeyedDevice
) -> None:
    token = made_token(server, requires_key=True)
    sentence = "the enrolment token 'batch' lets in devices that prove a key; this one brought none"
    assert problem_of(enrol(http, BOARD, token)) == (403, "Refused", sentence)
    assert board.enrol(token).status_code == 201


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ({"site": "oslo", "ring": "beta"}, None),
        ({"color": "any"}, None),
        ({"site": "rome"}, "this device has the label site=oslo from the server, and cannot tell 'rome'"),
        ({"ring": "all"}, "the enrolment token lets a device claim ring as beta, dev; it told 'all'"),
        (
            {"attestation.level": "tee"},
            "the label attestation.level comes from a verified attestation; a device cannot claim it",
        ),
    ],
)
def test_a_device_tells_the_labels_that_its_token_allows(
    server: ServerInMemory, http: httpx.Client, labels: dict[str, str], sentence: str | None
) -> None:
    token = made_token(server, labels={"ring": ("beta", "dev")}, granted_labels={"site": "oslo"})
    answer = enrol(http, BOARD, token, labels=labels)
    if sentence is None:
        assert answer.status_code == 201
    else:
        assert problem_of(answer) == (403, "Refused", sentence)


# --- the proof of a key ---


def test_a_signature_over_another_token_or_by_another_key_is_no_proof(
    server: ServerInMemory, board: KeyedDevice
) -> None:
    good = board.enrolment(server.enrol_token)
    stranger = KeyedDevice(board.http, BOARD).enrolment(server.enrol_token)
    of_stranger = good["proof"] | {"signature": stranger["proof"]["signature"]}
    for body in (
        good | {"enrol_token": made_token(server)},
        good | {"device_id": "board-2"},
        good | {"proof": of_stranger},
    ):
        status, title, detail = problem_of(board.http.post("/device/v1/enrol", json=body))
        assert (status, title) == (401, "Not allowed")
        assert detail.startswith("the signature is not by the key that the request names, or not over this request")
    assert board.http.post("/device/v1/enrol", json=good).status_code == 201


def test_a_challenge_is_good_for_two_minutes_and_no_longer(server: ServerInMemory, board: KeyedDevice) -> None:
    old = board.challenge()
    server.clock.now += limits.CHALLENGE_LIFE_S + 0.5
    status, _, detail = problem_of(board.enrol(server.enrol_token, challenge=old))
    assert (status, detail.partition(";")[0]) == (401, "this challenge is over, or of another namespace")


def test_an_answer_to_a_challenge_enrols_once(server: ServerInMemory, board: KeyedDevice) -> None:
    """Whoever overheard an enrolment would get a credential of the device by sending it again."""
    overheard = board.enrolment(server.enrol_token)
    assert board.http.post("/device/v1/enrol", json=overheard).status_code == 201
    again = board.http.post("/device/v1/enrol", json=overheard)
    sentence = "this challenge was answered before; get a new one with POST challenge"
    assert problem_of(again) == (401, "Not allowed", sentence)
    server.clock.now += 1
    assert board.enrol().status_code == 201  # its key, and a new challenge


def test_a_challenge_says_nothing_but_itself(http: httpx.Client) -> None:
    for body in (b"", b"{}"):
        answer = http.post("/device/v1/challenge", content=body)
        assert (answer.status_code, list(answer.json())) == (200, ["challenge"])
    assert http.post("/device/v1/challenge", content=b'{"who": "me"}').status_code == 400


def test_the_key_that_a_device_names_for_sealed_models_must_be_signed_by_its_own(
    server: ServerInMemory, board: KeyedDevice
) -> None:
    def named(challenge: str, *, recipient: str = RECIPIENT) -> dict[str, Any]:
        text = recipient_text(challenge=challenge, device_id=BOARD, public_key=board.public_key, recipient=recipient)
        return {"key": RECIPIENT, "signature": plain(prove(board.key, text, challenge=challenge))["signature"]}

    bare = enrol(board.http, BOARD, server.enrol_token, recipient=named("c" * 16))
    sentence = "a recipient key came without a proof of the device's key, which must sign it"
    assert problem_of(bare) == (400, "The input cannot be accepted", sentence)
    challenge = board.challenge()
    for lie in (named("c" * 16), named(challenge, recipient="B" * 42 + "E")):
        assert board.enrol(server.enrol_token, challenge=challenge, recipient=lie).status_code == 401
    assert board.enrol(server.enrol_token, challenge=challenge, recipient=named(challenge)).status_code == 201
    assert known(server).recipient == RECIPIENT


def test_an_attestation_needs_a_proof_and_a_verifier(server: ServerInMemory, board: KeyedDevice) -> None:
    attestation = {"kind": "trust-me", "chain": ["AAAA"]}
    sentence = "an attestation came without a proof of the device's key, which it must name"
    bare = enrol(board.http, BOARD, server.enrol_token, attestation=attestation)
    assert problem_of(bare) == (400, "The input cannot be accepted", sentence)
    sentence = "this server verifies no attestation of kind 'trust-me'; it verifies: none"
    assert problem_of(board.enrol(server.enrol_token, attestation=attestation)) == (403, "Refused", sentence)


# --- an id that is taken ---


def test_a_device_enrols_again_with_its_key_and_begins_a_new_epoch(server: ServerInMemory, board: KeyedDevice) -> None:
    first = board.enrol(server.enrol_token).json()["credential"]
    before = board.bearer(first)
    server.clock.now += 10
    second = board.enrol().json()["credential"]
    assert second != first
    record = known(server)
    assert (record.epoch, record.admission, record.enrolled_at) == (2, "shared", server.clock.now - 10)
    sentence = "this device enrolled again, and got another credential; get a token for that one"
    checked = board.http.post("/device/v1/check", headers=before, json={"models": {}})
    assert problem_of(checked) == (401, "Not allowed", sentence)
    assert board.ask_token(first).status_code == 401
    good = board.bearer(second)
    assert board.http.post("/device/v1/check", headers=good, json={"models": {}}).status_code == 200
    assert [entry.because for entry in audited(server, "enrol_device")] == [
        "again, by its own key, credential or certificate",
        "with the enrolment token 'first'",
    ]


def test_an_id_with_a_key_is_taken_over_by_no_token(server: ServerInMemory, board: KeyedDevice) -> None:
    held = board.enrol(server.enrol_token).json()["credential"]
    sentence = (
        "board-1 is enrolled already, with another key: an enrolment token does not take over an id. Where its disk "
        "was wiped, an operator says so: whimbrel device allow-again board-1"
    )
    thief = KeyedDevice(board.http, BOARD)
    server.clock.now += 1
    for answer in (thief.enrol(server.enrol_token), enrol(board.http, BOARD, server.enrol_token, credential=held)):
        assert problem_of(answer) == (403, "Refused", sentence)
    assert board.ask_token(held).status_code == 200


def test_an_id_without_a_key_is_taken_over_by_no_token(server: ServerInMemory, http: httpx.Client) -> None:
    held = enrol(http, BOARD, server.enrol_token).json()
    sentence = (
        "board-1 is enrolled already, without a key, and this is not its credential: an enrolment token does not take "
        "over an id. Where its disk was wiped, an operator says so: whimbrel device allow-again board-1"
    )
    assert problem_of(enrol(http, BOARD, server.enrol_token)) == (403, "Refused", sentence)
    assert problem_of(enrol(http, BOARD, server.enrol_token, credential="x" * 43)) == (403, "Refused", sentence)
    assert http.post("/device/v1/token", json=held).status_code == 200


def test_a_device_without_a_key_enrols_again_by_its_credential_and_gets_another(
    server: ServerInMemory, http: httpx.Client
) -> None:
    held = enrol(http, BOARD, server.enrol_token).json()["credential"]
    again = enrol(http, BOARD, None, credential=held).json()["credential"]
    assert again != held
    assert known(server).credential_sha256 == digest_of(again.encode())
    assert known(server).epoch == 2


def test_a_device_adopts_a_key_by_its_credential_and_keeps_that(
    server: ServerInMemory, http: httpx.Client, board: KeyedDevice
) -> None:
    held = enrol(http, BOARD, server.enrol_token).json()["credential"]
    adopted = board.enrol(credential=held)
    assert (adopted.status_code, adopted.json()["credential"]) == (201, held)
    record = known(server)
    assert (record.public_key, record.epoch) == (board.public_key, 1)
    assert audited(server, "enrol_device")[0].evidence == {"token": "first", "admission": "shared"}


def test_a_blocked_id_may_not_enrol_and_a_removed_one_is_new(server: ServerInMemory, http: httpx.Client) -> None:
    with server.stores() as stores:
        stores.inventory.set_access(DeviceAccess(device_id=BOARD, state="blocked", since=server.clock.now))
        stores.inventory.set_access(DeviceAccess(device_id="board-2", state="removed", since=server.clock.now))
    sentence = "board-1 is blocked by the operator, and may not enrol until it is unblocked"
    assert problem_of(enrol(http, BOARD, server.enrol_token)) == (403, "Refused", sentence)
    assert enrol(http, "board-2", server.enrol_token).status_code == 201
    with server.stores() as stores:
        assert stores.inventory.access(["board-2"])["board-2"].state == "open"


# --- tokens ---


def test_a_credential_gets_a_token_for_an_hour(server: ServerInMemory, http: httpx.Client) -> None:
    token = made_token(server, granted_labels={"site": "oslo"}, labels={"ring": ("beta",)})
    held = enrol(http, BOARD, token).json()
    answer = http.post("/device/v1/token", json=held)
    assert answer.status_code == 200
    assert answer.json().keys() == {"token", "expires_in_s"}  # a request without a proof is not told labels
    assert answer.json()["expires_in_s"] == 3600
    claims = server.tokens.verify(f"Bearer {answer.json()['token']}", namespace="default", now=server.clock.now)
    assert (claims.device, claims.epoch, claims.issued) == (BOARD, 1, server.clock.now)
    assert (claims.labels, claims.claimable) == ({"site": "oslo"}, {"ring": ("beta",)})


def test_a_device_that_proves_its_key_is_told_its_labels(server: ServerInMemory, board: KeyedDevice) -> None:
    held = board.enrol(made_token(server, granted_labels={"site": "oslo"})).json()["credential"]
    assert board.ask_token(held).json()["labels"] == {"site": "oslo"}


def test_a_wrong_credential_and_an_unknown_device_are_told_the_same(server: ServerInMemory, http: httpx.Client) -> None:
    enrol(http, BOARD, server.enrol_token)
    sentence = "this device is not enrolled with this credential; enrol it (again)"
    for device in (BOARD, "board-2"):
        answer = http.post("/device/v1/token", json={"device_id": device, "credential": "x" * 43})
        assert problem_of(answer) == (401, "Not allowed", sentence)


def test_a_stolen_credential_without_the_key_gets_no_token(server: ServerInMemory, board: KeyedDevice) -> None:
    held = board.enrol(server.enrol_token).json()
    thief = KeyedDevice(board.http, BOARD)
    sentence = "this device has a key; prove it, with a challenge of POST challenge"
    for answer in (board.http.post("/device/v1/token", json=held), thief.ask_token(held["credential"])):
        assert problem_of(answer) == (401, "Not allowed", sentence)
    challenge = board.challenge()
    server.clock.now += limits.CHALLENGE_LIFE_S + 0.5
    assert board.ask_token(held["credential"], challenge=challenge).status_code == 401
    body = {"device_id": BOARD, "credential": held["credential"], "proof": board.enrolment()["proof"]}
    status, _, detail = problem_of(board.http.post("/device/v1/token", json=body))  # signed to enrol
    assert (status, detail.startswith("the signature is not by the key")) == (401, True)


def test_a_blocked_device_gets_no_token(server: ServerInMemory, http: httpx.Client) -> None:
    held = enrol(http, BOARD, server.enrol_token).json()
    with server.stores() as stores:
        stores.inventory.set_access(DeviceAccess(device_id=BOARD, state="blocked", since=server.clock.now))
    status, title, detail = problem_of(http.post("/device/v1/token", json=held))
    assert (status, title) == (403, "Refused")
    assert detail.startswith("the operator has blocked this device")


def test_a_removed_device_is_told_to_enrol_again(server: ServerInMemory, http: httpx.Client) -> None:
    held = enrol(http, BOARD, server.enrol_token).json()
    with server.stores() as stores:
        stores.inventory.set_access(
            DeviceAccess(device_id=BOARD, state="removed", since=server.clock.now, not_before=server.clock.now + 1)
        )
    sentence = "this device was removed by the operator; enrol it again"
    assert problem_of(http.post("/device/v1/token", json=held)) == (401, "Not allowed", sentence)


# --- what is counted, and by what it is bounded ---


def test_sign_ins_that_fail_are_counted_by_address_and_other_refusals_are_not(
    server: ServerInMemory, http: httpx.Client
) -> None:
    enrol(http, BOARD, "x" * 16)
    http.post("/device/v1/token", json={"device_id": BOARD, "credential": "x" * 43})
    enrol(server.public(address="192.0.2.7"), BOARD, "x" * 16)
    http.post("/device/v1/enrol", content=b"{}")  # bad input is no failed sign-in
    http.post("/device/v1/check", json={"models": {}}, headers={"authorization": "Bearer x"})
    enrol(http, BOARD, made_token(server, requires_key=True))
    server.acts.write()
    (entry,) = audited(server, "fail_device_sign_in")
    assert entry.because == f"3 enrolments or sign-ins of devices failed, most from {ADDRESS}"
    assert entry.evidence["most_by"] == {ADDRESS: 2, "192.0.2.7": 1}


def test_too_many_questions_at_once_come_again_later(
    server: ServerInMemory, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.device_api._questions, "_most", 0)
    answer = enrol(http, BOARD, server.enrol_token)
    assert problem_of(answer) == (503, "Not available now", "too many devices ask at once; come again later")
    assert answer.headers["retry-after"] == "5"


def test_the_key_of_a_bucket_is_drawn_at_random_where_nobody_says_otherwise() -> None:
    from whimbrel.server.device_api import random_cohort_key

    drawn = {random_cohort_key(BOARD) for _ in range(8)}
    assert (len(drawn), {len(each) for each in drawn}) == (8, {32})
    assert all(device_key(each) != device_key(BOARD) for each in drawn)


# --- certificates that a proxy verified ---

CERTIFICATES = ClientCertificates(header="X-Device", proxies=(f"{ADDRESS}/32",), form="id")


def test_a_certificate_lets_its_device_in_without_a_token_and_speaks_for_no_other() -> None:
    with server_in_memory(versions=0, client_certificates=CERTIFICATES) as server:
        http = server.public()
        http.headers["x-device"] = BOARD
        held = enrol(http, BOARD, None)
        assert (held.status_code, known(server).admission) == (201, "attested")
        assert audited(server, "enrol_device")[0].because == "by its certificate"
        sentence = f"the TLS certificate is that of {BOARD}, and this request is board-2's"
        assert problem_of(enrol(http, "board-2", server.enrol_token)) == (401, "Not allowed", sentence)
        token = http.post("/device/v1/token", json=held.json()).json()["token"]
        for name in ("check", "reports", "announce", "token"):
            body = held.json() if name == "token" else {}
            stolen = {"x-device": "board-2", "authorization": f"Bearer {token}"}
            answer = http.post(f"/device/v1/{name}", json=body, headers=stolen)
            assert problem_of(answer)[2] == f"the TLS certificate is that of board-2, and this request is {BOARD}'s"
        assert enrol(http, BOARD, None).status_code == 201  # a wiped board: the certificate proves it


def test_the_header_of_a_certificate_is_taken_from_the_proxy_alone() -> None:
    with server_in_memory(versions=0, client_certificates=CERTIFICATES) as server:
        stranger = server.public(address="192.0.2.7")
        stranger.headers["x-device"] = BOARD
        sentence = "X-Device is taken from the proxies of this server alone; do not send it"
        assert problem_of(enrol(stranger, BOARD, server.enrol_token)) == (401, "Not allowed", sentence)
