"""Sealed versions over the admin API: published with their key, and handed out to devices that are entitled."""

from base64 import b64encode
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from support.accounts import refusal
from support.enrolling import KeyedDevice
from support.repository import file_of
from support.server_in_memory import NAMESPACE, ServerInMemory, server_in_memory
from support.values import T0
from whimbrel import agefile
from whimbrel.flows.publishing.publish import identify, write_release
from whimbrel.model.documents import digest_of, encode
from whimbrel.model.release import Release, Sealed, Training, Variant
from whimbrel.model.selector import Selector
from whimbrel.trust import roles
from whimbrel.trust.possession import prove, recipient_text
from whimbrel.trust.sealing import KeptReleaseKey, SealedReleaseKey, open_key, recipient_key_of

MODEL = "secret"


class Publisher:
    """What publishes sealed versions of a model."""

    def __init__(self, server: ServerInMemory) -> None:
        self.server, self.identity = server, agefile.new_identity()
        self.http = server.people()
        self.recipient = self.http.post("keys/sealing").raise_for_status().json()["recipient"]
        server.add_model(MODEL, sealed=True, sealed_for=Selector(match_labels={"tier": "pro"}))

    def release(self, *, sealed: bool = True) -> Release:
        content = b"a model that nobody may read"
        stored = agefile.seal_bytes(content, recipient=agefile.recipient_of(self.identity)) if sealed else content
        self.http.put(f"artifacts/{digest_of(stored)}", content=stored).raise_for_status()
        named = {"sealed": Sealed(sha256=digest_of(stored), size_bytes=len(stored))} if sealed else {}
        variants = [Variant(name="cpu", files=(file_of(content, **named),))]
        identity = identify([], variants=variants, version=None, semantic_version="1.0.0", now=self.server.today)
        return write_release(
            MODEL, identity, variants=variants, training=Training(), metrics={}, changelog=(), now=self.server.today
        )

    def kept(self, *, serial: int = 1, recipient: str = "") -> str:
        """The release's key, sealed to the server's, or another, sealing key."""
        key = KeptReleaseKey(namespace=NAMESPACE, model=MODEL, serial=serial, identity=self.identity)
        return b64encode(agefile.seal_bytes(encode(key), recipient=recipient or self.recipient)).decode()

    def publish(self, release: Release, sealed: dict[str, Any] | None) -> httpx.Response:
        path, document = roles.release_path(MODEL, 1), encode(release)
        publisher = self.server.signed(MODEL, {path: document})
        body = {"release": b64encode(document).decode(), "publisher": b64encode(publisher).decode()}
        return self.http.post(f"models/{MODEL}/versions", json=body | ({"sealed": sealed} if sealed else {}))


@pytest.fixture
def publisher() -> Any:
    with server_in_memory(versions=0) as server:
        yield Publisher(server)


def test_a_sealed_version_is_published_with_its_key(publisher: Publisher) -> None:
    answer = publisher.publish(publisher.release(), {"release_key": publisher.kept()})
    assert answer.status_code == 201
    assert answer.json()["baseline"] is True
    assert publisher.http.get(f"models/{MODEL}/versions/1/deltas").json()["deltas"] == []
    (entry,) = publisher.http.get("audit", params={"action": "publish"}).json()
    assert (entry["because"].endswith(", sealed"), entry["evidence"]["sealed"]) == (True, True)


@pytest.mark.parametrize(
    ("sealed", "key", "status", "words"),
    [
        (True, None, 400, "the release is sealed, and its key did not come with it; no device could open it"),
        (False, None, 403, "secret is sealed, and this release is not: its files would lie open on every server"),
        (
            True,
            {"serial": 2},
            400,
            "the key that is kept for secret at serial 1 of default is that of secret at serial 2",
        ),
        (True, {"recipient": agefile.recipient_of(agefile.new_identity())}, 400, ""),
    ],
)
def test_a_sealed_version_whose_key_this_server_could_not_open_leaves_nothing(
    publisher: Publisher, sealed: bool, key: dict[str, Any] | None, status: int, words: str
) -> None:
    parts = None if key is None else {"release_key": publisher.kept(**key)}
    assert words in refusal(publisher.publish(publisher.release(sealed=sealed), parts), status=status)
    assert publisher.http.get(f"models/{MODEL}/versions").json() == []


def enrolled(server: ServerInMemory, device_id: str, *, names: bool = True) -> X25519PrivateKey:
    """A device with a key of its own, that names the key to which release keys are sealed for it."""
    recipient = X25519PrivateKey.generate()
    with server.public() as http:
        device = KeyedDevice(http, device_id)
        challenge = device.challenge()
        text = recipient_text(
            challenge=challenge,
            device_id=device_id,
            public_key=device.public_key,
            recipient=recipient_key_of(recipient),
        )
        signature = prove(device.key, text, challenge=challenge).signature
        named = {"recipient": {"key": recipient_key_of(recipient), "signature": signature}} if names else {}
        device.enrol(server.enrol_token, challenge=challenge, **named).raise_for_status()
    return recipient


def test_a_bundle_gets_keys_for_devices_that_are_entitled_all_or_none(publisher: Publisher) -> None:
    server, http = publisher.server, publisher.http
    publisher.publish(publisher.release(), {"release_key": publisher.kept()}).raise_for_status()
    recipient = enrolled(server, "dev-1")
    ask = {"devices": ["dev-1"], "serials": [1]}
    path = f"models/{MODEL}/release-keys"
    assert "dev-1 is not entitled: the keys of this model are for tier=pro" in refusal(http.post(path, json=ask))
    http.post("devices/dev-1/labels", json={"labels": {"tier": "pro"}}).raise_for_status()
    server.clock.now = T0 + 1
    answer = server.person("rae").post(path, json=ask | {"because": "for the ship"}).raise_for_status().json()
    (key,) = answer["keys"]["dev-1"]
    assert (answer["model"], key["serial"]) == (MODEL, 1)
    sealed = SealedReleaseKey(model=MODEL, serial=1, sealed=key["sealed"])
    opened = open_key(sealed, recipient, namespace=NAMESPACE, model=MODEL, serial=1, device_id="dev-1")
    assert opened == publisher.identity
    (entry,) = http.get("audit", params={"action": "hand_out_release_keys"}).json()
    assert (entry["actor"], entry["because"], entry["evidence"]) == (
        "rae",
        "for the ship",
        {"serials": [1], "devices": ["dev-1"]},
    )
    http.post(path, json=ask).raise_for_status()
    assert http.get("audit", params={"limit": 1}).json()[0]["because"] == "for a bundle, to 1 device"
    enrolled(server, "dev-2", names=False)
    http.post("devices/dev-2/labels", json={"labels": {"tier": "pro"}}).raise_for_status()
    for devices, status, words in (
        (["dev-1", "none"], 404, "none"),
        (["dev-1", "dev-2"], 403, "dev-2 named no key to which release keys are sealed for it"),
    ):
        assert words in refusal(http.post(path, json=ask | {"devices": devices}), status=status)
    refusal(http.post(path, json=ask | {"serials": [2]}), status=404)
    http.post("devices/dev-1/block", json={}).raise_for_status()
    assert refusal(http.post(path, json=ask)) == "dev-1 is blocked; no key is sealed to it"
    assert "'release'" in refusal(server.machine("ci", "pipeline").post(path, json=ask))
    assert len(http.get("audit", params={"action": "hand_out_release_keys"}).json()) == 2


@pytest.mark.parametrize(
    ("ask", "words"), [({"devices": []}, "devices is 0 long"), ({"serials": []}, "serials is 0 long")]
)
def test_a_handout_names_devices_and_versions(publisher: Publisher, ask: dict[str, Any], words: str) -> None:
    body = {"devices": ["dev-1"], "serials": [1]} | ask
    assert words in refusal(publisher.http.post(f"models/{MODEL}/release-keys", json=body), status=400)
