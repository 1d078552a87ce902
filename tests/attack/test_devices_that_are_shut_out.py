"""A device that was shut out stays out: with a token that is still good, an old credential, or a new enrolment."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.server import Running, repository, serving
from support.values import EPOCH, window
from whimbrel.model.documents import encode
from whimbrel.server.device_access import PERIOD_S

WITHIN_S = PERIOD_S + 5  # the memory of a server is as old as its period, and a busy machine is slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(repository(tmp_path_factory.mktemp("served") / "repo", versions=1)) as here:
        yield here


def do(server: Running, device: str, verb: str) -> httpx.Response:
    with server.people() as people:
        return people.post(f"devices/{device}/{verb}", json={"because": "stolen"})


def report(number: int = 1, **more: Any) -> dict[str, bytes]:
    body = {"epoch": EPOCH, "windows": (window(number, serial=1, cohorts=()),)} | more
    return {"content": encode(body)}


def answer_after(device: httpx.Client, expected: int, *, path: str = "/device/v1/reports") -> httpx.Response:
    """The first answer with that status; the hot path learns of a change within seconds."""
    deadline = time.monotonic() + WITHIN_S
    number = 100
    while (answer := device.post(path, **report(number))).status_code != expected:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.1)
        number += 1
    return answer


def credential(server: Running, device: str) -> httpx.Response:
    token = (server.folder / "enrol.token").read_text().strip()
    with server.public() as http:
        return http.post("/device/v1/enrol", json={"device_id": device, "enrol_token": token})


def test_a_good_token_of_a_blocked_device_is_refused_within_seconds_and_until_it_is_unblocked(server: Running) -> None:
    with server.enrolled("stolen") as device, server.enrolled("honest") as other:
        assert device.post("/device/v1/reports", **report()).status_code == 204
        assert do(server, "stolen", "block").status_code == 200
        refused = answer_after(device, 403).json()
        assert "the operator has blocked this device" in refused["detail"]
        assert "until it is unblocked" in refused["detail"]
        for path in ("announce", "reports", "check"):  # whatever it sends
            assert device.post(f"/device/v1/{path}", content=b"{}").status_code == 403
        assert other.post("/device/v1/reports", **report()).status_code == 204
        assert do(server, "stolen", "unblock").status_code == 200
        answer_after(device, 204)


def test_a_blocked_device_gets_no_token_and_enrols_under_no_token_of_enrolment(server: Running) -> None:
    held = credential(server, "thief").json()
    assert do(server, "thief", "block").status_code == 200
    with server.public() as http:  # at once: these ask the database
        refused = http.post("/device/v1/token", json=held)
        assert (refused.status_code, "blocked" in refused.json()["detail"]) == (403, True)
        again = credential(server, "thief")
        assert (again.status_code, "may not enrol" in again.json()["detail"]) == (403, True)
        # Who does not know the credential learns nothing of the block.
        guess = http.post("/device/v1/token", json={**held, "credential": "g" * 32})
        assert guess.status_code == 401


def test_the_token_and_the_credential_of_a_removed_device_are_over_also_when_its_id_is_back(server: Running) -> None:
    with server.enrolled("sold") as device, server.public() as http:
        held = server.credentials["sold"]
        assert do(server, "sold", "remove").status_code == 200
        assert "enrol it again" in answer_after(device, 401).json()["detail"]
        assert http.post("/device/v1/token", json=held).status_code == 401
        with server.enrolled("sold") as new_owner:
            answer_after(new_owner, 204)
            assert device.post("/device/v1/reports", **report(300)).status_code == 401
            assert http.post("/device/v1/token", json=held).status_code == 401


def test_a_restarted_server_refuses_from_its_first_request(tmp_path: Path) -> None:
    folder = repository(tmp_path / "repo", versions=0)
    with serving(folder) as first:
        device = first.enrolled("stolen")
        token = device.headers["authorization"]
        device.close()
        assert do(first, "stolen", "block").status_code == 200
    with serving(folder) as second, second.public() as http:
        answer = http.post("/device/v1/reports", headers={"authorization": token}, **report())
        assert answer.status_code == 403


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", ["devices", "devices/honest", "devices/honest/remove", "devices/honest/unblock"])
def test_a_device_reaches_nothing_of_the_admin_api(server: Running, method: str, path: str) -> None:
    with server.enrolled("nosy") as device:
        # Its own listener has no such path, and the people's one takes no device's token.
        assert device.request(method, f"/admin/v1/{path}", json={}).status_code == 404
        answer = httpx.request(
            method, f"{server.admin}/default/admin/v1/{path}", headers=device.headers, json={}, trust_env=False
        )
        assert answer.status_code in {401, 405}


@pytest.mark.parametrize(
    "waiting",
    [
        {"wake": "x" * 201},
        {"wake": "two\nlines"},
        {"wake": "\x1b[31mred"},
        {"wake": 1},
        {"Wake!": "a charger"},
        {f"m{number}": "" for number in range(65)},
    ],
)
def test_what_a_device_says_that_it_waits_for_is_a_bounded_line(server: Running, waiting: dict[str, Any]) -> None:
    with server.enrolled("chatty") as device:
        answer = device.post("/device/v1/reports", **report(waiting=waiting))
        assert answer.status_code == 400
        assert "waiting" in answer.json()["detail"]


@pytest.mark.parametrize(
    "query",
    [
        {"limit": 1001},
        {"limit": 0},
        {"silent_for_s": -1},
        {"selector": "a" * 5000},
        {"selector": "region in"},
        {"version": "1.0.0"},
        {"after": "x" * 200},
    ],
)
def test_odd_questions_get_one_sentence(server: Running, query: dict[str, Any]) -> None:
    with server.people() as people:
        answer = people.get("devices", params=query)
        assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
        assert answer.json()["detail"]


def test_ids_that_are_no_devices_are_not_found(server: Running) -> None:
    with server.people() as people:
        for device in ("nobody", "%00", "'; DROP TABLE device; --", "x" * 500, "é"):
            assert people.get(f"devices/{device}").status_code in {400, 404}
        assert people.get("devices/nobody").json()["detail"] == (
            "no device 'nobody' is enrolled; see: whimbrel device list"
        )
