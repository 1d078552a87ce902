"""Who may use which buckets of a layer."""

from hypothesis import given
from hypothesis import strategies as st

from whimbrel.plan.ranges import Range, in_the_way
from whimbrel.policy.bucket import BUCKETS

cuts = st.floats(0, 100)


def test_ranges_that_touch_do_not_meet() -> None:
    low, high = Range.of_percent(0, 33.3), Range.of_percent(33.3, 100)
    assert not low.meets(high)
    assert (low.buckets + high.buckets, low.whole) == (BUCKETS, False)
    assert in_the_way(low, [("high", high), ("all", Range())]) == ["all"]


@given(a=cuts, b=cuts, c=cuts, d=cuts)
def test_ranges_meet_where_a_bucket_is_in_both(a: float, b: float, c: float, d: float) -> None:
    one, other = Range.of_percent(*sorted((a, b))), Range.of_percent(*sorted((c, d)))
    shared = max(0, min(one.end, other.end) - max(one.start, other.start))
    assert one.meets(other) == other.meets(one)
    assert not shared or one.meets(other)
    assert not (one.buckets and other.buckets) or one.meets(other) == (shared > 0)


def test_a_range_is_told_in_percent_of_the_layer() -> None:
    assert Range().words() == "0% to 100%"
    assert Range(333_333, 500_000).words() == "33.3333% to 50%"


def test_a_range_is_whole_only_with_every_bucket() -> None:
    assert Range().whole
    assert [Range(0, BUCKETS - 1).whole, Range(1, BUCKETS).whole] == [False, False]
    assert (Range(3, 10).buckets, Range.of_percent(12.5, 12.5001)) == (7, Range(125_000, 125_001))


def test_ranges_that_are_in_the_way_are_named_in_their_order() -> None:
    taken = [("b", Range(5, 9)), ("free", Range(9, 12)), ("a", Range(0, 6))]
    assert in_the_way(Range(4, 9), taken) == ["b", "a"]
