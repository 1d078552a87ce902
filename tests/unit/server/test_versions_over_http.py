"""Versions, artifacts and provenance over the admin API: each answer with its figures, each refusal as what."""

from base64 import b64encode
from typing import Any

import httpx
import pytest

from support.accounts import refusal
from support.server_in_memory import MODEL, NAMESPACE, ServerInMemory
from support.values import T0
from whimbrel import limits
from whimbrel.errors import NotFound
from whimbrel.model.documents import digest_of, encode
from whimbrel.model.provenance import Kept
from whimbrel.model.release import Release, Training
from whimbrel.server.admin.provenance import release_signers
from whimbrel.trust import roles

V1, V2, V3 = "2026.01.01.1", "2026.01.01.2", "2026.01.01.3"
THIRD = b"the third version"


@pytest.fixture
def http(server: ServerInMemory) -> httpx.Client:
    return server.people()


def text(content: bytes) -> str:
    return b64encode(content).decode()


def body_of(server: ServerInMemory, release: Release) -> dict[str, Any]:
    """What `publish` sends for a release."""
    path = roles.release_path(MODEL, release.serial)
    return {"release": text(encode(release)), "publisher": text(server.signed(MODEL, {path: encode(release)}))}


def audited(http: httpx.Client, action: str) -> list[tuple[str, str, dict[str, Any]]]:
    entries = http.get("audit", params={"action": action}).raise_for_status().json()
    return [(each["actor"], each["because"], each["evidence"]) for each in entries]


# --- shown ---
def test_versions_are_listed_by_serial_with_names_and_state(server: ServerInMemory, http: httpx.Client) -> None:
    first, second = http.get("models/wake/versions").raise_for_status().json()
    assert first == {
        "namespace": "default",
        "model": "wake",
        "serial": 1,
        "version": V1,
        "semantic_version": "1.0.0",
        "build_hash": first["build_hash"],
        "created_at": T0,
        "size_bytes": len(b"wake 1"),
        "retired": False,
        "good": True,
        "aliases": ["champion"],
        "devices": 0,
        "baseline": True,
        "revoked": False,
        "quarantined": [],
    }
    assert (second["serial"], second["good"], second["baseline"], second["aliases"]) == (2, False, False, [])
    assert first["build_hash"] != second["build_hash"]


@pytest.mark.parametrize("name", ["2", "2.0.0", V2])
def test_a_version_is_known_by_each_of_its_names(http: httpx.Client, name: str) -> None:
    shown = http.get(f"models/wake/versions/{name}").raise_for_status().json()
    assert (shown["serial"], shown["release"]["serial"], shown["release"]["model"]) == (2, 2, "wake")
    assert shown["release"]["variants"][0]["files"][0]["size_bytes"] == len(b"wake 2")


@pytest.mark.parametrize("path", ["", "/devices", "/deltas", "/provenance", f"/provenance/{'0' * 64}"])
def test_a_version_that_is_not_there_is_404(http: httpx.Client, path: str) -> None:
    said = refusal(http.get(f"models/wake/versions/9.9.9{path}"), status=404)
    assert said == f"wake has no version '9.9.9'; it has: {V1} (1.0.0), {V2} (2.0.0)"


def test_how_many_devices_can_run_a_version(server: ServerInMemory, http: httpx.Client) -> None:
    fit = http.get("models/wake/versions/2/devices").raise_for_status().json()
    before = http.post("models/wake/fit", json={"variants": [{"name": "v0"}]}).raise_for_status().json()
    assert (fit["model"], before["model"]) == ("wake", "wake")
    assert refusal(http.post("models/wake/fit", json={}), status=400) == "the field 'variants' is missing"


# --- published ---
def test_a_version_is_published_by_what_was_signed(server: ServerInMemory, http: httpx.Client) -> None:
    body = body_of(server, server.release(THIRD))
    assert "'publish'" in refusal(server.person("rae").post("models/wake/versions", json=body))
    answer = server.machine("ci", "pipeline").post("models/wake/versions", json=body)
    assert answer.status_code == 201
    view = answer.json()
    assert (view["serial"], view["version"], view["semantic_version"]) == (3, V3, "3.0.0")
    assert (view["size_bytes"], view["good"], view["baseline"]) == (len(THIRD), False, False)
    ((actor, because, evidence), *_) = audited(http, "publish")
    assert (actor, because, evidence) == (
        "ci",
        f"{V3} (3.0.0)",
        {"serial": 3, "build_hash": view["build_hash"]},
    )
    role = server.public().get(f"/targets/models/wake/releases/{'0' * 64}.3.json")
    assert role.status_code == 404
    assert "is published and never changes" in refusal(http.post("models/wake/versions", json=body), status=409)


def test_a_version_that_is_wrong_leaves_nothing(server: ServerInMemory, http: httpx.Client) -> None:
    release = server.release(THIRD)
    body = body_of(server, release)
    absent = Release(**{name: getattr(release, name) for name in release.__struct_fields__} | {"build_hash": "0" * 12})
    for sent, status, words in (
        ({}, 400, "the field 'release' is missing"),
        (body | {"release": text(b"{}")}, 400, "the release"),
        (body | {"release": "%"}, 400, "release"),
        (body | {"publisher": text(b"{}")}, 400, ""),
        (body_of(server, absent), 400, "build hash 000000000000 does not belong to these files"),
    ):
        assert words in refusal(http.post("models/wake/versions", json=sent), status=status)
    assert len(http.get("models/wake/versions").json()) == 2


def test_a_first_version_is_everybodys_at_once_only_by_who_may_release(server: ServerInMemory) -> None:
    server.add_model("sleep")
    server.add_model("yawn")
    for model, role, baseline in (("sleep", "pipeline", False), ("yawn", "admin", True)):
        release = server.release(b"first", model=model)
        path = roles.release_path(model, 1)
        body = {
            "release": text(encode(release)),
            "publisher": text(server.signed(model, {path: encode(release)})),
        }
        published = server.machine(f"ci-{role}", role).post(f"models/{model}/versions", json=body)
        assert published.raise_for_status().json()["baseline"] is baseline
        assert server.people().get(f"models/{model}").json()["baseline"] == (1 if baseline else None)


def test_a_first_version_may_be_held(server: ServerInMemory, http: httpx.Client) -> None:
    server.add_model("sleep")
    release = server.release(b"first", model="sleep")
    path = roles.release_path("sleep", 1)
    body = {"release": text(encode(release)), "publisher": text(server.signed("sleep", {path: encode(release)}))}
    assert http.post("models/sleep/versions", json=body | {"hold": True}).json()["baseline"] is False


# --- retired, taken back ---
def test_a_version_is_retired_and_the_baseline_is_not(server: ServerInMemory, http: httpx.Client) -> None:
    view = server.person("rae").post("models/wake/versions/2.0.0/retire", json={"because": "slow"}).json()
    assert (view["serial"], view["retired"]) == (2, True)
    assert [each["retired"] for each in http.get("models/wake/versions").json()] == [False, True]
    assert audited(http, "retire")[0][0] == "rae"
    assert "slow" in audited(http, "retire")[0][1]
    said = refusal(http.post("models/wake/versions/1/retire", json={}))
    assert said == f"wake {V1} is the baseline; roll another version out first"
    assert refusal(http.post("models/wake/versions/9/retire", json={}), status=404)


def test_a_quarantine_that_is_not_there_is_not_lifted(http: httpx.Client) -> None:
    said = refusal(http.post("models/wake/versions/2/unquarantine", json={}))
    assert said == f"wake {V2} is not quarantined: there is nothing to lift"
    assert http.get("models/wake/revocations/drafts").json() == []


# --- artifacts ---
def test_an_artifact_is_stored_under_its_digest_and_told_once(server: ServerInMemory, http: httpx.Client) -> None:
    digest = digest_of(THIRD)
    assert http.head(f"artifacts/{digest}").status_code == 404
    pipe = server.machine("ci", "pipeline")
    for _ in range(2):
        answer = pipe.put(f"artifacts/{digest}", content=THIRD)
        assert (answer.status_code, answer.json()) == (201, {"sha256": digest, "size_bytes": len(THIRD)})
    evidence = {"sha256": digest, "size_bytes": len(THIRD)}
    assert audited(http, "store_artifact") == [("ci", f"{digest[:12]}, {len(THIRD)} bytes", evidence)]
    head = http.head(f"artifacts/{digest}")
    assert (head.status_code, head.headers["x-size-bytes"]) == (200, str(len(THIRD)))
    assert server.public().get(f"/artifacts/{digest}").content == THIRD
    assert "'publish'" in refusal(server.person("rae").put(f"artifacts/{digest}", content=THIRD))


def test_an_artifact_whose_row_or_bytes_are_gone_is_not_stored(server: ServerInMemory, http: httpx.Client) -> None:
    digest = digest_of(THIRD)
    server.run(server.blobs.put(f"{NAMESPACE}/artifacts/{digest}", THIRD))
    assert http.head(f"artifacts/{digest}").status_code == 404  # no row
    http.put(f"artifacts/{digest}", content=THIRD).raise_for_status()
    server.run(server.blobs.delete(f"{NAMESPACE}/artifacts/{digest}"))
    assert http.head(f"artifacts/{digest}").status_code == 404  # no bytes


def test_other_bytes_than_the_digest_says_are_not_stored(server: ServerInMemory, http: httpx.Client) -> None:
    digest = digest_of(THIRD)
    said = refusal(http.put(f"artifacts/{digest}", content=b"other"), status=400)
    assert said == f"5 bytes with SHA-256 {digest_of(b'other')} came for artifact {digest}; send them again"
    with pytest.raises(NotFound):
        server.run(server.blobs.head(f"{NAMESPACE}/artifacts/{digest}"))
    assert http.head(f"artifacts/{digest}").status_code == 404
    assert not [each for each in server.blobs._store.list().collect() if "upload" in each["path"]]


@pytest.mark.parametrize("name", ["abc", "A" * 64, "0" * 63, "0" * 65, "..%2Fx"])
def test_an_artifact_is_called_by_a_digest(http: httpx.Client, name: str) -> None:
    assert http.put(f"artifacts/{name}", content=b"x").status_code in {400, 404}
    assert http.head(f"artifacts/{name}").status_code in {400, 404}


def test_the_largest_upload_and_a_byte_more(
    server: ServerInMemory, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ARTIFACT_BYTES", 1000)  # of the store; the route has the real one
    most, over = bytes(1000), bytes(1001)
    assert http.put(f"artifacts/{digest_of(most)}", content=most).status_code == 201
    said = refusal(http.put(f"artifacts/{digest_of(over)}", content=over), status=400)
    assert said == "the artifact is larger than the 1000 bytes allowed"
    chunks = (b"x" * 100 for _ in range(11))
    assert refusal(http.put(f"artifacts/{digest_of(b'x' * 1100)}", content=chunks), status=400) == said
    assert not [each for each in server.blobs._store.list().collect() if "upload" in each["path"]]


# --- collected ---
def test_what_nothing_refers_to_is_collected_after_a_day(server: ServerInMemory, http: httpx.Client) -> None:
    one, two = b"one", b"number two"
    http.put(f"artifacts/{digest_of(one)}", content=one).raise_for_status()
    server.clock.now = T0 + 10
    http.put(f"artifacts/{digest_of(two)}", content=two).raise_for_status()
    nothing = {"collected": [], "size_bytes": 0, "dry_run": False}
    server.clock.now = T0 + 86400
    assert http.post("collect").json() == nothing
    server.clock.now = T0 + 86400 + 1
    asked = http.post("collect", params={"dry_run": True}).json()
    assert asked == {"collected": [digest_of(one)], "size_bytes": 3, "dry_run": True}
    assert http.head(f"artifacts/{digest_of(one)}").status_code == 200
    assert http.post("collect").json() == asked | {"dry_run": False}
    assert http.head(f"artifacts/{digest_of(one)}").status_code == 404
    with pytest.raises(NotFound):
        server.run(server.blobs.head(f"{NAMESPACE}/artifacts/{digest_of(one)}"))
    assert http.post("collect", params={"older_than_s": 86400 - 9.5}).json()["collected"] == [digest_of(two)]
    assert http.post("collect").json() == nothing
    assert [each[:2] for each in audited(http, "collect_artifact")] == [
        ("admin", f"nothing refers to {digest_of(two)[:12]}"),
        ("admin", f"nothing refers to {digest_of(one)[:12]}"),
    ]
    assert "older_than_s is '-1'" in refusal(http.post("collect", params={"older_than_s": -1}), status=400)
    assert "'collect'" in refusal(server.person("sec", "security").post("collect"))


def test_a_version_keeps_its_files(server: ServerInMemory, http: httpx.Client) -> None:
    server.publish(THIRD)
    server.clock.now = T0 + 10 * 86400
    assert http.post("collect", params={"older_than_s": 0}).json()["collected"] == []


# --- patches ---
def test_patches_are_made_when_asked_for_and_listed(server: ServerInMemory, http: httpx.Client) -> None:
    assert http.get("models/wake/versions/2/deltas").json() == {"model": "wake", "version": V2, "deltas": []}
    assert "'publish'" in refusal(server.person("rae").post("models/wake/deltas"))


# --- provenance ---
def test_where_a_version_comes_from(server: ServerInMemory, http: httpx.Client) -> None:
    view = http.get("models/wake/versions/2/provenance").raise_for_status().json()
    keyid = server.publisher.public_key.keyid
    assert keyid in str(view)
    assert (view["model"], view["serial"]) == ("wake", 2)
    said = refusal(http.get(f"models/wake/versions/2/provenance/{digest_of(b'wake 2')}"), status=404)
    assert said == "no such file is kept beside that version"


def test_a_file_that_is_kept_beside_a_version_is_given_byte_for_byte(
    server: ServerInMemory, http: httpx.Client
) -> None:
    recipe = b"train: {epochs: 3}"
    http.put(f"artifacts/{digest_of(recipe)}", content=recipe).raise_for_status()
    server.publish(THIRD, training=Training(recipe=Kept(sha256=digest_of(recipe), size_bytes=len(recipe))))
    answer = http.get(f"models/wake/versions/3/provenance/{digest_of(recipe)}")
    assert (answer.status_code, answer.content) == (200, recipe)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert http.get(f"models/wake/versions/2/provenance/{digest_of(recipe)}").status_code == 404


def test_who_signed_each_of_many_versions_is_found(server: ServerInMemory) -> None:
    for _ in range(4):
        server.publish()
    keyid = server.publisher.public_key.keyid
    with server.stores() as stores:
        assert [release_signers(stores, MODEL, serial) for serial in range(1, 8)] == [[keyid]] * 6 + [[]]
