"""Patches that should be there are built beside the rounds, by the leader, and trouble with one ends nothing."""

import asyncio
import logging

import pytest

from support.server_in_memory import ServerInMemory
from whimbrel.errors import NotFound, Unavailable
from whimbrel.flows.publishing.build_deltas import DeltaRecord, Pair
from whimbrel.model.ways import NOTHING
from whimbrel.server.controllers import deltas
from whimbrel.stores.blobs import Blobs


class Builder:
    """The encoder's place: which pairs it was asked for, and how large what it makes is."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str, int | None]] = []
        self.fails: list[Exception] = []

    async def build(
        self, blobs: Blobs, namespace: str, model: str, pair: Pair, *, whole_bytes: int | None
    ) -> DeltaRecord:
        if self.fails:
            raise self.fails.pop(0)
        self.asked.append((model, pair.base, pair.target, whole_bytes))
        return DeltaRecord(
            model=model,
            base=pair.base,
            target=pair.target,
            target_bytes=pair.target_bytes,
            sha256=f"{len(self.asked):064x}",
            size_bytes=len(self.asked),
        )


@pytest.fixture
def builder(server: ServerInMemory, monkeypatch: pytest.MonkeyPatch) -> Builder:
    """A server with versions whose artifacts are large enough for patches."""
    made = Builder()
    monkeypatch.setattr(deltas, "build_delta", made.build)
    monkeypatch.setattr(deltas, "codec_is_installed", lambda: True)
    return made


def build(server: ServerInMemory, **more: str) -> int:
    tried: int = server.run(server.controllers.build_deltas("default", **more))
    return tried


def test_what_is_missing_is_built_once_and_wakes_the_next_round(server: ServerInMemory, builder: Builder) -> None:
    server.controllers.wake.clear()
    tried = build(server)
    assert tried == len(builder.asked) > 0
    assert server.controllers.wake.is_set()
    assert len(set(builder.asked)) == len(builder.asked)
    server.controllers.wake.clear()
    assert build(server) == 0
    assert not server.controllers.wake.is_set()
    with server.stores() as stores:
        assert len(stores.deltas.of("wake")) == tried
        assert stores.deltas.unlisted_models() == ["wake"]


def test_the_whole_file_is_tried_first_and_its_size_bounds_the_patches_of_it(
    server: ServerInMemory, builder: Builder
) -> None:
    with server.stores() as stores:
        stores.registry.change_model("wake", baseline=2)
        stores.registry.change_version("wake", 2, good=True)
    build(server)
    whole = {target: number for number, (_, base, target, _) in enumerate(builder.asked, 1) if base == NOTHING}
    for _, base, target, whole_bytes in builder.asked:
        assert whole_bytes == (None if base == NOTHING else whole.get(target))


def test_patches_of_one_model_are_built_where_one_is_named(server: ServerInMemory, builder: Builder) -> None:
    server.add_model("eat")
    server.publish(model="eat")
    build(server, model="eat")
    assert {model for model, *_ in builder.asked} <= {"eat"}
    build(server)
    assert "wake" in {model for model, *_ in builder.asked}


def test_an_artifact_that_is_not_stored_is_waited_for(server: ServerInMemory, builder: Builder) -> None:
    with server.stores() as stores:
        for release in (stores.registry.published("wake")[0][1], stores.registry.published("wake")[1][1]):
            for digest in release.digests:
                stores.registry.forget_artifact(digest)
    assert build(server) == 0


def test_a_server_without_the_codec_says_what_to_install(
    server: ServerInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deltas, "codec_is_installed", lambda: False)
    with pytest.raises(Unavailable, match=r"patches cannot be made here: pip install 'whimbrel\[delta\]'"):
        build(server)
    server.run(server.controllers.run_builds())  # it ends at once


def run_builds(server: ServerInMemory, monkeypatch: pytest.MonkeyPatch, *, looks: int) -> None:
    """Run the loop for so many looks."""
    sleep, left = asyncio.sleep, looks

    async def next_look(seconds: float) -> None:
        nonlocal left
        if seconds:
            assert seconds == 2.0
            left -= 1
            if left == 0:
                raise asyncio.CancelledError
        await sleep(0)

    with monkeypatch.context() as patched:
        patched.setattr(deltas.asyncio, "sleep", next_look)
        with pytest.raises(asyncio.CancelledError):
            server.run(server.controllers.run_builds())


@pytest.mark.parametrize("leads", [True, False])
def test_only_the_leader_builds_by_itself(
    server: ServerInMemory, builder: Builder, monkeypatch: pytest.MonkeyPatch, leads: bool
) -> None:
    if leads:
        server.controllers.leader.take()
    run_builds(server, monkeypatch, looks=1)
    assert bool(builder.asked) is leads


def test_a_patch_that_was_not_made_is_told_and_tried_again(
    server: ServerInMemory, builder: Builder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger=deltas.__name__)
    server.controllers.leader.take()
    builder.fails = [NotFound("the artifact is gone"), OSError(28, "x"), ZeroDivisionError()]
    run_builds(server, monkeypatch, looks=4)
    first, second, third = (each.getMessage() for each in caplog.records)
    assert (first, third) == ("a patch was not made: the artifact is gone", "a patch was not made")
    assert second.startswith("making a patch failed: ")
    assert builder.asked
