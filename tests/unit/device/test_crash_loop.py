"""The count of crashes in a row, and when a version is left for them."""

from whimbrel import limits
from whimbrel.device.crash_loop import CrashLoop, after_crashes, after_good, count_of, reason_to_leave
from whimbrel.device.slots import Content, Held


def held(serial: int = 2, slot: str = "b") -> Held:
    contents = (Content(name="model.onnx", sha256="a" * 64),)
    return Held(slot=slot, serial=serial, version=f"v{serial}", entry="model.onnx", contents=contents)


NEW = CrashLoop(serial=2, slot="b")


def after(*rows: list[str]) -> CrashLoop:
    loop = NEW
    for row in rows:
        loop = after_crashes(loop, row, still_there=[*loop.counted, *row])
    return loop


def test_crashes_one_after_the_other_are_counted_and_those_of_one_moment_count_once() -> None:
    assert after(["1-a"], ["1-b"], ["1-c"]).crashes == 3
    assert after(["1-a", "1-b", "1-c"]).crashes == 1


def test_a_crash_that_is_seen_again_counts_no_second_time() -> None:
    assert after(["1-a"], ["1-a"], ["1-a"]).crashes == 1
    assert after(["1-a"], ["1-a", "1-b"]).crashes == 2


def test_a_good_session_begins_the_row_anew_and_the_crashes_before_it_stay_counted() -> None:
    loop = after_good(after(["1-a"], ["1-b"]), still_there=["1-a", "1-b"])
    assert loop.crashes == 0
    assert after_crashes(loop, ["1-a", "1-b"], still_there=["1-a", "1-b"]).crashes == 0
    assert after_crashes(loop, ["1-a", "1-b", "1-c"], still_there=["1-a", "1-b", "1-c"]).crashes == 1


def test_a_session_that_lived_well_for_long_is_no_crash_of_a_row_whatever_ends_it() -> None:
    loop = after_good(NEW, names=["1-steady"], still_there=["1-steady"])
    assert after_crashes(loop, ["1-steady"], still_there=["1-steady"]).crashes == 0


def test_another_version_and_the_same_in_another_slot_begin_at_zero() -> None:
    kept = after(["1-a"], ["1-b"])
    assert count_of(kept, held()) == kept
    assert count_of(kept, held(serial=3)).crashes == 0
    assert count_of(kept, held(slot="a")).crashes == 0
    assert count_of(None, held()) == NEW


def test_the_count_forgets_sessions_whose_marks_are_gone_and_stays_small() -> None:
    loop = after_crashes(after(["1-a"]), ["1-b"], still_there=["1-b"])
    assert loop.counted == ("1-b",)
    assert after_good(after(["1-a"], ["1-b"]), names=["1-b", "1-c"], still_there=["1-b"]).counted == ("1-b",)
    most = 2 * limits.CRASHES_IN_A_ROW
    names = [f"1-{number:02}" for number in range(most + 1)]
    full = after(*([name] for name in names[:most]))
    assert full.counted == tuple(names[:most])
    assert after_crashes(full, names[most:], still_there=names).counted == tuple(names[1:])  # the newest are known
    many = [f"1-{number}" for number in range(1000)]
    assert len(after_crashes(NEW, many, still_there=many).counted) == 2 * limits.CRASHES_IN_A_ROW


def test_a_version_is_left_from_the_stated_number_on_and_never_where_it_is_zero() -> None:
    loop = after(["1-a"], ["1-b"], ["1-c"])
    assert reason_to_leave(loop, most=4) == ""
    assert reason_to_leave(loop, most=0) == ""
    assert reason_to_leave(loop, most=3) == "3 sessions of serial 2 ended their process one after the other"
