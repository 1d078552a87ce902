"""A change of keys as a file: several people sign it on several machines, and each sees what it changes."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from whimbrel.errors import Conflict, NotFound, Refused, UntrustedInput
from whimbrel.stores.key_ceremony import (
    Ceremony,
    Draft,
    changes_of,
    check_before,
    documents_of,
    read_draft,
    sign_draft,
    signatures,
    write_draft,
)
from whimbrel.stores.key_folder import KeyFolder
from whimbrel.stores.signed_metadata import SERIALIZER
from whimbrel.stores.signer import CryptoSigner, Key, make_signer
from whimbrel.stores.tuf_repository import delegate_model, first_metadata, publish_documents
from whimbrel.trust import roles

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Desk:
    """A repository's signed roles, and people with a folder of keys each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        root, targets, publisher = (self.makes("office", name) for name in ("root", "targets", "publisher-wake"))
        online = CryptoSigner.generate_ed25519().public_key
        top = first_metadata(root=root, targets=targets, snapshot=online, timestamp=online, now=NOW)
        self.roots = [top[0].to_bytes(SERIALIZER)]
        first = top[1].to_bytes(SERIALIZER)
        named = {"publisher": publisher.public_key, "policy": online, "signer": targets}
        self.current = {
            "targets": delegate_model(first, "wake", **named, now=NOW),
            "publisher-wake": publish_documents(None, {}, signer=publisher, now=NOW),
        }

    def makes(self, person: str, name: str) -> CryptoSigner:
        return make_signer(self.folder / person / f"{name}.pem")

    def public(self, person: str, name: str = "key") -> Key:
        return self.makes(person, name).public_key

    def ceremony(self, *, now: datetime = NOW) -> Ceremony:
        return Ceremony("default", self.roots, self.current.__getitem__, now=now)

    def signed(self, draft: Draft, *people: str) -> Draft:
        for person in people:
            draft, _ = sign_draft(draft, KeyFolder(self.folder / person))
        return draft

    def takes(self, draft: Draft) -> None:
        assert missing(draft) == {}
        for role, content in documents_of(draft).items():
            self.roots.append(content) if role == "root" else self.current.update({role: content})


def missing(draft: Draft) -> dict[str, int]:
    return {f"{each.role} {each.whose}".strip(): each.missing for each in signatures(draft) if each.missing}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def two_of_three(desk: Desk) -> Draft:
    ceremony = desk.ceremony()
    for person in ("anna", "ben"):
        ceremony.add("root", desk.public(person))
    ceremony.set_threshold("root", 2)
    return ceremony.draft("two of three")


def test_root_of_two_of_three_is_signed_by_old_and_new_keys_on_three_machines(desk: Desk) -> None:
    draft = two_of_three(desk)
    assert missing(draft) == {"root the keys before": 1, "root the keys after": 2}
    draft = desk.signed(read_draft(write_draft(draft)), "anna")
    assert missing(draft) == {"root the keys before": 1, "root the keys after": 1}
    draft = desk.signed(read_draft(write_draft(draft)), "office")
    desk.takes(draft)
    later = desk.ceremony(now=NOW + timedelta(days=600))
    later.renew("root")
    draft = later.draft("renew root")
    assert missing(desk.signed(draft, "ben")) == {"root": 1}
    desk.takes(desk.signed(draft, "ben", "anna"))
    assert missing(desk.signed(draft, "office")) == {"root": 1}


def test_draft_says_what_it_changes(desk: Desk) -> None:
    words = changes_of(two_of_three(desk))
    assert [each for each in words if "is added" in each] == [each for each in words if each.startswith("root: key")]
    assert "root: 2 of 3 keys must sign, 1 before" in words
    assert words[-1] == "root: version 2 after 1, valid until 2028-01-01"


def test_new_targets_key_changes_root_and_targets_in_one_step(desk: Desk) -> None:
    ceremony = desk.ceremony()
    old = ceremony.keys_of("targets").keyids[0]
    ceremony.add("targets", desk.public("office", "targets-2"))
    ceremony.revoke("targets", old[:8])
    draft = ceremony.draft("rotate targets")
    assert list(draft.after) == ["root", "targets"]
    desk.takes(desk.signed(draft, "office"))


def test_new_publisher_key_changes_targets_and_the_publisher_in_one_step(desk: Desk) -> None:
    ceremony = desk.ceremony()
    ceremony.add("publisher-wake", desk.public("ci"))
    ceremony.revoke("publisher-wake", ceremony.keys_of("publisher-wake").keyids[0])
    draft = ceremony.draft("rotate")
    assert list(draft.after) == ["targets", "publisher-wake"]
    assert missing(desk.signed(draft, "office")) == {"publisher-wake": 1}
    desk.takes(desk.signed(draft, "office", "ci"))


def test_one_more_key_leaves_what_is_signed_as_it_is(desk: Desk) -> None:
    ceremony = desk.ceremony()
    ceremony.add("publisher-wake", desk.public("ci"))
    assert list(ceremony.draft("add").after) == ["targets"]


def test_signing_twice_and_with_no_key_that_is_wanted_is_said(desk: Desk) -> None:
    draft = desk.signed(two_of_three(desk), "anna")
    with pytest.raises(Conflict, match="signed this draft already"):
        desk.signed(draft, "anna")
    desk.public("stranger")
    with pytest.raises(NotFound, match="none of the keys that may sign"):
        desk.signed(draft, "stranger")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda it: it.set_threshold("root", 2), Refused, "which nobody could"),
        (lambda it: it.revoke("targets", it.keys_of("targets").keyids[0]), Refused, "is the only key of targets"),
        (lambda it: it.revoke("targets", "zz"), UntrustedInput, "is too short to name a key"),
        (lambda it: it.revoke("targets", "zzzzzz"), NotFound, "has no key 'zzzzzz'"),
        (lambda it: it.renew("timestamp"), Refused, "signed anew by the server"),
        (lambda it: it.expand("wake"), NotFound, "there is no role 'wake'"),
        (lambda _: None, Refused, "nothing would change"),
    ],
)
def test_change_after_which_nobody_could_sign_is_no_draft(
    desk: Desk, change: Callable[[Ceremony], None], error: type[Exception], words: str
) -> None:
    def drafted() -> Draft:
        ceremony = desk.ceremony()
        change(ceremony)
        return ceremony.draft("wrong")

    with pytest.raises(error, match=words):
        drafted()


# --- the past that a draft tells ---


def test_draft_with_a_forged_past_is_refused(desk: Desk, tmp_path: Path) -> None:
    """Its maker shows a harmless step from a root of his own to the root that he wants signed."""
    two_of_three(desk)
    forger = Desk(tmp_path / "forger")
    forged = forger.ceremony()
    forged.add("root", KeyFolder(tmp_path / "anna").named("key").public)
    draft = forged.draft("add anna")
    check_before(draft, trusted_root=None)  # it is a sound past, of another repository
    with pytest.raises(UntrustedInput, match="do not contain the root that you trust"):
        check_before(draft, trusted_root=desk.roots[0])


def test_draft_whose_past_is_not_signed_is_refused(desk: Desk) -> None:
    draft = two_of_three(desk)
    before = msgspec.json.decode(msgspec.json.encode(draft.before))
    before["targets"]["signed"]["version"] = 9
    with pytest.raises(UntrustedInput, match="the draft's past is not signed"):
        check_before(msgspec.structs.replace(draft, before=before), trusted_root=None)


def test_draft_that_skips_a_version_is_refused(desk: Desk) -> None:
    draft = two_of_three(desk)
    after = msgspec.json.decode(msgspec.json.encode(draft.after))
    after["root"]["signed"]["version"] = 2**40
    with pytest.raises(UntrustedInput, match="is not the next version"):
        check_before(msgspec.structs.replace(draft, after=after), trusted_root=None)


def test_draft_that_changes_more_than_keys_says_so(desk: Desk) -> None:
    draft = two_of_three(desk)
    after = msgspec.json.decode(msgspec.json.encode(draft.after))
    after["root"]["signed"]["consistent_snapshot"] = False
    assert any("DO NOT SIGN" in each for each in changes_of(msgspec.structs.replace(draft, after=after)))


def test_trusted_root_of_years_ago_is_found_in_the_chain(desk: Desk) -> None:
    for number in range(1, 6):
        ceremony = desk.ceremony(now=NOW + timedelta(days=600 * number))
        ceremony.renew("root")
        desk.takes(desk.signed(ceremony.draft("renew root"), "office"))
    ceremony = desk.ceremony()
    ceremony.renew("targets")
    check_before(ceremony.draft("renew targets"), trusted_root=desk.roots[0])


@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 10_000, b'{"kind":"other"}', b"\xff"])
def test_file_that_is_no_draft_is_refused(content: bytes) -> None:
    with pytest.raises(UntrustedInput):
        read_draft(content)


def test_offline_roles_are_those_that_people_sign() -> None:
    every = ("root", "targets", "publisher-a", "policy-a", "snapshot", "timestamp")
    assert [role for role in every if roles.is_offline(role)] == ["root", "targets", "publisher-a"]
