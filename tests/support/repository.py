"""A TUF repository for tests, with the roles of `trust/roles.py`, and an HTTP server that can misbehave.


repository = Repository(models=("detector",))
repository.release("detector", 1, variants=(...))
repository.policy("detector", baseline=1)
with Server(repository) as server: ...
"""

import gzip
import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Key,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from whimbrel import agefile
from whimbrel.model import documents
from whimbrel.model.release import File, Floor, Line, Probe, Release, Sealed, Signature, Tensor, TensorSpec, Variant
from whimbrel.policy.policy import Policy
from whimbrel.trust import roles
from whimbrel.trust.possession import Proof, check_proof, enrolment_text, token_text
from whimbrel.trust.sealing import ReleaseKeyRequest, seal_key

TOP = roles.ROOT, roles.TARGETS, roles.SNAPSHOT, roles.TIMESTAMP


def onnx_model(*, factor: float = 2.0, size: int = 4, padding: int = 0) -> bytes:
    """A real ONNX model: y = x * factor, x and y float32 [1, size]; `padding` more bytes."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    nodes = [helper.make_node("Mul", ["x", "factor"], ["y"])]
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, size])]
    taken = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, size])]
    constants = [numpy_helper.from_array(np.array([factor], dtype=np.float32), "factor")]
    graph = helper.make_graph(nodes, "test", given, taken, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    model.doc_string = "x" * padding
    content: bytes = model.SerializeToString()
    return content


def probe_of(*, factor: float = 2.0, size: int = 4, **changes: Any) -> Probe:
    """Golden values of `onnx_model`."""
    values = tuple(float(each) for each in range(size))
    return Probe(
        inputs={"x": Tensor(dtype="float32", shape=(1, size), values=values)},
        outputs={"y": Tensor(dtype="float32", shape=(1, size), values=tuple(each * factor for each in values))},
        **changes,
    )


def signature_of(*, size: int = 4) -> Signature:
    """The signature of `onnx_model`."""
    return Signature(
        inputs=(TensorSpec(name="x", dtype="float32", shape=(1, size)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=(1, size)),),
    )


def file_of(content: bytes, *, name: str = "model.onnx", **changes: Any) -> File:
    """The release's entry for `content`."""
    fields: dict[str, Any] = {"format": "onnx", **changes}
    return File(name=name, size_bytes=len(content), sha256=documents.digest_of(content), **fields)


def variant_of(content: bytes, *, probe: Probe | None = None, **changes: Any) -> Variant:
    """A variant with one ONNX file."""
    fields: dict[str, Any] = {"name": "cpu", "files": (file_of(content),), "probe": probe, **changes}
    return Variant(**fields)


class Repository:
    """Keys, roles and documents in memory. Every change is signed and served at once, unless `hold` is set."""

    def __init__(self, models: tuple[str, ...] = ("detector",), *, now: datetime | None = None) -> None:
        self.models = models
        self.now = now or datetime.now(UTC).replace(microsecond=0)
        names = [*TOP, *(name(model) for model in models for name in (roles.publisher_role, roles.policy_role))]
        self.signers = {name: CryptoSigner.generate_ed25519() for name in names}
        self.files: dict[str, bytes] = {}  # URL path below the namespace -> bytes
        self.blobs: dict[str, bytes] = {}
        self.sequences: dict[str, int] = {}
        self.release_keys: dict[tuple[str, int], str] = {}  # age identities of sealed releases
        self.sealed_digests: dict[tuple[str, int], str] = {}
        self.root = Root(expires=self._in(roles.ROOT_LIFE), consistent_snapshot=True)
        for name in TOP:
            self.root.add_key(self._key(name), name)
        self.delegated = {
            name(model): Targets(expires=self._in(roles.PUBLISHER_LIFE))
            for model in models
            for name in (roles.publisher_role, roles.policy_role)
        }
        self.targets = Targets(expires=self._in(roles.TARGETS_LIFE), delegations=self._delegations())
        self.snapshot = Snapshot(expires=self._in(roles.SNAPSHOT_LIFE))
        self.timestamp = Timestamp(expires=self._in(roles.TIMESTAMP_LIFE))
        self.snapshot.version = self.timestamp.version = 0
        self._metadata("1.root.json", self.root, "root")
        self._metadata("1.targets.json", self.targets, "targets")
        self.snapshot.meta["targets.json"] = MetaFile(1)
        for model in models:
            self.line(model)
        self.root_bytes = self.files["metadata/1.root.json"]

    # --- documents ---

    def blob(self, content: bytes) -> str:
        """Store an artifact; its digest."""
        digest = documents.digest_of(content)
        self.blobs[digest] = content
        return digest

    def release(self, model: str, serial: int, *contents: bytes, **changes: Any) -> Release:
        """Publish a release; `contents` become variants with one file unless `variants` is given."""
        for content in contents:
            self.blob(content)
        fields: dict[str, Any] = {
            "model": model,
            "serial": serial,
            "version": f"2026.03.05.{serial}",
            "semantic_version": f"1.{serial}.0",
            "build_hash": "0" * 12,
            "created": "2026-03-05T00:00:00Z",
            "variants": tuple(
                variant_of(content, name=f"cpu{index}" if index else "cpu") for index, content in enumerate(contents)
            ),
            **changes,
        }
        release = Release(**fields)
        self.put(roles.publisher_role(model), roles.release_path(model, serial), documents.encode(release))
        return release

    def sealed_release(self, model: str, serial: int, content: bytes, *, identity: str = "", **changes: Any) -> Release:
        """Publish a sealed release of one file. `identity`: what really opens it; else the key that is handed out."""
        key = self.release_keys[model, serial] = agefile.new_identity()
        sealed = agefile.seal_bytes(content, recipient=agefile.recipient_of(identity or key))
        digest = self.sealed_digests[model, serial] = self.blob(sealed)
        file = msgspec.structs.replace(file_of(content), sealed=Sealed(sha256=digest, size_bytes=len(sealed)))
        return self.release(model, serial, variants=(Variant(name="cpu", files=(file,)),), **changes)

    def line(self, model: str, **changes: Any) -> Line:
        """Publish the next line."""
        fields = {"model": model, "sequence": self._next(f"line {model}"), **changes}
        line = Line(**fields)
        self.put(roles.publisher_role(model), roles.line_path(model), documents.encode(line))
        return line

    def policy(self, model: str, **changes: Any) -> Policy:
        """Publish the next policy."""
        fields = {
            "model": model,
            "sequence": self._next(f"policy {model}"),
            "refresh_s": 0.1,
            "report_s": 0.1,
            **changes,
        }
        policy = Policy(**fields)
        self.put(roles.policy_role(model), roles.policy_path(model), documents.encode(policy))
        return policy

    def floor(self, model: str, *, sequence: int | None = None, days: int = 30, named: str = "") -> Floor:
        """Sign a floor; the first one delegates its role. `named`: the model that the document is about."""
        role, path = roles.floor_role(model), roles.floor_path(model)
        if role not in self.delegated:
            self.signers[role] = CryptoSigner.generate_ed25519()
            self.delegated[role] = Targets(expires=self._in(timedelta(days=days)))
            self.publish_targets()
        self.delegated[role].expires = self._in(timedelta(days=days))
        floor = Floor(model=named or model, sequence=sequence or self.sequences[f"line {model}"], days=days)
        self.put(role, path, documents.encode(floor))
        return floor

    def put(self, role: str, path: str, content: bytes) -> None:
        """Sign `content` as the target `path` of `role`, and everything above it."""
        target = TargetFile.from_data(path, content, ["sha256"])
        folder, _, name = path.rpartition("/")
        self.files[f"targets/{folder}/{target.hashes['sha256']}.{name}"] = content
        delegated = self.delegated[role]
        delegated.targets[path] = target
        delegated.version += 1 if f"{role}.json" in self.snapshot.meta else 0
        self.sign(role)

    def sign(self, role: str) -> None:
        """Sign a delegated role and publish it."""
        delegated = self.delegated[role]
        self._metadata(f"{delegated.version}.{role}.json", delegated, role)
        self.snapshot.meta[f"{role}.json"] = MetaFile(delegated.version)
        self.publish()

    def publish(self) -> None:
        """A new snapshot and a new timestamp."""
        self.snapshot.version += 1
        self._metadata(f"{self.snapshot.version}.snapshot.json", self.snapshot, "snapshot")
        self.renew()

    def publish_root(self) -> None:
        """The root as it is now, under its version."""
        self._metadata(f"{self.root.version}.root.json", self.root, "root")

    def new_keys(self) -> None:
        """Another key for every role but the root, which says so."""
        for name in self.signers:
            if name != "root":
                old, self.signers[name] = self.signers[name], CryptoSigner.generate_ed25519()
                if name in TOP:
                    self.root.revoke_key(old.public_key.keyid, name)
                    self.root.add_key(self._key(name), name)
        self.root.version += 1
        self.publish_root()
        self.publish_targets()
        for name, delegated in self.delegated.items():
            delegated.version += 1
            self.sign(name)

    def publish_targets(self) -> None:
        """The targets role as it delegates now, under its next version; the next snapshot lists it."""
        self.targets.delegations = self._delegations()
        self.targets.version += 1
        self._metadata(f"{self.targets.version}.targets.json", self.targets, "targets")
        self.snapshot.meta["targets.json"] = MetaFile(self.targets.version)

    def renew(self) -> None:
        """A new timestamp."""
        self.timestamp.version += 1
        self.timestamp.snapshot_meta = MetaFile(self.snapshot.version)
        self._metadata("timestamp.json", self.timestamp, "timestamp")

    # --- parts ---

    def _in(self, life: timedelta) -> datetime:
        return self.now + life

    def _key(self, name: str) -> Key:
        key: Key = self.signers[name].public_key
        return key

    def _next(self, what: str) -> int:
        self.sequences[what] = self.sequences.get(what, 0) + 1
        return self.sequences[what]

    def _metadata(self, name: str, signed: Any, role: str) -> None:
        metadata = Metadata(signed)
        metadata.sign(self.signers[role])
        self.files[f"metadata/{name}"] = metadata.to_bytes()

    def _delegations(self) -> Delegations:
        found, keys = {}, {}
        for model in self.models:
            for name, paths in (
                (roles.publisher_role(model), roles.publisher_paths(model)),
                (roles.policy_role(model), roles.policy_paths(model)),
                (roles.floor_role(model), [roles.floor_path(model)]),
            ):
                if name not in self.signers:
                    continue
                key = self._key(name)
                keys[key.keyid] = key
                found[name] = DelegatedRole(name, [key.keyid], 1, terminating=True, paths=paths)
        return Delegations(keys, found)


class Server:
    """Serves a repository, takes announcements and reports. `faults`: URL path -> what to do instead."""

    def __init__(self, repository: Repository, *, enrol_token: str = "t" * 32) -> None:
        self.repository = repository
        self.enrol_token = enrol_token
        self.asked: list[str] = []  # "GET metadata/timestamp.json 304"
        self.ranges: list[str] = []
        self.bytes_sent = 0
        self.compressed: list[str] = []  # what came as gzip: "reports"
        self.announced: list[dict[str, Any]] = []
        self.batches: list[dict[str, Any]] = []
        self.enrolled: list[dict[str, Any]] = []
        self.answers: dict[str, int] = {}  # device API path -> status to answer instead
        self.faults: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}
        self.tokens: set[str] = set()
        self.credentials: dict[str, str] = {}
        self.keys: dict[str, str] = {}  # public keys of devices
        self.granted: dict[str, str] = {}  # labels that the server gives
        self.gives_challenges = True  # False: as servers were before devices had keys
        self.down = False
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(self))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """The server's address."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def windows(self) -> list[dict[str, Any]]:
        """All windows that were reported."""
        return [window for batch in self.batches for window in batch["windows"]]

    def steps(self, device: str = "") -> list[str]:
        """The announced steps, in order."""
        return [each["step"] for each in self.announced if not device or each["device"] == device]

    def __enter__(self) -> "Server":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self.close()
        self._thread.join()

    def close(self) -> None:
        """Give the address back: for a server that was never started."""
        self._http.server_close()


def handler_of(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 64 * 1024  # head and body in one segment: no 40 ms for a delayed acknowledgement

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            path = self.path.removeprefix("/default/")
            if server.down:
                self.close_connection = True
                return
            if path in server.faults:
                server.faults[path](self)
                return
            if path.startswith("artifacts/"):
                content = server.repository.blobs.get(path.removeprefix("artifacts/"))
            else:
                content = server.repository.files.get(path)
            if content is None:
                self._answer(404, b"", {})
                return
            # As the server's own: an artifact is named by its digest, and whoever changes it on the way leaves the tag.
            digest = path.removeprefix("artifacts/") if path.startswith("artifacts/") else documents.digest_of(content)
            etag = f'"{digest}"'
            if self.headers.get("If-None-Match") == etag:
                self._answer(304, b"", {"ETag": etag})
            elif path.startswith("artifacts/"):
                self._artifact(content, etag)
            else:
                self._answer(200, gzip.compress(content), {"ETag": etag, "Content-Encoding": "gzip"})

        def _artifact(self, content: bytes, etag: str) -> None:
            wanted = self.headers.get("Range", "")
            server.ranges.append(wanted)
            headers = {"ETag": etag, "Accept-Ranges": "bytes"}
            if wanted and self.headers.get("If-Range", etag) == etag:
                start, _, stop = wanted.removeprefix("bytes=").partition("-")
                first, end = int(start), min(len(content), int(stop or len(content)) + 1)
                if first >= len(content):
                    self._answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
                    return
                headers["Content-Range"] = f"bytes {first}-{end - 1}/{len(content)}"
                self._answer(206, content[first:end], headers)
            else:
                self._answer(200, content, headers)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if server.down:
                self.close_connection = True
                return
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            what = self.path.removeprefix("/default/device/v1/")
            if self.headers.get("Content-Encoding") == "gzip":
                server.compressed.append(what)
            value = json.loads(body)
            status, answer = self._device(what, value)
            self._answer(status, json.dumps(answer).encode() if answer is not None else b"", {})

        def _device(self, what: str, value: dict[str, Any]) -> tuple[int, Any]:
            if what in server.answers:
                return server.answers[what], {"title": "as the test says"}
            if what == "challenge":
                if not server.gives_challenges:
                    return 404, {"title": "Not found"}
                return 200, {"challenge": f"challenge-{len(server.asked):08d}"}
            if what == "enrol":
                device, proof = value["device_id"], value.get("proof")
                knows = value.get("credential") == server.credentials.get(device, "")
                if value.get("enrol_token") != server.enrol_token and not knows:
                    return 401, {"title": "unknown token"}
                if proof is not None:
                    text = enrolment_text(
                        challenge=proof["challenge"],
                        device_id=device,
                        public_key=proof["public_key"],
                        enrol_token=value.get("enrol_token"),
                    )
                    check_proof(documents.convert(Proof, proof, what="a proof"), text)
                    server.keys[device] = proof["public_key"]
                server.enrolled.append(value)
                if knows:
                    kept = {"device_id": device, "credential": value["credential"]}
                    return 201, kept | {"public_key": proof["public_key"], "labels": server.granted}
                credential = f"credential-of-{value['device_id']}-{len(server.credentials)}"
                server.credentials[value["device_id"]] = credential
                answer = {"device_id": device, "credential": credential}
                return 201, answer if proof is None else answer | {
                    "public_key": proof["public_key"],
                    "labels": server.granted,
                }
            if what == "token":
                if server.credentials.get(value["device_id"]) != value["credential"]:
                    return 401, {"title": "unknown credential"}
                if (key := server.keys.get(value["device_id"])) is not None:
                    proof = documents.convert(Proof, value["proof"], what="a proof")
                    assert proof.public_key == key
                    text = token_text(
                        challenge=proof.challenge,
                        device_id=value["device_id"],
                        public_key=key,
                        credential=value["credential"],
                    )
                    check_proof(proof, text)
                token = f"token-of-{value['device_id']}"
                server.tokens.add(token)
                return 200, {"token": token, "expires_in_s": 3600} | ({"labels": server.granted} if key else {})
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            if token not in server.tokens:
                return 401, {"title": "no token"}
            if what == "release-key":
                asked = documents.convert(ReleaseKeyRequest, value, what="a request for a release key")
                device = token.removeprefix("token-of-")
                identity = server.repository.release_keys.get((asked.model, asked.serial))
                if identity is None:
                    return 404, {"title": "no sealed version"}
                named = {"namespace": "default", "model": asked.model, "serial": asked.serial, "device_id": device}
                sealed = seal_key(identity, asked.recipient, **named)
                return 200, {"model": asked.model, "serial": asked.serial, "sealed": sealed}
            if what == "announce":
                server.announced.append({**value, "device": token.removeprefix("token-of-")})
            else:
                server.batches.append({**value, "device": token.removeprefix("token-of-")})
            return 204, None

        def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            server.asked.append(f"{self.command} {self.path.removeprefix('/default/')} {status}")
            server.bytes_sent += len(body)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status not in {204, 304}:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if status not in {204, 304}:
                self.wfile.write(body)

    return Handler
