"""Random policies, lines and devices: what laws about decisions are tried on."""

from hypothesis import strategies as st

from whimbrel.model.release import Line
from whimbrel.model.selector import EVERYONE, Selector
from whimbrel.policy.bucket import BUCKETS
from whimbrel.policy.policy import Arm, Entry, Layer, Pin, Policy, Quarantine
from whimbrel.policy.shadow import Shadow

serials = st.integers(1, 6)
labels = st.dictionaries(st.sampled_from(["region", "chip"]), st.sampled_from(["a", "b", ""]))
selectors = st.just(EVERYONE) | labels.map(lambda chosen: Selector(match_labels=chosen))
devices = st.integers(0, 10_000).map("dev-{}".format)


@st.composite
def arms(draw: st.DrawFn) -> Arm:
    start, end = sorted((draw(st.integers(0, BUCKETS)), draw(st.integers(0, BUCKETS))))
    role = draw(st.sampled_from(["treated", "control"]))
    shadow = draw(st.none() | st.just(Shadow(sample_ppm=1000))) if role == "treated" else None
    return Arm(
        role=role,
        name="arm",
        stage=draw(st.integers(0, 3)),
        serial=draw(serials),
        start=start,
        end=end,
        selector=draw(selectors),
        shadow=shadow,
    )


def several(what: st.SearchStrategy[object], most: int = 3) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(what, max_size=most).map(tuple)


@st.composite
def entries_of(draw: st.DrawFn) -> Entry:
    start, end = sorted((draw(st.integers(0, BUCKETS)), draw(st.integers(0, BUCKETS))))
    whole = draw(st.booleans())
    return Entry(
        rollout=draw(st.sampled_from(["r1", "r2"])),
        arms=draw(several(arms(), 4)),
        selector=draw(selectors),
        start=0 if whole else start,
        end=BUCKETS if whole else end,
        bucket_by=draw(st.none() | st.sampled_from(["region", "chip"])),
    )


entries = entries_of()
policies = st.builds(
    Policy,
    model=st.just("wake"),
    sequence=st.just(1),
    baseline=st.none() | serials,
    known_good=several(serials),
    layers=several(st.builds(Layer, salt=st.integers(0, 9), entries=several(entries)), 2),
    quarantine=several(st.builds(Quarantine, serial=serials, selector=selectors)),
    overrides=several(serials),
    pins=several(
        st.builds(Pin, serial=serials, devices=st.lists(devices, min_size=1, max_size=3).map(tuple))
        | st.builds(Pin, serial=serials, selector=selectors)
    ),
    on_revoked=st.sampled_from(["keep", "stop"]),
)
lines = st.builds(Line, model=st.just("wake"), sequence=st.just(1), minimum_serial=serials, revoked=several(serials))
