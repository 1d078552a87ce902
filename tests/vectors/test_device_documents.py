"""Golden bytes of what devices read and write. Changing one is a change of the format, and needs an ADR."""

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from whimbrel.health.report import Announcement
from whimbrel.model.documents import encode, parse
from whimbrel.model.release import Probe, Tensor, Validation
from whimbrel.policy.policy import Conditions, Entry, Window
from whimbrel.trust.enrolment import Enrolment
from whimbrel.trust.possession import attestation_challenge, enrolment_text, prove, token_text

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
CHALLENGE = "challenge-0000001"
PROOF = prove(KEY, b"text", challenge=CHALLENGE)


@pytest.mark.parametrize(
    ("value", "content"),
    [
        (Conditions(), b"{}"),
        (Conditions(window_utc=(3600, 7200), battery_min=0.5), b'{"battery_min":0.5,"window_utc":[3600,7200]}'),
        (
            Conditions(
                windows=(Window(start_s=79200, end_s=21600, zone="Europe/Berlin", days=("fri", "sat")),),
                storage_mib_min=500,
                metered_mib_a_day=20,
            ),
            b'{"metered_mib_a_day":20,"storage_mib_min":500,"windows":'
            b'[{"days":["fri","sat"],"end_s":21600,"start_s":79200,"zone":"Europe/Berlin"}]}',
        ),  # ADR 20
        (
            Announcement(model="wake", step="activated", serial=2, bytes_moved=70, moved_by={"delta": 30, "whole": 40}),
            b'{"bytes_moved":70,"model":"wake","moved_by":{"delta":30,"whole":40},"serial":2,"step":"activated"}',
        ),  # ADR 21
        (
            Probe(
                output_ranges={"y": (0.0, 1.0)},
                validation=Validation(
                    inputs={"x": Tensor(dtype="int8", shape=(1, 2), values=(1, 2))},
                    labels=(7,),
                    output="y",
                    accuracy_min=0.5,
                ),
            ),
            b'{"output_ranges":{"y":[0.0,1.0]},"validation":{"accuracy_min":0.5,"inputs":'
            b'{"x":{"dtype":"int8","shape":[1,2],"values":[1,2]}},"labels":[7],"output":"y"}}',
        ),  # ADR 22
        (
            Entry(rollout="r1", arms=(), delays_s=(1.0, 2.5)),
            b'{"arms":[],"delays_s":[1.0,2.5],"rollout":"r1"}',
        ),  # ADR 35
        (
            Enrolment(device_id="dev-1", enrol_token="t" * 16, labels={"region": "NZ"}, models=("wake", "sleep")),
            b'{"device_id":"dev-1","enrol_token":"tttttttttttttttt","labels":{"region":"NZ"},"models":["wake","sleep"]}',
        ),  # ADR 65
        (
            Enrolment(device_id="dev-1", enrol_token="t" * 16),
            b'{"device_id":"dev-1","enrol_token":"tttttttttttttttt"}',
        ),
        (
            Enrolment(device_id="dev-1", proof=PROOF, credential="c" * 16),
            b'{"credential":"cccccccccccccccc","device_id":"dev-1","proof":{"challenge":"challenge-0000001","public_key":'
            b'"A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg","signature":"'
            b'Qi73Dp16CGvRcMrKFj-pvLFfEZipa-QErbdz9S2UO9h8fJZhG2XlSHSsRn9uMkeWvL6JQrbg-28VdlhiBAHuBQ"}}',
        ),  # ADR 81
        (Announcement(model="wake", step="assigned", serial=2), b'{"model":"wake","serial":2,"step":"assigned"}'),
    ],
)
def test_bytes_stay(value: object, content: bytes) -> None:
    assert encode(value) == content
    assert parse(type(value), content, what="a vector") == value


def test_what_a_device_signs_stays() -> None:
    names = {"challenge": CHALLENGE, "device_id": "dev-1", "public_key": "p" * 43}
    lines = CHALLENGE.encode() + b"\ndev-1\n" + b"p" * 43
    token, credential = (hashlib.sha256(each * 16).hexdigest().encode() for each in (b"t", b"c"))
    assert enrolment_text(**names, enrol_token="t" * 16) == b"whimbrel enrol 1\n" + lines + b"\n" + token
    assert enrolment_text(**names, enrol_token=None) == b"whimbrel enrol 1\n" + lines + b"\n"
    assert token_text(**names, credential="c" * 16) == b"whimbrel token 1\n" + lines + b"\n" + credential
    assert attestation_challenge(**names) == hashlib.sha256(b"whimbrel attest 1\n" + lines).digest()
