"""Which pairs are made, and how are large ones made of small ones?"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from delta_pairs.files import Tensors, Weights, gguf, gguf_head, read_f16, safetensors
from delta_pairs.training import Network


def int8(weights: Weights) -> Weights:
    """Symmetric, one scale a tensor, as post-training quantisers do."""
    return {
        name: np.rint(weight / max(float(np.abs(weight).max()), 1e-9) * 127).astype(np.int8)
        for name, weight in weights.items()
    }


def merged(weights: Weights, rank: int, rng: np.random.Generator) -> Weights:
    out = dict(weights)
    for name, weight in weights.items():
        if weight.ndim == 2 and min(weight.shape) > 4 * rank:
            left, right = rng.normal(0, 0.01, (weight.shape[0], rank)), rng.normal(0, 0.01, (rank, weight.shape[1]))
            out[name] = (weight + left @ right).astype(np.float32)
    return out


def trained_pairs(folder: Path, width: int) -> Iterator[tuple[str, Path, Path]]:
    network = Network(width, seed=1)
    base = network.train(150, 1e-3)
    light = network.train(40, 2e-5)
    network.weights = {name: weight.copy() for name, weight in base.items()}
    last = network.train(40, 1e-4, only="layer.1")
    adapter = merged(base, 8, np.random.default_rng(2))
    made: dict[str, tuple[bytes, bytes]] = {}
    for dtype in ("F32", "F16", "BF16"):
        made[f"fine-tune {dtype.lower()}"] = (safetensors(base, dtype), safetensors(light, dtype))
    for kind in ("Q8_0", "Q4_0", "Q4_K", "Q5_K", "Q6_K"):
        made[f"fine-tune {kind.lower()}"] = (gguf(base, kind), gguf(light, kind))
    made["fine-tune i8"] = (safetensors(int8(base), "I8"), safetensors(int8(light), "I8"))
    made["one layer f16"] = (safetensors(base, "F16"), safetensors(last, "F16"))
    made["merged LoRA f16"] = (safetensors(base, "F16"), safetensors(adapter, "F16"))
    made["metadata only q8_0"] = (gguf(base, "Q8_0"), gguf(base, "Q8_0", "second, and a longer one"))
    for name, (before, after) in made.items():
        paths = [folder / f"{name.replace(' ', '-')}.{end}" for end in ("base", "target")]
        for path, content in zip(paths, (before, after), strict=True):
            path.write_bytes(content)
        yield name, paths[0], paths[1]


def given_pairs(folder: Path, made: Path) -> Iterator[tuple[str, Path, Path]]:
    """DIR/base beside other folders with files of the same names; float16 ones also as K-quants, written to `made`."""
    for path in sorted(folder.glob("*/*")):
        base = folder / "base" / path.name
        if path.parent.name == "base" or not base.exists():
            continue
        yield f"{path.parent.name} {path.name}", base, path
        for kind in ("Q4_K", "Q5_K", "Q6_K") if path.name.endswith("fp16.safetensors") else ():
            both = made / f"{path.parent.name}.{kind}.base", made / f"{path.parent.name}.{kind}.target"
            for source, file in zip((base, path), both, strict=True):
                file.write_bytes(gguf(read_f16(source), kind))
            yield f"{path.parent.name} {kind.lower()}", *both


def large_pair(folder: Path, size_bytes: int) -> tuple[Path, Path]:
    """fp16 by repetition with noise: matrices of 10.5 MB until the file is full."""
    rng = np.random.default_rng(4)
    shape = (1280, 4096)
    step = 2 * shape[0] * shape[1]
    names = [f"layer.{index}" for index in range(max(1, size_bytes // step))]
    header = {
        name: {"dtype": "F16", "shape": list(shape), "data_offsets": [i * step, (i + 1) * step]}
        for i, name in enumerate(names)
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    weights = rng.normal(0, 0.04, shape).astype(np.float32)
    noise = rng.normal(0, 3e-5, shape).astype(np.float32)
    paths = folder / "large.base", folder / "large.target"
    with paths[0].open("wb") as base, paths[1].open("wb") as target:
        for file in (base, target):
            file.write(struct.pack("<Q", len(text)) + text)
        for _ in names:
            weights = np.roll(weights, 4097)
            moved = weights + np.roll(noise, int(rng.integers(noise.size))).reshape(shape)
            base.write(weights.astype(np.float16).tobytes())
            target.write(moved.astype(np.float16).tobytes())
    return paths


def large_quantised_pair(folder: Path, size_bytes: int) -> tuple[Path, Path]:
    """Q8_0: a light fine-tune of a matrix of 1280 x 8192 (11 MB), quantised on both sides by the same pipeline.

    Its rows are turned by another number in each repetition.
    """
    from gguf import GGMLQuantizationType, quants

    rng = np.random.default_rng(5)
    shape = (1280, 8192)
    before = rng.normal(0, 0.04, shape).astype(np.float32)
    after = (before + rng.normal(0, 3e-5, shape)).astype(np.float32)
    kind = GGMLQuantizationType.Q8_0
    blocks = [quants.quantize(one, kind) for one in (before, after)]
    count = max(1, size_bytes // blocks[0].nbytes)
    turns = rng.integers(0, shape[0], count).tolist()
    paths = folder / "large-q8.base", folder / "large-q8.target"
    for path, rows in zip(paths, blocks, strict=True):
        names: Tensors = {f"blk.{index}.weight": (int(kind), shape, b"") for index in range(count)}
        with path.open("wb") as file:
            file.write(gguf_head(names, [rows.nbytes] * count))
            for turn in turns:
                file.write(np.roll(rows, turn, axis=0).tobytes())
    return paths
