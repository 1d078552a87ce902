"""Which publications are accepted, and what becomes of the model's first."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from support.signed_roles import GOOD, InMemoryRoles
from support.values import T0, Town, file, release, town
from whimbrel.errors import Conflict, NotFound, Refused, UntrustedInput
from whimbrel.flows.publishing.accept_version import Accepted, SealedRecord, accept_version
from whimbrel.flows.records import ModelSettings
from whimbrel.model.documents import encode
from whimbrel.model.provenance import Kept as KeptFile
from whimbrel.model.provenance import ModelSigner, Parent
from whimbrel.model.release import Sealed, Training, Variant
from whimbrel.model.ways import Step

TODAY = datetime.fromtimestamp(T0, UTC)


@pytest.fixture
def here() -> Iterator[Town]:
    """A model with two versions and the artifact of the third."""
    with town() as made:
        made.registry.add_artifact(file().sha256, size_bytes=file().size_bytes, at=T0)
        yield made


def publish(here: Town, *, roles: InMemoryRoles | None = None, publisher: bytes = GOOD, **changes: Any) -> Accepted:
    hold = changes.pop("hold", False)
    document = encode(release(changes.pop("serial", 3), **changes))
    return accept_version(
        here.registry, roles or InMemoryRoles(), "wake", release=document, publisher=publisher, hold=hold, now=T0
    )


def test_the_next_version_is_published_and_logged(here: Town) -> None:
    roles = InMemoryRoles()
    accepted = publish(here, roles=roles)
    assert not accepted.baseline
    assert accepted.version == here.registry.version("wake", 3)
    assert (accepted.version.size_bytes, accepted.version.good, accepted.version.created_at) == (100, False, T0)
    assert roles.accepted == [("publisher-wake", TODAY)]
    assert roles.documents["publisher-wake", "models/wake/3.json"] == here.registry.release_bytes("wake", 3)
    assert here.registry.model("wake").baseline == 1
    assert here.registry.aliases("wake") == {}
    entry = here.registry.audit_log()[0]
    assert (entry.actor, entry.action, entry.because) == ("publisher-wake", "publish", "2026.01.01.3 (3.0.0)")
    assert entry.evidence == {"serial": 3, "build_hash": accepted.version.build_hash}


def test_the_first_version_is_the_baseline_and_the_champion() -> None:
    with town(versions=0) as here:
        here.registry.change_model("wake", baseline=None)
        here.registry.add_artifact(file().sha256, size_bytes=file().size_bytes, at=T0)
        accepted = publish(here, serial=1)
        assert accepted.baseline
        assert accepted.version.good
        assert here.registry.model("wake").baseline == 1
        assert here.registry.aliases("wake") == {"champion": 1}
        assert here.registry.audit_log()[0].because == "2026.01.01.1 (1.0.0), the first: it is the baseline"


def test_a_first_version_that_is_held_is_nobodys_and_a_later_one_does_not_take_its_place() -> None:
    with town(versions=0) as here:
        here.registry.change_model("wake", baseline=None)
        here.registry.add_artifact(file().sha256, size_bytes=file().size_bytes, at=T0)
        first, second = publish(here, serial=1, hold=True), publish(here, serial=2)
        assert (first.baseline, first.version.good, second.baseline, second.version.good) == (False,) * 4
        assert (here.registry.model("wake").baseline, here.registry.aliases("wake")) == (None, {})
        assert here.registry.audit_log()[0].because == "2026.01.01.2 (2.0.0)"


@pytest.mark.parametrize(("above", "at_once"), [(10.0, False), (100.0, True)])
def test_a_first_version_waits_where_the_model_needs_a_second_person(above: float, at_once: bool) -> None:
    """A first version is everybody's at once, and one person's publication passed every share."""
    with town(versions=0) as here:
        settings = ModelSettings(second_person_above_percent=above)
        here.registry.change_model("wake", baseline=None, settings=settings)
        here.registry.add_artifact(file().sha256, size_bytes=file().size_bytes, at=T0)
        assert publish(here, serial=1).baseline is at_once


def test_a_later_version_is_held_by_itself(here: Town) -> None:
    assert not publish(here, hold=True).baseline
    assert here.registry.model("wake").baseline == 1


def test_its_size_is_that_of_the_largest_variant(here: Town) -> None:
    here.registry.add_artifact("b" * 64, size_bytes=700, at=T0)
    variants = (
        Variant(name="small", files=(file(),)),
        Variant(name="large", files=(file("b" * 64, size_bytes=700), file(name="words.txt"))),
    )
    assert publish(here, variants=variants).version.size_bytes == 800


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"model": "sleep"}, UntrustedInput, "is of 'sleep'; expected 'wake'"),
        ({"version": "2026.01.01.2"}, Conflict, "is published and never changes"),
        ({"semantic_version": "1.0.0"}, Conflict, "is published and never changes"),
        ({"serial": 4}, Conflict, "serial 4 came, 3 is next: somebody was first"),
        ({"serial": 2, "version": "2026.01.01.3", "semantic_version": "3.0.0"}, Conflict, "serial 2 came, 3 is next"),
        ({"build_hash": "0" * 12}, UntrustedInput, "does not belong to these files"),
        ({"variants": (Variant(name="any", files=(file("b" * 64),)),)}, Refused, "is not stored yet; send it first"),
        (
            {"variants": (Variant(name="any", files=(file(size_bytes=99),)),)},
            UntrustedInput,
            "is said to have 99 bytes; 100 are stored",
        ),
        ({"publisher": b"forged"}, UntrustedInput, "is not signed by a key"),
    ],
)
def test_a_publication_that_is_refused_changes_nothing(
    here: Town, changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    roles = InMemoryRoles()
    with pytest.raises(error, match=words):
        publish(here, roles=roles, **changes)
    assert roles.accepted == []
    assert len(here.registry.versions("wake")) == 2
    assert here.registry.audit_log() == []


def test_budgets_are_kept_at_publication(here: Town) -> None:
    here.registry.change_model("wake", settings=ModelSettings(size_bytes_max=99))
    with pytest.raises(Refused, match="the budget of wake is 99"):
        publish(here)
    here.registry.change_model("wake", settings=ModelSettings(metrics_min={"accuracy": 0.8}))
    with pytest.raises(Refused, match=r"asks for at least 0\.8"):
        publish(here, metrics={"accuracy": 0.79})
    publish(here, metrics={"accuracy": 0.8})


def test_what_is_no_release_and_no_model_is_refused(here: Town) -> None:
    for content, model, error in ((b"{}", "wake", UntrustedInput), (encode(release(3)), "sleep", NotFound)):
        with pytest.raises(error):
            accept_version(here.registry, InMemoryRoles(), model, release=content, publisher=GOOD, now=T0)


class Kept:
    """Where the keys of sealed releases are kept."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, int], tuple[bytes, tuple[Step, ...]]] = {}

    def add(self, model: str, serial: int, *, release_key: bytes, steps: Sequence[Step], at: float) -> None:
        self.rows[model, serial] = release_key, tuple(steps)


SEALED = Sealed(sha256="d" * 64, size_bytes=300)


def sealed_release(**changes: Any) -> bytes:
    return encode(release(3, variants=(Variant(name="cpu", files=(file(sealed=SEALED),)),), **changes))


def publish_sealed(here: Town, sealed: SealedRecord | None, kept: Kept) -> Accepted:
    return accept_version(
        here.registry,
        InMemoryRoles(),
        "wake",
        release=sealed_release(),
        publisher=GOOD,
        sealed=sealed,
        sealed_versions=kept,
        now=T0,
    )


def test_a_plain_release_of_a_sealed_model_is_refused(here: Town) -> None:
    here.registry.change_model("wake", settings=ModelSettings(sealed=True))
    with pytest.raises(Refused, match="wake is sealed, and this release is not: its files would lie open"):
        publish(here)


def test_a_sealed_release_is_kept_with_its_key_and_holds_what_is_stored_for_it(here: Town) -> None:
    kept, patch = (
        Kept(),
        Step(base="b" * 64, target=file().sha256, target_bytes=100, sha256="e" * 64, size_bytes=9, sealed=True),
    )
    for sha256, size in ((SEALED.sha256, 300), (patch.sha256, 9)):
        here.registry.add_artifact(sha256, size_bytes=size, at=T0)
    publish_sealed(here, SealedRecord(release_key=b"sealed", steps=(patch,)), kept)
    assert kept.rows == {("wake", 3): (b"sealed", (patch,))}
    collectable = {digest for digest, _ in here.registry.collectable(older_than=T0 + 1)}
    assert {SEALED.sha256, patch.sha256}.isdisjoint(collectable)


def test_a_sealed_release_without_its_key_its_file_or_with_an_open_patch_is_refused(here: Town) -> None:
    with pytest.raises(UntrustedInput, match="its key did not come with it"):
        publish_sealed(here, None, Kept())
    open_patch = Step(base="b" * 64, target=file().sha256, target_bytes=100, sha256="e" * 64, size_bytes=9)
    here.registry.add_artifact(SEALED.sha256, size_bytes=300, at=T0)
    with pytest.raises(UntrustedInput, match="is not sealed, or leads to no file"):
        publish_sealed(here, SealedRecord(release_key=b"sealed", steps=(open_patch,)), Kept())


def test_the_sealed_file_itself_must_be_stored(here: Town) -> None:
    """The plain one is, from another model: that is of no use to a device with the key."""
    with pytest.raises(Refused, match=f"artifact {SEALED.sha256} is not stored yet"):
        publish_sealed(here, SealedRecord(release_key=b"sealed"), Kept())


# --- what a model demands, and what comes with a sealed release ---


def test_a_model_that_demands_a_signer_takes_no_version_of_another(here: Town) -> None:
    wanted = ModelSigner(method="certificate", anchor="x", identity="ci@example.com")
    other = ModelSigner(method="certificate", anchor="x", identity="eve@example.com")
    here.registry.change_model("wake", settings=ModelSettings(model_signer=wanted))

    def accept(signed_by: ModelSigner | None) -> Accepted:
        document = encode(release(3))
        return accept_version(
            here.registry, InMemoryRoles(), "wake", release=document, publisher=GOOD, signed_by=signed_by, now=T0
        )

    for signer in (None, other):
        with pytest.raises(Refused) as refused:
            accept(signer)
        assert str(refused.value) == (
            "wake demands a model signature by ci@example.com, by a certificate; publish with --model-signature"
        )
    assert accept(wanted).version.serial == 3


def test_who_sent_it_is_in_the_audit_log_where_there_are_accounts(here: Town) -> None:
    accept_version(
        here.registry, InMemoryRoles(), "wake", release=encode(release(3)), publisher=GOOD, actor="ada", now=T0
    )
    assert here.registry.audit_log()[0].actor == "ada"


@pytest.mark.parametrize(
    ("parent", "said"),
    [
        (Parent(model="nap", serial=1, version="2026.01.01.1"), "its parent nap 2026.01.01.1 is not published here"),
        (Parent(model="wake", serial=9, version="2026.01.01.9"), "its parent wake 2026.01.01.9 is not published here"),
        (Parent(model="wake", serial=1, version="2026.01.01.2"), "serial 1 of wake is 2026.01.01.1, not 2026.01.01.2"),
    ],
)
def test_a_version_is_made_from_versions_that_are_published_here(here: Town, parent: Parent, said: str) -> None:
    with pytest.raises(UntrustedInput) as refused:
        publish(here, training=Training(parents=(parent,)))
    assert str(refused.value) == said
    good = Training(parents=(Parent(model="wake", serial=1, version="2026.01.01.1"),))
    assert publish(here, training=good).version.serial == 3


def test_the_files_of_its_provenance_are_stored_with_their_size_and_held(here: Town) -> None:
    recipe = Training(recipe=KeptFile(sha256="c" * 64, size_bytes=9))
    said = f"the file {'c' * 64} of its provenance is not stored with that size; send it first"
    for size in (None, 8):
        if size is not None:
            here.registry.add_artifact("c" * 64, size_bytes=size, at=T0)
        with pytest.raises(Refused) as refused:
            publish(here, training=recipe)
        assert str(refused.value) == said
    other = Training(recipe=KeptFile(sha256="d" * 64, size_bytes=9))
    here.registry.add_artifact("d" * 64, size_bytes=9, at=T0)
    publish(here, training=other)
    assert "d" * 64 not in dict(here.registry.collectable(older_than=T0 + 1))


def patch_of(**changes: Any) -> Step:
    fields = {"base": "b" * 64, "target": file().sha256, "target_bytes": 100, "sha256": "e" * 64, "size_bytes": 9}
    return Step(**fields | {"sealed": True} | changes)


@pytest.mark.parametrize(
    ("step", "kind", "said"),
    [
        (
            patch_of(target="f" * 64),
            UntrustedInput,
            f"the patch {'e' * 64} is not sealed, or leads to no file of this release",
        ),
        (patch_of(sha256="9" * 64), Refused, f"artifact {'9' * 64} is not stored yet; send it first"),
        (patch_of(size_bytes=8), UntrustedInput, "a patch is said to have 8 bytes; 9 are stored"),
    ],
)
def test_a_patch_of_a_sealed_release_leads_to_its_file_and_is_stored(
    here: Town, step: Step, kind: type[Exception], said: str
) -> None:
    here.registry.add_artifact(SEALED.sha256, size_bytes=300, at=T0)
    here.registry.add_artifact("e" * 64, size_bytes=9, at=T0)
    kept = Kept()
    with pytest.raises(kind) as refused:
        publish_sealed(here, SealedRecord(release_key=b"sealed", steps=(patch_of(), step)), kept)
    assert (str(refused.value), kept.rows, here.registry.audit_log()) == (said, {}, [])


def test_a_sealed_release_is_told_as_one(here: Town) -> None:
    here.registry.add_artifact(SEALED.sha256, size_bytes=300, at=T0)
    publish_sealed(here, SealedRecord(release_key=b"sealed"), Kept())
    entry = here.registry.audit_log()[0]
    assert entry.because == "2026.01.01.3 (3.0.0), sealed"
    assert entry.evidence["sealed"] is True


def test_a_key_without_a_sealed_release_is_a_contradiction(here: Town) -> None:
    with pytest.raises(UntrustedInput) as refused:
        accept_version(
            here.registry,
            InMemoryRoles(),
            "wake",
            release=encode(release(3)),
            publisher=GOOD,
            sealed=SealedRecord(release_key=b"x"),
            sealed_versions=Kept(),
            now=T0,
        )
    assert str(refused.value) == "a release key came with a release that is not sealed"
