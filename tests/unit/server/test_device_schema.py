"""The description of the device API is true: of its file, of OpenAPI, and of what a server takes and answers."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from openapi_spec_validator import validate

from support.enrolling import KeyedDevice
from support.server import repository, serving
from support.values import EPOCH
from whimbrel import limits
from whimbrel.server.device_openapi import DEVICE_TOKEN, REQUESTS, device_openapi

FILE = Path(__file__).parents[3] / "docs" / "reference" / "device-openapi.json"
DOCUMENT: dict[str, Any] = json.loads(device_openapi())
ANNOUNCEMENT = {"model": "wake", "step": "activated", "serial": 1}
BATCH = {"epoch": EPOCH, "windows": [], "models": ["wake"]}
GZIP = {"content-encoding": "gzip"}
BOMB = gzip.compress(b" " * 2 * limits.DEVICE_BODY_BYTES)
CHECK = {"models": {"wake": None}}


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = repository(tmp_path_factory.mktemp("described") / "repo", versions=1)
    with serving(folder) as running, running.public() as client:
        client.headers["x-enrol"] = (folder / "enrol.token").read_text().strip()
        yield client


@pytest.fixture(scope="module")
def bearer(http: httpx.Client) -> dict[str, str]:
    device = KeyedDevice(http, "dev-1")
    credential = device.enrol(http.headers["x-enrol"]).raise_for_status().json()["credential"]
    return device.bearer(credential)


def operation(name: str) -> dict[str, Any]:
    described: dict[str, Any] = DOCUMENT["paths"][f"/{{namespace}}/device/v1/{name}"]["post"]
    return described


def fits(value: Any, schema: dict[str, Any]) -> bool:
    whole = schema | {"components": DOCUMENT["components"]}
    return bool(jsonschema.Draft202012Validator(whole).is_valid(value))


def check_answer(name: str, answer: httpx.Response) -> None:
    """The answer is one that the document has: its status, its media type, its fields."""
    described = operation(name)["responses"].get(str(answer.status_code))
    assert described is not None, (name, answer.status_code, answer.text)
    if "content" not in described:
        assert answer.content == b""
        return
    ((media_type, content),) = described["content"].items()
    assert answer.headers["content-type"] == media_type
    assert fits(answer.json(), content["schema"]), answer.text


def takes(name: str, body: Any) -> bool:
    return fits(body, operation(name)["requestBody"]["content"]["application/json"]["schema"])


def test_the_file_in_the_documentation_is_the_one_that_is_served(http: httpx.Client) -> None:
    served = http.get("/device/v1/openapi.json").raise_for_status()
    assert served.content == device_openapi() == FILE.read_bytes(), "make it anew: see support/device_openapi_page.py"
    assert served.headers["content-type"] == "application/json"
    head = http.head("/device/v1/openapi.json")
    assert (head.status_code, head.content) == (200, b"")
    assert http.post("/device/v1/openapi.json", json={}).status_code == 405


def test_it_is_openapi_and_names_its_security_schemes() -> None:
    validate(DOCUMENT)
    assert set(DOCUMENT["components"]["securitySchemes"]) == {"deviceToken", "clientCertificate"}
    for row in REQUESTS:
        shown = [DEVICE_TOKEN in way for way in operation(row.name)["security"]]
        assert shown == [row.signed_in] * 2


def test_it_has_every_request_that_is_answered_and_no_other(http: httpx.Client) -> None:
    words = http.post("/device/v1/nothing", json={}).json()["detail"]
    answered = words.partition("there are: ")[2].split(", ")
    assert answered == [row.name for row in REQUESTS]
    assert len(DOCUMENT["paths"]) == len(answered) + 1


def test_every_struct_has_all_its_fields() -> None:
    for row in REQUESTS:
        for struct in filter(None, (row.body, row.answer)):
            described = DOCUMENT["components"]["schemas"][struct.__name__]
            assert set(described["properties"]) == set(struct.__struct_encode_fields__)


def test_what_a_server_answers_is_what_is_described(http: httpx.Client, bearer: dict[str, str]) -> None:
    device = KeyedDevice(http, "dev-2")
    asked = http.post("/device/v1/challenge", json={})
    check_answer("challenge", asked)
    enrolment = device.enrolment(http.headers["x-enrol"], takes_cohort_key=True, labels={"site": "lab"})
    assert takes("enrol", enrolment)
    enrolled = http.post("/device/v1/enrol", json=enrolment)
    check_answer("enrol", enrolled)
    assert enrolled.status_code == 201
    check_answer("token", device.ask_token(enrolled.json()["credential"]))
    for name, body, status in (("announce", ANNOUNCEMENT, 204), ("reports", BATCH, 204), ("check", CHECK, 200)):
        assert takes(name, body)
        answer = http.post(f"/device/v1/{name}", json=body, headers=bearer)
        assert answer.status_code == status, answer.text
        check_answer(name, answer)
    decided = answer.json()["models"]["wake"]
    assert (decided["offer"], decided["serial"], len(decided["files"])) == ("run", 1, 1)
    packed = gzip.compress(json.dumps(BATCH).encode())
    assert http.post("/device/v1/reports", content=packed, headers=bearer | GZIP).status_code == 204


def test_what_is_refused_is_refused_as_described(http: httpx.Client, bearer: dict[str, str]) -> None:
    for row in REQUESTS:
        large = http.post(f"/device/v1/{row.name}", content=BOMB, headers=bearer | GZIP)
        assert large.status_code == 413
        check_answer(row.name, large)
        for body in (b"[]", b"{", b'{"no_such_field": 1}'):
            answer = http.post(f"/device/v1/{row.name}", content=body, headers=bearer)
            assert answer.status_code == 400, (row.name, body)
            check_answer(row.name, answer)
        if row.signed_in:
            stranger = http.post(f"/device/v1/{row.name}", json={}, headers={"authorization": "Bearer x"})
            assert stranger.status_code == 401
            check_answer(row.name, stranger)
    unknown = KeyedDevice(http, "dev-3").enrol("no such token at all")
    assert unknown.status_code == 401
    check_answer("enrol", unknown)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("announce", ANNOUNCEMENT | {"serial": 0}),
        ("announce", ANNOUNCEMENT | {"step": "dances"}),
        ("announce", {"model": "wake"}),
        ("announce", ANNOUNCEMENT | {"model": "Wake\n"}),
        ("reports", BATCH | {"epoch": EPOCH + "\n"}),
        ("reports", BATCH | {"labels": {"a b": "c"}}),
        ("reports", BATCH | {"windows": [{}]}),
        ("check", {"models": ["wake"]}),
        ("check", {"models": {"wake": -1}}),
        ("check", CHECK | {"labels": {"site": "x" * 1000}}),
    ],
)
def test_a_body_that_is_not_as_described_is_refused(
    http: httpx.Client, bearer: dict[str, str], name: str, body: dict[str, Any]
) -> None:
    """The schema and the server say the same of it."""
    assert not takes(name, body)
    assert http.post(f"/device/v1/{name}", json=body, headers=bearer).status_code == 400
