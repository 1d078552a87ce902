"""The chain of the audit log: every way to change it is seen, and the first entry that does not fit is named."""

import msgspec
import pytest

from support.values import T0
from whimbrel.errors import UntrustedInput
from whimbrel.flows.audit_chain import (
    BEFORE_THE_FIRST,
    Anchor,
    ChainCheck,
    ChainedEntry,
    chained,
    check_chain,
    hash_of,
    read_line,
)
from whimbrel.flows.records import AuditRecord
from whimbrel.model.documents import encode


def record(number: int, **changes: object) -> AuditRecord:
    fields = {"namespace": "default", "at": T0 + number, "actor": "ana", "action": "advance", "because": f"n {number}"}
    return AuditRecord(**fields | changes)


def chain(length: int, **changes: object) -> list[ChainedEntry]:
    entries: list[ChainedEntry] = []
    for number in range(1, length + 1):
        previous = entries[-1].hash if entries else BEFORE_THE_FIRST
        entries.append(chained(record(number, **changes), sequence=number, previous=previous))
    return entries


def anchor_of(entry: ChainedEntry) -> Anchor:
    return Anchor(namespace=entry.namespace, sequence=entry.sequence, hash=entry.hash, at=T0)


def anew(entry: ChainedEntry, **changes: object) -> ChainedEntry:
    """A changed entry with the hash that fits it."""
    changed = msgspec.structs.replace(entry, **changes)
    return msgspec.structs.replace(changed, hash=hash_of(changed))


def test_a_hash_is_that_of_the_written_form() -> None:
    """A golden value: a log that was exported by one version is checked by every later one."""
    entry = chained(
        record(1, because="é \u202e", evidence={"log_e": 3.5, "stage": 0, "shares": (1, 2)}),
        sequence=1,
        previous=BEFORE_THE_FIRST,
    )
    assert entry.hash == "7814c36caa347b769f3c92b72b61c256cc0b7b2d01091f256c4183b45b138145"
    assert entry.evidence == {"log_e": 3.5, "stage": 0, "shares": [1, 2]}


def test_a_chain_fits_and_survives_its_journey_through_a_file() -> None:
    entries = chain(5, evidence={"share": 1.0, "of": {"deep": [1, None, "x"]}})
    lines = [encode(entry) for entry in entries]
    check = check_chain(read_line(line, number=1) for line in lines)
    assert (check.entries, check.first, check.last, check.hash, check.problem) == (5, 1, 5, entries[-1].hash, None)


def test_an_export_from_the_middle_fits_by_itself() -> None:
    check = check_chain(chain(5)[2:])
    assert (check.entries, check.first, check.last, check.problem) == (3, 3, 5, None)


@pytest.mark.parametrize("field", ["at", "actor", "action", "because", "model", "rollout", "device", "evidence"])
def test_a_changed_field_is_seen(field: str) -> None:
    entries = chain(3)
    other = {"at": 1.0, "evidence": {"x": 1}}.get(field, "other")
    entries[1] = msgspec.structs.replace(entries[1], **{field: other})
    check = check_chain(entries)
    assert (check.entries, check.last) == (1, 1)
    assert check.problem == "entry 2 was changed after it was written: its hash is not that of its content"


def test_an_entry_with_a_hash_made_anew_does_not_fit_the_next() -> None:
    entries = chain(3)
    entries[1] = anew(entries[1], actor="bob")
    assert check_chain(entries).problem == ("entry 3 does not follow the entry before it: one of the two was replaced")


def test_an_entry_that_was_taken_out_put_in_or_moved_is_seen() -> None:
    first, second, third = chain(3)
    assert check_chain([first, third]).problem == "entry 2 is missing: entry 3 follows entry 1"
    assert "entry 3 is missing" in str(check_chain([first, second, second, third]).problem)
    assert "is missing" in str(check_chain([first, third, second]).problem)
    begun = anew(second, sequence=1)
    assert "not the beginning" in str(check_chain([begun]).problem)


def test_entries_of_two_namespaces_are_no_chain() -> None:
    (first,) = chain(1)
    other = chained(record(2, namespace="other"), sequence=2, previous=first.hash)
    assert "of namespace 'other'" in str(check_chain([first, other]).problem)


def test_a_log_that_was_written_anew_does_not_fit_an_older_anchor() -> None:
    anchors = [anchor_of(entry) for entry in chain(5)[2:4]]
    assert check_chain(chain(5), anchors=anchors).anchors == 2
    check = check_chain(chain(5, actor="mallory"), anchors=anchors)
    assert str(check.problem).startswith("entry 3 is not the one that the anchor names")


def test_a_log_that_was_cut_off_does_not_reach_its_anchor() -> None:
    anchor = anchor_of(chain(5)[4])
    assert check_chain(chain(4), anchors=[anchor]).problem == (
        "the log was cut off: an anchor names entry 5, and the log ends with entry 4"
    )
    assert "and the log is empty" in str(check_chain([], anchors=[anchor]).problem)
    assert check_chain(chain(6), anchors=[anchor]).problem is None


def test_an_anchor_from_before_an_export_or_of_another_namespace_proves_nothing() -> None:
    entries = chain(5)
    assert "these entries begin at 3" in str(check_chain(entries[2:], anchors=[anchor_of(entries[0])]).problem)
    other = msgspec.structs.replace(anchor_of(entries[0]), namespace="other")
    assert "of namespace 'other'" in str(check_chain(entries, anchors=[other]).problem)
    with pytest.raises(UntrustedInput, match="several namespaces"):
        check_chain(entries, anchors=[anchor_of(entries[0]), other])


def test_the_anchor_of_an_empty_log_fits_every_log() -> None:
    empty = Anchor(namespace="default", sequence=0, hash=BEFORE_THE_FIRST, at=T0)
    assert check_chain(chain(2), anchors=[empty]).problem is None
    assert check_chain([], anchors=[empty]).problem is None


def test_a_line_that_is_no_entry_is_named() -> None:
    with pytest.raises(UntrustedInput, match="line 7 of the export cannot be read"):
        read_line(b"{}", number=7)


# --- each sentence, and how far a log was followed ---


def test_each_misfit_is_told_whole_with_what_fitted_before_it() -> None:
    first, second, third = chain(3)
    other = chained(record(2, namespace="other"), sequence=2, previous=first.hash)
    for entries, fitted, problem in (
        ([first, other], 1, "entry 2 is of namespace 'other', and those before it of 'default'"),
        ([first, third], 1, "entry 2 is missing: entry 3 follows entry 1"),
        ([first, second, second], 2, "entry 3 is missing: entry 2 follows entry 2"),
        (
            [anew(second, sequence=1)],
            0,
            "entry 1 is not the beginning of a chain: what was before it was taken away",
        ),
        (
            [first, anew(second, previous="f" * 64), third],
            1,
            "entry 2 does not follow the entry before it: one of the two was replaced",
        ),
    ):
        check = check_chain(entries)
        reached = entries[fitted - 1] if fitted else None
        assert check == ChainCheck(
            entries=fitted,
            first=1 if fitted else None,
            last=fitted or None,
            hash=reached.hash if reached else BEFORE_THE_FIRST,
            anchors=0,
            problem=problem,
        )


def test_an_empty_log_fits_and_is_where_every_log_begins() -> None:
    empty = Anchor(namespace="default", sequence=0, hash=BEFORE_THE_FIRST, at=T0)
    for entries in ([], chain(3)):
        check = check_chain(entries, anchors=[empty])
        assert (check.problem, check.entries, check.anchors) == (None, len(entries), 1)
    assert check_chain([]).hash == BEFORE_THE_FIRST


def test_anchors_are_met_as_far_as_the_log_was_followed() -> None:
    entries = chain(5)
    anchors = [anchor_of(entries[place]) for place in (4, 0, 2)]  # in any order
    assert check_chain(entries, anchors=anchors).anchors == 3
    cut = check_chain(entries[:4], anchors=anchors)
    assert (cut.anchors, cut.problem) == (
        2,
        "the log was cut off: an anchor names entry 5, and the log ends with entry 4",
    )
    none = check_chain([], anchors=anchors)
    assert (none.anchors, none.problem) == (0, "the log was cut off: an anchor names entry 1, and the log is empty")


def test_an_anchor_that_does_not_fit_says_what_to_do() -> None:
    entries = chain(5)
    early = check_chain(entries[2:], anchors=[anchor_of(entries[0])])
    assert (early.entries, early.problem) == (
        3,
        "the anchor names entry 1, and these entries begin at 3; give an export that holds it",
    )
    assert check_chain(entries[2:], anchors=[anchor_of(entries[2])]).problem is None
    other = [msgspec.structs.replace(anchor_of(entries[0]), namespace="other", sequence=9)]
    assert check_chain(entries, anchors=other).problem == (
        "the anchor is of namespace 'other', and these entries of 'default'"
    )
    wrong = [msgspec.structs.replace(anchor_of(entries[1]), hash="f" * 64)]
    met = check_chain(entries, anchors=wrong)
    assert (met.entries, met.problem) == (
        1,
        "entry 2 is not the one that the anchor names: the log was written anew, up to there or further",
    )


def test_what_an_anchor_signs_is_everything_but_the_signature() -> None:
    """Golden bytes: an anchor that was stored elsewhere is checked by every later version."""
    anchor = Anchor(namespace="default", sequence=3, hash="a" * 64, at=T0, keyid="k", signature="s")
    content = (
        b'{"at":1767225600.0,"format":"whimbrel-audit-anchor-1","hash":"' + b"a" * 64 + b'","keyid":"","namespace":'
        b'"default","sequence":3,"signature":""}'
    )
    assert anchor.signed_bytes().startswith(b"whimbrel-audit-anchor-1\n")
    signed = msgspec.json.decode(anchor.signed_bytes().partition(b"\n")[2])
    assert signed | {"keyid": "", "signature": ""} == msgspec.json.decode(content)
    assert msgspec.structs.replace(anchor, keyid="x", signature="y").signed_bytes() == anchor.signed_bytes()
    assert msgspec.structs.replace(anchor, sequence=4).signed_bytes() != anchor.signed_bytes()


def test_a_line_that_cannot_be_read_is_named_by_its_number() -> None:
    with pytest.raises(UntrustedInput, match="line 7 of the export cannot be read"):
        read_line(b"{}", number=7)
