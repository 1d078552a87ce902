"""What a report may not say, and what its windows add up to."""

import pytest

from support.values import EPOCH, window
from whimbrel import limits
from whimbrel.errors import UntrustedInput
from whimbrel.health.report import Batch, Summary
from whimbrel.health.run_history import (
    RunEntry,
    RunHead,
    beginning_of,
    read_chain,
    read_entry,
    read_head,
    text_to_sign,
)
from whimbrel.health.user_report import UserReport
from whimbrel.model.documents import digest_of, encode


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"first": 3, "last": 2}, "a window's first sequence 3 comes after its last 2"),
        ({"errors": 11, "inferences": 10}, "11 errors in 10 inferences"),
    ],
)
def test_a_window_that_contradicts_itself_is_refused_as_that(changes: dict[str, int], refusal: str) -> None:
    with pytest.raises(ValueError, match=rf"^{refusal}$"):
        window(**changes)
    assert (window(first=3, last=3).first, window(errors=10, inferences=10).errors) == (3, 10)


@pytest.mark.parametrize("sequences", [((1, 2), (2, 3)), ((4, 5), (1, 1))])
def test_windows_of_a_batch_that_overlap_or_go_back_are_refused(sequences: tuple[tuple[int, int], ...]) -> None:
    (_, last), (first, _) = sequences
    with pytest.raises(ValueError, match=rf"^window {first} does not come after {last}$"):
        Batch(epoch=EPOCH, windows=tuple(window(*each) for each in sequences))
    assert Batch(epoch=EPOCH, windows=(window(1, 2), window(3, 3), window(9))).windows[2].first == 9


@pytest.mark.parametrize(
    ("told", "used"), [({}, False), ({"sessions": 1}, True), ({"crashed": 1}, True), ({"inferences": 1}, True)]
)
def test_what_crashed_or_ran_was_in_use(told: dict[str, int], used: bool) -> None:
    assert window(**{"sessions": 0, "inferences": 0} | told).used == used


def test_the_means_of_a_window_hold_its_errors_unless_the_app_has_that_metric() -> None:
    told = {"metrics": {"f1": Summary(n=4, sum=3.0, sumsq=2.5), "none": Summary(n=0, sum=0.0, sumsq=0.0)}}
    assert window(inferences=8, errors=2, **told).means() == {"error_rate": 0.25, "f1": 0.75}
    assert window(inferences=0, **told).means() == {"f1": 0.75}
    own = {"error_rate": Summary.of(0.9)}
    assert window(inferences=8, errors=2, metrics=own).means() == {"error_rate": 0.9}


def test_summaries_add_up_and_keep_the_highest_where_both_tell_it() -> None:
    one, two = Summary.of(3.0), Summary(n=2, sum=1.0, sumsq=0.6, most=0.7)
    assert one == Summary(n=1, sum=3.0, sumsq=9.0)
    assert one.plus(two) == two.plus(one) == Summary(n=3, sum=4.0, sumsq=9.6, most=3.0)
    old = Summary(n=2, sum=1.0, sumsq=0.6)
    assert (one.plus(old).most, old.plus(one).most) == (None, None)
    assert (Summary(n=1, sum=3.0, sumsq=9.0, most=4.0).peak, two.peak) == (4.0, 0.7)


@pytest.mark.parametrize("named", [{}, {"device_id": "dev-1", "version": "1.0.0"}])
def test_a_ticket_names_a_device_or_a_version_and_not_both(named: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"^ticket T-1 must name either a device or a version$"):
        UserReport(ticket="T-1", model="wake", **named)
    assert UserReport(ticket="T-1", model="wake", version="1.0.0").device_id is None
    assert UserReport(ticket="T-1", model="wake", device_id="dev-1").version is None


# --- the log of versions ---

LOG = "0123456789abcdef"


def entry(number: int, previous: str) -> str:
    made = RunEntry(number=number, previous=previous, model="wake", change="begun", at=1.0, not_before=1.0)
    return encode(made).decode()


def chain(*numbers: int) -> tuple[str, ...]:
    texts: list[str] = []
    previous = beginning_of(LOG, device_id="dev-1")
    for number in numbers:
        texts.append(entry(number, previous))
        previous = digest_of(texts[-1].encode())
    return tuple(texts)


def test_entries_that_follow_each_other_are_read_with_their_digests() -> None:
    texts = chain(4, 5, 6)
    read = read_chain(texts)
    assert [each.number for each, _ in read] == [4, 5, 6]
    assert [digest for _, digest in read] == [digest_of(text.encode()) for text in texts]
    assert read_chain(()) == []


@pytest.mark.parametrize(
    "texts",
    [chain(1, 3), chain(2, 1), chain(1, 1), (chain(1)[0], entry(2, "f" * 64))],
    ids=["left out", "moved", "twice", "changed"],
)
def test_an_entry_that_does_not_follow_is_named(texts: tuple[str, ...]) -> None:
    second = read_entry(texts[1]).number
    first = read_entry(texts[0]).number
    with pytest.raises(UntrustedInput) as refused:
        read_chain(texts)
    assert str(refused.value) == (
        f"entry {second} of a run history does not follow entry {first}: one was changed, left out or moved"
    )


def test_what_a_log_begins_with_binds_its_entries_to_the_device() -> None:
    assert beginning_of(LOG, device_id="dev-1") == digest_of(b"whimbrel run history 1\ndev-1\n0123456789abcdef")
    assert text_to_sign("{}") == b"whimbrel run head 1\n{}"


@pytest.mark.parametrize(
    ("read", "most", "what"),
    [
        (read_entry, limits.RUN_ENTRY_BYTES, "an entry of a run history"),
        (read_head, limits.RUN_HEAD_BYTES, "the head of a run history"),
    ],
)
def test_an_entry_or_a_head_of_too_many_bytes_is_not_parsed(read: object, most: int, what: str) -> None:
    with pytest.raises(UntrustedInput) as refused:
        read("ä" * (most // 2) + "a" * (most % 2 + 1))
    assert str(refused.value) == f"{what} has {most + 1} bytes; at most {most} are read"
    with pytest.raises(UntrustedInput) as refused:
        read("{" + " " * (most - 1))
    assert "bytes; at most" not in str(refused.value)


def test_a_head_is_read_back_and_names_its_format() -> None:
    head = RunHead(
        device_id="dev-1", public_key="k" * 43, log=LOG, number=0, newest=2, digest="a" * 64, heads=1, at=5.0
    )
    text = encode(head).decode()
    assert '"format":"whimbrel-run-head-1"' in text
    assert read_head(text) == head
    with pytest.raises(UntrustedInput):
        read_head(text.replace("run-head-1", "run-head-2"))
