"""A version travels as a delta: real patches, a real device, and every way in which a patch may be wrong."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.repository import Repository, Server, onnx_model, probe_of, signature_of, variant_of
from support.server import done
from whimbrel import Agent
from whimbrel.agent.probes import ProbeServer
from whimbrel.delta.codec import encode_bytes
from whimbrel.model import documents
from whimbrel.model.documents import digest_of
from whimbrel.model.ways import NOTHING, DeltaIndex, Step
from whimbrel.trust import roles

CONTENTS = {serial: onnx_model(factor=float(serial + 1), padding=40_000) for serial in (1, 2, 3)}


def patch(repository: Repository, base: bytes, target: bytes, *, content: bytes | None = None) -> Step:
    """A step of an index; `content` is what lies where the patch should be."""
    made = encode_bytes(base, target)
    repository.blob(made)
    if content is not None:
        repository.blobs[digest_of(made)] = content
    return Step(
        base=digest_of(base) if base else NOTHING,
        target=digest_of(target),
        target_bytes=len(target),
        sha256=digest_of(made),
        size_bytes=len(made),
    )


def index(repository: Repository, serial: int, *steps: Step) -> None:
    found = DeltaIndex(model="detector", serial=serial, steps=steps)
    repository.put(roles.policy_role("detector"), roles.deltas_path("detector", serial), documents.encode(found))


@pytest.fixture
def repository() -> Repository:
    made = Repository()
    for serial, content in CONTENTS.items():
        variant = variant_of(content, probe=probe_of(factor=float(serial + 1)), signature=signature_of())
        made.release("detector", serial, content, variants=(variant,))
    made.policy("detector", baseline=1)
    return made


@pytest.fixture
def server(repository: Repository) -> Iterator[Server]:
    with Server(repository) as running:
        yield running


@pytest.fixture
def agent(tmp_path: Path, server: Server, repository: Repository) -> Iterator[Agent]:
    probes = ProbeServer()
    with Agent.open(
        tmp_path / "device",
        server=server.url,
        root=repository.root_bytes,
        models=["detector"],
        probes=probes,
        device_id="dev-1",
        enrol_token=server.enrol_token,
    ) as made:
        made.cycle()
        settle(made)
        server.announced.clear()
        yield made
    probes.close()


def settle(agent: Agent) -> None:
    for _ in range(3):
        with agent.session("detector") as model:
            model.record(latency_ms=1.0)
    agent.cycle(force=True)


def moved_to(agent: Agent, server: Server, serial: int) -> int:
    """Take `serial`; the bytes that were moved for it."""
    server.repository.policy("detector", baseline=serial)
    found = agent.cycle(force=True).models["detector"]
    assert found["serial"] == serial, found
    with agent.session("detector") as model:
        assert model.path.read_bytes() == CONTENTS[serial]
    return int(server.announced[-1]["bytes_moved"])


def test_version_travels_as_the_patch_from_what_is_here(agent: Agent, server: Server) -> None:
    step = patch(server.repository, CONTENTS[1], CONTENTS[2])
    index(server.repository, 2, step)
    assert moved_to(agent, server, 2) == step.size_bytes < len(CONTENTS[2]) / 2


def test_skipped_version_is_crossed_by_a_chain(agent: Agent, server: Server) -> None:
    steps = patch(server.repository, CONTENTS[1], CONTENTS[2]), patch(server.repository, CONTENTS[2], CONTENTS[3])
    index(server.repository, 3, *steps)
    assert moved_to(agent, server, 3) == sum(step.size_bytes for step in steps)


def test_device_without_the_base_takes_the_compressed_whole(agent: Agent, server: Server) -> None:
    whole = patch(server.repository, b"", CONTENTS[3])
    index(server.repository, 3, patch(server.repository, CONTENTS[2], CONTENTS[3]), whole)
    assert moved_to(agent, server, 3) == whole.size_bytes < len(CONTENTS[3])


def test_flipped_patch_gives_way_to_the_whole_file(agent: Agent, server: Server) -> None:
    made = bytearray(encode_bytes(CONTENTS[1], CONTENTS[2]))
    made[len(made) // 2] ^= 1
    step = patch(server.repository, CONTENTS[1], CONTENTS[2], content=bytes(made))
    index(server.repository, 2, step)
    assert moved_to(agent, server, 2) == step.size_bytes + len(CONTENTS[2])


def test_patch_that_was_flipped_on_the_way_is_read_by_nobody(
    agent: Agent, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    monkeypatch.setattr("whimbrel.patchfile.apply_files", lambda base, patch, out, **_: read.append(patch))
    step = patch(server.repository, CONTENTS[1], CONTENTS[2])
    content = server.repository.blobs[step.sha256]
    server.repository.blobs[step.sha256] = bytes([content[0] ^ 1]) + content[1:]
    index(server.repository, 2, step)
    assert moved_to(agent, server, 2) == step.size_bytes + len(CONTENTS[2])
    assert read == []


def test_patch_that_makes_other_bytes_than_the_release_names_gives_way(agent: Agent, server: Server) -> None:
    wrong = patch(server.repository, CONTENTS[1], CONTENTS[3])
    lying = Step(
        base=wrong.base,
        target=digest_of(CONTENTS[2]),
        target_bytes=len(CONTENTS[2]),
        sha256=wrong.sha256,
        size_bytes=wrong.size_bytes,
    )
    index(server.repository, 2, lying)
    assert moved_to(agent, server, 2) == lying.size_bytes + len(CONTENTS[2])


def test_patch_that_is_not_there_gives_way(agent: Agent, server: Server) -> None:
    step = patch(server.repository, CONTENTS[1], CONTENTS[2])
    del server.repository.blobs[step.sha256]
    index(server.repository, 2, step)
    assert moved_to(agent, server, 2) == len(CONTENTS[2])


def test_index_that_cannot_be_read_means_whole_files(agent: Agent, server: Server) -> None:
    role, path = roles.policy_role("detector"), roles.deltas_path("detector", 2)
    server.repository.put(role, path, b'{"format": "whimbrel-deltas-9"}')
    assert moved_to(agent, server, 2) == len(CONTENTS[2])


def test_device_without_the_codec_takes_whole_files(
    agent: Agent, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "whimbrel.patchfile", None)
    monkeypatch.delattr("whimbrel.patchfile", raising=False)  # where an earlier test imported it
    index(server.repository, 2, patch(server.repository, CONTENTS[1], CONTENTS[2]))
    assert moved_to(agent, server, 2) == len(CONTENTS[2])


_LEAN = """
import sys
for name in sys.argv[4:]:
    sys.modules[name] = None  # as where there is no wheel of it
from whimbrel import Agent
from whimbrel.device.ports import ProbeResult

class AllGood:
    def probe(self, request):
        return ProbeResult(passed=True)

with Agent.open(sys.argv[1], server=sys.argv[2], root=sys.argv[3], probes=AllGood()) as agent:
    for line in sys.stdin:
        found = agent.cycle(force=True).models["detector"]
        for _ in range(3):
            with agent.session("detector"):
                pass
        codec = {"numpy", "pcodec", "whimbrel.patchfile"} & {name for name, module in sys.modules.items() if module}
        print(found["serial"], agent.status()["patches"], len(codec), flush=True)
"""


@pytest.mark.parametrize(("lacking", "second"), [([], "2 True 3"), (["pcodec"], "2 False 0"), (["numpy"], "2 False 0")])
def test_codec_is_imported_to_apply_a_patch_only_and_without_it_versions_come_whole(
    tmp_path: Path, server: Server, lacking: list[str], second: str
) -> None:
    step = patch(server.repository, CONTENTS[1], CONTENTS[2])
    index(server.repository, 2, step)
    (tmp_path / "root.json").write_bytes(server.repository.root_bytes)
    command = [sys.executable, "-c", _LEAN, tmp_path / "device", server.url, tmp_path / "root.json", *lacking]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n")
        assert process.stdout.readline() == f"1 {not lacking} 0\n"
        server.repository.policy("detector", baseline=2)
        process.stdin.write("\n")
        assert process.stdout.readline() == f"{second}\n"
        process.stdin.close()
    fetched = [line for line in server.asked if step.sha256 in line]
    assert bool(fetched) is not bool(lacking)


def test_nothing_is_left_behind_in_the_folder_of_downloads(agent: Agent, server: Server) -> None:
    steps = patch(server.repository, CONTENTS[1], CONTENTS[2]), patch(server.repository, CONTENTS[2], CONTENTS[3])
    index(server.repository, 3, *steps)
    moved_to(agent, server, 3)
    assert not [path.name for path in (agent.folder / "incoming").iterdir()]


def test_publishing_says_what_a_patch_saves_and_lists_it_for_devices(tmp_path: Path) -> None:
    folder, keys = tmp_path / "repository", ["-R", str(tmp_path / "repository")]
    done("init", folder)
    done("model", "add", "detector", *keys)
    for serial in (1, 2):
        (tmp_path / f"{serial}.onnx").write_bytes(CONTENTS[serial])
        said = done("publish", "-m", "detector", tmp_path / f"{serial}.onnx", *keys)
    (patched,) = [each for each in said["deltas"] if each["from"] != "nothing"]
    assert patched["size_bytes"] < len(CONTENTS[2]) / 2
    assert "This looks like" in patched["advice"]
    (listed,) = (folder / "files" / "default" / "targets" / "deltas" / "detector").glob("*.2.json")
    steps = documents.parse(DeltaIndex, listed.read_bytes(), what="the index").steps
    assert patched["sha256"] in {step.sha256 for step in steps}
    assert (folder / "files" / "default" / "artifacts" / patched["sha256"]).stat().st_size == patched["size_bytes"]
    assert done("collect", "--yes", "--older-than-hours", "0", *keys)["collected"] == []
