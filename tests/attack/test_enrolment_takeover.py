"""Whoever has the fleet's enrolment token, an old enrolment or an old credential takes over no device."""

import base64
import itertools
import time
from collections.abc import Iterator

import httpx
import pytest

from support.enrolling import KeyedDevice
from support.server import Running, repository, serving
from support.values import EPOCH, window
from whimbrel import limits
from whimbrel.errors import TooMany, WhimbrelError
from whimbrel.flows.devices.enrol import EnrolmentRequest, enrol_device
from whimbrel.flows.devices.records import EnrolTokenTerms
from whimbrel.model.documents import encode
from whimbrel.server.app import open_repository
from whimbrel.server.config import Folder
from whimbrel.stores.transaction import transaction

WITHIN_S = 5.0  # what is promised for a block and for a replacement
_NUMBER = itertools.count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(repository(tmp_path_factory.mktemp("served") / "repo", versions=1)) as here:
        yield here


@pytest.fixture
def http(server: Running) -> Iterator[httpx.Client]:
    with server.public() as client:
        yield client


@pytest.fixture(scope="module")
def shared(server: Running) -> str:
    """The token that the whole fleet has."""
    return (server.folder / "enrol.token").read_text().strip()


@pytest.fixture
def device(http: httpx.Client) -> KeyedDevice:
    return KeyedDevice(http, f"board-{next(_NUMBER)}")


def report(http: httpx.Client, headers: dict[str, str]) -> httpx.Response:
    body = {"epoch": EPOCH, "windows": (window(next(_NUMBER), serial=1, cohorts=()),)}
    return http.post("/device/v1/reports", headers=headers, content=encode(body))


def test_the_shared_token_takes_over_no_device_that_has_a_key(device: KeyedDevice, shared: str) -> None:
    """Whoever had the fleet's token got the credential of any device, and the device lost its own."""
    held = device.enrol(shared).json()["credential"]
    thief = KeyedDevice(device.http, device.device_id)
    for answer in (
        thief.enrol(shared),
        device.http.post("/device/v1/enrol", json={"device_id": device.device_id, "enrol_token": shared}),
        thief.enrol(shared, credential="guess-" * 4),
    ):
        assert answer.status_code == 403
        assert f"whimbrel device allow-again {device.device_id}" in answer.json()["detail"]
    assert report(device.http, device.bearer(held)).status_code == 204


def test_the_shared_token_takes_over_no_device_that_enrolled_without_a_key(
    server: Running, device: KeyedDevice, shared: str
) -> None:
    with server.enrolled(device.device_id) as old:
        assert device.enrol(shared).status_code == 403
        plain = {"device_id": device.device_id, "enrol_token": shared}
        assert device.http.post("/device/v1/enrol", json=plain).status_code == 403
        assert report(old, dict(old.headers)).status_code == 204


def test_a_device_without_a_key_adopts_one_by_its_credential_and_keeps_its_tokens(
    device: KeyedDevice, shared: str
) -> None:
    plain = {"device_id": device.device_id, "enrol_token": shared}
    held = device.http.post("/device/v1/enrol", json=plain).json()
    before = device.http.post("/device/v1/token", json=held).json()["token"]
    adopted = device.enrol(credential=held["credential"])
    assert (adopted.status_code, adopted.json()["credential"]) == (201, held["credential"])
    assert report(device.http, {"authorization": f"Bearer {before}"}).status_code == 204
    assert device.http.post("/device/v1/token", json=held).status_code == 401  # from now on with a proof
    assert report(device.http, device.bearer(held["credential"])).status_code == 204
    assert KeyedDevice(device.http, device.device_id).enrol(credential=held["credential"]).status_code == 403


def test_an_enrolment_that_was_overheard_enrols_nobody(device: KeyedDevice, shared: str) -> None:
    body = device.enrolment(shared)
    held = device.http.post("/device/v1/enrol", json=body).json()["credential"]
    replayed = device.http.post("/device/v1/enrol", json=body)
    assert (replayed.status_code, "answered before" in replayed.json()["detail"]) == (401, True)
    older = device.challenge()
    assert device.enrol(challenge=device.challenge()).status_code == 201
    assert device.enrol(challenge=older).status_code == 401  # also one that was never answered
    assert device.ask_token(held).status_code == 401


def test_a_proof_serves_no_other_request(device: KeyedDevice, shared: str) -> None:
    body = device.enrolment(shared)
    other = KeyedDevice(device.http, f"{device.device_id}-other")
    moved = body | {"device_id": other.device_id}
    swapped = body | {"proof": body["proof"] | {"public_key": other.public_key}}
    retold = body | {"enrol_token": "w" * 32}
    forged = body | {"proof": body["proof"] | {"challenge": "c" * 40}}
    for attack in (moved, swapped, retold, forged):
        assert device.http.post("/device/v1/enrol", json=attack).status_code == 401
    held = device.http.post("/device/v1/enrol", json=body).json()["credential"]
    reused = {"device_id": device.device_id, "credential": held, "proof": body["proof"]}
    assert device.http.post("/device/v1/token", json=reused).status_code == 401


def test_a_stolen_credential_is_worth_nothing_without_the_key(device: KeyedDevice, shared: str) -> None:
    held = device.enrol(shared).json()["credential"]
    assert KeyedDevice(device.http, device.device_id).ask_token(held).status_code == 401
    bare = {"device_id": device.device_id, "credential": held}
    assert device.http.post("/device/v1/token", json=bare).status_code == 401
    assert device.ask_token(held).status_code == 200


def test_a_token_of_a_former_epoch_and_a_replaced_credential_are_refused_within_5_s(
    device: KeyedDevice, shared: str
) -> None:
    first = device.enrol(shared).json()["credential"]
    token = device.bearer(first)
    assert report(device.http, token).status_code == 204
    second = device.enrol().json()["credential"]  # its key is enough
    began = time.monotonic()
    while (answer := report(device.http, token)).status_code != 401:
        assert time.monotonic() - began < WITHIN_S, answer.text
        time.sleep(0.1)
    assert "another credential" in answer.json()["detail"]
    assert device.ask_token(first).status_code == 401
    assert report(device.http, device.bearer(second)).status_code == 204


def test_a_server_that_starts_refuses_a_token_of_a_former_epoch_from_its_first_request(
    server: Running, device: KeyedDevice, shared: str
) -> None:
    token = device.bearer(device.enrol(shared).json()["credential"])
    device.enrol()
    with serving(server.folder) as other, other.public() as http:  # another process knows it from the database
        assert report(http, token).status_code == 401


def test_a_token_has_one_valid_spelling(device: KeyedDevice, shared: str) -> None:
    token = device.bearer(device.enrol(shared).json()["credential"])["authorization"].removeprefix("Bearer ")
    body, mac = token.split(".")
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    spare = letters[letters.index(mac[-1]) ^ 1]  # 32 bytes leave two bits over
    same = base64.urlsafe_b64decode(mac + "=") == base64.urlsafe_b64decode(mac[:-1] + spare + "=")
    assert same
    for spelling in (f"{body}.{mac[:-1]}{spare}", f"{token}=", f"{token}.", f"{body}=.{mac}", f"{body}.{mac}\n=="):
        headers = {"authorization": f"Bearer {spelling}"}
        try:
            answer = report(device.http, headers)
        except httpx.LocalProtocolError:
            continue  # no client sends it
        assert answer.status_code == 401, spelling
    assert report(device.http, {"authorization": f"Bearer {token}"}).status_code == 204


def test_invented_ids_are_stopped_by_the_rate_of_the_token(server: Running) -> None:
    """3,330 came in within ten seconds. Of the same number, no more come in than two minutes of the rate let in."""
    with open_repository(Folder.open(server.folder)) as opened, transaction(opened.database, "default") as stores:
        stores.enrolments.add_token("flood", ["f" * 32], terms=EnrolTokenTerms(), at=0.0)
        refused: list[WhimbrelError] = []
        came = 0
        for number in range(3330):
            asked = EnrolmentRequest(device_id=f"invented-{number}", secret="f" * 32)
            try:
                parts = stores.enrolments, stores.inventory, stores.fleet, stores.registry
                enrol_device(*parts, asked, credential="c" * 43, now=60_000.0 + number / 333)
                came += 1
            except TooMany as error:
                refused.append(error)
        assert came == limits.ENROLMENTS_A_MINUTE
        assert len(refused) == 3330 - came
        assert "600 new devices a minute" in str(refused[0])
