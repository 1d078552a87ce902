"""Builders for the delta suites: model files of every container, pairs of versions, a patch round-trip in memory."""

import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Mapping

import msgspec
import numpy as np
import xxhash

from whimbrel import limits
from whimbrel.delta import codec, opaque
from whimbrel.delta.artifact import Artifact, Member, of_bytes
from whimbrel.delta.dtypes import BY_NAME, Family
from whimbrel.delta.layouts import LAYOUTS, Fields
from whimbrel.delta.patch import Head, Patch, build, pack_columns

Tensors = Mapping[str, tuple[str, np.ndarray]]
"""name -> (our dtype's name, array of its bits)."""

FLOATS = ("f32", "f16", "bf16")
BITS = {"f32": np.uint32, "f16": np.uint16, "bf16": np.uint16}
GGUF_TYPES = {"f32": 0, "f16": 1, "i8": 24, "bf16": 30} | {
    dtype.name: dtype.code - 64 for dtype in BY_NAME.values() if dtype.code >= 64
}
QUANTISED = tuple(dtype.name for dtype in BY_NAME.values() if dtype.family is Family.QBLOCK)
_SAFE = {"f32": "F32", "f16": "F16", "bf16": "BF16", "i8": "I8", "u8": "U8", "i64": "I64", "f64": "F64", "bool": "BOOL"}


def float_bits(values: np.ndarray, dtype: str) -> np.ndarray:
    """Values as the bits of `dtype`; bf16 by nearest even."""
    with np.errstate(over="ignore"):
        if dtype == "f16":
            return values.astype(np.float16).view(np.uint16)
        bits = values.astype(np.float32).view(np.uint32)
    if dtype == "f32":
        return bits
    return ((bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def safetensors(tensors: Tensors, metadata: dict[str, str] | None = None) -> bytes:
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    content = b""
    for name, (dtype, array) in tensors.items():
        data = array.tobytes()
        offsets = [len(content), len(content) + len(data)]
        header[name] = {"dtype": _SAFE[dtype], "shape": list(array.shape), "data_offsets": offsets}
        content += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + content


def gguf(tensors: Mapping[str, tuple[str, tuple[int, ...], bytes]], values: Mapping[str, str] | None = None) -> bytes:
    """`tensors`: name -> (dtype, shape slowest first, bytes)."""

    def text(content: str) -> bytes:
        return struct.pack("<Q", len(content.encode())) + content.encode()

    values = values or {"general.architecture": "test"}
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values))
    for key, value in values.items():
        out += text(key) + struct.pack("<I", 8) + text(value)
    data = b""
    for name, (dtype, shape, content) in tensors.items():
        out += text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape[::-1])
        out += struct.pack("<IQ", GGUF_TYPES[dtype], len(data))
        data += content + b"\0" * (-len(content) % 32)
    return out + b"\0" * (-len(out) % 32) + data


def blocks(rng: np.random.Generator, dtype: str, count: int) -> np.ndarray:
    """`count` plausible blocks: any codes, scales that are numbers around 0.01."""
    size = BY_NAME[dtype].block_bytes
    content = rng.integers(0, 256, (count, size), dtype=np.uint8)
    for place in _HALVES[dtype]:
        scale = (rng.normal(0.01, 0.002, count)).astype(np.float16)
        content[:, place : place + 2] = scale.view(np.uint8).reshape(-1, 2)
    return content


_HALVES = {
    "q8_0": (0,),
    "q4_0": (0,),
    "q4_1": (0, 2),
    "q5_0": (0,),
    "q5_1": (0, 2),
    "q2_k": (80, 82),
    "q3_k": (108,),
    "q4_k": (0, 2),
    "q5_k": (0, 2),
    "q6_k": (208,),
}


def nudge_blocks(rng: np.random.Generator, content: np.ndarray, dtype: str, share: float = 0.1) -> np.ndarray:
    """A share of the codes one step up, and most scales a little larger."""
    layout = LAYOUTS[dtype]
    fields = layout.split(content)
    halves = fields.halves + rng.integers(0, 4, fields.halves.shape, dtype=np.uint16)
    step = (rng.random(fields.codes.shape) < share) & (fields.codes < layout.high)
    return layout.join(Fields(halves, fields.subs, fields.codes + step.astype(np.int8)))


def gguf_pair(rng: np.random.Generator, dtype: str, before: np.ndarray, after: np.ndarray) -> list[bytes]:
    """Two files with one tensor of blocks each, and so much else that they are not patched byte by byte."""
    filler = rng.integers(0, 256, limits.DELTA_WHOLE_BYTES, dtype=np.uint8)
    elements = len(before) * BY_NAME[dtype].block_elements
    columns = next(size for size in (1024, 512, 256) if elements % size == 0)
    pad = ("i8", filler.shape, filler.tobytes())
    return [gguf({"w": (dtype, (elements // columns, columns), one.tobytes()), "pad": pad}) for one in (before, after)]


def protobuf(*fields: tuple[int, int | bytes]) -> bytes:
    """A message of (number, varint or bytes)."""

    def varint(value: int) -> bytes:
        out = b""
        while value > 127:
            out += bytes([value & 127 | 128])
            value >>= 7
        return out + bytes([value])

    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            out += varint(number << 3 | 2) + varint(len(value)) + value
    return out


def torch_zip(storages: Mapping[str, tuple[str, bytes]]) -> bytes:
    """What `torch.save({name: 1-d tensor})` writes; name -> (storage class, bytes)."""
    pickle = b"\x80\x02}("
    out = io.BytesIO()
    widths = {"FloatStorage": 4, "HalfStorage": 2, "CharStorage": 1}
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for key, (name, (storage, content)) in enumerate(storages.items()):
            count = len(content) // widths[storage]
            pickle += b"X" + struct.pack("<I", len(name)) + name.encode() + b"ctorch._utils\n_rebuild_tensor_v2\n(("
            pickle += b"X\x07\x00\x00\x00storagectorch\n" + storage.encode() + b"\nX\x01\x00\x00\x00" + b"%d" % key
            pickle += b"X\x03\x00\x00\x00cpuJ" + struct.pack("<i", count) + b"tQK\x00J" + struct.pack("<i", count)
            pickle += b"\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR"
        archive.writestr("archive/data.pkl", pickle + b"u.")
        for key, (_, content) in enumerate(storages.values()):
            archive.writestr(f"archive/data/{key}", content)
    return out.getvalue()


def tar(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def artifact(content: bytes | Mapping[str, bytes]) -> Artifact:
    """One file, or a folder's files."""
    if isinstance(content, bytes):
        return of_bytes(content)

    def member(path: str, data: bytes) -> Member:
        return Member(path, len(data), lambda offset, size: data[offset : offset + size])

    return Artifact([member(path, data) for path, data in content.items()])


def encode(base: bytes | Mapping[str, bytes], target: bytes | Mapping[str, bytes]) -> bytes:
    parts: list[bytes] = []
    head = codec.encode(artifact(base), artifact(target), parts.append)
    return head + b"".join(parts)


def parse(patch: bytes) -> Patch:
    return codec.parse(lambda offset, size: patch[offset : offset + size], len(patch))


def apply(base: bytes | Mapping[str, bytes], patch: bytes, *, check: bool = True) -> bytes:
    """The target as one line of bytes. `check=False` leaves out the base's hash, as a base that changed later would."""
    found = parse(patch)
    before = artifact(base)
    if check:
        codec.check_base(found, before)
    out = bytearray(found.target_bytes)
    written = np.zeros(found.target_bytes, bool)

    def write_at(offset: int, content: bytes | memoryview) -> None:
        end = offset + len(content)
        if offset < 0 or end > len(out) or written[offset:end].any():
            raise AssertionError(f"bytes {offset}+{len(content)} were written outside, or twice")
        out[offset:end] = content
        written[offset:end] = True

    decoder = codec.Decoder(found, lambda offset, size: patch[offset : offset + size], before)
    for unit in found.units():
        decoder.run(unit, write_at)
    if not written.all():
        raise AssertionError(f"{int((~written).sum())} bytes were never written")
    return bytes(out)


def round_trip(base: bytes | Mapping[str, bytes], target: bytes | Mapping[str, bytes]) -> bytes:
    """The patch, after it has been seen to lead from `base` to `target`."""
    patch = encode(base, target)
    whole = target if isinstance(target, bytes) else b"".join(target.values())
    if apply(base, patch) != whole:
        raise AssertionError("the patch leads elsewhere")
    return patch


def modes(patch: bytes) -> dict[str, str]:
    """The mode of every named range."""
    return {one.name: one.mode.name for one in parse(patch).ranges() if one.name}


def fine_tuned(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Bits of a weight matrix before and after a light training: rows that move by different amounts."""
    weights = rng.normal(0, 0.05, shape)
    spread = np.exp(rng.normal(-8, 1, (shape[0],) + (1,) * (len(shape) - 1)))
    before = float_bits(weights, dtype)
    return before, float_bits(weights + rng.normal(0, 1, shape) * spread, dtype)


def model(rng: np.random.Generator, dtype: str, rows: int = 96, columns: int = 128) -> tuple[Tensors, Tensors]:
    """A small model before and after training."""
    before, after = {}, {}
    for name, shape in {"embed": (rows * 2, columns), "dense": (rows, columns), "bias": (rows,)}.items():
        old, new = fine_tuned(rng, shape, dtype)
        before[name], after[name] = (dtype, old), (dtype, new)
    return before, after


def take_apart(patch: bytes) -> tuple[Head, list[bytes]]:
    """A patch's head and parts, to be changed and put together again."""
    found = parse(patch)
    size, expanded = int.from_bytes(patch[8:12], "little"), int.from_bytes(patch[12:16], "little")
    head = msgspec.msgpack.decode(opaque.expand(patch[32 : 32 + size], expanded), type=Head)
    places = [found.part(index) for index in range(len(found.part_checks))]
    return head, [patch[offset : offset + length] for offset, length in places]


def put_together(head: Head, parts: list[bytes]) -> bytes:
    """A patch whose sizes and checksums all agree with its parts: what a liar would send."""
    head.sizes = pack_columns([[len(part) for part in parts]])
    head.part_checks = pack_columns([[xxhash.xxh3_64_intdigest(part) for part in parts]])
    return build(head) + b"".join(parts)
