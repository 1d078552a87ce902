"""A release whose files have names that lead elsewhere is taken by no device, and nothing is written."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.agents import AllGood
from support.repository import Repository, Server, file_of, onnx_model, variant_of
from whimbrel import Agent
from whimbrel.agent.options import AgentOptions
from whimbrel.model import documents
from whimbrel.trust import roles

CONTENT = onnx_model()


@pytest.fixture
def repository() -> Repository:
    return Repository()


@pytest.fixture
def server(repository: Repository) -> Iterator[Server]:
    with Server(repository) as running:
        yield running


def signed_with_names(repository: Repository, *names: str) -> None:
    """A release that its publisher signed, with these names in it."""
    files = tuple(file_of(CONTENT, name=f"file-{number}") for number in range(len(names)))
    release = repository.release("detector", 1, CONTENT, variants=(variant_of(CONTENT, files=files),))
    document = json.loads(documents.encode(release))
    for file, name in zip(document["variants"][0]["files"], names, strict=True):
        file["name"] = name
    repository.put(roles.publisher_role("detector"), roles.release_path("detector", 1), json.dumps(document).encode())
    repository.policy("detector", baseline=1)


@pytest.mark.parametrize(
    "names",
    [
        ["../../../escaped"],
        ["model.onnx", "../b/model.onnx"],
        ["model.onnx", "a/../../b/model.onnx"],
        ["/tmp/whimbrel-escaped"],
        ["model.onnx", "weights/./w"],
        ["model.onnx", "weights//w"],
        ["a\\..\\escaped"],
        ["model.onnx", ".journal.tmp"],
        ["model.onnx", "NUL"],
        ["model.onnx", "weights/con.bin"],
        ["Model.onnx", "model.onnx"],
        ["weights", "weights/w"],
        ["/".join("abcdefghi")],
        [f"file-{number}" for number in range(257)],
    ],
    ids=lambda names: names[-1][:20],
)
def test_names_that_lead_elsewhere_or_clash_are_refused(
    names: list[str], repository: Repository, server: Server, tmp_path: Path
) -> None:
    signed_with_names(repository, *names)
    home = tmp_path / "above" / "device"
    with Agent.open(
        home, AgentOptions(server=server.url, root=repository.root_bytes, models=["detector"], probes=AllGood())
    ) as agent:
        for _ in range(2):
            result = agent.cycle(force=True)
        assert result.models["detector"]["serial"] is None
        assert not [line for line in server.asked if "artifacts/" in line], "bytes were fetched for it"
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file() and path.read_bytes() == CONTENT) == []
    assert not Path("/tmp/whimbrel-escaped").exists()


def test_plain_names_below_the_folder_are_taken(repository: Repository, server: Server, tmp_path: Path) -> None:
    """The same way with names that may be: the test above refuses for the names."""
    signed_with_names(repository, "model.onnx", "weights/w.bin")
    with Agent.open(
        tmp_path, AgentOptions(server=server.url, root=repository.root_bytes, models=["detector"], probes=AllGood())
    ) as agent:
        assert agent.cycle().models["detector"]["serial"] == 1
        with agent.session("detector") as session:
            assert (session.folder / "weights" / "w.bin").read_bytes() == CONTENT
