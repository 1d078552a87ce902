"""A real server over real sockets: what devices and people may fetch, say and do, and what each error is."""

import gzip
import hashlib
import json
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.server import Running, done, model_file, plan_file, repository, serving
from support.values import EPOCH, window
from whimbrel.model.documents import encode
from whimbrel.server.auth import DeviceTokens


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Two versions of a model, and a server without the offline keys."""
    folder = repository(tmp_path_factory.mktemp("served") / "repo")
    (folder / "keys" / "offline").rename(folder.parent / "offline")
    with serving(folder) as here:
        yield here


@pytest.fixture
def public(server: Running) -> Iterator[httpx.Client]:
    with server.public() as client:
        yield client


@pytest.fixture
def people(server: Running) -> Iterator[httpx.Client]:
    with server.people() as client:
        yield client


@pytest.fixture
def device(server: Running) -> Iterator[httpx.Client]:
    with server.enrolled() as client:
        yield client


@pytest.fixture
def artifact(server: Running) -> tuple[str, bytes]:
    content = (server.folder.parent / "wake-1.onnx").read_bytes()
    return f"/artifacts/{hashlib.sha256(content).hexdigest()}", content


def is_problem(answer: httpx.Response, status: int, *words: str) -> None:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    body = answer.json()
    assert body["status"] == status
    assert body["title"]
    assert "Traceback" not in body["detail"]
    for word in words:
        assert word in body["detail"]


# --- static ---


def test_metadata_is_validated_by_its_tag(public: httpx.Client) -> None:
    first = public.get("/metadata/1.root.json")
    again = public.get("/metadata/1.root.json", headers={"if-none-match": first.headers["etag"]})
    assert (first.status_code, again.status_code, again.content) == (200, 304, b"")
    assert "content-length" not in again.headers
    assert "immutable" in first.headers["cache-control"]
    assert public.get("/metadata/1.root.json", headers={"if-none-match": "*"}).status_code == 304
    assert public.get("/metadata/1.root.json", headers={"if-none-match": '"other"'}).status_code == 200


def test_the_timestamp_and_a_root_that_is_not_there_are_kept_briefly(public: httpx.Client) -> None:
    assert public.get("/metadata/timestamp.json").headers["cache-control"] == "public, max-age=5"
    missing = public.get("/metadata/2.root.json")
    is_problem(missing, 404)
    assert missing.headers["cache-control"] == "public, max-age=5"


def test_metadata_is_compressed_where_that_is_accepted(public: httpx.Client) -> None:
    plain = public.get("/metadata/1.root.json", headers={"accept-encoding": "identity"})
    packed = public.get("/metadata/1.root.json", headers={"accept-encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.content == plain.content
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"])


def test_an_artifact_comes_whole_and_in_parts(public: httpx.Client, artifact: tuple[str, bytes]) -> None:
    path, content = artifact
    whole = public.get(path)
    assert whole.content == content
    assert whole.headers["etag"].strip('"') == path.rpartition("/")[2]
    part = public.get(path, headers={"range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, content[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(content)}"
    assert public.get(path, headers={"range": "bytes=-5"}).content == content[-5:]
    assert public.get(path, headers={"range": f"bytes={len(content) - 3}-"}).content == content[-3:]


def test_a_download_resumes_only_the_bytes_it_began(public: httpx.Client, artifact: tuple[str, bytes]) -> None:
    path, content = artifact
    tag = f'"{path.rpartition("/")[2]}"'
    assert public.get(path, headers={"range": "bytes=5-", "if-range": tag}).status_code == 206
    stale = public.get(path, headers={"range": "bytes=5-", "if-range": '"old"'})
    assert (stale.status_code, stale.content) == (200, content)


def test_a_range_at_the_very_end_cannot_be_satisfied(public: httpx.Client, artifact: tuple[str, bytes]) -> None:
    path, content = artifact
    answer = public.get(path, headers={"range": f"bytes={len(content)}-"})
    assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{len(content)}")


@pytest.mark.parametrize("wanted", ["bytes=5-2", "bytes=a-b", "items=0-1", "bytes=-", "bytes=0-1,3-4", "bytes"])
def test_a_range_that_is_not_understood_is_ignored(
    public: httpx.Client, artifact: tuple[str, bytes], wanted: str
) -> None:
    assert public.get(artifact[0], headers={"range": wanted}).status_code == 200


@pytest.mark.parametrize("path", ["/metadata/1.root.json", "artifact"])
def test_head_is_get_without_the_body(public: httpx.Client, artifact: tuple[str, bytes], path: str) -> None:
    path = artifact[0] if path == "artifact" else path
    head, get = public.head(path), public.get(path)
    assert head.content == b""
    for name in ("content-length", "etag", "cache-control"):
        assert head.headers[name] == get.headers[name]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/metadata/",
        "/metadata/../admin.token",
        "/metadata/%2e%2e/%2e%2e/admin.token",
        "/artifacts/" + "a" * 64,
        "/artifacts/x",
        "/targets/models/wake/1.json",
        "/../whimbrel.toml",
        "/keys/online/policy.pem",
        "/metadata/x.pem",
        "/artifacts/" + "a" * 64 + "%0A",
        "/admin/v1/status",
    ],
)
def test_nothing_else_is_there(public: httpx.Client, path: str) -> None:
    is_problem(public.get(path), 404)


def test_static_files_are_only_read(public: httpx.Client, artifact: tuple[str, bytes]) -> None:
    for method in ("PUT", "POST", "DELETE", "PATCH"):
        is_problem(public.request(method, artifact[0]), 405)


def test_the_frameworks_own_client_accepts_the_metadata(server: Running, tmp_path: Path) -> None:
    """python-tuf's Updater, from the root that devices are built with to the three documents of a model."""
    from tuf.ngclient import Updater

    (tmp_path / "targets").mkdir()
    updater = Updater(
        str(tmp_path / "metadata"),
        f"{server.devices}/default/metadata/",
        str(tmp_path / "targets"),
        f"{server.devices}/default/targets/",
        bootstrap=(server.folder / "root.json").read_bytes(),
    )
    updater.refresh()
    for path in ("models/wake/1.json", "models/wake/2.json", "models/wake/line.json", "policy/wake.json"):
        listed = updater.get_targetinfo(path)
        assert listed is not None
        document = json.loads(Path(updater.download_target(listed)).read_bytes())
        assert document["model"] == "wake"
    assert updater.get_targetinfo("models/wake/3.json") is None


# --- devices ---


def post(client: httpx.Client, name: str, body: Any, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post(f"/device/v1/{name}", content=content, headers=headers)


def batch(*windows: Any, **changes: Any) -> bytes:
    return encode({"epoch": EPOCH, "windows": windows} | changes)


def test_a_device_enrols_and_reports(device: httpx.Client, people: httpx.Client) -> None:
    answer = post(device, "reports", batch(window(1, cohorts=(), serial=1, latency={3: 4})))
    assert (answer.status_code, answer.content) == (204, b"")
    assert post(device, "announce", {"model": "wake", "step": "activated", "serial": 1}).status_code == 204
    zipped = gzip.compress(batch(window(2, cohorts=(), serial=1)))
    assert post(device, "reports", zipped, **{"content-encoding": "gzip"}).status_code == 204
    for _ in range(100):
        if people.get("/models/wake").json()["devices"]:
            break
        time.sleep(0.05)
    assert people.get("/models/wake").json()["devices"] == {people.get("/models/wake").json()["baseline_version"]: 1}


def test_a_client_that_cannot_decide_asks(device: httpx.Client, artifact: tuple[str, bytes]) -> None:
    answer = post(device, "check", {"models": {"wake": None, "sleep": None}})
    wake = answer.json()["models"]["wake"]
    assert (wake["offer"], wake["serial"], wake["semantic_version"]) == ("run", 1, "1.0.0")
    assert wake["files"][0]["sha256"] == artifact[0].rpartition("/")[2]
    assert answer.json()["models"]["sleep"]["offer"] == "keep"


BAD_BODIES: list[bytes] = [
    b"",
    b"{",
    b"null",
    b"[]",
    b"7",
    b'"x"',
    b"\xff\xfe",
    b'{"epoch": 7}',
    b"[" * 100_000,
    b"{}",
    batch(epoch="XYZ"),
    batch(extra=1),
    batch(window(2), window(1)),
    batch({"model": "wake"}),
    batch(labels={"a b": "c"}),
    batch(labels={"region": "x\0"}),
    batch(labels={"region": 7}),
    batch(encode_as := {"model": "wake", "serial": -1, "first": 1, "last": 1}),
    batch(encode_as | {"serial": 2**60}),
    batch(encode_as | {"serial": 1, "crashed": 2}),
    batch(encode_as | {"serial": 1, "errors": 5}),
    batch(encode_as | {"serial": 1, "hardware_class": "a\0"}),
]


@pytest.mark.parametrize("body", BAD_BODIES, ids=range(len(BAD_BODIES)))
@pytest.mark.parametrize("name", ["enrol", "token", "announce", "reports", "check"])
def test_a_body_that_cannot_be_understood_is_a_problem(device: httpx.Client, name: str, body: bytes) -> None:
    is_problem(post(device, name, body), 400, "cannot be read")


def test_a_body_that_is_too_large_is_refused(device: httpx.Client) -> None:
    is_problem(post(device, "reports", b"x" * (2**20 + 1)), 413)

    def dripping() -> Iterator[bytes]:
        for _ in range(20):
            yield b"x" * 100_000

    is_problem(device.post("/device/v1/reports", content=dripping()), 413)


@pytest.mark.parametrize(
    "body",
    [b"rubbish", gzip.compress(b"x" * 100, mtime=0)[:-12], b"\x1f\x8b\x08" + b"\xff" * 40, b""],
    ids=["rubbish", "cut", "headless", "empty"],
)
def test_what_is_no_gzip_is_a_problem(device: httpx.Client, body: bytes) -> None:
    is_problem(post(device, "reports", body, **{"content-encoding": "gzip"}), 400)


def test_a_gzip_bomb_is_refused_before_it_unpacks(device: httpx.Client) -> None:
    bomb = gzip.compress(b"\0" * 200_000_000)
    is_problem(post(device, "reports", bomb, **{"content-encoding": "gzip"}), 413)


def test_an_unknown_coding_is_a_problem(device: httpx.Client) -> None:
    is_problem(post(device, "reports", b"x", **{"content-encoding": "br"}), 400, "'br' is not understood")


def test_an_unknown_request_or_method_is_a_problem(device: httpx.Client) -> None:
    is_problem(post(device, "reboot", {}), 404, "enrol, token, announce")
    is_problem(device.get("/device/v1/check"), 405)
    is_problem(device.post("/device/v2/check", json={}), 404)


def test_a_wrong_enrolment_token_buys_nothing(public: httpx.Client) -> None:
    is_problem(post(public, "enrol", {"device_id": "dev-9", "enrol_token": "w" * 32}), 401)
    is_problem(post(public, "token", {"device_id": "dev-9", "credential": "w" * 32}), 401)


@pytest.mark.parametrize("name", ["../x", "a b", "", "-x", "d" * 129, "dev\n", "é"])
def test_a_device_id_that_is_none_is_refused(server: Running, public: httpx.Client, name: str) -> None:
    token = (server.folder / "enrol.token").read_text().strip()
    is_problem(post(public, "enrol", {"device_id": name, "enrol_token": token}), 400)


@pytest.mark.parametrize(
    "sent", [None, "Bearer", "Bearer x", "Bearer a.b", "Basic YTpi", "Bearer \xe9.\xe9", "Bearer ."]
)
@pytest.mark.parametrize("name", ["announce", "reports", "check"])
def test_what_is_no_device_token_opens_nothing(public: httpx.Client, name: str, sent: str | None) -> None:
    headers = {} if sent is None else {"authorization": sent.encode("latin-1")}
    answer = public.post(f"/device/v1/{name}", content=b"{}", headers=headers)
    is_problem(answer, 401)


def test_tokens_of_other_keys_times_and_namespaces_open_nothing(server: Running, public: httpx.Client) -> None:
    ours = DeviceTokens.open(server.folder / "keys" / "online" / "device-tokens.key")
    forged = DeviceTokens(b"0" * 32).issue("default", "dev-1", now=time.time())
    expired = ours.issue("default", "dev-1", now=time.time() - 3601)
    elsewhere = ours.issue("other", "dev-1", now=time.time())
    for token, words in ((forged, "was not made here"), (expired, "is over"), (elsewhere, "'other'")):
        answer = post(public, "check", {"models": {}}, authorization=f"Bearer {token}")
        is_problem(answer, 401, words)


# --- people ---


def test_the_admin_api_refuses_without_its_token(server: Running) -> None:
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic x"}):
        for path in ("status", "models", "keys", "audit", "roles/root", "rollouts"):
            is_problem(httpx.get(f"{server.admin}/default/admin/v1/{path}", headers=headers, trust_env=False), 401)
    is_problem(httpx.get(f"{server.admin}/other/admin/v1/status", headers=server.bearer, trust_env=False), 401)


def test_an_enrolment_token_is_no_admin_token(server: Running) -> None:
    token = (server.folder / "enrol.token").read_text().strip()
    headers = {"authorization": f"Bearer {token}"}
    is_problem(httpx.get(f"{server.admin}/default/admin/v1/status", headers=headers, trust_env=False), 401)


def test_the_schema_is_openapi_3_1(server: Running) -> None:
    schema = httpx.get(f"{server.admin}/schema/openapi.json", trust_env=False)
    short = httpx.get(f"{server.admin}/schema", trust_env=False, follow_redirects=True)
    assert short.json()["openapi"].startswith("3.1")
    assert "/{namespace}/admin/v1/rollouts" in short.json()["paths"]
    assert schema.status_code in {200, 404}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/rollouts", b"{"),
        ("POST", "/rollouts", b"[]"),
        ("POST", "/rollouts", b'{"plan": 7}'),
        ("POST", "/rollouts", b'{"plan": "rollout: {}"}'),
        ("POST", "/rollouts", b'{"plan": "\\t"}'),
        ("POST", "/rollouts", b'{"plan": "a", "hour_s": 0}'),
        ("POST", "/models", b'{"name": "x"}'),
        ("PATCH", "/models/wake", b'{"refresh_s": "soon"}'),
        ("PATCH", "/models/wake", b'{"unknown": 1}'),
        ("PATCH", "/models/wake", b'{"refresh_s": -1}'),
        ("PATCH", "/models/wake", b'{"refresh_s": "60"}'),
        ("PUT", "/models/wake/aliases/UPPER", b'{"version": "1.0.0"}'),
        ("PUT", "/artifacts/xyz", b"x"),
        ("GET", "/audit?limit=0", b""),
        ("GET", "/audit?limit=x", b""),
        ("POST", "/collect?older_than_s=-1", b""),
    ],
)
def test_a_request_of_people_that_cannot_be_understood_is_a_problem(
    people: httpx.Client, method: str, path: str, body: bytes
) -> None:
    is_problem(people.request(method, path, content=body, headers={"content-type": "application/json"}), 400)


@pytest.mark.parametrize(
    "path",
    [
        "/models/sleep",
        "/models/wake/versions/9.9.9",
        "/rollouts/none",
        "/nothing",
        "/roles/none",
        "/models/sleep/versions",
    ],
)
def test_what_is_not_there_is_not_found(people: httpx.Client, path: str) -> None:
    is_problem(people.get(path), 404)


def test_an_unknown_move_says_which_there_are(people: httpx.Client) -> None:
    is_problem(people.post("/rollouts/x/dance", json={}), 404, "pause, resume, finish, abort, rollback")


def test_an_artifact_with_another_digest_is_not_kept(server: Running, people: httpx.Client) -> None:
    digest = "b" * 64
    is_problem(people.put(f"/artifacts/{digest}", content=b"other bytes"), 400, "send them again")
    assert people.head(f"/artifacts/{digest}").status_code == 404
    folder = server.folder / "files" / "default" / "artifacts"
    assert not [path for path in folder.iterdir() if digest in path.name]


def test_an_artifact_sent_twice_is_stored_once(people: httpx.Client, artifact: tuple[str, bytes]) -> None:
    assert people.head(artifact[0]).status_code == 200
    assert people.put(artifact[0], content=artifact[1]).status_code in {200, 201}


def test_an_upload_that_breaks_off_leaves_nothing(server: Running, people: httpx.Client) -> None:
    digest = "c" * 64
    host, _, port = server.admin.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port))) as raw:
        head = f"PUT /default/admin/v1/artifacts/{digest} HTTP/1.1\r\nhost: x\r\ncontent-length: 9000000\r\n"
        raw.sendall(f"{head}authorization: {server.bearer['authorization']}\r\n\r\n".encode() + b"x" * 100_000)
        time.sleep(0.2)
    folder = server.folder / "files" / "default" / "artifacts"
    for _ in range(40):
        if not [path for path in folder.iterdir() if digest in path.name]:
            break
        time.sleep(0.05)
    assert not [path for path in folder.iterdir() if digest in path.name]
    assert people.head(f"/artifacts/{digest}").status_code == 404


# --- publishing over the wire, and rollouts ---


@pytest.fixture
def fresh(tmp_path: Path, server: Running) -> Iterator[Running]:
    """A server of its own, with its offline keys, for tests that change things."""
    source = server.folder.parent
    made = repository(tmp_path / "repo", versions=0)
    assert source.exists()
    done("model", "add", "wake", "-R", made, "--salt", 42)
    with serving(made) as here:
        yield here


def remote(here: Running) -> tuple[str, ...]:
    return (
        "--server",
        here.admin,
        "--token-file",
        str(here.folder / "admin.token"),
        "--keys",
        str(here.folder / "keys" / "offline"),
    )


def test_a_version_is_answered_with_its_release_key_by_key_as_it_was_signed(fresh: Running, tmp_path: Path) -> None:
    done("publish", "-m", "wake", model_file(tmp_path, 1), "--semantic-version", "1.0.0", *remote(fresh))
    (signed,) = (fresh.folder / "files" / "default" / "targets" / "models" / "wake").glob("*.1.json")
    with fresh.people() as people:
        answer = people.get("/models/wake/versions/1.0.0")
    assert answer.json()["release"] == json.loads(signed.read_bytes())
    assert signed.read_bytes() in answer.content


@pytest.mark.usefixtures("buckets_by_name")  # 5% of the draws are in the canary
def test_a_version_published_over_the_wire_reaches_devices_and_rolls_out(fresh: Running, tmp_path: Path) -> None:
    for number in (1, 2):
        done(
            "publish", "-m", "wake", model_file(tmp_path, number), "--semantic-version", f"{number}.0.0", *remote(fresh)
        )
    begun = done("rollout", "start", plan_file(tmp_path), *remote(fresh))
    assert begun["state"] == "running"
    with fresh.enrolled() as device:
        assert post(device, "check", {"models": {"wake": None}}).json()["models"]["wake"]["serial"] == 1
    back = done("rollout", "rollback", begun["id"], "--because", "a test", *remote(fresh))
    assert back["state"] == "rolled_back"
    with fresh.people() as people:
        is_problem(people.post(f"/rollouts/{begun['id']}/pause", json={}), 409, "rolled back takes no pause")
        is_problem(people.post("/rollouts", json={"plan": plan_file(tmp_path).read_text()}), 403, "a test")


def test_somebody_who_was_first_wins(fresh: Running, tmp_path: Path) -> None:
    """The same publisher's role sent twice: compare-and-swap on its version refuses the second."""
    from datetime import UTC, datetime

    from whimbrel.model.release import Line
    from whimbrel.stores.signer import load_signer
    from whimbrel.stores.tuf_repository import publish_documents

    done("publish", "-m", "wake", model_file(tmp_path, 1), *remote(fresh))
    with fresh.people() as people:
        role = people.get("/roles/publisher-wake").content
        signer = load_signer(fresh.folder / "keys" / "offline" / "publisher-wake.pem")
        line = encode(Line(model="wake", sequence=2, revoked=(9,)))
        signed = publish_documents(role, {"models/wake/line.json": line}, signer=signer, now=datetime.now(UTC))
        body = encode({"line": line, "publisher": signed})
        headers = {"content-type": "application/json"}
        assert people.put("/models/wake/line", content=body, headers=headers).status_code == 200
        is_problem(people.put("/models/wake/line", content=body, headers=headers), 409, "3 is next")
        shrunk = encode(Line(model="wake", sequence=3))
        shorter = publish_documents(signed, {"models/wake/line.json": shrunk}, signer=signer, now=datetime.now(UTC))
        refused = people.put(
            "/models/wake/line", content=encode({"line": shrunk, "publisher": shorter}), headers=headers
        )
        is_problem(refused, 403, "only grows")
        line = encode(Line(model="wake", sequence=3, revoked=(9,)))
        other = load_signer(fresh.folder / "keys" / "offline" / "targets.pem")
        forged = publish_documents(signed, {"models/wake/line.json": line}, signer=other, now=datetime.now(UTC))
        refused = people.put("/models/wake/line", content=encode({"line": line, "publisher": forged}), headers=headers)
        is_problem(refused, 400, "not signed by a key")


def test_a_server_that_starts_again_goes_on(fresh: Running, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(fresh.folder, copy)
    shutil.rmtree(copy / "keys" / "offline")
    with serving(copy) as again, again.public() as public:
        assert public.get("/metadata/timestamp.json").status_code == 200
