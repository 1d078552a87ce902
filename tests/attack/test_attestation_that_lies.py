"""A phone whose hardware does not vouch for it gets no label of an attestation, whatever it sends."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from cryptography import x509

from support.android_keys import Maker, Phone, explicit, integer
from support.enrolling import KeyedDevice
from support.server import Running, repository, serving
from whimbrel.errors import Refused, UntrustedInput
from whimbrel.server.android_key import AndroidKey, open_android_key
from whimbrel.trust.possession import attestation_challenge, base64url

CHALLENGE = b"c" * 32
MAKER, STRANGER = Maker(), Maker()
NOW = MAKER.now.timestamp()
VERIFIER = AndroidKey([MAKER.root])


@pytest.mark.parametrize(("level", "name"), [(1, "tee"), (2, "strongbox")])
def test_a_phone_that_its_maker_vouches_for_gets_its_labels(level: int, name: str) -> None:
    labels = VERIFIER.verify(MAKER.chain(CHALLENGE, Phone(level=level)), challenge=CHALLENGE, now=NOW)
    assert labels == {"attestation": "android-key", "attestation.level": name, "attestation.boot": "verified"}


@pytest.mark.parametrize(
    ("chain", "sentence"),
    [
        (lambda: STRANGER.chain(CHALLENGE), "does not end at a root"),  # of the same names
        (lambda: [*STRANGER.chain(CHALLENGE)[:2], MAKER.chain(CHALLENGE)[2]], "is not signed by the next"),
        (lambda: [STRANGER.chain(CHALLENGE)[0], *MAKER.chain(CHALLENGE)[1:]], "is not signed by the next"),
        (lambda: MAKER.chain(CHALLENGE)[:2], "does not end at a root"),
        (lambda: MAKER.chain(CHALLENGE)[2:], "does not end at a root"),
        (lambda: MAKER.chain(b"d" * 32), "another challenge"),
        (lambda: MAKER.chain(CHALLENGE, Phone(level=0)), "in software"),
        (lambda: MAKER.chain(CHALLENGE, Phone(locked=False)), "is unlocked"),
        (lambda: MAKER.chain(CHALLENGE, Phone(boot=1)), "booted in state 1"),
        (lambda: MAKER.chain(CHALLENGE, Phone(boot=2)), "booted in state 2"),
        (lambda: MAKER.chain(CHALLENGE, Phone(tells_boot=False)), "no root of trust"),
        (lambda: MAKER.chain(CHALLENGE, days=(-10, -1)), "not valid at this time"),
        (lambda: MAKER.chain(CHALLENGE, days=(1, 10)), "not valid at this time"),
        (lambda: MAKER.below_an_attested_key(CHALLENGE), "not in the leaf alone"),
        (lambda: MAKER.signed_by_a_leaf(CHALLENGE), "may sign no others"),
    ],
)
def test_a_chain_that_proves_nothing_is_refused(chain: Callable[[], list[bytes]], sentence: str) -> None:
    with pytest.raises(Refused, match=sentence):
        VERIFIER.verify(chain(), challenge=CHALLENGE, now=NOW)


@pytest.mark.parametrize(
    "leaf",
    [
        b"",
        b"\x30\x03\x02\x01",
        MAKER.chain(CHALLENGE, Phone(more=explicit(4000, integer(1))))[0],  # a field that nobody knows
        MAKER.chain(CHALLENGE, Phone(more=explicit(705, integer(1))))[0],  # one that comes twice
    ],
)
def test_a_leaf_that_is_not_understood_is_refused(leaf: bytes) -> None:
    with pytest.raises(UntrustedInput, match="the attestation cannot be read"):
        VERIFIER.verify([leaf, *MAKER.chain(CHALLENGE)[1:]], challenge=CHALLENGE, now=NOW)


@pytest.mark.parametrize("number", [0, 1])
def test_a_revoked_certificate_anywhere_in_the_chain_is_refused(tmp_path: Path, number: int) -> None:
    chain = MAKER.chain(CHALLENGE)
    serial = x509.load_der_x509_certificate(chain[number]).serial_number
    (tmp_path / "roots.pem").write_bytes(MAKER.root_pem)
    status = {"entries": {f"{serial:x}": {"status": "REVOKED", "reason": "KEY_COMPROMISE"}}}
    (tmp_path / "revoked.json").write_text(json.dumps(status))
    verifier = open_android_key({"roots": "roots.pem", "revoked": "revoked.json"}, tmp_path)
    with pytest.raises(Refused, match=f"certificate {number} of the attestation is revoked"):
        verifier.verify(chain, challenge=CHALLENGE, now=NOW)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = repository(tmp_path_factory.mktemp("served") / "repo", versions=1)
    (folder / "roots.pem").write_bytes(MAKER.root_pem)
    with (folder / "whimbrel.toml").open("a") as file:
        file.write('\n[attestation.android-key]\nroots = "roots.pem"\n')
    with serving(folder) as here:
        yield here


def attested(device: KeyedDevice, token: str | None, *, for_device: KeyedDevice | None = None) -> httpx.Response:
    """Enrol with an attestation; `for_device`: one that was made for that device."""
    challenge, owner = device.challenge(), for_device or device
    expected = attestation_challenge(challenge=challenge, device_id=owner.device_id, public_key=owner.public_key)
    chain = [base64url(each) for each in MAKER.chain(expected)]
    return device.enrol(token, challenge=challenge, attestation={"kind": "android-key", "chain": chain})


def test_an_attested_device_tells_its_labels_and_no_other_device_does(server: Running) -> None:
    token = (server.folder / "enrol.token").read_text().strip()
    with server.public() as http, server.people() as people:
        phone, liar = KeyedDevice(http, "phone"), KeyedDevice(http, "liar")
        stolen = attested(liar, token, for_device=phone)
        assert (stolen.status_code, "another challenge" in stolen.json()["detail"]) == (403, True)
        answer = attested(phone, token)
        assert (answer.status_code, answer.json()["labels"]["attestation.level"]) == (201, "tee")
        held = liar.enrol(token).json()
        assert "labels" not in held
        tells = {"models": {}, "labels": {"attestation": "android-key", "attestation.level": "tee"}}
        good, bad = phone.bearer(answer.json()["credential"]), liar.bearer(held["credential"])
        assert http.post("/device/v1/check", headers=good, json=tells).status_code == 200
        assert http.post("/device/v1/check", headers=bad, json=tells).status_code == 403
        shown = people.get("devices/phone").json()
        assert (shown["admission"], shown["granted_labels"]["attestation.boot"]) == ("attested", "verified")
        assert attested(liar, None).json()["labels"]["attestation"] == "android-key"  # later, with its key alone
        assert people.get("devices/liar").json()["admission"] == "attested"


def test_an_attestation_of_a_kind_that_nobody_verifies_is_refused(server: Running) -> None:
    token = (server.folder / "enrol.token").read_text().strip()
    with server.public() as http:
        device = KeyedDevice(http, "odd")
        refused = device.enrol(token, attestation={"kind": "trust-me", "chain": ["AAAA"]})
        assert (refused.status_code, "it verifies: android-key" in refused.json()["detail"]) == (403, True)
        bare = {"device_id": "odd", "enrol_token": token, "attestation": {"kind": "android-key", "chain": ["AAAA"]}}
        assert http.post("/device/v1/enrol", json=bare).status_code == 400
