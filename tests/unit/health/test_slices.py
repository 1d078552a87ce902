"""Names of slices are unambiguous, whatever a device calls its hardware."""

from hypothesis import given
from hypothesis import strategies as st

from whimbrel.health.slices import HARDWARE, slice_name, slice_of, slices_of

LABELS = st.sampled_from([HARDWARE, "os", "region", "a.b/c-d"])
VALUES = st.text(st.sampled_from("ab=;os"), min_size=1, max_size=8)


@given(LABELS, VALUES, LABELS, VALUES)
def test_two_slices_never_share_a_name(label: str, value: str, other: str, another: str) -> None:
    assert slice_of(slice_name(label, value)) == (label, value)
    assert (slice_name(label, value) == slice_name(other, another)) == ((label, value) == (other, another))


def test_a_device_is_in_the_slices_of_the_labels_it_has() -> None:
    assert slices_of("pi5", {"region": "NZ", "os": ""}) == {HARDWARE: "pi5", "region": "region=NZ"}
    assert slices_of("", {}) == {}
    assert slices_of("os=b", {"os": "b"}) == {HARDWARE: "=os=b", "os": "os=b"}
