"""What devices fetch says what the rows say: signed where it differs, and copied in an order that never lies."""

import json
from collections.abc import Callable

import msgspec
import pytest

from support.rollouts_in_memory import policy
from support.server_in_memory import ServerInMemory
from whimbrel.errors import Unavailable
from whimbrel.flows.publishing.build_deltas import DeltaRecord
from whimbrel.model.ways import NOTHING
from whimbrel.server.controllers.publishing import is_published

HOUR_S, DAY_S = 3600.0, 86400.0
TIMESTAMP = "default/metadata/timestamp.json"


def change(server: ServerInMemory, *, refresh_s: float = 7.0, model: str = "wake") -> None:
    """A person changes a setting that stands in the policy."""
    with server.stores() as stores:
        settings = msgspec.structs.replace(stores.registry.model(model).settings, refresh_s=refresh_s)
        stores.registry.change_model(model, settings=settings)


def newest(server: ServerInMemory) -> dict[str, int]:
    with server.stores() as stores:
        return stores.roles.newest()


def published(server: ServerInMemory, model: str | None = None) -> bool:
    with server.stores() as stores:
        return is_published(stores, model, now=server.clock.now)


def served_timestamp(server: ServerInMemory) -> int:
    """The version that devices fetch."""
    version: int = json.loads(server.run(server.blobs.get(TIMESTAMP)))["signed"]["version"]
    return version


def written_by(server: ServerInMemory, act: Callable[[], None]) -> list[str]:
    """The files that were put meanwhile, in order."""
    server.blobs.written.clear()
    act()
    return list(server.blobs.written)


def test_a_change_is_signed_and_copied_in_one_round_and_the_timestamp_last(server: ServerInMemory) -> None:
    before, sequence = newest(server), policy(server).sequence
    change(server)
    assert not published(server)
    written = written_by(server, server.round)
    assert (policy(server).refresh_s, policy(server).sequence) == (7.0, sequence + 1)
    after = newest(server)
    assert {role for role in after if after[role] != before[role]} == {"policy-wake", "snapshot", "timestamp"}
    assert all(after[role] == before[role] + 1 for role in ("policy-wake", "snapshot", "timestamp"))
    assert written[0].startswith("default/targets/policy/")
    assert written[1:] == [
        f"default/metadata/{after['policy-wake']}.policy-wake.json",
        f"default/metadata/{after['snapshot']}.snapshot.json",
        TIMESTAMP,
    ]
    assert served_timestamp(server) == after["timestamp"]
    assert published(server)


def test_a_round_with_nothing_to_do_signs_and_copies_nothing(server: ServerInMemory) -> None:
    before = newest(server)
    assert written_by(server, server.round) == []
    assert newest(server) == before


def test_one_model_that_changed_is_signed_and_another_is_left(server: ServerInMemory) -> None:
    server.add_model("sleep")
    server.round()
    before = newest(server)
    change(server, model="sleep")
    assert (published(server), published(server, "sleep"), published(server, "wake")) == (False, False, True)
    server.round()
    after = newest(server)
    assert (after["policy-sleep"], after["policy-wake"]) == (before["policy-sleep"] + 1, before["policy-wake"])
    assert policy(server).refresh_s != 7.0


@pytest.mark.parametrize(("after_s", "signs"), [(HOUR_S - 1, False), (HOUR_S, True)])
def test_the_timestamp_is_signed_anew_when_it_is_an_hour_old(
    server: ServerInMemory, after_s: float, signs: bool
) -> None:
    before = newest(server)
    server.clock.now += after_s
    assert written_by(server, server.round) == ([TIMESTAMP] if signs else [])
    after = newest(server)
    assert after == before | {"timestamp": before["timestamp"] + signs}
    assert published(server)


@pytest.mark.parametrize(
    ("after_s", "signed"),
    [
        (15 * DAY_S, {"timestamp"}),
        (15 * DAY_S + 1, {"timestamp", "snapshot"}),
        (45 * DAY_S - 1, {"timestamp", "snapshot"}),
        (45 * DAY_S, {"timestamp", "snapshot", "policy-wake"}),
    ],
)
def test_what_the_server_signs_is_signed_anew_when_half_of_its_life_is_over(
    server: ServerInMemory, after_s: float, signed: set[str]
) -> None:
    before = newest(server)
    server.clock.now += after_s
    server.round()
    after = newest(server)
    assert {role for role in after if after[role] != before[role]} == signed


def test_a_store_that_does_not_answer_ends_the_round_and_the_next_one_copies_all(server: ServerInMemory) -> None:
    change(server)
    seen_by_devices, signed = served_timestamp(server), newest(server)["timestamp"]
    server.blobs.fails = Unavailable("the store does not answer")
    with pytest.raises(Unavailable, match="the store does not answer"):
        server.round()
    assert policy(server).refresh_s == 7.0  # it is signed
    assert newest(server)["timestamp"] == signed + 1
    assert served_timestamp(server) == seen_by_devices
    assert not published(server)
    server.blobs.fails = None
    assert written_by(server, server.round)[-1] == TIMESTAMP
    assert newest(server)["timestamp"] == served_timestamp(server) == signed + 1
    assert published(server)


@pytest.mark.parametrize("files", [1, 2, 3])
def test_devices_see_the_old_timestamp_until_all_that_the_new_one_lists_is_there(
    server: ServerInMemory, monkeypatch: pytest.MonkeyPatch, files: int
) -> None:
    """Its process was killed after so many files."""
    change(server)
    before, put = served_timestamp(server), server.blobs.put

    async def killed(path: str, content: bytes) -> None:
        if len(server.blobs.written) == files:
            raise Unavailable("killed")
        await put(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(server.blobs, "put", killed)
        server.blobs.written.clear()
        with pytest.raises(Unavailable, match="killed"):
            server.round()
    assert served_timestamp(server) == before
    assert len(written_by(server, server.round)) == 4  # all of them once more, to the same bytes
    assert served_timestamp(server) == before + 1


def test_a_leader_that_lost_the_lead_signs_nothing(server: ServerInMemory) -> None:
    server.controllers.leader.take()
    change(server)
    server.controllers.leader.resign()
    assert server.new_controllers().leader.take()
    before = newest(server)
    with pytest.raises(Unavailable, match="another server leads now"):
        server.run(server.controllers.publishing.publish("default"))
    assert newest(server) == before


def test_a_patch_that_was_made_is_listed_once(server: ServerInMemory) -> None:
    missing = server.controllers.deltas.next_missing("default", "wake")
    assert missing is not None
    assert (missing.model, missing.pair.base, missing.whole_bytes) == ("wake", NOTHING, None)
    record = DeltaRecord(
        model="wake",
        base=missing.pair.base,
        target=missing.pair.target,
        target_bytes=missing.pair.target_bytes,
        sha256="d" * 64,
        size_bytes=3,
    )
    server.controllers.deltas.note_tried("default", record)
    before = newest(server)
    written = written_by(server, server.round)
    assert len([path for path in written if path.startswith("default/targets/deltas/wake/")]) == 1
    assert written[-1] == TIMESTAMP
    assert newest(server)["policy-wake"] == before["policy-wake"] + 1
    with server.stores() as stores:
        assert stores.registry.artifact_size("d" * 64) == 3
        assert stores.deltas.unlisted_models() == []
    assert written_by(server, server.round) == []


def test_a_patch_that_does_not_pay_is_noted_and_stored_nowhere(server: ServerInMemory) -> None:
    missing = server.controllers.deltas.next_missing("default")
    assert missing is not None
    record = DeltaRecord(
        model="wake",
        base=missing.pair.base,
        target=missing.pair.target,
        target_bytes=missing.pair.target_bytes,
        sha256=None,
        size_bytes=99,
    )
    server.controllers.deltas.note_tried("default", record)
    after = server.controllers.deltas.next_missing("default")
    assert after is None or after.pair != missing.pair
    with server.stores() as stores:
        assert stores.deltas.of("wake") == [record]
        assert stores.registry.artifact_size("d" * 64) is None


def test_a_patch_is_asked_for_of_one_model_or_of_any(server: ServerInMemory) -> None:
    server.add_model("sleep")
    deltas = server.controllers.deltas
    assert deltas.next_missing("default", "sleep") is None
    missing = deltas.next_missing("default")
    assert missing is not None
    assert missing.model == "wake"
