"""How large are our patches, how fast and how lean, beside the generic tools? Measured in one run, on pairs made here.

The pairs are trained: a small network learns digits (numpy, AdamW), then goes on learning a little, is cut, quantised
or merged, and both versions are written in the formats that devices use. `--pairs DIR` adds one's own: DIR/base and
other folders with files of the same names. `--quick` is small and takes a minute; the full run adds a file of 4 GB.

The last line is one JSON object with `ok` and every figure. CPU seconds are of one thread; memory is what was resident
above the idle process; "absent" is a tool that is not installed.
"""

import argparse
import hashlib
import itertools
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Weights = dict[str, Array]
MIB = 1 << 20

# What is promised (docs/reference/delta.md): decode and encode in MB of target a CPU second; MiB above idle.
# On a core where SHA-256 runs at YARDSTICK_MB_PER_S (a slower or a shared one is judged in proportion).
YARDSTICK_MB_PER_S = 1760.0
PROMISES = {"f16": (100.0, 40.0), "q8_0": (80.0, 40.0)}
MEMORY_MIB = 16.0
METADATA_SLACK_BYTES = 1024


@dataclass
class Cost:
    """One tool on one pair."""

    patch_bytes: int
    encode_cpu_s: float
    decode_cpu_s: float
    encode_mib: float
    decode_mib: float


# --- pairs ---


class Network:
    """Two hidden layers on scikit-learn's digits, trained with AdamW in numpy."""

    def __init__(self, width: int, seed: int) -> None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        self._rng = np.random.default_rng(seed)
        self._inputs = (digits.data / 16).astype(np.float32)
        self._labels = digits.target
        sizes = [64, width, width, 10]
        self.weights: Weights = {}
        for index, (before, after) in enumerate(itertools.pairwise(sizes)):
            scale = np.sqrt(2 / before)
            self.weights[f"layer.{index}.weight"] = self._rng.normal(0, scale, (after, before)).astype(np.float32)
            self.weights[f"layer.{index}.bias"] = np.zeros(after, np.float32)
        self._moments = {name: (np.zeros_like(w), np.zeros_like(w)) for name, w in self.weights.items()}
        self._step = 0

    def train(self, steps: int, rate: float, *, only: str = "") -> Weights:
        """Go on for `steps` batches of 64; the weights after them. `only` freezes all layers but one."""
        for _ in range(steps):
            self._step += 1
            batch = self._rng.integers(0, len(self._inputs), 64)
            for name, slope in self._slopes(self._inputs[batch], self._labels[batch]).items():
                if not name.startswith(only):
                    continue
                first, second = self._moments[name]
                first += 0.1 * (slope - first)
                second += 0.001 * (slope * slope - second)
                scaled = first / (1 - 0.9**self._step) / (np.sqrt(second / (1 - 0.999**self._step)) + 1e-8)
                self.weights[name] -= rate * (scaled + 0.01 * self.weights[name])
        return {name: weight.copy() for name, weight in self.weights.items()}

    def _slopes(self, inputs: Array, labels: Array) -> Weights:
        layers = [inputs]
        for index in range(3):
            out = layers[-1] @ self.weights[f"layer.{index}.weight"].T + self.weights[f"layer.{index}.bias"]
            layers.append(np.maximum(out, 0) if index < 2 else out)
        chances = np.exp(layers[-1] - layers[-1].max(axis=1, keepdims=True))
        slope = chances / chances.sum(axis=1, keepdims=True)
        slope[np.arange(len(labels)), labels] -= 1
        slope = (slope / len(labels)).astype(np.float32)
        slopes = {}
        for index in (2, 1, 0):
            slopes[f"layer.{index}.weight"] = slope.T @ layers[index]
            slopes[f"layer.{index}.bias"] = slope.sum(axis=0)
            slope = (slope @ self.weights[f"layer.{index}.weight"]) * (layers[index] > 0)
        return slopes


def to_bits(weight: Array, dtype: str) -> Array:
    if dtype == "F16":
        return weight.astype(np.float16).view(np.uint16)
    bits = weight.astype(np.float32).view(np.uint32)
    if dtype == "F32":
        return bits
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)


def safetensors(weights: Weights, dtype: str, note: str = "") -> bytes:
    header: dict[str, Any] = {"__metadata__": {"note": note}} if note else {}
    content = []
    place = 0
    for name, weight in weights.items():
        data = weight.tobytes() if dtype == "I8" else to_bits(weight, dtype).tobytes()
        header[name] = {"dtype": dtype, "shape": list(weight.shape), "data_offsets": [place, place + len(data)]}
        content.append(data)
        place += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(content)


def gguf(weights: Weights, kind: str, note: str = "first") -> bytes:
    """Matrices in blocks by llama.cpp's own arithmetic, the rest as f32."""
    from gguf import GGMLQuantizationType, quants

    head = b"GGUF" + struct.pack("<IQQ", 3, len(weights), 1)
    for text in ("general.version", note):
        head += struct.pack("<Q", len(text)) + text.encode() + (struct.pack("<I", 8) if text != note else b"")
    data = b""
    for name, weight in weights.items():
        whole = weight.ndim == 2 and weight.shape[1] % 32 == 0
        number = int(GGMLQuantizationType[kind]) if whole else 0
        content = quants.quantize(weight, GGMLQuantizationType[kind]).tobytes() if whole else weight.tobytes()
        head += (
            struct.pack("<Q", len(name))
            + name.encode()
            + struct.pack(f"<I{weight.ndim}Q", weight.ndim, *weight.shape[::-1])
        )
        head += struct.pack("<IQ", number, len(data))
        data += content + b"\0" * (-len(content) % 32)
    return head + b"\0" * (-len(head) % 32) + data


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
    for kind in ("Q8_0", "Q4_0"):
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


def given_pairs(folder: Path) -> Iterator[tuple[str, Path, Path]]:
    for path in sorted(folder.glob("*/*")):
        base = folder / "base" / path.name
        if path.parent.name != "base" and base.exists():
            yield f"{path.parent.name} {path.name}", base, path


# --- tools ---

OURS = """
import sys, resource
from pathlib import Path
from whimbrel import patchfile
def peak(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))
idle = None
try:
    Path("/proc/self/clear_refs").write_text("5")
    idle = peak("VmRSS")
except OSError:
    pass
used = resource.getrusage(resource.RUSAGE_SELF)
getattr(patchfile, sys.argv[1])(*map(Path, sys.argv[2:]), threads=1)
after = resource.getrusage(resource.RUSAGE_SELF)
cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
print(cpu, 0 if idle is None else (peak("VmHWM") - idle) / 1024)
"""
HDIFF_ENCODE = """
import sys, hdiffpatch
base, target = (open(path, "rb").read() for path in sys.argv[1:3])
open(sys.argv[3], "wb").write(hdiffpatch.diff(base, target, compression=hdiffpatch.COMPRESSION_ZSTD))
"""
HDIFF_DECODE = """
import sys, hdiffpatch
open(sys.argv[3], "wb").write(hdiffpatch.apply(open(sys.argv[1], "rb").read(), open(sys.argv[2], "rb").read()))
"""
Command = list[str]


def run(command: Command) -> tuple[float, float]:
    """(CPU seconds, peak MiB) of a process, with everything it starts."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        errors = process.stderr.read() if process.stderr else b""
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[0]} failed: {errors.decode(errors='replace')[-500:]}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def run_ours(what: str, *paths: Path) -> tuple[float, float]:
    command = [sys.executable, "-c", OURS, what, *map(str, paths)]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    out = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.split()
    return float(out[0]), float(out[1])


def ours(base: Path, target: Path, folder: Path) -> Cost:
    patch, out = folder / "ours.patch", folder / "ours.out"
    encode = run_ours("encode_files", base, target, patch)
    decode = run_ours("apply_files", base, patch, out)
    return _cost(target, patch, out, encode, decode)


def tool(encode: Callable[[str, str, str], Command], decode: Callable[[str, str, str], Command]) -> Callable[..., Cost]:
    """A generic tool from its two command lines: (base, target, patch) and (base, patch, out)."""

    def measure(base: Path, target: Path, folder: Path) -> Cost:
        patch, out = folder / "their.patch", folder / "their.out"
        for path in (patch, out):
            path.unlink(missing_ok=True)
        made = run(encode(str(base), str(target), str(patch)))
        back = run(decode(str(base), str(patch), str(out)))
        return _cost(target, patch, out, made, back)

    return measure


def _cost(target: Path, patch: Path, out: Path, encode: tuple[float, float], decode: tuple[float, float]) -> Cost:
    if subprocess.run(["cmp", "-s", out, target], check=False).returncode:
        raise SystemExit(f"{patch} does not lead to {target}")
    out.unlink()
    return Cost(patch.stat().st_size, encode[0], decode[0], encode[1], decode[1])


PYTHON = sys.executable
TOOLS: dict[str, tuple[str, Callable[..., Cost]]] = {
    "zstd --patch-from": (
        "zstd",
        tool(
            lambda base, target, patch: ["zstd", "-19", "--long=27", "-q", f"--patch-from={base}", target, "-o", patch],
            lambda base, patch, out: ["zstd", "-d", "--long=27", "-q", f"--patch-from={base}", patch, "-o", out],
        ),
    ),
    "xdelta3": (
        "xdelta3",
        tool(
            lambda base, target, patch: ["xdelta3", "-e", "-9", "-S", "djw", "-f", "-s", base, target, patch],
            lambda base, patch, out: ["xdelta3", "-d", "-f", "-s", base, patch, out],
        ),
    ),
    "HDiffPatch": (
        PYTHON,
        tool(
            lambda base, target, patch: [PYTHON, "-c", HDIFF_ENCODE, base, target, patch],
            lambda base, patch, out: [PYTHON, "-c", HDIFF_DECODE, base, patch, out],
        ),
    ),
    "bsdiff": (
        "bsdiff",
        tool(
            lambda base, target, patch: ["bsdiff", base, target, patch],
            lambda base, patch, out: ["bspatch", base, out, patch],
        ),
    ),
}


def large_pair(folder: Path, size_bytes: int) -> tuple[Path, Path]:
    """fp16 by repetition with noise: matrices of 32 MiB until the file is full."""
    rng = np.random.default_rng(4)
    shape = (4096, 4096)
    count = size_bytes // (2 * shape[0] * shape[1])
    names = [f"layer.{index}" for index in range(count)]
    step = 2 * shape[0] * shape[1]
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


def large_quantised_pair(folder: Path) -> tuple[Path, Path]:
    """Q8_0, two matrices of 4096 x 8192 (71 MB): a light fine-tune, quantised on both sides by the same pipeline."""
    rng = np.random.default_rng(5)
    before = {f"blk.{index}.weight": rng.normal(0, 0.04, (4096, 8192)).astype(np.float32) for index in range(2)}
    after = {name: (one + rng.normal(0, 3e-5, one.shape)).astype(np.float32) for name, one in before.items()}
    paths = folder / "large-q8.base", folder / "large-q8.target"
    for path, weights in zip(paths, (before, after), strict=True):
        path.write_bytes(gguf(weights, "Q8_0"))
    return paths


# --- report ---


def measure(name: str, base: Path, target: Path, folder: Path, *, peers: bool) -> dict[str, Any]:
    size = target.stat().st_size
    mine = asdict(ours(base, target, folder))
    found: dict[str, Any] = {"pair": name, "target_bytes": size, "sha256_mb_per_s": round(yardstick()), "ours": mine}
    for label, (program, tool_of) in TOOLS.items() if peers else ():
        found[label] = asdict(tool_of(base, target, folder)) if shutil.which(program) else "absent"
    return found


def show(rows: list[dict[str, Any]]) -> None:
    print("\npatch / new file")
    print(f"{'pair':38} {'MB':>7} {'ours':>8} " + " ".join(f"{label:>17}" for label in TOOLS))
    for row in rows:
        cells = [row[label] for label in TOOLS if label in row]
        shown = [
            cell if isinstance(cell, str) else f"{cell['patch_bytes'] / row['target_bytes']:.4f}" for cell in cells
        ]
        ratio = row["ours"]["patch_bytes"] / row["target_bytes"]
        print(
            f"{row['pair']:38} {row['target_bytes'] / 1e6:7.1f} {ratio:8.4f} "
            + " ".join(f"{cell:>17}" for cell in shown)
        )
    print("\nencode / decode, CPU seconds; ours also MB/s, and MiB above the idle process")
    for row in rows:
        mine = row["ours"]
        megabytes = row["target_bytes"] / 1e6
        speeds = [megabytes / max(mine[key], 1e-9) for key in ("encode_cpu_s", "decode_cpu_s")]
        line = f"{row['pair']:38} {mine['encode_cpu_s']:6.2f} / {mine['decode_cpu_s']:5.2f} "
        line += f"({speeds[0]:5.0f} / {speeds[1]:5.0f} MB/s, "
        line += f"{mine['encode_mib']:5.1f} / {mine['decode_mib']:5.1f} MiB)"
        for label in TOOLS:
            cell = row.get(label)
            if isinstance(cell, dict):
                line += f"  {label} {cell['encode_cpu_s']:.2f} / {cell['decode_cpu_s']:.2f}"
        print(line)


def yardstick() -> float:
    """MB of SHA-256 a CPU second, here and now."""
    content = bytes(16 * MIB)
    begun = time.process_time()
    for _ in range(8):
        hashlib.sha256(content).digest()
    return 8 * len(content) / 1e6 / (time.process_time() - begun)


def failures(rows: list[dict[str, Any]], *, judge_speed: bool) -> list[str]:
    """What is not as promised."""
    found = []
    for row in rows:
        name, mine = row["pair"], row["ours"]
        peers = [row[label]["patch_bytes"] for label in TOOLS if isinstance(row.get(label), dict)]
        if peers and "metadata" in name and mine["patch_bytes"] > min(peers) + METADATA_SLACK_BYTES:
            found.append(f"{name}: {mine['patch_bytes']} bytes, where the best tool needs {min(peers)}")
        elif peers and "metadata" not in name and mine["patch_bytes"] > min(peers):
            found.append(f"{name}: a generic tool is smaller")
        if judge_speed and row["target_bytes"] > 8e6:
            for kind, (decode, encode) in PROMISES.items():
                if name.endswith(kind) and "LoRA" not in name:
                    megabytes = row["target_bytes"] / 1e6 / min(1.0, row["sha256_mb_per_s"] / YARDSTICK_MB_PER_S)
                    if megabytes / mine["decode_cpu_s"] < decode or megabytes / mine["encode_cpu_s"] < encode:
                        found.append(f"{name}: slower than promised")
            if max(mine["encode_mib"], mine["decode_mib"]) > MEMORY_MIB:
                found.append(f"{name}: more than {MEMORY_MIB} MiB")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small pairs, a minute")
    parser.add_argument("--json", action="store_true", help="no table, only the last line")
    parser.add_argument("--pairs", type=Path, help="a folder with base/ and other folders of the same files")
    parser.add_argument("--large", type=float, default=4.0, help="GB of the large file in the full run; 0 for none")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="whimbrel-bench-") as name:
        folder = Path(name)
        pairs = list(trained_pairs(folder, 768 if options.quick else 1536))
        pairs += list(given_pairs(options.pairs)) if options.pairs else []
        for pair in pairs:
            rows.append(measure(*pair, folder, peers=True))
            if not options.json:
                print(f"{pair[0]}: {rows[-1]['ours']['patch_bytes']}", file=sys.stderr, flush=True)
        if not options.quick:
            rows.append(measure("large q8_0", *large_quantised_pair(folder), folder, peers=False))
        if not options.quick and options.large:
            for size in (70_000_000, int(options.large * 1e9)):
                base, target = large_pair(folder, size)
                rows.append(measure(f"repeated {size / 1e9:.2f} GB f16", base, target, folder, peers=False))
    problems = failures(rows, judge_speed=not options.quick)
    if not options.json:
        show(rows)
        print("\n" + "\n".join(problems or ["everything is as promised"]))
    print(json.dumps({"ok": not problems, "problems": problems, "rows": rows}))
    return 0 if not problems else 1


if __name__ == "__main__":
    sys.exit(main())
