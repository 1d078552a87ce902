"""Versions that stay sealed in their slot: where they are opened, what is left of them, and why some are not taken."""

import os
from pathlib import Path
from typing import Any

import pytest

from support.sealing import lies_in_memory
from support.values import file
from whimbrel import agefile
from whimbrel.agent import open_in_memory
from whimbrel.agent.disk import RealDisk
from whimbrel.agent.open_in_memory import (
    OpenInMemory,
    memory_problem,
    objection_to_memory,
    opened_slot,
    remove_left_open,
)
from whimbrel.agent.places import Places
from whimbrel.device.journal import Candidate
from whimbrel.device.shadowing import Shadowing
from whimbrel.device.slots import Content, Held, Opened
from whimbrel.errors import Unavailable, UntrustedInput
from whimbrel.model.documents import digest_of
from whimbrel.model.release import Sealed
from whimbrel.policy.shadow import Shadow

PLAIN = b"a model" * 1000
KEY = agefile.new_identity()
SEALED = agefile.seal_bytes(PLAIN, recipient=agefile.recipient_of(KEY))


@pytest.fixture
def places(tmp_path: Path) -> Places:
    made = Places(tmp_path / "wake", disk=RealDisk())
    made.make()
    made.slot("a").mkdir()
    (made.slot("a") / "m.onnx").write_bytes(SEALED)
    return made


def held(opens_to: bytes | None = PLAIN) -> Held:
    opened = None if opens_to is None else Opened(sha256=digest_of(opens_to), size_bytes=len(opens_to))
    contents = (Content(name="m.onnx", sha256=digest_of(SEALED), opens_to=opened),)
    return Held(slot="a", serial=2, version="v2", entry="m.onnx", contents=contents, sealed=True)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_session_opens_a_sealed_version_into_a_file_without_a_name(places: Places) -> None:
    before = open_files()
    memory = OpenInMemory(places, held(), KEY)
    assert memory.path.read_bytes() == PLAIN
    memory.close()
    assert open_files() == before


def test_a_version_that_opens_to_other_bytes_is_refused_and_leaves_no_file_open(places: Places) -> None:
    before = open_files()
    with pytest.raises(UntrustedInput) as caught:
        OpenInMemory(places, held(opens_to=PLAIN[:-1] + b"!"), KEY)
    assert str(caught.value) == (
        f"m.onnx opened to other bytes than the release names: SHA-256 {digest_of(PLAIN)}; the agent fetches it anew"
    )
    assert open_files() == before


def test_a_probe_gets_a_folder_in_memory_that_is_gone_afterwards(places: Places) -> None:
    with opened_slot(places, held(), lambda: KEY) as folder:
        assert folder.parent == Path("/dev/shm")
        assert [path.name for path in folder.iterdir()] == ["m.onnx"]
        assert (folder / "m.onnx").read_bytes() == PLAIN
    assert lies_in_memory(places.folder) == set()


def test_an_open_version_is_probed_in_its_slot_and_needs_no_key(places: Places) -> None:
    def no_key() -> str:
        raise AssertionError("nobody needs a key")

    with opened_slot(places, held(opens_to=None), no_key) as folder:
        assert folder == places.slot("a")


def test_what_a_killed_probe_left_open_is_removed_before_the_next_one_and_by_the_next_pass(
    places: Places, tmp_path: Path
) -> None:
    others = Places(tmp_path / "other", disk=RealDisk())

    def left(of: Places) -> Path:
        left_open = opened_slot(of, held(), lambda: KEY)
        folder = left_open.__enter__()
        kept = folder.with_name(f"{folder.name}-left")
        folder.rename(kept)
        folder.mkdir()
        left_open.__exit__(None, None, None)
        return kept

    others.make()
    others.slot("a").mkdir()
    (others.slot("a") / "m.onnx").write_bytes(SEALED)
    its = left(others)
    own = left(places)
    with opened_slot(places, held(), lambda: KEY):
        assert not own.exists()
        assert its.exists()  # of another folder's agent, which may be in a probe
    remove_left_open(others)
    assert not its.exists()


def test_a_folder_that_cannot_be_made_in_memory_is_no_fault_of_the_version(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_in_memory, "_IN_MEMORY", tmp_path / "nowhere")
    with pytest.raises(Unavailable, match="serial 2 cannot be opened in memory: "), opened_slot(places, held(), str):
        pass


SEAL = Sealed(sha256="b" * 64, size_bytes=200)
OF_ONE_FILE = (
    "a version of one file: this device keeps sealed versions sealed (sealed_at_rest), and opens one file into memory; "
    "serial 2 has several, or a folder"
)
SHADOW = Shadowing(how=Shadow(sample_ppm=1))


@pytest.mark.parametrize(
    ("changes", "active", "at_rest", "because"),
    [
        ({}, None, True, ""),
        ({"files": (file(),)}, None, True, ""),
        ({"files": (file(), file(name="b"))}, None, True, ""),
        ({"files": (file(sealed=SEAL), file(name="b"))}, None, False, ""),
        ({"files": (file(sealed=SEAL), file(name="b"))}, None, True, OF_ONE_FILE),
        ({"files": (file(), file(name="b", sealed=SEAL))}, None, True, OF_ONE_FILE),
        ({"shadow": SHADOW}, None, False, ""),
        (
            {"shadow": SHADOW},
            None,
            True,
            "its rollout: serial 2 stays sealed here (sealed_at_rest), and has no shadow",
        ),
        (
            {"shadow": SHADOW, "files": (file(),)},
            held(),
            False,
            "nothing is tried in the shadow of a version that stays sealed (sealed_at_rest)",
        ),
        ({"shadow": SHADOW, "files": (file(),)}, held(opens_to=None), True, ""),
        ({}, held(), True, ""),
    ],
)
def test_a_version_that_cannot_stay_sealed_is_not_taken_and_why_is_said(
    changes: dict[str, Any], active: Held | None, at_rest: bool, because: str
) -> None:
    values = {"serial": 2, "version": "v2", "slot": "b", "files": (file(sealed=SEAL),), "policy_sequence": 1}
    candidate = Candidate(**values | {"offered_at": 0.0} | changes)
    assert objection_to_memory(candidate, active, sealed_at_rest=at_rest) == because


def test_a_system_without_files_in_memory_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert memory_problem() == ""
    monkeypatch.setattr(open_in_memory, "_IN_MEMORY", Path("/nowhere"))
    assert memory_problem() == (
        "another system: sealed_at_rest opens versions into memory (memfd and /dev/shm, of Linux), which this one has "
        "not; turn the option off to keep them open on the disk"
    )
