"""Golden bytes of what devices read and write. Changing one is a change of the format, and needs an ADR."""

import pytest

from whimbrel.health.report import Announcement
from whimbrel.model.documents import encode, parse
from whimbrel.model.release import Probe, Tensor, Validation
from whimbrel.policy.policy import Conditions, Entry, Window
from whimbrel.trust.enrolment import Enrolment


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
        (Announcement(model="wake", step="assigned", serial=2), b'{"model":"wake","serial":2,"step":"assigned"}'),
    ],
)
def test_bytes_stay(value: object, content: bytes) -> None:
    assert encode(value) == content
    assert parse(type(value), content, what="a vector") == value
