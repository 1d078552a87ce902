"""A client of any TUF repository: what it fetches, what it keeps, and as what it refuses."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.repository import Repository, Server
from support.wire import Wire
from whimbrel import limits
from whimbrel.agent.transport import HttpNetwork
from whimbrel.agent.tuf_repository_client import TufRepositoryClient
from whimbrel.errors import NotFound, Unavailable, UntrustedInput

URL = "https://models.example.com/default"
NAME = "policy/detector.json"


class Desk:
    def __init__(self, folder: Path) -> None:
        self.repository = Repository()
        self.repository.policy("detector", baseline=1)
        self.server = Server(self.repository)
        self.folder, self.into = folder / "metadata", folder / "targets"
        self.client = TufRepositoryClient(self.folder, network=HttpNetwork(Wire(self.server)))

    def download(self, name: str = NAME) -> Path:
        updater = self.client.refresh(f"{URL}/metadata")
        return self.client.download(updater, name, url=f"{URL}/targets/", into=self.into)

    def asked_for_targets(self) -> int:
        return sum(line.startswith("GET targets/") for line in self.server.asked)

    @property
    def target(self) -> str:
        """Where the repository has the file."""
        (path,) = [path for path in self.repository.files if path.startswith("targets/policy/")]
        return path


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    made.client.init(made.repository.root_bytes)
    yield made
    made.server.close()


def test_a_target_is_verified_and_kept_under_a_name_of_its_own_and_not_fetched_twice(desk: Desk) -> None:
    place = desk.download()
    assert place == desk.into / "policy%2Fdetector.json"
    assert place.read_bytes() == desk.repository.files[desk.target]
    assert sorted(path.name for path in desk.folder.iterdir()) == [
        "policy-detector.json",
        "root.json",
        "snapshot.json",
        "targets.json",
        "timestamp.json",
    ]
    assert desk.download() == place
    assert desk.asked_for_targets() == 1


def test_a_kept_target_that_was_changed_is_fetched_anew(desk: Desk) -> None:
    place = desk.download()
    content = place.read_bytes()
    for changed in (content[:-1] + b"!", content[:-1], content + b"!"):
        place.write_bytes(changed)
        assert desk.download().read_bytes() == content
    assert desk.asked_for_targets() == 4


def test_without_a_root_it_says_how_to_begin(tmp_path: Path) -> None:
    fresh = Desk(tmp_path / "fresh")
    with pytest.raises(NotFound) as caught:
        fresh.client.refresh(f"{URL}/metadata")
    assert str(caught.value) == (f"{fresh.folder} has no root.json: begin with `init` and the root that you were given")
    fresh.server.close()


def test_what_nothing_signed_names_is_not_there(desk: Desk) -> None:
    with pytest.raises(NotFound) as caught:
        desk.download("policy/speech.json")
    assert str(caught.value) == "no signed metadata names the target 'policy/speech.json'"


Change = Callable[[Desk], None]


def other_bytes(desk: Desk) -> None:
    desk.repository.files[desk.target] = desk.repository.files[desk.target].replace(b'"baseline":1', b'"baseline":9')


def no_file(desk: Desk) -> None:
    del desk.repository.files[desk.target]


def old_snapshot(desk: Desk) -> None:
    before = dict(desk.repository.files)
    desk.repository.policy("detector", baseline=1)
    desk.download()
    desk.repository.files = before


def other_root(desk: Desk) -> None:
    desk.client.init(Repository().root_bytes)


def no_metadata(desk: Desk) -> None:
    del desk.repository.files["metadata/timestamp.json"]


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (other_bytes, UntrustedInput, f"{NAME} cannot be trusted: Observed hash "),
        (no_file, Unavailable, f"{NAME} cannot be fetched: {URL}/targets/policy/"),
        (old_snapshot, UntrustedInput, "the signed metadata cannot be trusted: "),
        (other_root, UntrustedInput, "the signed metadata cannot be trusted: its timestamp is not signed by the key"),
        (
            no_metadata,
            Unavailable,
            f"the signed metadata cannot be fetched: {URL}/metadata/timestamp.json answered 404",
        ),
    ],
)
def test_what_is_refused_is_refused_as_distrust_or_as_absence(
    desk: Desk, change: Change, kind: type[Exception], words: str
) -> None:
    change(desk)
    with pytest.raises(kind) as caught:
        desk.download()
    assert str(caught.value).startswith(words)


def test_a_target_is_held_in_memory_up_to_its_limit(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(desk.repository.files[desk.target])
    monkeypatch.setattr(limits, "TUF_TARGET_BYTES", size - 1)
    with pytest.raises(UntrustedInput) as caught:
        desk.download()
    assert str(caught.value) == (
        f"{NAME} has {size} bytes; this command holds a file in memory, and takes at most {size - 1}"
    )
    monkeypatch.setattr(limits, "TUF_TARGET_BYTES", size)
    assert desk.download().stat().st_size == size
