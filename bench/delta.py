"""How large, how fast and how lean are our patches, compared with the generic tools? Measured in one run.

The pairs are trained here: a small network learns digits (numpy, AdamW). Then it learns a little more, is cut,
quantised or merged, and both versions are written in the formats that devices use. `--pairs DIR` adds your own pairs:
DIR/base and other folders with files of the same names; float16 files are quantised to K-quants too. `--prototype
V3.PY` runs the prototype on every pair; its sizes for the calibration pairs are known. `--quick` is small and takes a
minute; the full run adds files of up to 4 GB.

The last line is one JSON object: `ok` (every bar below is met), `problems`, `figures` (those that are promised) and
`rows` (all). CPU seconds are of one thread, the best of three runs up to 200 MB; memory is what was resident above the
idle process, the worst of them; "absent" is a tool that is not installed.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from delta_pairs.make import given_pairs, large_pair, large_quantised_pair, trained_pairs

MIB = 1 << 20

# What is promised (docs/reference/delta.md): decode and encode in MB of target a CPU second; MiB above idle.
# On a core where SHA-256 runs at YARDSTICK_MB_PER_S (a slower or a shared one is judged in proportion).
YARDSTICK_MB_PER_S = 1760.0
PROMISES = {"f16": (100.0, 40.0), "q8_0": (80.0, 40.0)}
MEMORY_MIB = 16.0
METADATA_SLACK_BYTES = 1024
PROTOTYPE_RATIO = 1.01
RUNS, RUNS_BYTES = 3, 200_000_000
Q8_BYTES = 1e9  # the largest quantised file: half as fast to make and to code
PROTOTYPE_BYTES = {
    "light-finetune m.fp16.safetensors": 2_195_802,
    "light-finetune m.bf16.safetensors": 985_697,
    "light-finetune m.q8_0.gguf": 338_736,
    "light-finetune m.q4_0.gguf": 102_125,
    "last-layer m.fp16.safetensors": 1_573_410,
    "last-layer m.bf16.safetensors": 914_227,
    "last-layer m.q8_0.gguf": 412_690,
    "last-layer m.q4_0.gguf": 105_225,
}


@dataclass
class Cost:
    """One tool on one pair."""

    patch_bytes: int
    encode_cpu_s: float
    decode_cpu_s: float
    encode_mib: float
    decode_mib: float


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
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # modules are compiled once, as where they are installed
    out = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.split()
    return float(out[0]), float(out[1])


def ours(base: Path, target: Path, folder: Path) -> Cost:
    """The best time of a few runs, because other programs share the core; the worst memory."""
    patch, out = folder / "ours.patch", folder / "ours.out"
    costs = []
    for _ in range(RUNS if target.stat().st_size <= RUNS_BYTES else 1):
        encode = run_ours("encode_files", base, target, patch)
        decode = run_ours("apply_files", base, patch, out)
        costs.append(_cost(target, patch, out, encode, decode))
    return Cost(
        costs[0].patch_bytes,
        min(one.encode_cpu_s for one in costs),
        min(one.decode_cpu_s for one in costs),
        max(one.encode_mib for one in costs),
        max(one.decode_mib for one in costs),
    )


def prototype_bytes(script: Path, base: Path, target: Path, folder: Path) -> int | None:
    """The bytes of the prototype's patch. It knows containers by their names. None for types that it does not know."""
    ending = ".gguf" if target.read_bytes()[:4] == b"GGUF" else ".safetensors"
    named = [folder / f"prototype-{side}{ending}" for side in ("base", "target")]
    for link, path in zip(named, (base, target), strict=True):
        link.unlink(missing_ok=True)
        link.symlink_to(path.absolute())
    patch = folder / "prototype.patch"
    try:
        run([sys.executable, str(script), "diff", *map(str, named), str(patch), "pco"])
    except SystemExit as error:
        print(f"the prototype does not read {target.name}: {error}", file=sys.stderr)
        return None
    return patch.stat().st_size


def tool(encode: Callable[[str, str, str], Command], decode: Callable[[str, str, str], Command]) -> Callable[..., Cost]:
    """A generic tool from its two command lines: (base, target, patch) and (base, patch, out)."""

    def measure(base: Path, target: Path, folder: Path) -> Cost:
        patch, out = folder / "their.patch", folder / "their.out"
        for path in (patch, out):
            path.unlink(missing_ok=True)
        encoded = run(encode(str(base), str(target), str(patch)))
        decoded = run(decode(str(base), str(patch), str(out)))
        return _cost(target, patch, out, encoded, decoded)

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


# --- report ---


def measure(
    name: str, base: Path, target: Path, folder: Path, *, peers: bool, prototype: Path | None = None
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "pair": name,
        "target_bytes": target.stat().st_size,
        "sha256_mb_per_s": round(yardstick()),
        "ours": asdict(ours(base, target, folder)),
    }
    if prototype and peers and (size := prototype_bytes(prototype, base, target, folder)) is not None:
        row["prototype_bytes"] = size
    elif name in PROTOTYPE_BYTES:
        row["prototype_bytes"] = PROTOTYPE_BYTES[name]
    for label, (program, tool_of) in TOOLS.items() if peers else ():
        row[label] = asdict(tool_of(base, target, folder)) if shutil.which(program) else "absent"
    return row


def best_tool(row: dict[str, Any]) -> int | None:
    """Bytes of the smallest generic patch."""
    sizes = [row[label]["patch_bytes"] for label in TOOLS if isinstance(row.get(label), dict)]
    return min(sizes) if sizes else None


def speeds(row: dict[str, Any]) -> tuple[float, float]:
    """(encode, decode) in MB of target a CPU second."""
    megabytes = row["target_bytes"] / 1e6
    encode, decode = (max(row["ours"][key], 1e-9) for key in ("encode_cpu_s", "decode_cpu_s"))
    return megabytes / encode, megabytes / decode


def show(rows: list[dict[str, Any]]) -> None:
    print("\npatch / new file")
    labels = ["prototype", *TOOLS]
    print(f"{'pair':38} {'MB':>7} {'ours':>8} " + " ".join(f"{label:>17}" for label in labels))
    for row in rows:
        sizes: list[Any] = [row.get("prototype_bytes", "")]
        sizes += [cell["patch_bytes"] if isinstance(cell := row.get(label, ""), dict) else cell for label in TOOLS]
        shown = [size if isinstance(size, str) else f"{size / row['target_bytes']:.4f}" for size in sizes]
        ratio = row["ours"]["patch_bytes"] / row["target_bytes"]
        print(
            f"{row['pair']:38} {row['target_bytes'] / 1e6:7.1f} {ratio:8.4f} "
            + " ".join(f"{cell:>17}" for cell in shown)
        )
    print(
        "\nencode / decode, CPU seconds; ours also MB/s, and MiB above the idle process; SHA-256 MB/s of the core then"
    )
    for row in rows:
        mine = row["ours"]
        encode, decode = speeds(row)
        line = f"{row['pair']:38} {mine['encode_cpu_s']:6.2f} / {mine['decode_cpu_s']:5.2f} "
        line += f"({encode:5.0f} / {decode:5.0f} MB/s, {mine['encode_mib']:5.1f} / {mine['decode_mib']:5.1f} MiB, "
        line += f"{row['sha256_mb_per_s']})"
        for label in TOOLS:
            cell = row.get(label)
            if isinstance(cell, dict):
                line += f"  {label} {cell['encode_cpu_s']:.2f} / {cell['decode_cpu_s']:.2f}"
        print(line)


def yardstick() -> float:
    """MB of SHA-256 a CPU second, here and now."""
    content = bytes(16 * MIB)
    began = time.process_time()
    for _ in range(8):
        hashlib.sha256(content).digest()
    return 8 * len(content) / 1e6 / (time.process_time() - began)


def failures(rows: list[dict[str, Any]], *, judge_speed: bool) -> list[str]:
    """The promises that are not kept, a sentence each."""
    broken = []
    for row in rows:
        name, mine = row["pair"], row["ours"]
        best = best_tool(row)
        if best is not None and "metadata" in name and mine["patch_bytes"] > best + METADATA_SLACK_BYTES:
            broken.append(f"{name}: {mine['patch_bytes']} bytes, where the best tool needs {best}")
        elif best is not None and "metadata" not in name and mine["patch_bytes"] > best:
            broken.append(f"{name}: {mine['patch_bytes']} bytes, and a generic tool needs {best}")
        if "metadata" not in name and mine["patch_bytes"] > PROTOTYPE_RATIO * row.get("prototype_bytes", 2**62):
            broken.append(f"{name}: {mine['patch_bytes']} bytes, the prototype needs {row['prototype_bytes']}")
        if judge_speed and row.get("promise"):
            core = min(1.0, row["sha256_mb_per_s"] / YARDSTICK_MB_PER_S)
            for verb, speed, due in zip(("encode", "decode"), speeds(row), PROMISES[row["promise"]][::-1], strict=True):
                if speed < due * core:
                    broken.append(f"{name}: {verb} {speed:.0f} MB/s; {due * core:.0f} are promised on this core")
        worst = max(mine["encode_mib"], mine["decode_mib"])
        if worst > MEMORY_MIB:
            broken.append(f"{name}: {worst:.1f} MiB above the idle process; {MEMORY_MIB:.0f} are promised")
    return broken


def figures(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The promised figures, at their worst."""
    result: dict[str, Any] = {}
    for kind, (decode, encode) in PROMISES.items():
        judged = [row for row in rows if row.get("promise") == kind]
        result[kind] = {
            "encode_mb_per_s": {row["pair"]: round(speeds(row)[0], 1) for row in judged},
            "decode_mb_per_s": {row["pair"]: round(speeds(row)[1], 1) for row in judged},
            "promised_encode_mb_per_s": encode,
            "promised_decode_mb_per_s": decode,
        }
    worst = [max(row["ours"]["encode_mib"], row["ours"]["decode_mib"]) for row in rows]
    weights = [row for row in rows if "metadata" not in row["pair"]]
    to_tools = [row["ours"]["patch_bytes"] / best for row in weights if (best := best_tool(row))]
    to_prototype = [
        row["ours"]["patch_bytes"] / row["prototype_bytes"] for row in weights if row.get("prototype_bytes")
    ]
    return result | {
        "memory_mib": round(max(worst), 1),
        "patch_to_best_generic_tool": [round(one, 3) for one in (min(to_tools), max(to_tools))] if to_tools else None,
        "patch_to_prototype": [round(one, 3) for one in (min(to_prototype), max(to_prototype))]
        if to_prototype
        else None,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small pairs, a minute; speed is shown and not judged")
    parser.add_argument("--json", action="store_true", help="no table, only the last line")
    parser.add_argument("--pairs", type=Path, help="a folder with base/ and other folders of the same files")
    parser.add_argument("--prototype", type=Path, help="the prototype's script, to be run on the same pairs")
    parser.add_argument("--large", type=float, default=4.0, help="GB of the largest file in the full run; 0 for none")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="whimbrel-bench-") as name:
        folder = Path(name)
        pairs = list(trained_pairs(folder, 768 if options.quick else 1536))
        pairs += list(given_pairs(options.pairs, folder)) if options.pairs else []
        for pair in pairs:
            rows.append(measure(*pair, folder, peers=True, prototype=options.prototype))
            print(f"{pair[0]}: {rows[-1]['ours']['patch_bytes']}", file=sys.stderr, flush=True)
        sizes = [10e6] if options.quick else [10e6, 70e6, *([options.large * 1e9] if options.large else [])]
        for kind, make in {"f16": large_pair, "q8_0": large_quantised_pair}.items():
            for size in sizes:
                base, target = make(folder, int(size if kind == "f16" else min(size, Q8_BYTES)))
                row = measure(
                    f"repeated {target.stat().st_size / 1e9:.2f} GB {kind}", base, target, folder, peers=False
                )
                rows.append(row | {"promise": kind})
                print(f"{row['pair']}: {speeds(row)}", file=sys.stderr, flush=True)
    problems = failures(rows, judge_speed=not options.quick)
    if not options.json:
        show(rows)
        print("\n" + "\n".join(problems or ["everything is as promised"]))
    print(json.dumps({"ok": not problems, "problems": problems, "figures": figures(rows), "rows": rows}))
    return 0 if not problems else 1


if __name__ == "__main__":
    sys.exit(main())
