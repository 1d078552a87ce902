"""`whimbrel tuf-client` against a repository over HTTP: the protocol of the public conformance suite."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, TargetFile

from support.repository import Repository, Server, onnx_model
from support.server import Said, whimbrel
from whimbrel.trust import roles

LINE = roles.line_path("detector")


@pytest.fixture
def repository() -> Repository:
    made = Repository()
    made.release("detector", 1, onnx_model())
    made.policy("detector", baseline=1)
    return made


@pytest.fixture
def server(repository: Repository) -> Iterator[Server]:
    with Server(repository) as running:
        yield running


@pytest.fixture
def client(tmp_path: Path, server: Server) -> "Client":
    return Client(tmp_path, server)


class Client:
    """One client's folders."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.metadata, self.targets = folder / "metadata", folder / "targets"
        self._server = server

    def init(self) -> Said:
        root = self.metadata.parent / "given.json"
        root.write_bytes(self._server.repository.root_bytes)
        return whimbrel("tuf-client", "--metadata-dir", self.metadata, "init", root)

    def refresh(self) -> Said:
        return whimbrel(*self._repository(), "refresh")

    def download(self, *names: str) -> Said:
        named = [word for name in names for word in ("--target-name", name)]
        where = ("--target-base-url", f"{self._server.url}/default/targets", "--target-dir", self.targets)
        return whimbrel(*self._repository(), *named, *where, "download")

    def _repository(self) -> tuple[object, ...]:
        return "tuf-client", "--metadata-dir", self.metadata, "--metadata-url", f"{self._server.url}/default/metadata"

    @property
    def downloaded(self) -> list[bytes]:
        return [each.read_bytes() for each in self.targets.glob("*")] if self.targets.exists() else []

    def version(self, role: str) -> int:
        version: int = Metadata.from_file(str(self.metadata / f"{role}.json")).signed.version
        return version


def test_metadata_is_kept_under_the_names_of_the_roles(client: Client, repository: Repository) -> None:
    assert client.init().status == 0
    assert {each.name for each in client.metadata.iterdir()} == {"root.json"}
    assert client.refresh().status == 0
    assert {each.name for each in client.metadata.iterdir()} == {
        "root.json",
        "timestamp.json",
        "snapshot.json",
        "targets.json",
    }
    repository.new_keys()
    assert client.refresh().status == 0
    assert (client.version("root"), client.version("targets")) == (2, 2)


def test_target_is_verified_kept_and_not_fetched_twice(client: Client, server: Server) -> None:
    client.init()
    assert client.download(LINE).status == 0
    (content,) = client.downloaded
    assert content.startswith(b"{")
    asked = len(server.asked)
    assert client.download(LINE).status == 0
    assert not any("targets/" in each for each in server.asked[asked:])


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_target_may_have_any_of_the_hashes(client: Client, repository: Repository, algorithm: str) -> None:
    content = b"a target of somebody else"
    target = TargetFile.from_data("models/detector/notes.txt", content, [algorithm])
    repository.files[f"targets/models/detector/{target.hashes[algorithm]}.notes.txt"] = content
    role = roles.publisher_role("detector")
    repository.delegated[role].targets[target.path] = target
    repository.delegated[role].version += 1
    repository.sign(role)
    client.init()
    assert client.download(target.path).status == 0
    assert client.downloaded == [content]


def test_whatever_goes_wrong_is_status_1_and_leaves_no_target(client: Client, repository: Repository) -> None:
    assert "begin with `init`" in refused(client.refresh())
    client.init()
    assert "no signed metadata names" in refused(client.download("models/detector/nothing.json"))
    for name, content in repository.files.items():
        if name.startswith("targets/models/detector/"):
            repository.files[name] = content.replace(b"{", b"[", 1)
    assert "cannot be trusted" in refused(client.download(LINE))
    repository.timestamp.expires = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    repository.renew()
    assert "expired" in refused(client.refresh())
    assert client.downloaded == []


def test_first_target_that_fails_ends_it(client: Client) -> None:
    client.init()
    refused(client.download("models/nothing.json", LINE))
    assert client.downloaded == []


def test_command_line_that_lacks_an_option_names_it(client: Client) -> None:
    said = whimbrel("tuf-client", "refresh")
    assert (said.status, "--metadata-dir" in said.err) == (2, True)
    said = whimbrel("tuf-client", "--metadata-dir", client.metadata, "refresh")
    assert (said.status, "--metadata-url" in said.err) == (2, True)
    said = whimbrel("tuf-client", "--metadata-dir", client.metadata, "--metadata-url", "http://127.0.0.1:9", "download")
    assert (said.status, "--target-name" in said.err) == (2, True)


def refused(said: Said) -> str:
    assert (said.status, said.out, said.err.count("\n")) == (1, "", 1)
    return said.err
