"""Which attestations a server verifies, by its settings, and which labels may follow from one."""

from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from support.android_keys import Maker
from support.device_problems import problem_of
from support.enrolling import KeyedDevice
from support.server_in_memory import server_in_memory
from whimbrel.errors import Refused, UntrustedInput
from whimbrel.server import attestation
from whimbrel.server.attestation import Attestations
from whimbrel.trust.enrolment import Attestation
from whimbrel.trust.possession import attestation_challenge, base64url

CHAIN = ("AAAA", "BBBB")


class Verifier:
    """Believes everything. `given`: what it was asked."""

    def __init__(self, **labels: str) -> None:
        self.labels = labels
        self.given: list[Any] = []

    def verify(self, chain: Sequence[bytes], *, challenge: bytes, now: float) -> dict[str, str]:
        self.given.append((chain, challenge, now))
        return self.labels


def open_mine(settings: Mapping[str, Any], folder: Path) -> Verifier:
    """The verifier of another package."""
    return Verifier(attestation=f"{settings['level']} of {folder.name}")


def asked(kind: str = "mine") -> Attestation:
    return Attestation(kind=kind, chain=CHAIN)


def test_a_verifier_is_asked_with_the_chain_the_challenge_and_the_time() -> None:
    verifier = Verifier(**{"attestation": "mine", "attestation.level": "tee"})
    labels = Attestations({"mine": verifier}).verify(asked(), challenge=b"c", now=7.0)
    assert labels == {"attestation": "mine", "attestation.level": "tee"}
    assert verifier.given == [([b"\0\0\0", b"\x04\x10A"], b"c", 7.0)]


@pytest.mark.parametrize(("kinds", "words"), [((), "none"), (("tpm", "android-key"), "android-key, tpm")])
def test_a_kind_that_has_no_settings_is_refused_and_says_which_have(kinds: tuple[str, ...], words: str) -> None:
    verifiers = Attestations({kind: Verifier() for kind in kinds})
    with pytest.raises(Refused) as caught:
        verifiers.verify(asked(), challenge=b"c", now=7.0)
    assert str(caught.value) == f"this server verifies no attestation of kind 'mine'; it verifies: {words}"


def test_a_chain_that_is_no_base64url_is_refused() -> None:
    with pytest.raises(UntrustedInput, match="base64url"):
        Attestations({"mine": Verifier()}).verify(Attestation(kind="mine", chain=("A",)), challenge=b"c", now=7.0)


def test_a_verifier_gives_no_labels_but_its_own() -> None:
    verifier = Verifier(attestation="mine", site="oslo", attestations="x")
    with pytest.raises(Refused) as caught:
        Attestations({"mine": verifier}).verify(asked(), challenge=b"c", now=7.0)
    assert str(caught.value) == "the verifier of mine gave the labels attestations, site, which are not its own"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two packages bring verifiers; one of them cannot be loaded."""
    found = [
        EntryPoint("mine", "test_attestations:open_mine", attestation.GROUP),
        EntryPoint("broken", "no_such_package_at_all:open", attestation.GROUP),
    ]
    monkeypatch.setattr(attestation, "entry_points", lambda group: found if group == "whimbrel.attestation" else [])
    monkeypatch.setattr(
        EntryPoint,
        "load",
        lambda entry: open_mine if entry.name == "mine" else __import__(entry.module),
    )


@pytest.mark.usefixtures("installed")
def test_a_verifier_of_another_package_is_made_with_its_settings(tmp_path: Path) -> None:
    verifiers = Attestations.open({"mine": {"level": "high"}}, tmp_path)
    assert verifiers.verify(asked(), challenge=b"c", now=7.0) == {"attestation": f"high of {tmp_path.name}"}


@pytest.mark.usefixtures("installed")
def test_a_package_that_cannot_be_loaded_is_named_and_only_where_it_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UntrustedInput) as caught:
        Attestations.open({"broken": {}}, tmp_path)
    assert str(caught.value) == (
        "the verifier no_such_package_at_all:open of attestations of kind broken cannot be loaded: No module named "
        "'no_such_package_at_all'; install its package again, or take [attestation.broken] out of the settings"
    )


@pytest.mark.usefixtures("installed")
def test_settings_of_a_kind_that_nothing_verifies_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UntrustedInput) as caught:
        Attestations.open({"tpm": {}, "sgx": {}, "mine": {"level": "high"}}, tmp_path)
    assert str(caught.value) == (
        "nothing here verifies attestations of kind sgx, tpm; there are: android-key, mine; others are entry points of "
        "the group whimbrel.attestation"
    )


def test_a_server_without_settings_verifies_nothing(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="it verifies: none"):
        Attestations.open({}, tmp_path).verify(asked("android-key"), challenge=b"c", now=7.0)


def test_a_phone_is_enrolled_with_the_labels_of_its_hardware(tmp_path: Path) -> None:
    maker = Maker()
    (tmp_path / "roots.pem").write_bytes(maker.root_pem)
    settings = {"android-key": {"roots": str(tmp_path / "roots.pem")}}
    with server_in_memory(versions=0, attestation=settings) as server:
        server.clock.now = maker.now.timestamp()
        http = server.public()

        def enrol(phone: KeyedDevice, *, of: KeyedDevice) -> Any:
            challenge = phone.challenge()
            named = attestation_challenge(challenge=challenge, device_id=of.device_id, public_key=of.public_key)
            chain = [base64url(each) for each in maker.chain(named)]
            return phone.enrol(
                server.enrol_token, challenge=challenge, attestation={"kind": "android-key", "chain": chain}
            )

        phone, liar = KeyedDevice(http, "phone"), KeyedDevice(http, "liar")
        answer = enrol(phone, of=phone)
        assert answer.status_code == 201
        assert answer.json()["labels"] == {
            "attestation": "android-key",
            "attestation.level": "tee",
            "attestation.boot": "verified",
        }
        sentence = "the attestation is for another challenge; it must name this enrolment, its id and its key"
        assert problem_of(enrol(liar, of=phone)) == (403, "Refused", sentence)
        with server.stores() as stores:
            known = stores.enrolments.known("phone")
            assert (known is not None and known.admission) == "attested"
            assert stores.enrolments.known("liar") is None
        bearer = phone.bearer(answer.json()["credential"])
        tells = {"models": {}, "labels": {"attestation.level": "tee"}}
        assert http.post("/device/v1/check", headers=bearer, json=tells).status_code == 200
        tells = {"models": {}, "labels": {"attestation.level": "strongbox"}}
        assert http.post("/device/v1/check", headers=bearer, json=tells).status_code == 403
