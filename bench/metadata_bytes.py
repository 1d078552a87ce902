"""How many bytes of signed metadata does a device of one model move, in a repository of a thousand models?

Each figure is taken with the agent's own trust client and the server's own static files, over HTTP on loopback. A relay
between the two counts what passes in both directions: requests, headers and bodies. A device is warm: it refreshed
once.

- unchanged: a refresh with nothing new;
- one change, 10k and 100k: its model gets a new version with patches, and a rollout of it begins, in a repository with
  10 and with 100 releases of each model. The device fetches the timestamp, the snapshot (which lists the 2,000 roles),
  both roles of its model, the policy, the release and its delta index.

What no device of this model asks for is not written: the roles of other models are in the snapshot and in the
delegations, with version numbers as after so many publications. `first` is what a new device fetches once.

`--quick`: the same, which takes seconds. `--json`: the last line is one object with `ok` and the figures.
"""

import argparse
import asyncio
import hashlib
import json
import random
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvicorn
from securesystemslib.signer import CryptoSigner, Key
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from whimbrel.agent.disk import RealDisk
from whimbrel.agent.transport import HttpNetwork
from whimbrel.agent.tuf_client import TrustClient
from whimbrel.model.documents import encode
from whimbrel.model.release import File, Line, Release, Variant
from whimbrel.model.ways import DeltaIndex, Step
from whimbrel.policy.policy import Arm, Entry, Layer, Policy
from whimbrel.server.http import Scope, Send
from whimbrel.server.static import Static
from whimbrel.stores.blobs import Blobs
from whimbrel.trust import roles

MODELS, MODEL = 1000, "model-0500"
UNCHANGED, ONE_CHANGE = 1024, {10: 16_384, 100: 49_152}  # the promises, in bytes
_SERIALIZER = JSONSerializer(compact=False)  # as the server's (stores/tuf_repository)
_TOP = roles.ROOT, roles.TARGETS, roles.SNAPSHOT, roles.TIMESTAMP


class Repository:
    """What devices of `MODEL` can ask for, in a folder."""

    def __init__(self, folder: Path, *, releases: int) -> None:
        self._files = folder / "default"
        self._chance, self._now = random.Random(releases), datetime.now(UTC).replace(microsecond=0)
        self._keys = {name: CryptoSigner.generate_ed25519() for name in (*_TOP, "publisher", "policy")}
        self._serial, self._sequence = releases, 6 * releases
        self._publisher = Targets(version=releases + 1, expires=self._now + roles.PUBLISHER_LIFE)
        self._policy = Targets(version=6 * releases, expires=self._now + roles.POLICY_LIFE)
        self._snapshot = Snapshot(version=6000 * releases, expires=self._now + roles.SNAPSHOT_LIFE)
        self._timestamp = Timestamp(version=9000 * releases, expires=self._now + roles.TIMESTAMP_LIFE)
        self.root = self._top(releases)
        for serial in range(1, releases + 1):
            self._publish(serial)
        self._list(self._publisher, roles.line_path(MODEL), encode(Line(model=MODEL, sequence=1)))
        self._list(self._policy, roles.policy_path(MODEL), encode(Policy(model=MODEL, sequence=1, baseline=releases)))
        self._sign()

    def change(self) -> int:
        """A new version with patches, and the beginning of its rollout. Returns the serial."""
        self._serial += 1
        self._publish(self._serial)
        arms = tuple(
            Arm(
                role=role,
                name=f"{role}-{stage}",
                stage=stage,
                serial=self._serial - (role == "control"),
                start=0,
                end=end,
            )
            for stage, end in enumerate((50_000, 250_000, 900_000))
            for role in ("treated", "control")
        )
        entry = Entry(rollout=f"{MODEL}-2-490128", arms=arms, delays_s=tuple(7.5 * each for each in range(16)))
        policy = Policy(
            model=MODEL,
            sequence=2,
            baseline=self._serial - 1,
            layers=(Layer(salt=self._chance.randrange(2**53), entries=(entry,)),),
            report_labels=("region",),
        )
        self._list(self._policy, roles.policy_path(MODEL), encode(policy))
        self._publisher.version += 1
        self._policy.version += 2
        self._sign()
        return self._serial

    def _top(self, releases: int) -> bytes:
        root = Root(version=1, expires=self._now + roles.ROOT_LIFE, consistent_snapshot=True)
        for name in _TOP:
            root.add_key(self._keys[name].public_key, name)
        self._write("metadata/1.root.json", root, roles.ROOT)
        keys: dict[str, Key] = {}
        listed: dict[str, DelegatedRole] = {}
        policy_key = self._keys["policy"].public_key
        for number in range(MODELS):
            model = f"model-{number:04d}"
            publisher = self._keys["publisher"] if model == MODEL else CryptoSigner.generate_ed25519()
            for role, paths, key in (
                (roles.publisher_role(model), roles.publisher_paths(model), publisher.public_key),
                (roles.policy_role(model), roles.policy_paths(model), policy_key),
            ):
                keys[key.keyid] = key
                listed[role] = DelegatedRole(role, [key.keyid], 1, terminating=True, paths=paths)
            self._snapshot.meta[f"{roles.publisher_role(model)}.json"] = MetaFile(self._some(releases))
            self._snapshot.meta[f"{roles.policy_role(model)}.json"] = MetaFile(self._some(6 * releases))
        version = MODELS + 1
        targets = Targets(
            version=version, expires=self._now + roles.TARGETS_LIFE, delegations=Delegations(keys, listed)
        )
        self._snapshot.meta["targets.json"] = MetaFile(version)
        self._write(f"metadata/{version}.targets.json", targets, roles.TARGETS)
        return (self._files / "metadata/1.root.json").read_bytes()

    def _some(self, most: int) -> int:
        return self._chance.randrange(max(1, most // 2), 2 * most)

    def _publish(self, serial: int) -> None:
        files = [(f"cpu{each}", self._digest()) for each in range(4)]
        variants = tuple(
            Variant(
                name=name,
                files=(File(name="model.onnx", size_bytes=4_000_000, sha256=digest, format="onnx"),),
            )
            for name, digest in files
        )
        release = Release(
            model=MODEL,
            serial=serial,
            version=f"2026.03.05.{serial}",
            semantic_version=f"1.{serial}.0",
            build_hash=self._digest()[:12],
            created="2026-03-05T00:00:00Z",
            variants=variants,
            metrics={"accuracy": 0.9, "latency_ms": 3.1},
        )
        steps = tuple(
            Step(
                base=self._digest(),
                target=digest,
                sha256=self._digest(),
                size_bytes=90_000,
                target_bytes=4_000_000,
                codec="whimbrel-delta-1",
            )
            for _, digest in files
            for _ in range(3)
        )
        index = DeltaIndex(model=MODEL, serial=serial, steps=steps)
        self._list(self._publisher, roles.release_path(MODEL, serial), encode(release))
        self._list(self._policy, roles.deltas_path(MODEL, serial), encode(index))

    def _digest(self) -> str:
        return hashlib.sha256(self._chance.randbytes(32)).hexdigest()

    def _list(self, role: Targets, path: str, content: bytes) -> None:
        role.targets[path] = target = TargetFile.from_data(path, content, ["sha256"])
        folder, _, name = path.rpartition("/")
        self._put(f"targets/{folder}/{target.hashes['sha256']}.{name}", content)

    def _sign(self) -> None:
        for name, role, key in (
            (roles.publisher_role(MODEL), self._publisher, "publisher"),
            (roles.policy_role(MODEL), self._policy, "policy"),
        ):
            self._snapshot.meta[f"{name}.json"] = MetaFile(role.version)
            self._write(f"metadata/{role.version}.{name}.json", role, key)
        self._snapshot.version += 1
        self._write(f"metadata/{self._snapshot.version}.snapshot.json", self._snapshot, roles.SNAPSHOT)
        self._timestamp.version += 1
        self._timestamp.snapshot_meta = MetaFile(self._snapshot.version)
        self._write("metadata/timestamp.json", self._timestamp, roles.TIMESTAMP)

    def _write(self, path: str, signed: Any, key: str) -> None:
        metadata = Metadata(signed)
        metadata.sign(self._keys[key])
        self._put(path, metadata.to_bytes(_SERIALIZER))

    def _put(self, path: str, content: bytes) -> None:
        place = self._files / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)


class Relay:
    """Passes bytes on to a server, and counts those of both directions."""

    def __init__(self, port: int) -> None:
        self.counted = 0
        self._to = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def taken(self) -> int:
        """The bytes since the last call."""
        counted, self.counted = self.counted, 0
        return counted

    def _accept(self) -> None:
        while True:
            device, _ = self._listening.accept()
            server = socket.create_connection(("127.0.0.1", self._to))
            for source, sink in ((device, server), (server, device)):
                threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        while content := source.recv(65536):
            self.counted += len(content)
            sink.sendall(content)
        sink.close()


@contextmanager
def serving(folder: Path) -> Iterator[int]:
    """The server's static files on a port of their own, in a thread."""
    static = Static(Blobs.open(str(folder), base=folder))

    async def answer(scope: Scope, _: Any, send: Send) -> None:
        namespace, _, path = scope["path"].removeprefix("/").partition("/")
        await static.answer(scope, send, namespace=namespace, path=path)

    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(answer, log_level="error", lifespan="off", server_header=False))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])), daemon=True)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)


def measured(releases: int) -> dict[str, int]:
    """The bytes of a device's first refresh, of one with nothing new, and of one after a change."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="whimbrel-bench-")))
        repository = Repository(folder / "files", releases=releases)
        relay = Relay(stack.enter_context(serving(folder / "files")))
        disk = RealDisk()
        disk.make_folder(folder / "trust")
        client = TrustClient(
            folder / "trust",
            url=f"http://127.0.0.1:{relay.port}/default",
            root=repository.root,
            models=(MODEL,),
            disk=disk,
            network=HttpNetwork(),
        )
        now = datetime.now(UTC).timestamp()
        client.refresh(now)
        client.release(MODEL, releases, now)
        first = relay.taken()
        if client.refresh(now):
            raise SystemExit("a refresh with nothing new found something")
        unchanged = relay.taken()
        serial = repository.change()
        time.sleep(0.5)  # the server keeps a timestamp for a moment
        if not client.refresh(now + 1) or client.policies[MODEL].sequence != 2:
            raise SystemExit(f"the change did not arrive: {client.problems}")
        client.release(MODEL, serial, now + 1)
        if client.deltas(MODEL, serial, now + 1) is None:
            raise SystemExit("the new version has no delta index")
        return {"first": first, "unchanged": unchanged, "one_change": relay.taken()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the same: it takes seconds")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    options = parser.parse_args()
    figures = {releases: measured(releases) for releases in ONE_CHANGE}
    unchanged = max(each["unchanged"] for each in figures.values())
    print(f"{'bytes, both directions':<28}{'measured':>10}{'promised':>10}")
    print(f"{'nothing new':<28}{unchanged:>10,}{UNCHANGED:>10,}")
    for releases, promised in ONE_CHANGE.items():
        what = f"one change, {MODELS} x {releases}"
        print(f"{what:<28}{figures[releases]['one_change']:>10,}{promised:>10,}")
        print(f"{f'once, {MODELS} x {releases}':<28}{figures[releases]['first']:>10,}{'':>10}")
    ok = unchanged <= UNCHANGED and all(figures[each]["one_change"] <= most for each, most in ONE_CHANGE.items())
    if options.json:
        named = {f"one_change_{MODELS * each // 1000}k_bytes": figures[each]["one_change"] for each in ONE_CHANGE}
        first = {f"first_{MODELS * each // 1000}k_bytes": figures[each]["first"] for each in ONE_CHANGE}
        print(json.dumps({"ok": ok, "unchanged_bytes": unchanged, **named, **first}))
    raise SystemExit(0 if ok else 1)


if __name__ == "__main__":
    main()
