"""Laws of sums, buckets, decisions and documents."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.policies import devices, labels, lines, policies, serials, several
from support.values import SALT, cell
from whimbrel.errors import UntrustedInput
from whimbrel.health.pairs import Pairs
from whimbrel.health.report import Batch, Cohort, Summary, Window
from whimbrel.health.tally import Cell, Moments, add
from whimbrel.model.documents import encode, parse
from whimbrel.model.release import Line
from whimbrel.policy.bucket import BUCKETS, bucket, device_key
from whimbrel.policy.decide import Profile, decide
from whimbrel.policy.policy import Policy

modest = settings(max_examples=150, deadline=None)
counts = st.integers(0, 1000)
moments = st.builds(Moments, n=counts, sum=counts.map(float), sumsq=counts.map(float))
pairs = st.builds(
    Pairs, pairs=counts, squares=counts, now=counts.map(float), then=counts.map(float), both=counts.map(float)
)
cells = st.builds(
    cell,
    st.just("treated"),
    st.just(0),
    n=counts,
    crashed=counts,
    errors=counts.map(float),
    metrics=st.dictionaries(st.sampled_from(["accuracy", "f1"]), moments),
    pairs=st.dictionaries(st.sampled_from(["accuracy", "f1"]), pairs),
    latency=st.dictionaries(st.integers(-5, 5), counts),
    due=counts,
    overdue=counts,
)


@modest
@given(one=cells, other=cells, third=cells)
def test_tallies_merge_in_any_order(one: Cell, other: Cell, third: Cell) -> None:
    assert add(one, other) == add(other, one)
    assert add(add(one, other), third) == add(one, add(other, third))


@modest
@given(one=cells)
def test_an_empty_cell_adds_nothing(one: Cell) -> None:
    assert add(one, Cell(stage=0, window=0, role="treated")) == one


def test_cells_of_different_keys_are_not_added() -> None:
    with pytest.raises(ValueError, match="different keys"):
        add(cell("treated", 0, n=1), cell("treated", 1, n=1))


# --- decisions ---

profiles = st.builds(Profile, device_id=devices, labels=labels, refused=st.frozensets(serials, max_size=3))


@settings(max_examples=400, deadline=None)
@given(policy=policies, line=lines, profile=profiles)
def test_a_decision_is_always_made_and_never_forbidden(policy: Policy, line: Line, profile: Profile) -> None:
    decision = decide(policy, line, profile)
    assert (decision.serial is not None) == (decision.offer == "run")
    assert decision.because
    if decision.serial is not None:
        assert line.allows(decision.serial)
        assert decision.serial not in profile.refused - set(policy.overrides)
        assert not any(q.serial == decision.serial and q.selector.matches(profile.labels) for q in policy.quarantine)
    assert sum(each.role == "treated" for each in decision.assignments) <= 1


@modest
@given(policy=policies, line=lines, profile=profiles)
def test_a_decision_survives_the_wire(policy: Policy, line: Line, profile: Profile) -> None:
    sent = parse(Policy, encode(policy), what="a policy")
    assert sent == policy
    assert decide(sent, parse(Line, encode(line), what="a line"), profile) == decide(policy, line, profile)


@modest
@given(device=devices, lower=st.integers(0, BUCKETS), more=st.integers(0, BUCKETS))
def test_a_device_never_leaves_its_bucket_so_raising_a_share_only_adds(device: str, lower: int, more: int) -> None:
    place = bucket(device_key(device), salt=SALT)
    assert 0 <= place < BUCKETS
    assert place == bucket(device_key(device), salt=SALT)
    assert not (place < lower) or place < max(lower, more)


# --- documents ---

text = st.text(string.ascii_letters + "äß€😀", max_size=10)
windows = st.builds(
    Window,
    model=st.just("wake"),
    serial=st.none() | serials,
    first=st.just(1),
    last=st.integers(1, 9),
    hardware_class=text,
    sessions=counts,
    crashed=st.integers(0, 1),
    inferences=st.just(1000),
    errors=counts,
    cohorts=several(
        st.builds(
            Cohort,
            rollout=st.just("r1"),
            stage=st.integers(0, 3),
            role=st.sampled_from(["treated", "control"]),
            age_s=st.floats(0, 1e9),
        )
    ),
    metrics=st.dictionaries(
        st.sampled_from(["accuracy", "f1"]),
        st.builds(Summary, n=counts, sum=st.floats(-1e9, 1e9), sumsq=st.floats(0, 1e9)),
    ),
    latency=st.dictionaries(st.integers(-4000, 4000), counts, max_size=5),
)


@modest
@given(window=windows)
def test_a_report_is_read_back(window: Window) -> None:
    batch = Batch(epoch="f" * 16, windows=(window,))
    assert parse(Batch, encode(batch), what="a batch") == batch
    assert encode(parse(Batch, encode(batch), what="a batch")) == encode(batch)


@settings(max_examples=300, deadline=None)
@given(content=st.binary(max_size=80) | st.text('{}[]":,0123456789.eE+-truefalsenull\\ué', max_size=60).map(str.encode))
def test_any_bytes_are_a_document_or_refused(content: bytes) -> None:
    for kind in (Batch, Policy, Line):
        with pytest.raises(UntrustedInput):
            parse(kind, content, what="it")
