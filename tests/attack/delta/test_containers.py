"""Model files from somebody who wants to hurt: a parser finds tensors, or says `UntrustedInput`, soon and cheaply.

`corpus/` keeps one small valid file a container and every input that once did harm; all are mutated here, always in the
same way. `tests/fuzz/delta.py containers` does it without end.
"""

import random
import struct
import tracemalloc
from pathlib import Path

import pytest

from support.delta import artifact
from whimbrel import limits
from whimbrel.delta import containers
from whimbrel.delta.artifact import Member
from whimbrel.errors import UntrustedInput

CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())
NUMBERS = [0, 1, 0x7F, 0xFF, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**60, 2**63, 2**64 - 1]


def parse(content, path=""):
    """Tensors that lie inside and apart, or none. Anything but `UntrustedInput` escapes."""
    try:
        tensors = containers.parse(Member(path, len(content), lambda offset, size: content[offset : offset + size]))
    except UntrustedInput:
        return []
    end = 0
    for tensor in tensors:
        assert end <= tensor.offset < tensor.end <= len(content)
        end = tensor.end
    return tensors


def mutated(content, rng):
    out = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(out)) if rng.random() < 0.4 else rng.randrange(min(len(out), 400))
        kind = rng.random()
        if kind < 0.5:
            out[place] = rng.choice((0, 1, 8, 10, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif kind < 0.7:
            out[place : place + 8] = rng.choice(NUMBERS).to_bytes(8, "little")
        elif kind < 0.8:
            out[place : place + 4] = (rng.choice(NUMBERS) % 2**32).to_bytes(4, "little")
        elif kind < 0.9:
            del out[place : place + rng.randint(1, 16)]
        else:
            out[place:place] = out[:place][-rng.randint(1, 32) :]
        if not out:
            return b""
    return bytes(out)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_mutated_files_do_no_harm(path):
    content = path.read_bytes()
    rng = random.Random(path.name)
    for _ in range(400):
        parse(mutated(content, rng), path.name)
    for size in range(0, len(content), max(1, len(content) // 100)):
        parse(content[:size], path.name)


def test_corpus_has_every_container():
    found = {path.suffix for path in CORPUS if parse(path.read_bytes(), path.name)}
    assert found == {".gguf", ".safetensors", ".onnx", ".tflite", ".bin", ".pt", ".tar"}


def peak(content):
    tracemalloc.start()
    parse(content)
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


GGUF = b"GGUF" + struct.pack("<I", 3)
STRING = struct.pack("<Q", 1) + b"k"


@pytest.mark.parametrize(
    "content",
    [
        GGUF + struct.pack("<QQ", 2**60, 0),
        GGUF + struct.pack("<QQ", 0, 2**60),
        GGUF + struct.pack("<QQ", 0, 1) + STRING + struct.pack("<IIQ", 9, 8, 2**60),
        GGUF + struct.pack("<QQ", 0, 1) + STRING + struct.pack("<IIQ", 9, 4, 2**60),
        GGUF + struct.pack("<QQ", 0, 1) + STRING + struct.pack("<IQ", 8, 2**60),
        GGUF + struct.pack("<QQ", 1, 0) + STRING + struct.pack("<IQQIQ", 2, 2**60, 2**60, 0, 0),
        GGUF + struct.pack("<QQ", 0, 1) + STRING + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 1000,
        struct.pack("<Q", 2**60) + b"{",
        struct.pack("<Q", 100_000) + b"{" * 100_000,
        struct.pack("<Q", 100_000) + b'{"a":' + b"[" * 99_995,
        b"\x08\x08" + b"\x3a\x80\x80\x80\x80\x80\x80\x80\x80\x10",
        b"PK\x03\x04" + bytes(30) + b"PK\x05\x06" + b"\xff" * 18,
    ],
)
def test_claim_of_2_to_the_60_costs_no_memory(content):
    assert peak(content + bytes(100)) < 16 * limits.MIB
    assert parse(content + bytes(100)) == []


def test_deeply_nested_onnx_graphs_end():
    graph = b""
    for _ in range(40):
        attribute = b"\x32" + _varint(len(graph)) + graph
        node = b"\x2a" + _varint(len(attribute)) + attribute
        graph = b"\x0a" + _varint(len(node)) + node
    assert parse(b"\x08\x08\x3a" + _varint(len(graph)) + graph) == []


def test_pickle_that_would_run_a_command_is_only_read(tmp_path):
    path = Path(__file__).parent / "corpus" / "storages.pt"
    content = path.read_bytes().replace(b"ctorch._utils\n_rebuild_tensor_v2\n", b"cposix\nsystem           _______\n\n")
    assert content != path.read_bytes()
    assert parse(content) is not None


def test_archive_that_holds_itself_is_not_entered_again():
    assert all(tensor.dtype.name == "bytes" for tensor in parse(b"PK\x03\x04" * 10 + b"PK\x05\x06" + bytes(18)))


def test_many_small_fields_end_at_the_limit(monkeypatch):
    monkeypatch.setattr(containers.cursor, "limits", type("Fewer", (), {**vars(limits), "DELTA_CONTAINER_STEPS": 1000}))
    budget = containers.Budget(1000)
    content = b"\x08\x08" + b"\x10\x00" * 5000
    with pytest.raises(UntrustedInput, match="more than 1000 fields"):
        containers.parse(artifact(content).members[0], budget=budget)


def _varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])
