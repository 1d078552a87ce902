"""The server's sealing key is lost, exchanged, read by others, or replaced and killed half-way: nothing is lost."""

from pathlib import Path

import pytest

from support.sealing import opened, options, publish, sealed_repository, token_for
from support.server import done, serving, whimbrel
from whimbrel import Agent, agefile
from whimbrel.errors import Refused, UntrustedInput
from whimbrel.server.config import Folder
from whimbrel.server.start_checks import exposed_files
from whimbrel.stores import kept_release_keys
from whimbrel.stores.database import Database
from whimbrel.stores.kept_release_keys import replace_sealing_key, sealing_key_trouble
from whimbrel.stores.sealed_versions import SealedVersions
from whimbrel.stores.sealing_key import SealingKey, keep_release_key
from whimbrel.stores.transaction import transaction

NAMES = {"namespace": "default", "model": "secret"}


class Kept:
    """A database with the keys of some sealed versions, and the file of the sealing key."""

    def __init__(self, folder: Path, *, versions: int = 3) -> None:
        folder.mkdir(parents=True)
        self.database = Database(f"sqlite:///{folder / 'db'}")
        self.database.migrate()
        self.key = SealingKey(folder / "sealing.key")
        self.key.make()
        self.identities = {serial: agefile.new_identity() for serial in range(1, versions + 1)}
        for serial in self.identities:
            self.add(serial, self.key.recipient or "")

    def add(self, serial: int, recipient: str) -> None:
        identity = self.identities.setdefault(serial, agefile.new_identity())
        kept = keep_release_key(identity, recipient, serial=serial, **NAMES)
        with transaction(self.database, "default") as stores:
            stores.sealed.add("secret", serial, release_key=kept, steps=(), at=float(serial))

    def check_all_open(self) -> None:
        with transaction(self.database, "default") as stores:
            kept = {serial: content for _, serial, content in stores.sealed.all_keys()}
        assert {serial: self.key.open(content, serial=serial, **NAMES) for serial, content in kept.items()} == (
            self.identities
        )


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "kept")


def test_replaced_key_opens_all_and_the_one_before_nothing(kept: Kept) -> None:
    before = kept.key.path.read_bytes()
    made = replace_sealing_key(kept.database, kept.key)
    assert (made.sealed_anew, made.unopened, made.recipient) == (3, 0, kept.key.recipient)
    kept.check_all_open()
    assert kept.key.path.read_bytes().count(b"AGE-SECRET-KEY") == 1
    kept.key.path.write_bytes(before)
    assert "opens 0 of the newest 3 keys" in (sealing_key_trouble(kept.database, kept.key) or "")


@pytest.mark.parametrize("step", ["begin_replacement", "_seal_anew", "end_replacement"])
@pytest.mark.parametrize("before", [True, False])
def test_replacement_that_is_killed_at_a_step_loses_nothing_and_goes_on(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, step: str, *, before: bool
) -> None:
    class Killed(BaseException):
        pass

    where = kept_release_keys if step == "_seal_anew" else SealingKey
    real = getattr(where, step)

    def killed(*given: object) -> object:
        if not before:
            real(*given)
        raise Killed

    monkeypatch.setattr(where, step, killed)
    with pytest.raises(Killed):
        replace_sealing_key(kept.database, kept.key)
    monkeypatch.undo()
    kept.check_all_open()
    halfway = kept.key.path.read_bytes().count(b"AGE-SECRET-KEY")
    trouble = sealing_key_trouble(kept.database, kept.key)
    assert (trouble is not None and "did not end" in trouble) is (halfway == 2)
    replace_sealing_key(kept.database, kept.key)
    kept.check_all_open()
    assert sealing_key_trouble(kept.database, kept.key) is None
    assert kept.key.path.read_bytes().count(b"AGE-SECRET-KEY") == 1


def test_version_that_comes_while_the_key_is_replaced_is_sealed_anew_too(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its publisher had asked for the public half before."""
    recipient, real, rounds = kept.key.recipient or "", kept_release_keys._check_opens_some, []

    def publishing(*given: object) -> None:
        rounds.append(1)
        if len(rounds) == 2:  # it was committed between the two rounds, which hold the lock
            kept.identities[9] = agefile.new_identity()
            content = keep_release_key(kept.identities[9], recipient, serial=9, **NAMES)
            SealedVersions(given[0], "default").add("secret", 9, release_key=content, steps=(), at=9.0)
        real(*given)

    monkeypatch.setattr(kept_release_keys, "_check_opens_some", publishing)
    assert replace_sealing_key(kept.database, kept.key).sealed_anew == 4
    assert len(rounds) == 3
    kept.check_all_open()


def test_another_key_in_its_place_replaces_nothing(kept: Kept) -> None:
    right = kept.key.path.read_bytes()
    other = agefile.new_identity()
    kept.key.path.write_text(other + "\n")
    with pytest.raises(Refused, match="opens none of the newest 3 keys of sealed versions: it is another one"):
        replace_sealing_key(kept.database, kept.key)
    assert kept.key.path.read_text() == other + "\n"
    kept.key.path.write_bytes(right)
    kept.check_all_open()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no sealing key at"),
        (b"", "is no sealing key: 0 lines"),
        (b"AGE-SECRET-KEY-1QQQ", "is no sealing key: this is no key of age"),
        (b"\xff\xfe", "is no sealing key"),
        (agefile.new_identity().encode(), "opens 0 of the newest 3 keys"),
    ],
    ids=["none", "empty", "cut", "no text", "another"],
)
def test_trouble_with_the_key_is_a_sentence(kept: Kept, content: bytes | None, words: str) -> None:
    assert sealing_key_trouble(kept.database, kept.key) is None
    kept.key.path.unlink()
    if content is not None:
        kept.key.path.write_bytes(content)
    trouble = sealing_key_trouble(kept.database, kept.key) or ""
    assert words in trouble
    assert "bring back the copy" in trouble


def test_file_that_is_a_folder_is_a_sentence_too(kept: Kept) -> None:
    kept.key.path.unlink()
    kept.key.path.mkdir()
    assert "cannot be read" in (sealing_key_trouble(kept.database, kept.key) or "")


def test_lost_key_is_not_made_anew_by_chance(kept: Kept) -> None:
    """Else the copy that was kept could not be brought back, and nobody would know that devices wait for ever."""
    kept.key.path.unlink()
    with pytest.raises(Refused, match="make another one with --lost"):
        kept_release_keys.make_sealing_key(kept.database, kept.key)
    kept_release_keys.make_sealing_key(kept.database, kept.key, lost=True)
    kept.add(4, kept.key.recipient or "")
    made = replace_sealing_key(kept.database, kept.key)
    assert (made.sealed_anew, made.unopened) == (1, 3)


def test_sealing_key_in_another_place_that_all_may_read_is_warned_of(tmp_path: Path) -> None:
    done("init", tmp_path / "repo")
    folder = Folder.open(tmp_path / "repo")
    elsewhere = tmp_path / "disk" / "sealing.key"
    elsewhere.parent.mkdir()
    settings = tmp_path / "repo" / "whimbrel.toml"
    settings.write_text(f'sealing_key = "{elsewhere}"\n' + settings.read_text())
    folder = Folder.open(tmp_path / "repo")
    SealingKey(folder.sealing_key).make()
    assert exposed_files(folder) is None
    elsewhere.chmod(0o644)
    assert str(elsewhere) in (exposed_files(folder) or "")


def test_fleet_goes_on_over_a_replaced_key_and_the_server_says_what_is_wrong_with_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = sealed_repository(tmp_path / "repo")
    key = folder / "keys" / "online" / "sealing.key"
    before = key.read_bytes()
    with serving(folder) as running:
        token = token_for(running, "pro", "tier=pro")
        assert whimbrel("keys", "make-sealing-key", "-R", folder).status == 4
        replaced = done("keys", "make-sealing-key", "--replace", "-R", folder)
        assert (replaced["sealed_anew"], replaced["unopened"]) == (1, 0)
        assert key.read_bytes() != before
        publish(folder, 2)
        with Agent.open(tmp_path / "device", options(running, "dev-1", token)) as agent:
            assert agent.cycle(force=True).models["secret"]["serial"] == 1
            assert opened(agent)
        assert not [each for each in caplog.messages if "sealing key" in each]
    key.write_bytes(before)  # a backup was brought back over it
    with serving(folder):
        assert [each for each in caplog.messages if "opens 0 of the newest 2 keys of sealed versions" in each]
    said = whimbrel("doctor", "-R", folder, "--json")
    (finding,) = [each for each in said.json["findings"] if each["checked"] == "sealing key"]
    assert (said.status, finding["level"]) == (1, "problem")
    key.unlink()
    (finding,) = [
        each for each in whimbrel("doctor", "-R", folder, "--json").json["findings"] if each["checked"] == "sealing key"
    ]
    assert "there is no sealing key at" in finding["found"]


def test_publication_to_a_key_that_was_replaced_meanwhile_is_refused(kept: Kept) -> None:
    before = kept.key.recipient or ""
    replace_sealing_key(kept.database, kept.key)
    content = keep_release_key(agefile.new_identity(), before, serial=5, **NAMES)
    with pytest.raises(UntrustedInput, match="cannot be opened with this key"):
        kept.key.open(content, serial=5, **NAMES)
